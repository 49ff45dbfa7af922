//! The path in ordinary memory: every row, and facts that hold for random packets; more of these are in `malformed.rs`. Needs
//! neither root nor a kernel.

use anyhow::{Result, ensure};
use xlb_common::abi::{NETNS_HOST, ServiceStats};
use xlb_common::budget::SEARCHES_PER_S;
use xlb_common::memory::MemoryTables;
use xlb_common::packet::{BytePacket, Packet as _};
use xlb_common::path::{self, Arrival, Door};
use xlb_common::reason::Direction;
use xlb_common::tables::{FlowTable, Proof, Tables};
use xlb_common::{Disposition, Family as _, Reason, V4};
use xlb_tests::kernel::describe::{Sums, describe, sums};
use xlb_tests::kernel::frame::Spec;
use xlb_tests::kernel::headers::Layout;
use xlb_tests::kernel::icmp::all_sums;
use xlb_tests::kernel::outcome::{Hook, Outcome};
use xlb_tests::kernel::random::{Random, seed};
use xlb_tests::kernel::rows::Row;
use xlb_tests::kernel::{flows, generate, host, rows, sample};

const PACKETS: usize = 50_000;
/// Reasons of what rows do not say: what kernels hold, how much was spent.
const WITHOUT_ROW: [Reason; 4] =
    [Reason::ProvenOwner, Reason::TagsNotMoved, Reason::VipLooped, Reason::UnsearchedOwner];

#[test]
fn every_row_holds_on_the_host() -> Result<()> {
    let tables = sample::tables();
    check_rows(&tables, rows::all(&tables)?)
}

#[test]
fn clients_are_followed_to_other_ways_on_the_host() -> Result<()> {
    let tables = sample::following();
    check_rows(&tables, rows::following(&tables)?)
}

#[test]
fn entries_are_brought_back_in_hot_times_on_the_host() -> Result<()> {
    let tables = sample::hot();
    check_rows(&tables, rows::hot(&tables)?)
}

fn check_rows(tables: &MemoryTables, rows: Vec<Row>) -> Result<()> {
    rows::check_rows(rows, |row, hook| {
        row.prepare(tables, hook);
        let outcome = host::run(tables, hook, &row.frame);
        row.check(&outcome, &flows::of(tables))
    })
}

#[test]
fn each_packet_that_is_delivered_counts_for_its_service_and_no_other_packet_does() -> Result<()> {
    rows::check_each(&sample::tables(), |row, hook| {
        let tables = sample::tables();
        row.prepare(&tables, hook);
        tables.service_stats.borrow_mut().clear();
        let _ = host::run(&tables, hook, &row.frame);
        let stats: Vec<ServiceStats> = tables.service_stats.borrow().values().copied().collect();
        let sum = |number: fn(&ServiceStats) -> u64| stats.iter().map(number).sum::<u64>();
        let is_error = matches!(row.reason, Reason::ErrorDelivered | Reason::ErrorReplied);
        let is_delivered = row.reason.disposition() == Disposition::Forward && !is_error;
        let [to_pods, to_clients] =
            [Direction::Forward, Direction::Return].map(|way| u64::from(is_delivered && row.reason.direction() == way));
        let bytes = Layout::of(&row.frame).map_or(0, |layout| layout.ip_length(&row.frame));
        ensure!([sum(|it| it.packets_to_pods), sum(|it| it.bytes_to_pods)] == [to_pods, to_pods * bytes], "{stats:?}");
        let back = [sum(|it| it.packets_to_clients), sum(|it| it.bytes_to_clients)];
        ensure!(back == [to_clients, to_clients * bytes], "{stats:?}");
        Ok(())
    })
}

#[test]
fn every_reason_of_a_packet_has_a_row() -> Result<()> {
    let tables = sample::tables();
    let rows = rows::all(&tables)?;
    let without: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| !matches!(reason.direction(), Direction::Socket | Direction::Inside))
        .filter(|reason| !WITHOUT_ROW.contains(reason))
        .filter(|&&reason| !rows.iter().any(|row| row.reason == reason))
        .collect();
    ensure!(without.is_empty(), "no row comes out as {without:?}");
    Ok(())
}

#[test]
fn a_served_packet_has_right_sums_if_it_came_with_them() {
    let (mut served, mut errors) = (0, 0);
    for_random_packets(|tables, hook, frame| {
        let outcome = host::run(tables, hook, frame);
        if is_forwarded(&outcome) && sums(frame) == Some(Sums { ip: true, transport: true }) {
            served += 1;
            let [of_frame, of_outcome] = [frame, &outcome.frame].map(all_sums);
            assert_eq!(of_outcome, of_frame, "{hook:?}: {}", describe(&outcome.frame));
            errors += usize::from(of_outcome[1].is_some());
        }
    });
    assert!(served > PACKETS / 10, "only {served} of {PACKETS} packets were served");
    assert!(errors > PACKETS / 200, "only {errors} of {PACKETS} packets were errors with a whole quote");
}

#[test]
fn a_packet_is_read_and_written_inside_its_bounds_only() {
    for length in 0..8 {
        let mut bytes = vec![7; length];
        for at in [0, 1, 4, length, usize::MAX - 1, usize::MAX] {
            let fits = at.checked_add(4).is_some_and(|end| end <= length);
            assert_eq!(BytePacket(&mut bytes).load::<4>(at).is_some(), fits, "{at} of {length}");
            assert_eq!(BytePacket(&mut bytes).store(at, [7; 4]).is_some(), fits, "{at} of {length}");
        }
    }
}

#[test]
fn every_shorter_packet_is_left_alone() {
    let tables = sample::tables();
    for text in [
        "tcp 198.51.100.9:40000 203.0.113.1:80 S",
        "tcp [2001:db8:100::9]:40000 [2001:db8:113::1]:80 S",
        "sctp 198.51.100.9:40000 203.0.113.1:38 INIT",
        "sctp [2001:db8:100::9]:40000 [2001:db8:113::1]:38 INIT",
    ] {
        let frame = Spec::parse(text).unwrap().build();
        for length in 0..frame.len() {
            let mut cut = frame[..length].to_vec();
            let arrival = Arrival::at(Door::Xdp, sample::UPLINK);
            let verdict = path::ingress(&mut BytePacket(&mut cut), &tables, arrival);
            assert_eq!((verdict.err(), &cut[..]), (Some(Reason::Truncated), &frame[..length]));
        }
    }
}

/// The simulator's bug "hpa, seed 1": the tuple was used again, and the owner of the earlier connection got the slot back.
#[test]
fn a_connection_is_found_behind_an_earlier_one_that_waits_with_a_newer_owner() -> Result<()> {
    for (newer, older, expected) in [
        (Proof::TimeWait, Proof::Owned, 1),
        (Proof::TimeWait, Proof::HalfOpen, 1),
        (Proof::TimeWait, Proof::TimeWait, 2),
        (Proof::TimeWait, Proof::Listening, 2),
        (Proof::Owned, Proof::TimeWait, 2),
        (Proof::Listening, Proof::TimeWait, 1),
        (Proof::HalfOpen, Proof::TimeWait, 2),
        // A SYN sent again came to the newer owner, when the connection was already with the older one.
        (Proof::HalfOpen, Proof::Owned, 1),
        (Proof::HalfOpen, Proof::HalfOpen, 2),
    ] {
        let outcome = with_proofs("tcp 198.51.100.9:40000 203.0.113.11:80 A", [(2, newer), (1, older)])?;
        assert_eq!(outcome.reason, Some(Reason::ProvenOwner));
        assert_eq!(outcome.frame[30..34], [10, 244, 1, expected], "{newer:?} {older:?}");
    }
    Ok(())
}

/// VIP .22 names pods 2 and 3, and forgot pod 1. The simulator's bug "flap, seed 1": an earlier connection that waits with an owner who
/// is named hid the present one, and a new one began beside one that was held.
#[test]
fn a_connection_with_a_forgotten_owner_is_found_behind_one_that_waits_with_a_named_one() -> Result<()> {
    for (flags, named, forgotten, expected) in [
        ("A", Proof::TimeWait, Proof::Owned, 1),
        ("A", Proof::TimeWait, Proof::HalfOpen, 1),
        ("A", Proof::TimeWait, Proof::TimeWait, 3),
        ("A", Proof::TimeWait, Proof::Listening, 3),
        ("A", Proof::Owned, Proof::TimeWait, 3),
        ("A", Proof::Listening, Proof::TimeWait, 1),
        ("S", Proof::Listening, Proof::Owned, 1),
        ("S", Proof::TimeWait, Proof::HalfOpen, 1),
        ("S", Proof::HalfOpen, Proof::Owned, 3),
    ] {
        let packet = format!("tcp 198.51.100.9:40000 203.0.113.22:80 {flags}");
        let outcome = with_proofs(&packet, [(3, named), (1, forgotten)])?;
        assert_eq!(outcome.reason, Some(Reason::ProvenOwner), "{flags} {named:?} {forgotten:?}");
        assert_eq!(outcome.frame[30..34], [10, 244, 1, expected], "{flags} {named:?} {forgotten:?}");
    }
    Ok(())
}

/// A listener alone sends no data: where it is all that the kernel has, a proxy in the pod has the connection.
#[test]
fn what_a_pod_sends_of_a_connection_that_its_kernel_does_not_know_admits_it() -> Result<()> {
    for (packet, proof, expected) in [
        ("PA data 5 ack 1001", Proof::Listening, Reason::RepliedAdmitted),
        ("PA data 5 ack 1001", Proof::Absent, Reason::RepliedAdmitted),
        ("PA data 5 ack 1001", Proof::HalfOpen, Reason::RepliedHalfOpen),
        ("A ack 1001", Proof::Listening, Reason::RepliedHalfOpen),
        ("RA ack 1001", Proof::Listening, Reason::RepliedHalfOpen),
    ] {
        let (client, pod) = (([198, 51, 100, 9], 40_000u16.to_be_bytes()), ([10, 244, 1, 1], 8080u16.to_be_bytes()));
        let mut tables = sample::tables();
        tables.v4.sockets.insert((NETNS_HOST, V4::flow_key(client, pod)), proof);
        let run = |hook, packet: &str| Ok::<_, anyhow::Error>(host::run(&tables, hook, &Spec::parse(packet)?.build()));
        run(Hook::Xdp, "tcp 198.51.100.9:40000 203.0.113.1:80 S")?;
        run(Hook::Pod, "tcp 10.244.1.1:8080 198.51.100.9:40000 SA ack 1001")?;
        let outcome = run(Hook::Pod, &format!("tcp 10.244.1.1:8080 198.51.100.9:40000 {packet}"))?;
        assert_eq!(outcome.reason, Some(expected), "{packet}, {proof:?}");
        let flow = Tables::<V4>::flow(&tables, FlowTable::Tcp, &V4::flow_key(client, pod));
        assert_eq!(flow.is_some_and(|flow| flow.is_unseen()), expected == Reason::RepliedAdmitted);
    }
    Ok(())
}

fn is_forwarded(outcome: &Outcome) -> bool {
    outcome.reason.is_some_and(|reason| reason.disposition() == Disposition::Forward)
}

fn for_random_packets(mut check: impl FnMut(&MemoryTables, Hook, &[u8])) {
    let (mut random, tables) = (Random::new(seed()), sample::tables());
    for number in 0..PACKETS {
        if number % 100 == 0 {
            flows::set(&tables, &generate::flows(&mut random, &tables));
            tables.stages.borrow_mut().clear();
        }
        let hook = random.pick(&Hook::ALL);
        check(&tables, hook, &generate::packet(&mut random, hook));
    }
}

/// What becomes of a packet of 198.51.100.9:40000 whose tuple the kernels of these pods know so.
fn with_proofs(packet: &str, proofs: [(u8, Proof); 2]) -> Result<Outcome> {
    let client = ([198, 51, 100, 9], 40_000u16.to_be_bytes());
    let mut tables = sample::tables();
    for (pod, proof) in proofs {
        let key = V4::flow_key(client, ([10, 244, 1, pod], 8080u16.to_be_bytes()));
        tables.v4.sockets.insert((NETNS_HOST, key), proof);
    }
    Ok(host::run(&tables, Hook::Xdp, &Spec::parse(packet)?.build()))
}

#[test]
fn a_flood_of_unknown_packets_hides_no_owner_that_was_found_before() -> Result<()> {
    let mut tables = with_budgets()?;
    assert_eq!(owner_for(&tables, "198.51.100.9:40000", "A")?, Some(Reason::RememberedOwner));
    for _ in 1..SEARCHES_PER_S {
        assert_eq!(owner_for(&tables, "198.51.100.7:40000", "A")?, Some(Reason::UnprovenOwner));
    }
    assert_eq!(owner_for(&tables, "198.51.100.7:40000", "A")?, Some(Reason::UnsearchedOwner));
    assert_eq!(owner_for(&tables, "198.51.100.9:40000", "A")?, Some(Reason::RememberedOwner), "it is pinned");
    tables.now_ns += 1_000_000_000;
    assert_eq!(owner_for(&tables, "198.51.100.7:40000", "A")?, Some(Reason::UnprovenOwner));
    Ok(())
}

#[test]
fn a_flood_of_syns_searches_within_its_own_budget() -> Result<()> {
    let tables = with_budgets()?;
    for _ in 0..SEARCHES_PER_S {
        assert_eq!(owner_for(&tables, "198.51.100.7:40000", "S")?, Some(Reason::UnprovenOwner));
    }
    let left = owner_for(&tables, "198.51.100.9:40000", "S")?;
    assert_eq!(left, Some(Reason::UnprovenOwner), "no search is left for SYNs");
    let others = owner_for(&tables, "198.51.100.9:40000", "A")?;
    assert_eq!(others, Some(Reason::RememberedOwner), "others have their own");
    Ok(())
}

/// Tables with budgets. VIP .22 forgot pod 6, whose sockets nobody sees, and which has a flow of client .9.
fn with_budgets() -> Result<MemoryTables> {
    let mut tables = sample::tables();
    tables.now_ns = 1_000_000_000;
    tables.budgets = Some(Default::default());
    let flow = "flow 198.51.100.9:40000 10.244.1.6:8080 vip 203.0.113.22:80";
    flows::set(&tables, &[rows::flow(flow, &tables)?].into());
    Ok(tables)
}

/// By which reason a packet to that VIP has an owner.
fn owner_for(tables: &MemoryTables, client: &str, flags: &str) -> Result<Option<Reason>> {
    let frame = Spec::parse(&format!("tcp {client} 203.0.113.22:80 {flags}"))?.build();
    Ok(host::run(tables, Hook::Xdp, &frame).reason)
}
