//! Runs a loaded program on one packet, by BPF_PROG_TEST_RUN.

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use aya::programs::{Program, ProgramError, TestRun as _, TestRunOptions};
use xlb_common::Reason;

use xlb_common::memory::outcome::{Hook, Verdict};

/// Room for the packet that comes back: test-run takes less than a page of an skb, and several of an XDP frame.
const FRAME_MAX: usize = 16_384;

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;
const TC_NEXT: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;

/// What the program returns, and the packet afterwards; none if the kernel makes no packet of the frame.
///
/// # Errors
/// When the object has no such program, or the kernel refuses to run it.
pub fn run(object: &Ebpf, program: &str, frame: &[u8]) -> Result<Option<(u32, Vec<u8>)>> {
    let mut out = vec![0; FRAME_MAX];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
    let result = match object.program(program) {
        Some(Program::Xdp(program)) => program.test_run(options),
        Some(Program::SchedClassifier(program)) => program.test_run(options),
        _ => bail!("the object has no program {program} of the right type"),
    };
    match result {
        Ok(result) => {
            out.truncate(result.data_size_out as usize);
            Ok(Some((result.return_value, out)))
        }
        Err(error) if is_invalid_argument(&error) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("running {program} on {} bytes", frame.len())),
    }
}

/// What a program's return value means at its hook.
///
/// # Errors
/// When it means nothing there.
pub fn verdict(hook: Hook, value: u32) -> Result<Verdict> {
    Ok(match (hook.is_xdp(), value) {
        (true, XDP_PASS) | (false, TC_NEXT) => Verdict::Pass,
        (true, XDP_DROP) | (false, TC_ACT_SHOT) => Verdict::Drop,
        (true, XDP_TX | XDP_REDIRECT) | (false, TC_ACT_REDIRECT) => Verdict::Redirect,
        _ => bail!("{} returned {value}", hook.program()),
    })
}

/// Each counter of `REASONS`, summed over the CPUs, in the order of their numbers.
///
/// # Errors
/// When the kernel refuses to read.
pub fn counts(counters: &PerCpuArray<MapData, u64>) -> Result<Vec<u64>> {
    let sum = |index: usize| -> Result<u64> {
        Ok(counters.get(&(index as u32), 0).context("reading a counter")?.iter().sum())
    };
    (0..Reason::COUNT).map(sum).collect()
}

/// The one reason that a run counted.
///
/// # Errors
/// When it counted more than one.
pub fn counted(before: &[u64], after: &[u64]) -> Result<Option<Reason>> {
    let mut reason = None;
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        match after - before {
            0 => {}
            1 if reason.is_none() => reason = Some(Reason::ALL[index]),
            _ => bail!("one packet was counted more than once, at last as {:?}", Reason::ALL[index]),
        }
    }
    Ok(reason)
}

fn is_invalid_argument(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::EINVAL))
}
