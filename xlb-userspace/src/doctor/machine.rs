//! The kernel, and what this process may ask of it.

use aya::util::KernelVersion;

use super::facts::{Facts, Machine};
use super::{Finding, NODE};
use crate::maps::kernel::{CAP_SYS_ADMIN, missing_capabilities, missing_feature};

/// What each of these comes to.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let machine = &facts.machine;
    vec![
        kernel(machine.kernel),
        jit(machine.jit, facts.dataplane.is_jitted),
        hardening(machine),
        lockdown(machine.lockdown.as_deref()),
        btf(machine.has_btf),
        syn_cookies(machine.has_syn_cookies),
        capabilities(machine.capabilities),
        bpffs(machine),
        cgroup(machine),
    ]
}

fn kernel(version: Option<KernelVersion>) -> Finding {
    let remedy = "boot Linux 6.6 or newer";
    let Some(version) = version else {
        return Finding::unknown("kernel", NODE, "the kernel does not tell its version", "uname -r");
    };
    match missing_feature(version) {
        None => Finding::ok("kernel", NODE, format!("Linux {} has what xlb needs", dotted(version))),
        Some(sentence) => Finding::problem("kernel", NODE, sentence, remedy),
    }
}

/// The type tells its parts to nobody but its debug format.
fn dotted(version: KernelVersion) -> String {
    let text = format!("{version:?}");
    let numbers: Vec<&str> = text.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
    numbers.join(".")
}

/// Only the first network namespace has the setting; elsewhere programs that are there tell.
fn jit(setting: Option<u8>, is_jitted: Option<bool>) -> Finding {
    let remedy = "sysctl -w net.core.bpf_jit_enable=1, then start the agent again";
    match (setting, is_jitted) {
        (Some(0), _) | (None, Some(false)) => Finding::problem(
            "jit",
            NODE,
            "the kernel interprets BPF programs: each packet costs many times more, and some programs do not load",
            remedy,
        ),
        (Some(2), _) => Finding::warning(
            "jit",
            NODE,
            "net.core.bpf_jit_enable is 2: each program that is loaded is written to the kernel's log",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        (Some(_), _) => Finding::ok("jit", NODE, "net.core.bpf_jit_enable is 1"),
        (None, Some(true)) => Finding::ok("jit", NODE, "xlb's programs are machine code"),
        (None, None) => Finding::unknown(
            "jit",
            NODE,
            "this network namespace does not have net.core.bpf_jit_enable, and no program of xlb is there",
            "run it in the node's own network namespace (hostNetwork: true)",
        ),
    }
}

fn hardening(machine: &Machine) -> Finding {
    if machine.harden == Some(2) {
        let evidence =
            "net.core.bpf_jit_harden is 2: constants of all programs are blinded, which each packet pays for";
        return Finding::warning("hardening", NODE, evidence, "sysctl -w net.core.bpf_jit_harden=1, then start again");
    }
    if machine.stats.is_some_and(|stats| stats != 0) {
        let evidence = "kernel.bpf_stats_enabled is 1: the kernel reads the clock twice for each program and packet";
        return Finding::warning("hardening", NODE, evidence, "sysctl -w kernel.bpf_stats_enabled=0");
    }
    Finding::ok("hardening", NODE, "programs run without blinded constants or statistics, as far as is told")
}

fn lockdown(state: Option<&str>) -> Finding {
    let chosen = state.and_then(|state| state.split(['[', ']']).nth(1));
    match chosen {
        None => Finding::unknown(
            "lockdown",
            NODE,
            "/sys/kernel/security/lockdown cannot be read",
            "cat /sys/kernel/security/lockdown on the node; `none` and `integrity` keep xlb from nothing",
        ),
        Some("confidentiality") => Finding::warning(
            "lockdown",
            NODE,
            "the kernel is locked down for confidentiality: programs may not read its memory; xlb's read none, but it is \
             not tested there",
            "start the agent: it says which program is refused, and touches nothing then",
        ),
        Some(other) => Finding::ok("lockdown", NODE, format!("{other} keeps xlb from nothing")),
    }
}

fn btf(has_btf: bool) -> Finding {
    match has_btf {
        true => Finding::ok("btf", NODE, "the kernel tells of its types (/sys/kernel/btf/vmlinux)"),
        false => Finding::ok("btf", NODE, "/sys/kernel/btf/vmlinux is missing, which xlb does without"),
    }
}

fn syn_cookies(has_them: bool) -> Finding {
    match has_them {
        true => Finding::ok("syn-cookies", NODE, "the kernel can answer with SYN cookies"),
        false => Finding::problem(
            "syn-cookies",
            NODE,
            "the kernel has no SYN cookies, which programs ask about: they will be refused",
            "use a kernel with CONFIG_SYN_COOKIES",
        ),
    }
}

fn capabilities(effective: Option<u64>) -> Finding {
    let Some(effective) = effective else {
        return Finding::unknown(
            "capabilities",
            NODE,
            "/proc/self/status cannot be read",
            "grep Cap /proc/self/status",
        );
    };
    match missing_capabilities(effective) {
        Some(sentence) => Finding::problem(
            "capabilities",
            NODE,
            sentence,
            "in the DaemonSet: securityContext.capabilities.add: [BPF, NET_ADMIN, PERFMON]",
        ),
        None => {
            let evidence = match effective & CAP_SYS_ADMIN {
                0 => {
                    "this process may serve; without SYS_ADMIN native XDP leaves pods to tc, and somebody else must mount bpffs"
                }
                _ => "this process may serve",
            };
            Finding::ok("capabilities", NODE, evidence)
        }
    }
}

fn bpffs(machine: &Machine) -> Finding {
    let (pins, mount) = (machine.pins.display(), "mount -t bpf bpffs /sys/fs/bpf");
    let may_mount = machine.capabilities.is_some_and(|effective| effective & CAP_SYS_ADMIN != 0);
    match &machine.is_on_bpffs {
        Ok(true) => Finding::ok("bpffs", NODE, format!("{pins} is on a BPF file system")),
        Ok(false) if may_mount && machine.pins.starts_with("/sys/fs/bpf") => {
            let evidence =
                "/sys/fs/bpf is no BPF file system; the agent mounts one as it starts, in its own mount namespace";
            let remedy = format!("{mount} on the node; in a DaemonSet a hostPath volume of /sys/fs/bpf");
            Finding::warning("bpffs", NODE, evidence, remedy)
        }
        Ok(false) => {
            let evidence = format!("{pins} is not on a BPF file system: maps and links cannot be pinned there");
            Finding::problem("bpffs", NODE, evidence, format!("{mount}, and a --bpffs-dir below it"))
        }
        Err(why) => Finding::unknown("bpffs", NODE, why.clone(), mount),
    }
}

fn cgroup(machine: &Machine) -> Finding {
    match &machine.cgroup {
        Ok(path) => Finding::ok("cgroup", NODE, format!("cgroup v2 is mounted at {}", path.display())),
        Err(why) => Finding::problem("cgroup", NODE, why.clone(), "mount -t cgroup2 none /sys/fs/cgroup"),
    }
}
