//! The loaded programs, packet by packet: what they do is what the path does on the host.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xlb_common::Reason;
use xlb_common::abi::{Config, FlowEntry, NETNS_HOST, Settings, flow_flags};
use xlb_common::memory::MemoryTables;
use xlb_common::tables::Proof;
use xlb_tests::kernel::dataplane::{Dataplane, is_no_skb};
use xlb_tests::kernel::describe::{Sums, describe, describe_flows, sums};
use xlb_tests::kernel::flows::{FlowKey, Flows};
use xlb_tests::kernel::frame::Spec;
use xlb_tests::kernel::icmp::all_sums;
use xlb_tests::kernel::kernel_maps::affinity_of;
use xlb_tests::kernel::outcome::{Hook, Outcome, Verdict};
use xlb_tests::kernel::random::{Random, seed};
use xlb_tests::kernel::rows::{self, Row, without_times};
use xlb_tests::kernel::sample::{Version, client_address, pod_address};
use xlb_tests::kernel::{flows, generate, host, refusal, sample};
use xlb_tests::lab::wait_for;

use crate::sockets::{any_address, connect_from, prepare_loopback, silent};

#[path = "kernel/sockets.rs"]
mod sockets;
#[path = "kernel/budgets.rs"]
mod budgets;
#[path = "kernel/cookies.rs"]
mod cookies;
#[path = "kernel/hot.rs"]
mod hot;
#[path = "kernel/owners.rs"]
mod owners;
#[path = "kernel/scenarios.rs"]
mod scenarios;
#[path = "kernel/selftest.rs"]
mod selftest;

const STACK_IN_USE: Config =
    Config { stack_in_use: 1, settings: Settings::NONE, generation: 0, only_uplink: 0, zero: 0 };

/// A closed connection's last segments take less.
const CLOSING: Duration = Duration::from_secs(5);

/// Random packets of a run: each program sees a fifth.
const PACKETS: usize = 30_000;
/// Records of affinity that a run leaves at least.
const AFFINE_CLIENTS_MIN: usize = 50;
/// After so many packets the flow maps are compared as a whole, and begin anew.
const PACKETS_PER_BATCH: usize = 200;

#[test]
fn every_row_holds_in_the_kernel() -> Result<()> {
    let tables = sample::tables();
    check_rows(&tables, rows::all(&tables)?)
}

#[test]
fn clients_are_followed_to_other_ways_in_the_kernel() -> Result<()> {
    let tables = sample::following();
    check_rows(&tables, rows::following(&tables)?)
}

fn check_rows(tables: &MemoryTables, rows: Vec<Row>) -> Result<()> {
    let mut dataplane = Dataplane::load(tables, STACK_IN_USE)?;
    rows::check_rows(rows, |row, hook| {
        row.prepare(tables, hook);
        dataplane.set_settings(row.settings)?;
        dataplane.maps.set_flows(&row.given)?;
        dataplane.maps.refill_answers()?;
        row.before.iter().try_for_each(|frame| dataplane.run(hook, frame).map(drop))?;
        let on_host = host::run(tables, hook, &row.frame);
        let Some(outcome) = dataplane.run(hook, &row.frame)? else {
            ensure!(is_no_skb(hook, &row.frame), "the kernel refused the packet");
            return Ok(());
        };
        row.check(&outcome, &dataplane.maps.flows()?)?;
        ensure!(outcome == on_host, "the host's path made of it\n{}", describe(&on_host.frame));
        Ok(())
    })
}

#[test]
fn without_backends_behind_the_stack_the_uplink_egress_does_nothing() -> Result<()> {
    let tables = sample::tables();
    let mut dataplane = Dataplane::load(&tables, Config::default())?;
    let row = rows::all(&tables)?.into_iter().find(|row| row.hooks == [Hook::Egress]).context("no row")?;
    dataplane.maps.set_flows(&row.given)?;
    let outcome = dataplane.run(Hook::Egress, &row.frame)?;
    assert_eq!(outcome, Some(Outcome { verdict: Verdict::Pass, reason: None, frame: row.frame }));
    Ok(())
}

#[test]
fn random_packets_fare_alike_in_the_kernel_and_on_the_host() -> Result<()> {
    check_random_packets(&sample::tables(), PACKETS)
}

#[test]
fn random_packets_fare_alike_while_clients_are_followed() -> Result<()> {
    check_random_packets(&sample::following(), PACKETS / 3)
}

fn check_random_packets(tables: &MemoryTables, packets: usize) -> Result<()> {
    let mut random = Random::new(seed());
    let mut dataplane = Dataplane::load(tables, STACK_IN_USE)?;
    let mut served: BTreeMap<Hook, usize> = BTreeMap::new();
    for batch in 0..packets / PACKETS_PER_BATCH {
        let flows = generate::flows(&mut random, tables);
        dataplane.maps.set_flows(&flows)?;
        dataplane.maps.refill_answers()?;
        flows::set(tables, &flows);
        tables.settings.set(generate::settings(&mut random));
        dataplane.set_settings(tables.settings.get())?;
        tables.stages.borrow_mut().clear();
        for number in 0..PACKETS_PER_BATCH {
            let hook = Hook::ALL[number % Hook::ALL.len()];
            let frame = generate::packet(&mut random, hook);
            let is_served = compare(tables, &dataplane, hook, &frame).with_context(|| {
                format!("packet {number} of batch {batch}, at {hook:?}: {}\n{frame:02x?}", describe(&frame))
            })?;
            *served.entry(hook).or_default() += usize::from(is_served);
        }
        let (kernel, host) = (without_times(&dataplane.maps.flows()?), without_times(&flows::of(tables)));
        ensure!(
            kernel == host,
            "batch {batch} left\n{}on the host\n{}",
            describe_flows(&kernel),
            describe_flows(&host)
        );
    }
    let (kernel, host) = (dataplane.maps.affinity()?, affinity_of(tables));
    ensure!(kernel == host, "affinity: the kernel has {kernel:?}\nthe host has {host:?}");
    ensure!(host.len() > AFFINE_CLIENTS_MIN, "the generator has lost its aim: {} clients with affinity", host.len());
    let has_aim = Hook::ALL.iter().all(|hook| served.get(hook).is_some_and(|&served| served > packets / 200));
    ensure!(has_aim, "the generator has lost its aim: only these packets of {packets} were served: {served:?}");
    Ok(())
}

/// Runs the packet on both sides. True if it was served.
fn compare(tables: &MemoryTables, dataplane: &Dataplane, hook: Hook, frame: &[u8]) -> Result<bool> {
    let before = flows::of(tables);
    let Some(in_kernel) = dataplane.run(hook, frame)? else {
        ensure!(is_no_skb(hook, frame), "the kernel refused the packet");
        return Ok(false);
    };
    let on_host = host::run(tables, hook, frame);
    ensure!(in_kernel == on_host, "{}", difference(&in_kernel, &on_host));
    let is_changed = on_host.frame != frame;
    if on_host.reason.is_some_and(Reason::refuses) {
        refusal::check_either(frame, &on_host.frame)?;
        return Ok(is_changed);
    }
    if is_changed && sums(frame) == Some(Sums { ip: true, transport: true }) {
        ensure!(all_sums(&on_host.frame) == all_sums(frame), "wrong sums: {}", describe(&on_host.frame));
    }
    compare_written(tables, dataplane, &before)?;
    Ok(is_changed)
}

/// Only what the host wrote; the rest is compared at the end of the batch.
fn compare_written(tables: &MemoryTables, dataplane: &Dataplane, before: &Flows) -> Result<()> {
    for ((table, key), entry) in flows::of(tables) {
        if before.get(&(table, key)) == Some(&entry) {
            continue;
        }
        let kernels = dataplane.maps.flow(table, &key).context("a flow is missing in the kernel")?;
        let kernels = FlowEntry { last_seen: entry.last_seen, ..kernels };
        ensure!(kernels == entry, "a flow became {kernels:?} in the kernel and {entry:?} on the host");
    }
    Ok(())
}

fn difference(kernel: &Outcome, host: &Outcome) -> String {
    let side = |outcome: &Outcome| {
        format!("{:?} {:?}\n{}\n{:02x?}", outcome.verdict, outcome.reason, describe(&outcome.frame), outcome.frame)
    };
    format!("in the kernel\n{}\non the host\n{}", side(kernel), side(host))
}

#[test]
fn the_proof_is_what_the_pods_kernel_says() -> Result<()> {
    for version in Version::ALL {
        let dataplane = Dataplane::load(&MemoryTables::default(), STACK_IN_USE)?;
        let pod = Listening::start(&dataplane, version)?;
        for (client, proof) in pod.clients() {
            let key = FlowKey::between(client, pod.address)?;
            assert_eq!(dataplane.prove(key)?, proof as u32, "{client}: {proof:?}");
        }
        let silent_port = SocketAddr::new(pod.address.ip(), 8081);
        let key = FlowKey::between(stranger(version), silent_port)?;
        assert_eq!(dataplane.prove(key)?, Proof::Absent as u32, "{version:?}");
    }
    Ok(())
}

/// A SYN to VIP .11 was noted, and the pod has the port's connection from before: what it sends is not of that SYN. Data beside
/// a listener alone is of a connection that the kernel knows by another port.
#[test]
fn a_pending_entry_without_a_syn_ack_admits_no_connection_of_the_pods_kernel() -> Result<()> {
    let tables = sample::tables();
    let mut dataplane = Dataplane::load(&tables, STACK_IN_USE)?;
    let pod = Listening::start(&dataplane, Version::V4)?;
    for (client, proof) in pod.clients() {
        let pending = rows::flow(&format!("pending {client} {} vip {}", pod.address, vip(Version::V4)), &tables)?;
        dataplane.maps.set_flows(&[pending].into())?;
        flows::set(&tables, &[pending].into());
        let frame = Spec::parse(&format!("tcp {} {client} PA data 10", pod.address))?.build();
        let outcome = run_with_proof(&tables, &dataplane, Hook::Pod, &frame, (&pod, client, proof))?;
        let reason = match proof {
            Proof::Owned | Proof::TimeWait => Reason::ReplyUnknown,
            Proof::HalfOpen => Reason::RepliedHalfOpen,
            Proof::Listening | Proof::Absent => Reason::RepliedAdmitted,
        };
        assert_eq!(outcome.reason, Some(reason), "{proof:?}");
        let is_known = dataplane.maps.flow(0, &pending.0.1).is_some();
        assert_eq!(is_known, reason == Reason::RepliedAdmitted, "{proof:?}");
    }
    Ok(())
}

/// Data beside a listener alone shows a connection that the kernel knows by another port; an acknowledgement does not.
#[test]
fn a_reply_admits_its_flow_if_the_pods_kernel_holds_the_connection() -> Result<()> {
    let tables = sample::tables();
    for version in Version::ALL {
        let mut dataplane = Dataplane::load(&tables, STACK_IN_USE)?;
        let pod = Listening::start(&dataplane, version)?;
        for (client, proof) in pod.clients() {
            for flags in ["A", "PA data 10"] {
                let text = format!("pending {client} {} vip {} syn-ack 0", pod.address, vip(version));
                let pending = rows::flow(&text, &tables)?;
                dataplane.maps.set_flows(&[pending].into())?;
                flows::set(&tables, &[pending].into());
                let frame = Spec::parse(&format!("tcp {} {client} {flags}", pod.address))?.build();
                let outcome = run_with_proof(&tables, &dataplane, Hook::Pod, &frame, (&pod, client, proof))?;
                let is_admitted = match proof {
                    Proof::Owned | Proof::TimeWait => true,
                    Proof::Listening => flags != "A",
                    Proof::HalfOpen | Proof::Absent => false,
                };
                let reason = if is_admitted { Reason::RepliedAdmitted } else { Reason::RepliedHalfOpen };
                assert_eq!(outcome.reason, Some(reason), "{version:?} {proof:?} {flags}");
                let is_known = dataplane.maps.flow(0, &pending.0.1).is_some();
                assert_eq!(is_known, is_admitted, "{version:?} {proof:?} {flags}");
            }
        }
    }
    Ok(())
}

/// A listener of both families has sockets of IPv6 for its IPv4 clients. FLOWS has the flow for as long as its socket is open,
/// PENDING after that.
#[test]
fn an_accepted_flow_is_of_the_family_of_its_packets() -> Result<()> {
    let tables = sample::tables();
    for (listener, version) in [(Version::V4, Version::V4), (Version::V6, Version::V6), (Version::V6, Version::V4)] {
        let mut dataplane = Dataplane::load(&tables, STACK_IN_USE)?;
        dataplane.attach_accepted()?;
        let case = format!("a listener of {listener:?}, a client of {version:?}");
        let (pod, client) = (pod_socket(version), SocketAddr::new(pod_address(version, 1), 45_000));
        prepare_loopback(version)?;
        let listener = TcpListener::bind(any_address(listener)).context("listening as the pod")?;
        let pending = rows::flow(&format!("pending {client} {pod} vip {}", vip(version)), &tables)?;
        dataplane.maps.set_flows(&[pending].into())?;
        let connected = connect_from(client, pod)?;
        let accepted = listener.accept()?.0;
        let flow = |words: &str| rows::flow(&format!("{words} {client} {pod} vip {}", vip(version)), &tables);
        assert_eq!(without_times(&dataplane.maps.flows()?), without_times(&[pending, flow("flow")?].into()), "{case}");
        drop(connected);
        drop(accepted);
        let mut closed = flow("pending")?;
        closed.1.flags |= flow_flags::CLOSED;
        let closed = without_times(&[closed].into());
        let has_moved = || (without_times(&dataplane.maps.flows().ok()?) == closed).then_some(());
        assert!(wait_for(CLOSING, has_moved).is_some(), "{case}: {}", describe_flows(&dataplane.maps.flows()?));
    }
    Ok(())
}

/// What holds in memory (`scenarios`) holds in the kernel; a difference is a failure that names both.
/// Runs on both sides, the host's being told what the kernel knows, and returns what both did.
fn run_with_proof(
    tables: &MemoryTables,
    dataplane: &Dataplane,
    hook: Hook,
    frame: &[u8],
    (pod, client, proof): (&Listening, SocketAddr, Proof),
) -> Result<Outcome> {
    let mut tables = tables.clone();
    match FlowKey::between(client, pod.address)? {
        FlowKey::V4(key) => tables.v4.sockets.insert((NETNS_HOST, key), proof),
        FlowKey::V6(key) => tables.v6.sockets.insert((NETNS_HOST, key), proof),
    };
    let outcome = dataplane.run(hook, frame)?.context("the kernel refused the packet")?;
    let on_host = host::run(&tables, hook, frame);
    ensure!(outcome == on_host, "{}", difference(&outcome, &on_host));
    Ok(outcome)
}

/// Pod 1's sockets in the test's own namespace, one in each state.
struct Listening {
    address: SocketAddr,
    _listener: TcpListener,
    open: [TcpStream; 2],
    closed_by: SocketAddr,
}

impl Listening {
    fn start(dataplane: &Dataplane, version: Version) -> Result<Self> {
        prepare_loopback(version)?;
        let address = pod_socket(version);
        let listener = TcpListener::bind(address).context("listening as the pod")?;
        // A busy kernel may take a moment until an address of IPv6 is its own.
        let connected = wait_for(CLOSING, || TcpStream::connect(address).ok());
        let open = [connected.with_context(|| format!("connecting to {address}"))?, listener.accept()?.0];
        let closed = TcpStream::connect(address)?;
        let (accepted, closed_by) = listener.accept()?;
        // Who closes first waits.
        drop(accepted);
        drop(closed);
        // The SYN-ACK is routed back to loopback, where nobody takes it.
        dataplane.inject(&Spec::parse(&format!("tcp {} {address} S", silent(version)))?.build())?;
        Ok(Self { address, _listener: listener, open, closed_by })
    }

    /// A client of each kind, and what the pod's kernel has to say of it.
    fn clients(&self) -> [(SocketAddr, Proof); 4] {
        let version = if self.address.is_ipv4() { Version::V4 } else { Version::V6 };
        let open = self.open[0].local_addr().unwrap_or(self.address);
        [
            (open, Proof::Owned),
            (self.closed_by, Proof::TimeWait),
            (silent(version), Proof::HalfOpen),
            (stranger(version), Proof::Listening),
        ]
    }
}

fn pod_socket(version: Version) -> SocketAddr {
    SocketAddr::new(pod_address(version, 1), 8080)
}

fn vip(version: Version) -> SocketAddr {
    SocketAddr::new(sample::vip_address(version, 11), 80)
}

fn stranger(version: Version) -> SocketAddr {
    SocketAddr::new(client_address(version, 10), 9)
}
