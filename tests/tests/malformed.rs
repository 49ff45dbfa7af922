//! Malformed packets in ordinary memory: around each row, what holds for every packet holds for the row's packet cut
//! anywhere and with any byte bent.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use xlb_common::abi::{SCTP, TCP};
use xlb_common::memory::MemoryTables;
use xlb_common::{Disposition, Reason};
use xlb_tests::kernel::bent::{cut, with_each_byte_bent};
use xlb_tests::kernel::describe::describe;
use xlb_tests::kernel::frame::frame;
use xlb_tests::kernel::headers::Layout;
use xlb_tests::kernel::icmp::all_sums;
use xlb_tests::kernel::outcome::{Hook, Outcome};
use xlb_tests::kernel::pieces::is_fragment;
use xlb_tests::kernel::properties::{Properties, check_answer};
use xlb_tests::kernel::random::{Random, seed};
use xlb_tests::kernel::rows::{self, Row};
use xlb_tests::kernel::{flows, generate, host, sample};

/// What the sweeps are to reach at least: half of what they do now.
const CUT_MIN: usize = 50_000;
const BENT_MIN: usize = 300_000;
const PACKETS: usize = 50_000;
/// How many of these come out by each reason that tells of a malformed packet.
const OF_EACH_MIN: usize = 20;

#[test]
fn what_holds_for_every_packet_holds_for_every_row() -> Result<()> {
    let tables = sample::tables();
    let properties = Properties::of(&tables);
    rows::check_each(&tables, |row, hook| {
        check(&tables, &properties, row, hook, &row.frame)?;
        Ok(())
    })
}

#[test]
fn a_packet_cut_anywhere_is_served_whole_or_left_as_it_is() -> Result<()> {
    let tables = sample::tables();
    let properties = Properties::of(&tables);
    let mut packets = 0;
    rows::check_each(&tables, |row, hook| {
        for cut in cut(&row.frame) {
            let outcome = check(&tables, &properties, row, hook, &cut)?;
            let is_served = outcome.reason.is_some_and(|reason| reason.disposition() != Disposition::Pass);
            ensure!(!is_served || has_its_headers(&cut), "{} bytes of it came out as {outcome:?}", cut.len());
            packets += 1;
        }
        Ok(())
    })?;
    ensure!(packets > CUT_MIN, "only {packets} packets were cut");
    Ok(())
}

/// A packet that is dropped had them, too, as had one that is refused.
fn has_its_headers(frame: &[u8]) -> bool {
    let Some(layout) = Layout::of(frame).filter(|_| !is_fragment(frame)) else { return is_fragment(frame) };
    let header = match frame[layout.protocol_at] {
        TCP => 20,
        SCTP => 16,
        _ => 8,
    };
    frame.len() >= layout.transport_at + header
}

#[test]
fn a_packet_with_any_byte_of_its_headers_bent_is_served_whole_or_left_as_it_is() -> Result<()> {
    let tables = sample::tables();
    let properties = Properties::of(&tables);
    let mut packets = 0;
    rows::check_each(&tables, |row, hook| {
        for bent in with_each_byte_bent(&row.frame) {
            check(&tables, &properties, row, hook, &bent)?;
            packets += 1;
        }
        Ok(())
    })?;
    ensure!(packets > BENT_MIN, "only {packets} packets were bent");
    Ok(())
}

#[test]
fn what_holds_for_every_packet_holds_for_random_ones() -> Result<()> {
    let (mut random, tables) = (Random::new(seed()), sample::tables());
    let properties = Properties::of(&tables);
    let (mut answers, mut reasons) = (0, BTreeMap::<Reason, usize>::new());
    for number in 0..PACKETS {
        if number % 100 == 0 {
            flows::set(&tables, &generate::flows(&mut random, &tables));
            tables.settings.set(generate::settings(&mut random));
            tables.stages.borrow_mut().clear();
        }
        let hook = random.pick(&Hook::ALL);
        let frame = generate::packet(&mut random, hook);
        let (outcome, is_answered) = check_one(&tables, &properties, hook, &frame)?;
        answers += usize::from(is_answered);
        outcome.reason.into_iter().for_each(|reason| *reasons.entry(reason).or_default() += 1);
    }
    ensure!(answers > PACKETS / 20, "only {answers} answers");
    let rare = MALFORMED.iter().find(|reason| reasons.get(reason).is_none_or(|&packets| packets < OF_EACH_MIN));
    ensure!(rare.is_none(), "the generator has lost its aim: {rare:?} of {reasons:?}");
    Ok(())
}

/// What random packets have to come out as, among others.
const MALFORMED: [Reason; 14] = [
    Reason::Malformed,
    Reason::Truncated,
    Reason::IpOptions,
    Reason::ExtensionHeaders,
    Reason::Fragment,
    Reason::FragmentEarly,
    Reason::Sctp,
    Reason::ErrorCutShort,
    Reason::ErrorOfFragment,
    Reason::ErrorOfOptions,
    Reason::ErrorNotOurs,
    Reason::ErrorDelivered,
    Reason::ErrorReplied,
    Reason::OtherProtocol,
];

/// Byte by byte, up to the whole quote: less than the ports is none of ours, and of the rest each byte is the pod's.
#[test]
fn an_error_may_quote_any_number_of_bytes() -> Result<()> {
    let tables = sample::tables();
    for (version, client, router, vip, pod) in [
        (4, "198.51.100.9:", "198.51.100.77:0", "203.0.113.1:", "10.244.1.1:"),
        (6, "[2001:db8:100::9]:", "[2001:db8:100::77]:0", "[2001:db8:113::1]:", "[fd00:244:1::1]:"),
    ] {
        for (protocol, port, pod_port, sum_at) in [("tcp", 80, 8080, 16), ("udp", 53, 5353, 6)] {
            let header = if version == 4 { 20 } else { 40 };
            for bytes in 0..=header + 30 {
                let error = |to: &str, hops: &str, port: u16| {
                    let quote = format!("{protocol} {to}{port} {client}40000 data 22 ttl 60 cut {bytes}");
                    frame(&format!("icmp {router} {to}0{hops} too-big quotes {quote}"))
                };
                let sent = error(vip, "", port)?;
                flows::set(&tables, &flows::Flows::new());
                let outcome = host::run(&tables, Hook::Xdp, &sent);
                let expected = match bytes {
                    _ if bytes < header + 4 => (Reason::ErrorCutShort, sent),
                    // Half a sum does not follow.
                    _ if bytes == header + sum_at + 1 => continue,
                    _ => (Reason::ErrorDelivered, error(pod, " ttl 63 from host1 to pod1", pod_port)?),
                };
                let got = (outcome.reason, &outcome.frame);
                ensure!(got == (Some(expected.0), &expected.1), "{bytes} bytes of {protocol}: {outcome:02x?}");
            }
        }
    }
    Ok(())
}

/// Behind the packet the frame goes on with what would make the quote's sum right.
#[test]
fn a_quote_ends_with_its_packet() -> Result<()> {
    let tables = sample::tables();
    let properties = Properties::of(&tables);
    let whole = "icmp [2001:db8:100::77]:0 [2001:db8:113::1]:0 too-big quotes udp [2001:db8:113::1]:53 [2001:db8:100::9]:40000 data 0";
    for behind in 0..=4 {
        let mut sent = frame(whole)?;
        let payload_length = u16::from_be_bytes([sent[18], sent[19]]) - behind;
        sent[18..20].copy_from_slice(&payload_length.to_be_bytes());
        flows::set(&tables, &flows::Flows::new());
        let (outcome, _) = check_one(&tables, &properties, Hook::Xdp, &sent)?;
        ensure!(outcome.reason == Some(Reason::ErrorDelivered), "{behind} bytes: {outcome:?}");
        let [was, is] = [&sent, &outcome.frame].map(|frame| all_sums(frame));
        ensure!(was == is, "{behind} bytes: its sums were {was:?} and are {is:?}");
    }
    Ok(())
}

/// Where the row's packet would be, with the flows that it would meet.
fn check(tables: &MemoryTables, properties: &Properties, row: &Row, hook: Hook, frame: &[u8]) -> Result<Outcome> {
    row.prepare(tables, hook);
    tables.stages.borrow_mut().clear();
    Ok(check_one(tables, properties, hook, frame)?.0)
}

/// The outcome, and whether it was answered.
fn check_one(tables: &MemoryTables, properties: &Properties, hook: Hook, frame: &[u8]) -> Result<(Outcome, bool)> {
    let outcome = host::run(tables, hook, frame);
    let what = || format!("{}, {frame:02x?}, came out as {outcome:02x?}", describe(frame));
    properties.check(tables, hook, frame, &outcome).with_context(what)?;
    let is_answered = check_answer(tables, hook, frame, &outcome).with_context(what)?;
    Ok((outcome, is_answered))
}
