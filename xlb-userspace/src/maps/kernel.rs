//! What the running kernel and this process must offer before anything is loaded.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::MapType;
use aya::sys::is_map_supported;
use aya::util::KernelVersion;
use nix::time::{ClockId, clock_gettime};

/// A feature, the first kernel that has it, and what xlb needs it for.
const FEATURES: &[(&str, KernelVersion, &str)] = &[
    ("bpf_redirect_peer", KernelVersion::new(5, 10, 0), "handing packets to pods"),
    ("bpf_skc_lookup_tcp in tc and XDP", KernelVersion::new(5, 2, 0), "asking a pod's kernel who owns a connection"),
    ("tcx links", KernelVersion::new(6, 6, 0), "attaching to uplinks and pods, and replacing programs without a gap"),
];

/// Capabilities by number (include/uapi/linux/capability.h) and what xlb needs them for.
const CAPABILITIES: &[(u8, &str, &str)] = &[
    (12, "CAP_NET_ADMIN", "attaching programs to interfaces"),
    (38, "CAP_PERFMON", "programs that work on packet memory"),
    (39, "CAP_BPF", "loading programs and maps"),
];

/// The kernel takes this one for CAP_PERFMON and CAP_BPF (include/linux/bpf.h, `bpf_token_capable`).
pub(crate) const CAP_SYS_ADMIN: u64 = 1 << 21;
const IMPLIED_BY_SYS_ADMIN: u64 = 1 << 38 | 1 << 39;

/// Inode of the hierarchy's root, the first that kernfs gives out. A cgroup namespace shows another one as its root.
const ROOT_CGROUP: u64 = 1;

/// The clock that the programs write into the maps: monotonic, in nanoseconds, as of the kernel's last tick.
///
/// # Errors
/// When the kernel refuses to tell.
pub fn now_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).context("reading the clock")?;
    Ok(Duration::from(now).as_nanos() as u64)
}

/// Refuses a kernel that lacks a feature, naming it.
///
/// # Errors
/// When a feature is missing, with the kernel that has it.
pub fn require_features() -> Result<()> {
    let version = KernelVersion::current().context("reading the kernel's version")?;
    match missing_feature(version) {
        None => Ok(()),
        Some(sentence) => bail!("{sentence}"),
    }
}

/// The first feature that a kernel of this version lacks, as a sentence.
#[must_use]
pub fn missing_feature(version: KernelVersion) -> Option<String> {
    let (feature, first, purpose) = FEATURES.iter().find(|(_, first, _)| version < *first)?;
    Some(format!(
        "this kernel ({version:?}) has no {feature}, which xlb needs for {purpose}: use a kernel from {first:?} on"
    ))
}

/// Refuses to go on without the capabilities that loading and attaching take.
///
/// # Errors
/// When one is missing, with all that are.
pub fn require_capabilities() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading this process's capabilities")?;
    match missing_capabilities(effective_capabilities(&status)) {
        None => require_bpf(),
        Some(sentence) => bail!("{sentence}"),
    }
}

/// Tries a map that is gone at once. Any error but a refusal is told where it matters, with more to say.
fn require_bpf() -> Result<()> {
    match is_map_supported(MapType::Hash) {
        Err(error) if matches!(error.io_error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown").ok();
            bail!("{}", forbidden(&error.io_error, &status, lockdown.as_deref()))
        }
        _ => Ok(()),
    }
}

/// Who may have forbidden bpf(2), and what to do, as a sentence.
fn forbidden(error: &io::Error, status: &str, lockdown: Option<&str>) -> String {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let mode = lockdown.and_then(|modes| modes.split_once('[')?.1.split_once(']')).map(|(mode, _)| mode);
    let mut who = Vec::new();
    if error.raw_os_error() == Some(libc::ENOSYS) {
        who.push("it has none (CONFIG_BPF_SYSCALL): use another kernel".to_owned());
    }
    if field("Seccomp:").is_some_and(|mode| mode != "0") {
        who.push(
            "a seccomp filter is in force, and older container runtimes forbid it: update the runtime, or set \
             securityContext.seccompProfile.type to Unconfined"
                .to_owned(),
        );
    }
    if let Some(mode) = mode.filter(|mode| *mode != "none") {
        who.push(format!("the kernel is in lockdown ({mode}): boot it with a mode that allows bpf(2)"));
    }
    if who.is_empty() {
        who.push(
            "a security module may have: look for `bpf` in the kernel's log (`dmesg`, `ausearch -m avc`)".to_owned(),
        );
    }
    format!(
        "the kernel refuses bpf(2) to this process, though it has the capabilities ({error}): {}; docs/INSTALL.md says under \
         Profiles what to change",
        who.join("; ")
    )
}

/// What `/proc/self/status` says of effective capabilities.
pub(crate) fn effective_capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// The capabilities missing from `effective`, as a sentence.
#[must_use]
pub fn missing_capabilities(effective: u64) -> Option<String> {
    let effective = if effective & CAP_SYS_ADMIN != 0 { effective | IMPLIED_BY_SYS_ADMIN } else { effective };
    let missing = CAPABILITIES.iter().filter(|(bit, ..)| effective & (1 << bit) == 0);
    let list: Vec<_> = missing.map(|(_, name, purpose)| format!("{name} ({purpose})")).collect();
    let advice = "run xlb as root, or give it these (securityContext.capabilities.add)";
    (!list.is_empty()).then(|| format!("this process lacks {}: {advice}", list.join(", ")))
}

/// The root of the cgroup v2 hierarchy: every pod is below it.
///
/// # Errors
/// When none is mounted, or only a part of it, as in a container.
pub fn root_cgroup() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("reading the mounts of this process")?;
    let found = cgroup2_mount(&mounts).map(PathBuf::from);
    let found = found
        .context("no cgroup v2 hierarchy is mounted: mount one, for example `mount -t cgroup2 none /sys/fs/cgroup`")?;
    let id = std::fs::metadata(&found).with_context(|| format!("looking at {}", found.display()))?.ino();
    ensure!(
        id == ROOT_CGROUP,
        "{} begins at this container's own cgroup, and programs there would see no other pod's sockets: give the container the \
         node's hierarchy (a hostPath of /sys/fs/cgroup, in another place), and name that with --cgroup",
        found.display()
    );
    Ok(found)
}

fn cgroup2_mount(mounts: &str) -> Option<&Path> {
    let mut entries = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    entries.find_map(|entry| (*entry.get(2)? == "cgroup2").then(|| Path::new(entry[1])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_refused_by_the_name_of_what_it_lacks() {
        assert!(missing_feature(KernelVersion::new(6, 1, 0)).unwrap().contains("tcx links"));
        assert!(missing_feature(KernelVersion::new(5, 4, 0)).unwrap().contains("bpf_redirect_peer"));
        assert_eq!(missing_feature(KernelVersion::new(6, 6, 0)), None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        let status = "Name:\txlb\nCapEff:\t0000008000001000\n";
        let sentence = missing_capabilities(effective_capabilities(status)).unwrap();
        assert!(sentence.contains("CAP_PERFMON") && !sentence.contains("CAP_BPF") && !sentence.contains("CAP_NET"));
        assert_eq!(
            missing_capabilities(CAP_SYS_ADMIN | 1 << 12),
            None,
            "CAP_SYS_ADMIN stands for the BPF capabilities"
        );
    }

    #[test]
    fn who_forbids_bpf_is_told_by_what_is_in_force() {
        let eperm = || io::Error::from_raw_os_error(libc::EPERM);
        let rows = [
            (eperm(), "Seccomp:\t2\n", None, &["seccomp filter", "seccompProfile.type to Unconfined"][..]),
            (eperm(), "Seccomp:\t0\n", Some("none integrity [confidentiality]\n"), &["lockdown (confidentiality)"]),
            (eperm(), "Seccomp:\t0\n", Some("[none] integrity confidentiality\n"), &["security module", "dmesg"]),
            (io::Error::from_raw_os_error(libc::ENOSYS), "", None, &["CONFIG_BPF_SYSCALL"]),
        ];
        for (error, status, lockdown, parts) in rows {
            let sentence = forbidden(&error, status, lockdown);
            let has_all = parts.iter().all(|part| sentence.contains(part));
            assert!(has_all && sentence.contains("though it has the capabilities"), "{sentence}");
        }
    }

    #[test]
    fn the_cgroup_hierarchy_is_found_among_the_mounts() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2_mount(mounts), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(cgroup2_mount("proc /proc proc rw 0 0\n"), None);
    }
}
