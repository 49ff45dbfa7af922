//! The path in ordinary memory: every row, and facts that hold for random packets. Needs neither root nor a kernel.

use anyhow::{Result, ensure};
use xlb_common::abi::{TCP, UDP};
use xlb_common::memory::MemoryTables;
use xlb_common::packet::{BytePacket, Packet as _};
use xlb_common::parse::tcp_flags;
use xlb_common::path::{self, Arrival, Door};
use xlb_common::{Disposition, Reason};
use xlb_tests::kernel::describe::{Sums, describe, sums};
use xlb_tests::kernel::outcome::{Hook, Verdict};
use xlb_tests::kernel::random::{Random, seed};
use xlb_tests::kernel::{generate, host, rows, sample};

const PACKETS: usize = 50_000;

#[test]
fn every_row_holds_on_the_host() -> Result<()> {
    let tables = sample::tables();
    rows::check_each(&tables, |row, hook| {
        *tables.flows.borrow_mut() = row.given.clone();
        let outcome = host::run(&tables, hook, &row.frame);
        row.check(&outcome, &tables.flows.borrow())
    })
}

#[test]
fn every_reason_of_a_packet_has_a_row() -> Result<()> {
    let tables = sample::tables();
    let rows = rows::all(&tables)?;
    let without: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| reason.direction() != xlb_common::reason::Direction::Socket && **reason != Reason::ProvenOwner)
        .filter(|&&reason| !rows.iter().any(|row| row.reason == reason))
        .collect();
    ensure!(without.is_empty(), "no row comes out as {without:?}");
    Ok(())
}

#[test]
fn a_packet_that_is_not_served_keeps_its_bytes() {
    for_random_packets(|tables, hook, frame| {
        let outcome = host::run(tables, hook, frame);
        let is_served = outcome.reason.is_some_and(|reason| reason.disposition() == Disposition::Forward);
        assert!(is_served || outcome.frame == frame, "{hook:?} changed\n{frame:02x?}\nto\n{:02x?}", outcome.frame);
    });
}

#[test]
fn a_served_packet_has_right_sums_if_it_came_with_them() {
    let mut served = 0;
    for_random_packets(|tables, hook, frame| {
        let outcome = host::run(tables, hook, frame);
        if outcome.frame != frame && sums(frame) == Some(Sums { ip: true, transport: true }) {
            served += 1;
            assert_eq!(sums(&outcome.frame), sums(frame), "{hook:?}: {}", describe(&outcome.frame));
        }
    });
    assert!(served > PACKETS / 10, "only {served} of {PACKETS} packets were served");
}

#[test]
fn nothing_is_written_behind_the_headers() {
    for_random_packets(|tables, hook, frame| {
        let outcome = host::run(tables, hook, frame);
        assert_eq!(outcome.frame.len(), frame.len());
        let payload = 54.min(frame.len())..;
        assert_eq!(outcome.frame[payload.clone()], frame[payload]);
    });
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
    let text = "tcp 198.51.100.9:40000 203.0.113.1:80 S";
    let frame = xlb_tests::kernel::frame::Spec::parse(text).unwrap().build();
    for length in 0..frame.len() {
        let mut cut = frame[..length].to_vec();
        let arrival = Arrival { door: Door::Xdp, ifindex: sample::UPLINK };
        let verdict = path::ingress(&mut BytePacket(&mut cut), &tables, arrival);
        assert_eq!((verdict.err(), &cut[..]), (Some(Reason::Truncated), &frame[..length]));
    }
}

/// The client sends, the pod answers by swapping the ends of what it got, and the client gets the VIP's answer.
#[test]
fn an_answer_comes_from_where_the_client_sent_to() {
    let mut answers = 0;
    for_random_packets(|tables, hook, frame| {
        let got = host::run(tables, hook, frame);
        let is_served = got.reason.is_some_and(|reason| reason.disposition() == Disposition::Forward);
        if !hook.is_ingress() || !is_served || !leaves_a_flow(frame) {
            return;
        }
        let back_at = if got.verdict == Verdict::Redirect { Hook::Pod } else { Hook::Egress };
        let back = host::run(tables, back_at, &answer_to(&got.frame));
        assert_eq!(
            ends(&back.frame),
            ends(&swapped(frame)),
            "{}\nanswered by\n{}",
            describe(frame),
            describe(&back.frame)
        );
        answers += 1;
    });
    assert!(answers > PACKETS / 20, "only {answers} answers");
}

fn for_random_packets(mut check: impl FnMut(&MemoryTables, Hook, &[u8])) {
    let (mut random, tables) = (Random::new(seed()), sample::tables());
    for number in 0..PACKETS {
        if number % 100 == 0 {
            *tables.flows.borrow_mut() = generate::flows(&mut random, &tables);
            tables.stages.borrow_mut().clear();
        }
        let hook = random.pick(&Hook::ALL);
        check(&tables, hook, &generate::packet(&mut random, hook));
    }
}

/// A SYN or a datagram.
fn leaves_a_flow(frame: &[u8]) -> bool {
    frame[23] == UDP || frame[47] & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN
}

/// What a pod answers: a SYN-ACK or a datagram, with a fresh TTL.
fn answer_to(frame: &[u8]) -> Vec<u8> {
    let mut answer = swapped(frame);
    answer[22] = 64;
    if answer[23] == TCP {
        answer[47] = tcp_flags::SYN | tcp_flags::ACK;
    }
    answer
}

/// The packet with its addresses and ports exchanged.
fn swapped(frame: &[u8]) -> Vec<u8> {
    [&frame[..26], &frame[30..34], &frame[26..30], &frame[36..38], &frame[34..36], &frame[38..]].concat()
}

fn ends(frame: &[u8]) -> &[u8] {
    &frame[26..38]
}
