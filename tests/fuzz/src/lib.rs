//! Coverage-guided fuzzing of the packet path: whatever bytes come, the properties of `xlb_tests::kernel` hold.
//!
//! Read in this order: [`case`] (what is tried), [`run`] (how, and what has to hold), [`input`] (the bytes that stand for
//! a case), [`seeds`] (where the fuzzer begins). The targets are in `src/bin`.

pub mod case;
pub mod run;
pub mod input;
pub mod seeds;
pub mod kernel;
