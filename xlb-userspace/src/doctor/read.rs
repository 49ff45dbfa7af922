//! Reading the node. What cannot be read is a fact of its own, and never an error: a doctor who gives up helps nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Result;
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use aya::util::KernelVersion;
use xlb_common::hook::Hook;
use xlb_common::{links, watched};

use super::facts::{AgentFacts, Dataplane, Facts, Machine, MapFacts, UplinkFacts};
use crate::agent::forwarding::{settings, stacked};
use crate::agent::report::Report;
use crate::maps::attach::FrontDoor;
use crate::maps::kernel;
use crate::maps::live::LiveMaps;
use crate::maps::pins::{PinDirectory, is_bpffs};
use crate::node::netfilter::Ruleset;
use crate::node::{Netlink, Snapshot, xdp};

/// Looks at the node of this network namespace. Without names the uplinks are those that are served.
///
/// # Errors
/// When no netlink socket can be opened at all.
pub async fn facts(pins: &PinDirectory, named: &[String]) -> Result<Facts> {
    let (netlink, _) = Netlink::open()?;
    let snapshot = netlink.snapshot().await.map_err(|error| format!("{error:#}"));
    let doors = pins.doors();
    let names = match (named, &snapshot) {
        ([], Ok(snapshot)) => {
            doors.keys().filter_map(|ifindex| snapshot.links.get(ifindex)).map(|link| link.name.clone()).collect()
        }
        _ => named.to_vec(),
    };
    let xdp = netlink.xdp_programs().await.unwrap_or_default();
    let programs = program_names();
    let empty = Snapshot::default();
    let links_here = snapshot.as_ref().unwrap_or(&empty);
    let uplink = |name: &String| uplink(name, (&netlink, links_here), &doors, (&xdp, &programs));
    Ok(Facts {
        machine: machine(pins),
        dataplane: dataplane(pins),
        uplinks: names.iter().map(uplink).collect(),
        snapshot,
        ruleset: Ruleset::read().map_err(|error| format!("netfilter's rules cannot be read: {error:#}")),
        has_ipvs: Path::new("/proc/net/ip_vs").exists() && fs::read_to_string("/proc/net/ip_vs").is_ok_and(has_service),
    })
}

/// Two lines are the title.
fn has_service(table: String) -> bool {
    table.lines().any(|line| line.starts_with("TCP") || line.starts_with("UDP") || line.starts_with("SCTP"))
}

fn program_names() -> BTreeMap<u32, String> {
    loaded_programs().flatten().map(|program| (program.id(), name_of(&program))).collect()
}

/// Whether it copies packets for `xlb watch`, which is there for as long as somebody watches, and in nobody's way.
fn is_of_watcher(name: &str) -> bool {
    name == watched::AT_TC || watched::BEFORE_XDP.contains(&name)
}

fn name_of(program: &ProgramInfo) -> String {
    program.name_as_str().filter(|name| !name.is_empty()).unwrap_or("without a name").to_owned()
}

fn uplink(
    name: &str,
    (netlink, snapshot): (&Netlink, &Snapshot),
    doors: &BTreeMap<u32, FrontDoor>,
    (xdp, programs): (&BTreeMap<u32, u32>, &BTreeMap<u32, String>),
) -> UplinkFacts {
    let found = netlink.uplink_in(snapshot, name).ok();
    let ifindex = found.as_ref().map(|uplink| uplink.ifindex);
    let of_xdp = ifindex.and_then(|ifindex| xdp.get(&ifindex));
    let named = |id: u32| (id, programs.get(&id).cloned().unwrap_or_else(|| "without a name".into()));
    let tc = SchedClassifier::query_tcx(name, TcAttachType::Ingress);
    UplinkFacts {
        name: name.into(),
        ifindex,
        door: ifindex.and_then(|ifindex| doors.get(&ifindex)).copied(),
        driver: found.map_or_else(String::new, |uplink| uplink.driver),
        xdp: ifindex.and_then(|ifindex| xdp::features(ifindex).ok()),
        xdp_program: of_xdp.copied().map(named).filter(|(_, name)| !is_of_watcher(name)),
        tc_programs: match tc {
            Ok((_, programs)) => {
                let named = programs.iter().map(|program| (program.id(), name_of(program)));
                Ok(named.filter(|(_, name)| !is_of_watcher(name)).collect())
            }
            Err(error) => Err(format!("the tc programs cannot be listed: {error}")),
        },
        strips_vlan_tags: netlink.strips_vlan_tags(name),
        settings: settings(name),
    }
}

fn machine(pins: &PinDirectory) -> Machine {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
    let status = fs::read_to_string("/proc/self/status").ok();
    Machine {
        kernel: KernelVersion::current().ok(),
        jit: number("/proc/sys/net/core/bpf_jit_enable"),
        harden: number("/proc/sys/net/core/bpf_jit_harden"),
        stats: number("/proc/sys/kernel/bpf_stats_enabled"),
        lockdown: fs::read_to_string("/sys/kernel/security/lockdown").ok(),
        has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        has_syn_cookies: Path::new("/proc/sys/net/ipv4/tcp_syncookies").exists(),
        capabilities: status.map(|status| kernel::effective_capabilities(&status)),
        pins: pins.root().to_owned(),
        is_on_bpffs: is_on_bpffs(pins.root()).map_err(|error| format!("{error:#}")),
        cgroup: kernel::root_cgroup().map_err(|error| format!("{error:#}")),
    }
}

fn is_on_bpffs(path: &Path) -> Result<bool> {
    is_bpffs(path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")))
}

fn dataplane(pins: &PinDirectory) -> Dataplane {
    let is_there = pins.holds_dataplane();
    let mut programs = BTreeSet::new();
    let mut is_jitted = None;
    for path in pins.pinned_programs() {
        let Ok(program) = ProgramInfo::from_pin(&path) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if is_attached(&name) {
            programs.insert(program.id());
        }
        is_jitted = Some(is_jitted.unwrap_or(true) && program.size_jitted() > 0);
    }
    let agent = Report::read(pins.root()).filter(|_| is_there).map(|report| AgentFacts {
        is_running: pins.has_agent(),
        pid: report.pid,
        refusals: report.refusals.into_iter().chain(report.waiting).collect(),
    });
    Dataplane {
        is_there,
        complaint: pins.found().err().map(|error| format!("{error:#}")),
        is_jitted,
        agent,
        maps: is_there.then(|| maps(pins).map_err(|error| format!("{error:#}"))),
        programs,
    }
}

/// The others are reached by those, or by test-run.
fn is_attached(program: &str) -> bool {
    Hook::ALL.into_iter().map(Hook::program).chain([links::INGRESS, links::EGRESS]).any(|name| name == program)
}

fn maps(pins: &PinDirectory) -> Result<MapFacts> {
    let observed = LiveMaps::open(pins)?.observed()?;
    let in_use = observed.backends.values().filter(|backend| backend.is_in_use());
    let direct = in_use.filter(|backend| backend.is_direct());
    Ok(MapFacts {
        vips: observed.vips.keys().copied().collect(),
        stacked: stacked(&observed),
        direct: direct.map(|backend| (backend.socket(), backend.ifindex, backend.takes_xdp())).collect(),
    })
}
