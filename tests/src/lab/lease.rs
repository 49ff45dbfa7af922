//! The number that a lab owns while it lives.
//!
//! A lab lives exactly as long as the lock on its file is held: the kernel releases it when the process dies,
//! however it dies. Lock files are never deleted, since deleting one would let two labs lock two files of one name.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// Labs alive on one machine at the same moment.
pub const LABS_MAX: u8 = 200;

const DIRECTORY: &str = "/run/xlb-lab";

/// A lab's number, unique on this machine while the value lives.
pub struct Lease {
    number: u8,
    _lock: Flock<File>,
}

impl Lease {
    /// Takes the lowest number that no living or kept lab owns.
    pub fn take_any() -> Result<Lease> {
        for number in 0..LABS_MAX {
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
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok();
        Ok(lock.map(|lock| Lease { number, _lock: lock }))
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
        let number = LABS_MAX - 1;
        let lease = Lease::take(number)?.context("a test that nobody else runs")?;
        assert!(Lease::take(number)?.is_none());
        assert_ne!(Lease::take_any()?.number(), number);
        drop(lease);
        // A child of another test may hold a copy of the lock between its fork and its exec.
        assert!(wait_for(Duration::from_secs(1), || Lease::take(number).ok().flatten()).is_some());
        Ok(())
    }
}
