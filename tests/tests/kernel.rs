//! The loaded programs, packet by packet: what they do is what the path does on the host.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use xlb_common::Reason;
use xlb_common::abi::{Config, FlowEntry, FlowKeyV4, NETNS_HOST};
use xlb_common::memory::MemoryTables;
use xlb_common::tables::Proof;
use xlb_tests::kernel::dataplane::Dataplane;
use xlb_tests::kernel::describe::{Sums, describe, describe_flows, sums};
use xlb_tests::kernel::frame::Spec;
use xlb_tests::kernel::kernel_maps::Flows;
use xlb_tests::kernel::outcome::{Hook, Outcome, Verdict};
use xlb_tests::kernel::random::{Random, seed};
use xlb_tests::kernel::rows::{self, without_times};
use xlb_tests::kernel::{generate, host, sample};

const STACK_IN_USE: Config = Config { stack_in_use: 1, zero: 0, generation: 0 };

/// Random packets of a run: each program sees a fifth.
const PACKETS: usize = 30_000;
/// After so many packets the flow maps are compared as a whole, and begin anew.
const PACKETS_PER_BATCH: usize = 200;

#[test]
fn every_row_holds_in_the_kernel() -> Result<()> {
    let tables = sample::tables();
    let mut dataplane = Dataplane::load(&tables, STACK_IN_USE)?;
    rows::check_each(&tables, |row, hook| {
        *tables.flows.borrow_mut() = row.given.clone();
        dataplane.maps.set_flows(&row.given)?;
        let on_host = host::run(&tables, hook, &row.frame);
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
    let mut random = Random::new(seed());
    let tables = sample::tables();
    let mut dataplane = Dataplane::load(&tables, STACK_IN_USE)?;
    let mut served: BTreeMap<Hook, usize> = BTreeMap::new();
    for batch in 0..PACKETS / PACKETS_PER_BATCH {
        let flows = generate::flows(&mut random, &tables);
        dataplane.maps.set_flows(&flows)?;
        *tables.flows.borrow_mut() = flows;
        tables.stages.borrow_mut().clear();
        for number in 0..PACKETS_PER_BATCH {
            let hook = Hook::ALL[number % Hook::ALL.len()];
            let frame = generate::packet(&mut random, hook);
            let is_served = compare(&tables, &dataplane, hook, &frame).with_context(|| {
                format!("packet {number} of batch {batch}, at {hook:?}: {}\n{frame:02x?}", describe(&frame))
            })?;
            *served.entry(hook).or_default() += usize::from(is_served);
        }
        let (kernel, host) = (without_times(&dataplane.maps.flows()?), without_times(&tables.flows.borrow()));
        ensure!(
            kernel == host,
            "batch {batch} left\n{}on the host\n{}",
            describe_flows(&kernel),
            describe_flows(&host)
        );
    }
    let has_aim = Hook::ALL.iter().all(|hook| served.get(hook).is_some_and(|&served| served > PACKETS / 100));
    ensure!(has_aim, "the generator has lost its aim: only these packets of {PACKETS} were served: {served:?}");
    Ok(())
}

/// Runs the packet on both sides. True if it was served.
fn compare(tables: &MemoryTables, dataplane: &Dataplane, hook: Hook, frame: &[u8]) -> Result<bool> {
    let before = tables.flows.borrow().clone();
    let Some(in_kernel) = dataplane.run(hook, frame)? else {
        ensure!(is_no_skb(hook, frame), "the kernel refused the packet");
        return Ok(false);
    };
    let on_host = host::run(tables, hook, frame);
    ensure!(in_kernel == on_host, "{}", difference(&in_kernel, &on_host));
    let is_changed = on_host.frame != frame;
    if is_changed && sums(frame) == Some(Sums { ip: true, transport: true }) {
        ensure!(sums(&on_host.frame) == sums(frame), "wrong sums: {}", describe(&on_host.frame));
    }
    compare_written(tables, dataplane, &before)?;
    Ok(is_changed)
}

/// Only what the host wrote; the rest is compared at the end of the batch.
fn compare_written(tables: &MemoryTables, dataplane: &Dataplane, before: &Flows) -> Result<()> {
    for (&(table, key), entry) in tables.flows.borrow().iter() {
        if before.get(&(table, key)) == Some(entry) {
            continue;
        }
        let kernels = dataplane.maps.flow(table, &key).context("a flow is missing in the kernel")?;
        let kernels = FlowEntry { last_seen: entry.last_seen, ..kernels };
        ensure!(kernels == *entry, "a flow became {kernels:?} in the kernel and {entry:?} on the host");
    }
    Ok(())
}

fn difference(kernel: &Outcome, host: &Outcome) -> String {
    let side = |outcome: &Outcome| {
        format!("{:?} {:?}\n{}\n{:02x?}", outcome.verdict, outcome.reason, describe(&outcome.frame), outcome.frame)
    };
    format!("in the kernel\n{}\non the host\n{}", side(kernel), side(host))
}

/// Test-run makes no skb of a frame that ends inside its IPv4 or IPv6 header.
fn is_no_skb(hook: Hook, frame: &[u8]) -> bool {
    let header = if frame[12..14] == [0x86, 0xdd] { 40 } else { 20 };
    !hook.is_xdp() && frame.len() < 14 + header
}

#[test]
fn the_proof_is_what_the_pods_kernel_says() -> Result<()> {
    let dataplane = Dataplane::load(&MemoryTables::default(), STACK_IN_USE)?;
    let pod = Listening::start(&dataplane)?;
    for (client, proof) in pod.clients() {
        assert_eq!(dataplane.prove(key(client, POD))?, proof as u32, "{client}: {proof:?}");
    }
    assert_eq!(dataplane.prove(key(STRANGER, SocketAddrV4::new(*POD.ip(), 8081)))?, Proof::Absent as u32);
    Ok(())
}

/// VIP .11 leads to pod 2 and led to pod 1, which holds the sockets.
#[test]
fn a_former_owner_keeps_what_its_kernel_proves() -> Result<()> {
    let tables = sample::tables();
    let dataplane = Dataplane::load(&tables, STACK_IN_USE)?;
    let pod = Listening::start(&dataplane)?;
    for (client, proof) in pod.clients() {
        for flags in ["S", "A", "PA"] {
            let frame = Spec::parse(&format!("tcp {client} 203.0.113.11:80 {flags}"))?.build();
            let outcome = run_with_proof(&tables, &dataplane, Hook::Xdp, &frame, (client, proof))?;
            let is_proven = matches!((proof, flags), (Proof::Owned, _) | (Proof::HalfOpen, "S"))
                || (proof == Proof::TimeWait && flags != "S");
            let (reason, owner) = if is_proven { (Reason::ProvenOwner, 1) } else { (Reason::UnprovenOwner, 2) };
            assert_eq!((outcome.reason, outcome.frame[33]), (Some(reason), owner), "{proof:?} {flags}");
        }
    }
    Ok(())
}

#[test]
fn a_reply_admits_its_flow_if_the_pods_kernel_holds_the_connection() -> Result<()> {
    let tables = sample::tables();
    let mut dataplane = Dataplane::load(&tables, STACK_IN_USE)?;
    let pod = Listening::start(&dataplane)?;
    for (client, proof) in pod.clients() {
        for flags in ["A", "PA data 10"] {
            let pending = rows::flow(&format!("pending {client} {POD} vip 203.0.113.11:80 syn-ack 0"), &tables)?;
            dataplane.maps.set_flows(&[pending].into())?;
            *tables.flows.borrow_mut() = [pending].into();
            let frame = Spec::parse(&format!("tcp {POD} {client} {flags}"))?.build();
            let outcome = run_with_proof(&tables, &dataplane, Hook::Pod, &frame, (client, proof))?;
            let is_admitted = matches!(proof, Proof::Owned | Proof::TimeWait);
            let reason = if is_admitted { Reason::RepliedAdmitted } else { Reason::RepliedHalfOpen };
            assert_eq!(outcome.reason, Some(reason), "{proof:?} {flags}");
            assert_eq!(dataplane.maps.flow(0, &pending.0.1).is_some(), is_admitted, "{proof:?} {flags}");
        }
    }
    Ok(())
}

/// Runs on both sides, the host's being told what the kernel knows, and returns what both did.
fn run_with_proof(
    tables: &MemoryTables,
    dataplane: &Dataplane,
    hook: Hook,
    frame: &[u8],
    (client, proof): (SocketAddrV4, Proof),
) -> Result<Outcome> {
    let mut tables = tables.clone();
    tables.sockets.insert((NETNS_HOST, key(client, POD)), proof);
    let outcome = dataplane.run(hook, frame)?.context("the kernel refused the packet")?;
    let on_host = host::run(&tables, hook, frame);
    ensure!(outcome == on_host, "{}", difference(&outcome, &on_host));
    Ok(outcome)
}

const POD: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 244, 1, 1), 8080);
/// Its SYN waits for an answer that never comes.
const SILENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 9), 40_000);
const STRANGER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 1), 9);

/// Pod 1's sockets in the test's own namespace, one in each state.
struct Listening {
    _listener: TcpListener,
    open: [TcpStream; 2],
    closed_by: SocketAddr,
}

impl Listening {
    fn start(dataplane: &Dataplane) -> Result<Self> {
        ip(&["address", "add", &POD.ip().to_string(), "dev", "lo"])?;
        ip(&["route", "add", &SILENT.ip().to_string(), "dev", "lo"])?;
        let listener = TcpListener::bind(POD).context("listening as the pod")?;
        let open = [TcpStream::connect(POD)?, listener.accept()?.0];
        let closed = TcpStream::connect(POD)?;
        let (accepted, closed_by) = listener.accept()?;
        // Who closes first waits.
        drop(accepted);
        drop(closed);
        // The SYN-ACK is routed back to loopback, where nobody takes it.
        dataplane.inject(&Spec::parse(&format!("tcp {SILENT} {POD} S"))?.build())?;
        Ok(Self { _listener: listener, open, closed_by })
    }

    /// A client of each kind, and what the pod's kernel has to say of it.
    fn clients(&self) -> [(SocketAddrV4, Proof); 4] {
        let v4 = |address| if let SocketAddr::V4(address) = address { address } else { STRANGER };
        let open = self.open[0].local_addr().map_or(STRANGER, v4);
        [
            (open, Proof::Owned),
            (v4(self.closed_by), Proof::TimeWait),
            (SILENT, Proof::HalfOpen),
            (STRANGER, Proof::Listening),
        ]
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(args).status().context("running ip")?;
    ensure!(status.success(), "`ip {}` failed", args.join(" "));
    Ok(())
}

fn key(client: SocketAddrV4, pod: SocketAddrV4) -> FlowKeyV4 {
    FlowKeyV4 {
        client: client.ip().octets(),
        pod: pod.ip().octets(),
        client_port: client.port().to_be_bytes(),
        pod_port: pod.port().to_be_bytes(),
    }
}
