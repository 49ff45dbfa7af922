//! Loops that the kernel runs (bpf_loop, Linux 5.17): the verifier follows one step, until nothing new comes of it.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use xlb_common::tables::Step;

/// What the kernel hands to each step. The tables are a copy, which is no larger than a reference to them.
struct Loop<T, S> {
    tables: T,
    body: S,
}

/// Takes a step for 0, 1, ... below `count`, until one ends the loop; the body as the last one left it.
#[inline(always)]
pub fn each_until<T, S: Step<T>>(tables: T, count: u32, body: S) -> S {
    let mut context = Loop { tables, body };
    let step: unsafe extern "C" fn(u64, *mut Loop<T, S>) -> i64 = step_of;
    // SAFETY: the kernel calls the step with `context` before the helper returns, and keeps neither.
    unsafe { bpf_loop(count, step as *mut c_void, (&raw mut context).cast(), 0) };
    context.body
}

/// As the kernel calls it: 1 ends the loop, 0 goes on.
///
/// # Safety
/// `context` is what [`each_until`] gave to the kernel.
unsafe extern "C" fn step_of<T, S: Step<T>>(index: u64, context: *mut Loop<T, S>) -> i64 {
    // SAFETY: it lives until the loop has ended, and one step at a time has it.
    let Loop { tables, body } = unsafe { &mut *context };
    body.step(tables, index as u32).into()
}
