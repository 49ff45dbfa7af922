//! `xlb-bench path`: nanoseconds per packet in the kernel, by BPF_PROG_TEST_RUN, net of the harness.
//!
//! A test-run repeats on one buffer, so each program first makes the next packet (`varied`). Its cost is shown net of
//! the empty program, and every other one net of `varied` with as many flows, round by round.

#[path = "path/cases.rs"]
mod cases;
#[path = "path/maps.rs"]
mod maps;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use aya::Ebpf;
use aya::programs::{Program, TestRun as _, TestRunOptions, TestRunResult};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use xlb_common::abi::UDP;

use self::cases::{CASES, Case, MapsOf, Packet};
use self::maps::{CLIENT_PORT, load, set_headers, set_traffic};
use super::report::{Report, Row};
use crate::kernel::frame::Spec;
use crate::kernel::sample::{Version, vip_address};

impl Case {
    /// Flows of the packets, and the row's name with them.
    fn rows(self) -> impl Iterator<Item = (u32, String)> {
        self.flows.iter().map(move |&flows| (flows, named(self.name, flows)))
    }

    fn harness_program(&self) -> Option<&'static str> {
        CASES.iter().find(|case| Some(case.name) == self.harness).map(|case| case.program)
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
        let Some(harness) = case.harness else { return figures[name].clone() };
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
    match flows {
        1 => format!("{case}, 1 flow"),
        1_000_000.. => format!("{case}, {} M flows", flows / 1_000_000),
        _ => format!("{case}, {} k flows", flows / 1_000),
    }
}

struct Bench {
    objects: BTreeMap<MapsOf, Ebpf>,
}

impl Bench {
    fn load() -> Result<Self> {
        let objects = MapsOf::ALL.into_iter().map(|maps| Ok((maps, load(maps)?)));
        Ok(Self { objects: objects.collect::<Result<_>>()? })
    }

    /// Gross nanoseconds per packet.
    fn run(&mut self, case: Case, flows: u32, repeat: u32) -> Result<f64> {
        let object = self.objects.get_mut(&case.maps).context("no such object")?;
        set_traffic(object, case.packet, flows)?;
        let frame = Spec::parse(&described(case.packet))?.build();
        set_headers(object, &frame)?;
        let mut out = frame.clone();
        let options =
            TestRunOptions { data_in: Some(&frame), data_out: Some(&mut out), repeat, ..TestRunOptions::new() };
        let result = test_run(object.program(case.program).context("no such program")?, options)?;
        ensure!(result.return_value == case.verdict, "{} returned {}", case.program, result.return_value);
        Ok(result.duration.as_nanos() as f64)
    }
}

fn test_run(program: &Program, options: TestRunOptions<'_>) -> Result<TestRunResult> {
    match program {
        Program::Xdp(program) => Ok(program.test_run(options)?),
        Program::SchedClassifier(program) => Ok(program.test_run(options)?),
        _ => bail!("a program of another kind"),
    }
}

/// The first packet, in the words of the kernel tests.
fn described(packet: Packet) -> String {
    let (client, router) = match packet.version {
        Version::V4 => ("10.0.0.0", "10.0.0.77:0"),
        Version::V6 => ("[2001:db8::]", "[2001:db8::77]:0"),
    };
    let vip = vip_address(packet.version, packet.vip);
    let of = |port| SocketAddr::new(vip, port);
    if packet.is_quoted {
        return format!("icmp {router} {} too-big quotes tcp {} {client}:{CLIENT_PORT} A data 100", of(0), of(80));
    }
    let protocol = if packet.protocol == UDP { "udp" } else { "tcp" };
    let flags = if packet.protocol == UDP { "" } else { packet.flags };
    format!("{protocol} {client}:{CLIENT_PORT} {} {flags} pad 84", of(80))
}

/// Test-run repeats on the CPU it is called on.
pub(super) fn stay_on_one_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(std::thread::available_parallelism().map_or(1, usize::from) - 1)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("staying on one CPU")
}
