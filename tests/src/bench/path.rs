//! `xlb-bench path`: nanoseconds per packet in the kernel, by BPF_PROG_TEST_RUN, net of the harness.
//!
//! A test-run repeats on one buffer, so each program first makes the next packet (`varied`). Its cost is shown net of
//! the empty program, and every other one net of `varied` with as many flows, round by round.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use aya::maps::Array;
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use xlb_common::abi::{Backend, COUNTED_SERVICES_MAX, Config, Frontend, Member, NETNS_HOST, TCP, UDP, backend_flags};
use xlb_common::memory::MemoryTables;
use xlb_common::slot::SlotWord;
use xlb_common::{Family as _, V4, V6};

use super::report::{Report, Row};
use crate::kernel::dataplane::object_path;
use crate::kernel::flows::stored;
use crate::kernel::frame::Spec;
use crate::kernel::kernel_maps::fill;
use crate::kernel::sample::{UPLINK, UPLINK_MAC, Version, host_mac, pod_address, pod_mac, vip_address};

const PROGRAMS: [&str; 6] = ["empty", "varied", "forwarder", "path_xdp", "varied_v6", "path_xdp_v6"];
const FLOWS: [u32; 2] = [1, 100_000];
const BACKENDS: u8 = 3;
const SLOTS: u32 = 251;
const SERVED_VIP: u8 = 10;
const OTHER_VIP: u8 = 99;
/// Flow maps that the measured programs have, and do not touch: their real size would only take memory.
const UNUSED_FLOWS: [&str; 3] = ["FLOWS_V6", "UDP_FLOWS_V6", "UDP_PENDING_V6"];

/// One measured program with one kind of packet.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    program: &'static str,
    version: Version,
    protocol: u8,
    vip: u8,
    flags: &'static str,
    baseline: Option<&'static str>,
    verdict: u32,
    /// Whether packets and bytes of services are counted.
    is_counted: bool,
    /// Whether its packets meet the maps that SYNs were counted in: as many as here make times hot, in which packets of connections
    /// look for their flow's entry.
    is_hot: bool,
}

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

const CASES: [Case; 12] = [
    Case { name: "empty", program: "empty", baseline: None, ..ESTABLISHED_AGAIN.passing() },
    Case { name: "varied", program: "varied", baseline: None, ..ESTABLISHED_AGAIN.passing() },
    Case { name: "varied_v6", program: "varied_v6", baseline: None, ..ESTABLISHED_V6.passing() },
    Case { name: "forwarder", program: "forwarder", baseline: None, ..ESTABLISHED_AGAIN },
    Case { name: "established", baseline: Some("forwarder"), ..ESTABLISHED_AGAIN },
    ESTABLISHED_AGAIN,
    Case { name: "established_uncounted", is_counted: false, ..ESTABLISHED_AGAIN },
    ESTABLISHED_V6,
    Case { name: "syn", flags: "S", baseline: Some("established"), is_hot: true, ..ESTABLISHED_AGAIN },
    Case { name: "established_hot", is_hot: true, ..ESTABLISHED_AGAIN },
    Case { name: "udp", protocol: UDP, baseline: Some("established"), ..ESTABLISHED_AGAIN },
    Case { name: "not_ours", vip: OTHER_VIP, baseline: Some("established"), ..ESTABLISHED_AGAIN.passing() },
];

/// The same way over IPv6.
const ESTABLISHED_V6: Case =
    Case { name: "established_v6", program: "path_xdp_v6", version: Version::V6, ..ESTABLISHED_AGAIN };

/// The same as `established`: how far two figures of one thing lie apart.
const ESTABLISHED_AGAIN: Case = Case {
    name: "established_again",
    program: "path_xdp",
    version: Version::V4,
    protocol: TCP,
    vip: SERVED_VIP,
    flags: "A",
    baseline: Some("established"),
    verdict: XDP_REDIRECT,
    is_counted: true,
    is_hot: false,
};

impl Case {
    const fn passing(self) -> Self {
        Self { verdict: XDP_PASS, ..self }
    }

    /// Flows of the packets, and the row's name with them.
    fn rows(self) -> impl Iterator<Item = (u32, String)> {
        FLOWS.into_iter().map(move |flows| (flows, named(self.name, flows)))
    }
}

/// Measures in interleaved rounds, so that noise hits all alike.
pub fn measure(repeat: u32, rounds: usize) -> Result<Report> {
    stay_on_one_cpu()?;
    let mut bench = Bench::load()?;
    let mut figures: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 0..=rounds {
        for case in CASES {
            for (flows, name) in case.rows() {
                let ns = bench.run(case, flows, repeat).with_context(|| format!("measuring {name}"))?;
                // The first round fills caches and maps.
                if round > 0 {
                    figures.entry(name).or_default().push(ns);
                }
            }
        }
    }
    Ok(Report { rows: CASES.into_iter().flat_map(|case| rows(case, &figures)).collect() })
}

/// The net figures of a case.
fn rows(case: Case, figures: &BTreeMap<String, Vec<f64>>) -> Vec<Row> {
    let net = |flows: u32, name: &str| -> Vec<f64> {
        let harness = match case.name {
            "empty" => return figures[name].clone(),
            "varied" | "varied_v6" => "empty",
            _ => match case.version {
                Version::V4 => "varied",
                Version::V6 => "varied_v6",
            },
        };
        let below = &figures[&named(harness, flows)];
        figures[name].iter().zip(below).map(|(gross, below)| gross - below).collect()
    };
    // More flows are compared with one flow, one flow with the case's baseline.
    let baseline = |flows: u32| match flows {
        1 => case.baseline.map(|baseline| named(baseline, 1)),
        _ => Some(named(case.name, 1)),
    };
    case.rows()
        .map(|(flows, name)| Row { unit: "ns", rounds: net(flows, &name), baseline: baseline(flows), name })
        .collect()
}

fn named(case: &str, flows: u32) -> String {
    if flows == 1 { format!("{case}, 1 flow") } else { format!("{case}, {} k flows", flows / 1_000) }
}

struct Bench {
    counting: Ebpf,
    uncounting: Ebpf,
    hot: Ebpf,
}

impl Bench {
    fn load() -> Result<Self> {
        Ok(Self { counting: load(COUNTED_SERVICES_MAX)?, uncounting: load(0)?, hot: load(COUNTED_SERVICES_MAX)? })
    }

    /// Gross nanoseconds per packet.
    fn run(&mut self, case: Case, flows: u32, repeat: u32) -> Result<f64> {
        let object = match case {
            Case { is_hot: true, .. } => &mut self.hot,
            Case { is_counted: true, .. } => &mut self.counting,
            _ => &mut self.uncounting,
        };
        set_traffic(object, case, flows)?;
        let client = match case.version {
            Version::V4 => "10.0.0.0:40000",
            Version::V6 => "[2001:db8::]:40000",
        };
        let vip = SocketAddr::new(vip_address(case.version, case.vip), 80);
        let packet = format!("tcp {client} {vip} {} pad 84", case.flags);
        let frame = Spec::parse(&packet)?.build();
        let program: &Xdp = object.program(case.program).context("no such program")?.try_into()?;
        let mut out = frame.clone();
        let options =
            TestRunOptions { data_in: Some(&frame), data_out: Some(&mut out), repeat, ..TestRunOptions::new() };
        let result = program.test_run(options)?;
        ensure!(result.return_value == case.verdict, "{} returned {}", case.program, result.return_value);
        Ok(result.duration.as_nanos() as f64)
    }
}

/// The object with its maps filled.
fn load(counted_services: u32) -> Result<Ebpf> {
    let path = object_path("xlb-bench.o");
    let bytes = std::fs::read(&path)
        .with_context(|| format!("reading {}; `cargo xtask build-ebpf` makes it", path.display()))?;
    let mut loader = EbpfLoader::new();
    for map in UNUSED_FLOWS {
        loader.map_max_entries(map, 1_024);
    }
    loader.override_global("COUNTED_SERVICES", &counted_services, true);
    let mut object = loader.load(&bytes).with_context(|| format!("loading {}", path.display()))?;
    for name in PROGRAMS {
        let program: &mut Xdp = object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
        program.load().with_context(|| format!("loading {name}"))?;
    }
    fill(&mut object, &tables(), Config::default())?;
    Ok(object)
}

fn set_traffic(object: &mut Ebpf, case: Case, flows: u32) -> Result<()> {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&flows.to_ne_bytes());
    bytes[8..24].copy_from_slice(&stored(vip_address(case.version, case.vip)));
    bytes[24..26].copy_from_slice(&80_u16.to_be_bytes());
    bytes[26..28].copy_from_slice(&40_000_u16.to_be_bytes());
    bytes[28] = case.protocol;
    let map = object.map_mut("TRAFFIC").context("no map TRAFFIC")?;
    Array::<_, [u8; 32]>::try_from(map)?.set(0, bytes, 0).context("describing the traffic")
}

/// A service of each family with a slot table and without history; its pods' links take frames from XDP.
fn tables() -> MemoryTables {
    let mut tables = MemoryTables { uplinks: [(UPLINK, UPLINK_MAC)].into(), ..MemoryTables::default() };
    for (number, version) in (1..).zip(Version::ALL) {
        let (slots_base, members_base) = (SLOTS * number, u32::from(BACKENDS) * number);
        let frontend = Frontend { service: number, slots_base, slots: SLOTS, members_base, ..Frontend::default() };
        for protocol in [TCP, UDP] {
            add_frontend(&mut tables, (vip_address(version, SERVED_VIP), protocol), frontend);
        }
        let owner = |slot: u32| SlotWord::owned_by((slot % u32::from(BACKENDS)) as u8).0;
        tables.slots.extend((slots_base..).zip((0..SLOTS).map(owner)));
        for (index, pod) in (members_base..).zip(1..=BACKENDS) {
            tables.members.insert(index, Member { backend: index as u16, flags: 0, generation: 1 });
            tables.backends.insert(index, backend(version, pod));
        }
    }
    tables
}

fn add_frontend(tables: &mut MemoryTables, (vip, protocol): (IpAddr, u8), frontend: Frontend) {
    let port = 80_u16.to_be_bytes();
    match vip {
        IpAddr::V4(vip) => {
            tables.v4.frontends.insert(V4::endpoint_key(vip.octets(), port, protocol), frontend);
        }
        IpAddr::V6(vip) => {
            tables.v6.frontends.insert(V6::endpoint_key(vip.octets(), port, protocol), frontend);
        }
    }
}

fn backend(version: Version, pod: u8) -> Backend {
    Backend {
        address: stored(pod_address(version, pod)),
        generation: 1,
        flags: backend_flags::IN_USE | backend_flags::DIRECT | backend_flags::TAKES_XDP,
        ifindex: UPLINK,
        netns_id: NETNS_HOST,
        pod_mac: pod_mac(pod),
        host_mac: host_mac(pod),
        port: 8080_u16.to_be_bytes(),
        protocol: TCP,
        family: if version == Version::V4 { 4 } else { 6 },
        ..Backend::default()
    }
}

/// Test-run repeats on the CPU it is called on.
pub(super) fn stay_on_one_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(std::thread::available_parallelism().map_or(1, usize::from) - 1)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("staying on one CPU")
}
