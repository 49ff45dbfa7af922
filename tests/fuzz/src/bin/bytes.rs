//! The packets are bytes of the input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xlb_fuzz::{input, run, seeds};

fuzz_target!(init: begin(), |bytes: &[u8]| {
    run::run(|tables| input::case_of(bytes, tables));
});

fn begin() {
    run::show_cases_on_panic();
    seeds::write_rows().expect("the seeds can be written");
}
