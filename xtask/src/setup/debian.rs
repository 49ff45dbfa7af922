//! Installing Debian packages without starting what they contain.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command;

/// Debian asks this program before a package starts its service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Exit code 101 means: do not start it.
const POLICY_NEVER: &str = "#!/bin/sh\n# Written by `cargo xtask setup` for the time of one installation.\nexit 101\n";

/// How long apt waits for another apt to finish.
const LOCK_WAIT: &str = "DPkg::Lock::Timeout=300";

/// Whether packages can be installed from here: as root, on Debian or what descends from it.
pub fn is_ours_to_change() -> bool {
    Path::new("/etc/debian_version").exists() && command::find_program("apt-get").is_some() && command::is_root()
}

/// Updates the list of packages and installs these.
pub fn install(packages: &[&str]) -> Result<()> {
    eprintln!("installing {} with apt-get", packages.join(" "));
    let _no_services = ServicesHeld::until_dropped(Path::new(POLICY))?;
    command::run_silently(&mut update())?;
    command::run_silently(&mut installation(packages))
}

/// The command that updates the list of packages.
pub fn update() -> Command {
    apt_get("update")
}

/// The command that installs packages.
pub fn installation(packages: &[&str]) -> Command {
    let mut command = apt_get("install");
    command.args(["-y", "--no-install-recommends"]).args(packages);
    command
}

fn apt_get(subcommand: &str) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-q", "-o", LOCK_WAIT, subcommand]);
    command
}

/// While this lives, no package starts a service. The file of before comes back afterwards.
struct ServicesHeld {
    policy: PathBuf,
    before: Option<(Vec<u8>, fs::Permissions)>,
}

impl ServicesHeld {
    fn until_dropped(policy: &Path) -> Result<Self> {
        let before = fs::read(policy).and_then(|text| Ok((text, fs::metadata(policy)?.permissions()))).ok();
        fs::write(policy, POLICY_NEVER)
            .and_then(|()| fs::set_permissions(policy, fs::Permissions::from_mode(0o755)))
            .with_context(|| format!("writing {}", policy.display()))?;
        Ok(Self { policy: policy.to_owned(), before })
    }
}

impl Drop for ServicesHeld {
    fn drop(&mut self) {
        let restored = match &self.before {
            None => fs::remove_file(&self.policy),
            Some((text, permissions)) => {
                fs::write(&self.policy, text).and_then(|()| fs::set_permissions(&self.policy, permissions.clone()))
            }
        };
        if let Err(error) = restored {
            eprintln!("warning: restoring {}: {error}", self.policy.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_held_and_the_policy_of_before_comes_back() {
        let policy = std::env::temp_dir().join(format!("xlb-policy-{}", std::process::id()));
        for before in [None, Some("#!/bin/sh\nexit 0\n")] {
            if let Some(text) = before {
                fs::write(&policy, text).unwrap();
            }
            let held = ServicesHeld::until_dropped(&policy).unwrap();
            assert_eq!(fs::read_to_string(&policy).unwrap(), POLICY_NEVER);
            assert_eq!(fs::metadata(&policy).unwrap().permissions().mode() & 0o777, 0o755);

            drop(held);
            assert_eq!(fs::read_to_string(&policy).ok().as_deref(), before);
            let _ = fs::remove_file(&policy);
        }
    }
}
