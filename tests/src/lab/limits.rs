//! Limits of this process.

use std::io;

use anyhow::{Context as _, Result};

/// Lets this process open as many files and sockets as it ever may, and says how many these are.
pub fn allow_open_files() -> Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit, which lives until the call returns.
    done(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel only reads the rlimit, which lives until the call returns.
    done(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_max)
}

fn done(result: i32) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("raising the limit of open files") }
}
