//! Our own scenarios, whose packets go through the loaded programs, too.

use std::rc::Rc;

use anyhow::Result;
use xlb_tests::kernel::frame::Spec;
use xlb_tests::kernel::outcome::Hook;
use xlb_tests::kernel::sample::{self, Version};
use xlb_tests::scenarios::case::File;
use xlb_tests::scenarios::in_kernel::InKernel;
use xlb_tests::scenarios::report::rows;
use xlb_tests::scenarios::run::{self, Terms};

use crate::{stranger, vip};

#[test]
fn every_scenario_of_our_own_fares_in_the_kernel_as_in_memory() -> Result<()> {
    let file = File::parse(include_str!("../scenarios/own.yaml"))?;
    let terms = Terms { wants_remote: false, kernel: Some(Rc::new(InKernel::load()?)) };
    for row in rows(&file, "*", &terms) {
        let is_different = matches!(&row.verdict, run::Verdict::Failed(why) if why.contains("in the kernel"));
        assert!(row.packets_in_kernel > 0 && !is_different, "{row}");
    }
    Ok(())
}

#[test]
fn a_difference_between_kernel_and_memory_is_noticed() -> Result<()> {
    let kernel = InKernel::load()?;
    let mut tables = sample::tables();
    let frame = Spec::parse(&format!("tcp {} {} S", stranger(Version::V4), vip(Version::V4)))?.build();
    kernel.run(&tables, Hook::Tc, &frame)?;
    tables.v4.frontends.clear();
    let error = kernel.run(&tables, Hook::Tc, &frame).expect_err("the kernel was not told").to_string();
    assert!(error.starts_with("in the kernel Redirect") && error.contains("in memory Pass"), "{error}");
    kernel.is_behind();
    kernel.run(&tables, Hook::Tc, &frame)?;
    Ok(())
}
