//! The input is what the tests' random generator chooses, so that nearly every packet has whole headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xlb_fuzz::{input, run, seeds};

fuzz_target!(init: begin(), |bytes: &[u8]| {
    run::run(|tables| input::case_by_choices(bytes, tables));
});

fn begin() {
    run::show_cases_on_panic();
    seeds::write_choices().expect("the seeds can be written");
}
