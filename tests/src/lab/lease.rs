//! The number that a lab owns while it lives.
//!
//! A lab lives exactly as long as the lock on its file is held: the kernel releases it when the process dies,
//! however it dies. Lock files are never deleted, since deleting one would let two labs lock two files of one name.
//!
//! A number tells the pods' addresses, and outlives its lab: a pod's socket whose last word nobody acknowledged is the
//! kernel's for 100 s (net/ipv4/tcp_timer.c, tcp_orphan_retries) and keeps its network namespace, and its end is told of to
//! any agent that is there by then. So the number that rested longest comes first.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// Labs alive on one machine at the same moment.
pub const LABS_MAX: u8 = 99;

const DIRECTORY: &str = "/run/xlb-lab";

/// A lab's number, unique on this machine while the value lives.
pub struct Lease {
    number: u8,
    lock: Flock<File>,
}

impl Lease {
    /// Takes the number that no living or kept lab owned for the longest time.
    pub fn take_any() -> Result<Lease> {
        let mut numbers: Vec<u8> = (0..LABS_MAX).collect();
        numbers.sort_by_cached_key(|&number| last_owned(number));
        for number in numbers {
            if let Some(lease) = Lease::take(number)?.filter(|_| !is_kept(number)) {
                return Ok(lease);
            }
        }
        bail!("all {LABS_MAX} lab numbers in {DIRECTORY} are taken");
    }

    /// Takes this number, unless a living lab owns it.
    pub fn take(number: u8) -> Result<Option<Lease>> {
        fs::create_dir_all(DIRECTORY).with_context(|| format!("creating {DIRECTORY}"))?;
        let path = lock_file(number);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))?;
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { return Ok(None) };
        let lease = Lease { number, lock };
        lease.mark_owned().with_context(|| format!("setting the time of {}", path.display()))?;
        Ok(Some(lease))
    }

    /// The number.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Reserves the number beyond this process, until [`forget_kept`].
    pub fn keep(&self) -> Result<()> {
        let path = kept_file(self.number);
        fs::write(&path, "").with_context(|| format!("writing {}", path.display()))
    }

    fn mark_owned(&self) -> io::Result<()> {
        self.lock.set_modified(SystemTime::now())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Without it the number only rests from its lab's beginning.
        let _ = self.mark_owned();
    }
}

/// Whether a lab left this number reserved on purpose.
pub fn is_kept(number: u8) -> bool {
    kept_file(number).exists()
}

/// Gives all reserved numbers back.
pub fn forget_kept() {
    for number in 0..LABS_MAX {
        // Most numbers were never reserved: a missing file is the usual case.
        let _ = fs::remove_file(kept_file(number));
    }
}

/// None: no lab had it since the machine started.
fn last_owned(number: u8) -> Option<SystemTime> {
    fs::metadata(lock_file(number)).and_then(|file| file.modified()).ok()
}

fn lock_file(number: u8) -> PathBuf {
    PathBuf::from(format!("{DIRECTORY}/{number}"))
}

fn kept_file(number: u8) -> PathBuf {
    PathBuf::from(format!("{DIRECTORY}/{number}.kept"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::wait_for;

    #[test]
    fn a_number_has_one_owner_until_it_is_dropped() -> Result<()> {
        let lease = Lease::take_any()?;
        let number = lease.number();
        assert!(Lease::take(number)?.is_none());
        assert_ne!(Lease::take_any()?.number(), number);
        drop(lease);
        // A child of another test may hold a copy of the lock between its fork and its exec.
        assert!(wait_for(Duration::from_secs(1), || Lease::take(number).ok().flatten()).is_some());
        Ok(())
    }

    #[test]
    fn a_number_rests_while_others_were_not_owned_for_longer() -> Result<()> {
        let number = Lease::take_any()?.number();
        for _ in 0..LABS_MAX / 2 {
            assert_ne!(Lease::take_any()?.number(), number);
        }
        Ok(())
    }
}
