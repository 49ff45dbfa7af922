//! Facts about clients at links, over packets and tables in memory.

use std::collections::BTreeSet;

use super::{Job, Link, look, look_back, restore, serve};
use crate::abi::{Inside, TCP, UDP, inside_flags};
use crate::checksum::Sum;
use crate::family::{Family, V4};
use crate::inside::Peer;
use crate::links::{errors, fragments};
use crate::memory::MemoryTables;
use crate::packet::BytePacket;
use crate::reason::Reason;

const SERVICE: u32 = 7;
const BASE: u32 = 100;
const VIP: Peer<V4> = ([203, 0, 113, 10], [0, 80]);
const OTHER_VIP: Peer<V4> = ([203, 0, 113, 11], [0, 80]);
const CLIENT: Peer<V4> = ([10, 1, 0, 1], [0x9c, 0x40]);
const LINK: u32 = 12;
const SYN: u8 = 2;
const ACK: u8 = 16;

#[test]
fn a_packet_that_is_for_no_service_is_nobodys_and_as_it_was() {
    let tables = tables(3, Inside::default());
    for (protocol, to) in [(TCP, (VIP.0, [0, 81])), (TCP, ([203, 0, 113, 12], VIP.1)), (UDP, endpoint(2))] {
        let mut frame = packet(protocol, SYN, CLIENT, to);
        let before = frame.clone();
        assert_eq!(look(&BytePacket(&mut frame), &tables), None);
        assert_eq!(serve(&mut BytePacket(&mut frame), &tables, link(0)), None);
        assert_eq!(restore(&mut BytePacket(&mut frame), &tables), None);
        assert_eq!(frame, before);
    }
    assert!(tables.links.flows.borrow().is_empty() && tables.links.clients.borrow().is_empty());
}

#[test]
fn each_packet_goes_to_the_program_for_it() {
    let tables = tables(3, Inside::default());
    let looked = |mut frame: Vec<u8>| {
        let packet = BytePacket(&mut frame);
        (look(&packet, &tables), look_back(&packet))
    };
    let whole = packet(UDP, 0, CLIENT, VIP);
    assert_eq!(looked(whole.clone()), (Some(Job::Serve), Some(Job::Restore)));
    assert_eq!(looked(whole[..14].to_vec()), (None, None), "it ends inside its headers");
    assert_eq!(looked(fragment(&whole, 0, 0, true)), (Some(Job::ServeFragment), Some(Job::RestoreFragment)));
    let error = error_about(CLIENT.0, VIP.0, &packet(UDP, 0, VIP, CLIENT));
    assert_eq!(looked(error), (Some(Job::ServeError), Some(Job::RestoreError)));
    let mut other = whole;
    other[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(looked(other), (None, None), "ARP");
}

#[test]
fn a_round_trip_gives_the_client_back_what_it_sent_to() {
    for protocol in [TCP, UDP] {
        let tables = tables(3, Inside::default());
        let mut frame = packet(protocol, SYN, CLIENT, VIP);
        assert_eq!(serve(&mut BytePacket(&mut frame), &tables, link(0)), Some(Reason::LinkServed));
        assert_eq!(frame, packet(protocol, SYN, CLIENT, endpoint(0)), "as if it had been sent there, sums included");
        let mut answer = packet(protocol, SYN | ACK, endpoint(0), CLIENT);
        assert_eq!(restore(&mut BytePacket(&mut answer), &tables), Some(Reason::LinkReplied));
        assert_eq!(answer, packet(protocol, SYN | ACK, VIP, CLIENT));
        let mut next = packet(protocol, ACK, CLIENT, VIP);
        assert_eq!(serve(&mut BytePacket(&mut next), &tables, link(u32::MAX)), Some(Reason::LinkFollowed));
        assert_eq!(next, packet(protocol, ACK, CLIENT, endpoint(0)));
        assert_eq!(tables.links.clients.borrow().iter().collect::<Vec<_>>(), [&LINK]);
        assert_eq!(tables.service_stats.borrow()[&(SERVICE as u16)].inside_flows, 1);
    }
}

#[test]
fn only_answers_of_the_flow_become_the_vips() {
    let tables = tables(3, Inside::default());
    sent(&tables, TCP, SYN, CLIENT, VIP, 0);
    let (other_port, other_client) = ((CLIENT.0, [1, 1]), ([10, 1, 0, 9], CLIENT.1));
    for (protocol, from, to) in [
        (UDP, endpoint(0), CLIENT),
        (TCP, endpoint(1), CLIENT),
        (TCP, endpoint(0), other_port),
        (TCP, endpoint(0), other_client),
        (TCP, CLIENT, endpoint(0)),
    ] {
        let mut frame = packet(protocol, ACK, from, to);
        assert_eq!(restore(&mut BytePacket(&mut frame), &tables), None, "{from:?} to {to:?}");
        assert_eq!(frame, packet(protocol, ACK, from, to));
    }
}

#[test]
fn new_flows_reach_every_usable_endpoint_but_the_client_itself() {
    for count in [2, 3, 200] {
        let tables = tables(count, Inside { lingering: 1, ..Inside::default() });
        let client = endpoint(1).0;
        let flows = (0..4_096_u32).map(|n| {
            let (reason, to) = sent(&tables, UDP, 0, (client, [(n >> 8) as u8 | 0x40, n as u8]), VIP, n << 20 | n);
            assert_eq!(reason, Some(Reason::LinkServed));
            to
        });
        let reached: BTreeSet<_> = flows.collect();
        assert_eq!(reached, (0..count).filter(|&n| n != 1).map(endpoint).collect(), "{count} endpoints");
    }
}

#[test]
fn who_is_the_only_endpoint_is_left_to_the_stack() {
    let tables = tables(1, Inside::default());
    for protocol in [TCP, UDP] {
        let client = (endpoint(0).0, CLIENT.1);
        assert_eq!(sent(&tables, protocol, SYN, client, VIP, 9), (Some(Reason::LinkHairpin), VIP));
    }
    assert!(tables.links.flows.borrow().is_empty());
}

#[test]
fn a_segment_of_no_known_connection_is_left_to_the_stack() {
    let tables = tables(2, Inside::default());
    for flags in [ACK, SYN | ACK, ACK | 1, 4] {
        assert_eq!(sent(&tables, TCP, flags, CLIENT, VIP, 0), (Some(Reason::LinkUnknown), VIP));
    }
    assert!(tables.links.flows.borrow().is_empty());
}

#[test]
fn a_connection_never_moves_and_datagrams_do_when_their_endpoint_is_gone() {
    let mut tables = tables(2, Inside::default());
    for protocol in [TCP, UDP] {
        assert_eq!(sent(&tables, protocol, SYN, CLIENT, VIP, 0).1, endpoint(0));
    }
    // Endpoint 0 lingers behind the usable ones, then it is gone.
    *service(&mut tables, TCP) = Inside { endpoints_base: BASE + 1, endpoints: 1, ..*service(&mut tables, TCP) };
    let lingering = Inside { endpoints_base: 300, endpoints: 1, lingering: 1, ..*service(&mut tables, UDP) };
    *service(&mut tables, UDP) = lingering;
    tables.v4.endpoints.insert(300, key(endpoint(1), UDP));
    tables.v4.endpoints.insert(301, key(endpoint(0), UDP));
    assert_eq!(sent(&tables, TCP, ACK, CLIENT, VIP, 0), (Some(Reason::LinkFollowed), endpoint(0)));
    assert_eq!(sent(&tables, UDP, 0, CLIENT, VIP, 0), (Some(Reason::LinkFollowed), endpoint(0)));
    service(&mut tables, UDP).lingering = 0;
    assert_eq!(sent(&tables, UDP, 0, CLIENT, VIP, 0), (Some(Reason::LinkServed), endpoint(1)));
    assert_eq!(sent(&tables, TCP, SYN, CLIENT, VIP, 0), (Some(Reason::LinkServed), endpoint(1)), "a new connection");
}

#[test]
fn a_repeated_syn_goes_where_the_first_one_went() {
    let tables = tables(200, Inside::default());
    let (_, first) = sent(&tables, TCP, SYN, CLIENT, VIP, 0);
    for n in 1..200_u32 {
        assert_eq!(sent(&tables, TCP, SYN, CLIENT, VIP, n << 24), (Some(Reason::LinkFollowed), first));
    }
}

#[test]
fn a_port_that_has_a_flow_with_an_endpoint_through_another_vip_gets_another_endpoint() {
    let tables = tables(2, Inside::default());
    let (_, first) = sent(&tables, TCP, SYN, CLIENT, VIP, 0);
    let (reason, second) = sent(&tables, TCP, SYN, CLIENT, OTHER_VIP, 0);
    assert_eq!((reason, first, second), (Some(Reason::LinkServed), endpoint(0), endpoint(1)));
    for (from, vip) in [(endpoint(0), VIP), (endpoint(1), OTHER_VIP)] {
        let mut answer = packet(TCP, ACK, from, CLIENT);
        restore(&mut BytePacket(&mut answer), &tables);
        assert_eq!(answer, packet(TCP, ACK, vip, CLIENT));
    }
}

#[test]
fn source_ranges_are_for_what_is_new() {
    let mut tables = tables(2, Inside::default());
    sent(&tables, TCP, SYN, CLIENT, VIP, 0);
    sent(&tables, UDP, SYN, CLIENT, VIP, 0);
    for protocol in [TCP, UDP] {
        service(&mut tables, protocol).flags = inside_flags::SOURCE_RANGES;
    }
    assert_eq!(sent(&tables, TCP, ACK, CLIENT, VIP, 0).0, Some(Reason::LinkFollowed));
    assert_eq!(sent(&tables, UDP, 0, CLIENT, VIP, 0).0, Some(Reason::LinkFollowed));
    assert_eq!(sent(&tables, TCP, SYN, CLIENT, VIP, 0), (Some(Reason::LinkNotAllowed), VIP), "also by the same port");
    assert_eq!(sent(&tables, UDP, 0, (CLIENT.0, [1, 1]), VIP, 0).0, Some(Reason::LinkNotAllowed));
    tables.v4.source_ranges.insert((SERVICE, V4::to_stored(CLIENT.0), 24));
    assert_eq!(sent(&tables, UDP, 0, (CLIENT.0, [1, 1]), VIP, 0).0, Some(Reason::LinkServed));
}

#[test]
fn clients_that_get_the_local_set_are_dropped_where_that_is_empty() {
    let local = Inside { flags: inside_flags::LOCAL_FOR_PODS, ..Inside::default() };
    assert_eq!(sent(&tables(2, local), TCP, SYN, CLIENT, VIP, 0), (Some(Reason::LinkNotLocal), VIP));
    let tables = tables(3, Inside { local: 1, ..local });
    assert_eq!(sent(&tables, TCP, SYN, CLIENT, VIP, 0), (Some(Reason::LinkServed), endpoint(2)));
}

#[test]
fn without_an_endpoint_the_client_is_answered_from_the_vip() {
    let tables = tables(0, Inside::default());
    let mut frame = packet(TCP, SYN, CLIENT, VIP);
    assert_eq!(serve(&mut BytePacket(&mut frame), &tables, link(0)), Some(Reason::LinkRejected));
    assert_eq!((&frame[26..30], &frame[30..34]), (&VIP.0[..], &CLIENT.0[..]));
    assert_eq!(frame[34..36], [3, 3], "port unreachable");
    assert_eq!(frame[42..62], packet(TCP, SYN, CLIENT, VIP)[14..34], "about the packet as it was sent");
}

#[test]
fn a_client_returns_to_its_endpoint_while_its_affinity_lasts() {
    let mut tables = tables(200, Inside { affinity_s: 10, ..Inside::default() });
    let from = |n: u8| (CLIENT.0, [0x40, n]);
    let (_, first) = sent(&tables, TCP, SYN, from(0), VIP, 0);
    assert_eq!(sent(&tables, UDP, 0, from(1), VIP, u32::MAX), (Some(Reason::LinkAffine), first));
    tables.now_ns = 10_000_000_000;
    assert_eq!(sent(&tables, TCP, SYN, from(2), VIP, u32::MAX), (Some(Reason::LinkAffine), first));
    tables.now_ns = 20_000_000_001;
    assert_eq!(sent(&tables, TCP, SYN, from(3), VIP, u32::MAX), (Some(Reason::LinkServed), endpoint(199)));
    let other = ([10, 1, 0, 77], [0x40, 1]);
    assert_eq!(sent(&tables, TCP, SYN, other, VIP, 1 << 31).0, Some(Reason::LinkServed));
    service(&mut tables, TCP).endpoints = 100;
    assert_eq!(
        sent(&tables, TCP, SYN, from(4), VIP, 0),
        (Some(Reason::LinkServed), endpoint(0)),
        "its endpoint is gone"
    );
}

#[test]
fn an_error_becomes_one_about_the_packet_that_its_receiver_sent() {
    let tables = tables(1, Inside::default());
    sent(&tables, UDP, 0, CLIENT, VIP, 0);
    let (router, endpoint) = ([192, 0, 2, 1], endpoint(0));
    for (by, seen) in [(router, router), (endpoint.0, VIP.0)] {
        let mut frame = error_about(by, CLIENT.0, &packet(UDP, 0, CLIENT, endpoint));
        assert_eq!(errors::restore(&mut BytePacket(&mut frame), &tables), Some(Reason::LinkError));
        assert_eq!(frame, error_about(seen, CLIENT.0, &packet(UDP, 0, CLIENT, VIP)));
    }
    let mut frame = error_about(CLIENT.0, VIP.0, &packet(UDP, 0, VIP, CLIENT));
    assert_eq!(errors::serve(&mut BytePacket(&mut frame), &tables), Some(Reason::LinkError));
    assert_eq!(frame, error_about(CLIENT.0, endpoint.0, &packet(UDP, 0, endpoint, CLIENT)));

    let of_others = error_about(router, CLIENT.0, &packet(UDP, 0, CLIENT, (endpoint.0, [9, 9])));
    let bent = error_about(router, [10, 1, 0, 2], &packet(UDP, 0, CLIENT, endpoint));
    for frame in [of_others, bent] {
        let mut after = frame.clone();
        assert_eq!(errors::restore(&mut BytePacket(&mut after), &tables), None);
        assert_eq!(errors::serve(&mut BytePacket(&mut after), &tables), None);
        assert_eq!(after, frame);
    }
}

#[test]
fn fragments_follow_the_first_one_both_ways() {
    let tables = tables(1, Inside::default());
    let endpoint = endpoint(0);
    let served = |frame: Vec<u8>| {
        let mut frame = frame;
        (fragments::serve(&mut BytePacket(&mut frame), &tables, link(0)), frame)
    };
    let (to_vip, to_endpoint) = (packet(UDP, 0, CLIENT, VIP), packet(UDP, 0, CLIENT, endpoint));
    let early = fragment(&to_vip, 1, 16, false);
    assert_eq!(served(early.clone()), (None, early), "one before the first is left as it is");
    assert_eq!(served(fragment(&to_vip, 1, 0, true)), (Some(Reason::LinkServed), fragment(&to_endpoint, 1, 0, true)));
    let later = |frame: &[u8]| fragment(frame, 1, 16, false);
    assert_eq!(served(later(&to_vip)), (Some(Reason::LinkFollowed), later(&to_endpoint)));
    assert_eq!(served(fragment(&to_vip, 2, 16, false)).0, None, "of another datagram");

    let restored = |frame: Vec<u8>| {
        let mut frame = frame;
        (fragments::restore(&mut BytePacket(&mut frame), &tables), frame)
    };
    let (answer, of_vip) = (packet(UDP, 0, endpoint, CLIENT), packet(UDP, 0, VIP, CLIENT));
    assert_eq!(restored(fragment(&answer, 3, 0, true)), (Some(Reason::LinkReplied), fragment(&of_vip, 3, 0, true)));
    assert_eq!(restored(fragment(&answer, 3, 16, false)), (Some(Reason::LinkReplied), fragment(&of_vip, 3, 16, false)));
    let of_nobody = fragment(&packet(UDP, 0, endpoint, (CLIENT.0, [1, 1])), 4, 0, true);
    assert_eq!(restored(of_nobody.clone()), (None, of_nobody));
    assert_eq!(tables.v4.fragments.borrow().len(), 2, "nobody else's fragments take room");
}

#[test]
fn no_packet_however_it_ends_is_changed_without_a_reason() {
    let tables = tables(3, Inside::default());
    sent(&tables, UDP, 0, CLIENT, VIP, 0);
    for whole in
        [packet(UDP, 0, CLIENT, VIP), packet(TCP, SYN, CLIENT, VIP), fragment(&packet(UDP, 0, CLIENT, VIP), 5, 0, true)]
    {
        for length in 0..whole.len() {
            let cut = whole[..length].to_vec();
            let mut frame = cut.clone();
            let reasons = [
                serve(&mut BytePacket(&mut frame), &tables, link(0)),
                restore(&mut BytePacket(&mut frame), &tables),
                errors::serve(&mut BytePacket(&mut frame), &tables),
                errors::restore(&mut BytePacket(&mut frame), &tables),
                fragments::serve(&mut BytePacket(&mut frame), &tables, link(0)),
                fragments::restore(&mut BytePacket(&mut frame), &tables),
            ];
            assert!(frame == cut || reasons.iter().any(Option::is_some), "{length} bytes: {reasons:?}");
        }
    }
}

fn link(random: u32) -> Link {
    Link { ifindex: LINK, random }
}

/// What becomes of a packet, and where it goes then.
fn sent(
    tables: &MemoryTables,
    protocol: u8,
    flags: u8,
    from: Peer<V4>,
    to: Peer<V4>,
    random: u32,
) -> (Option<Reason>, Peer<V4>) {
    let mut frame = packet(protocol, flags, from, to);
    let reason = serve(&mut BytePacket(&mut frame), tables, link(random));
    let [a, b, c, d] = [frame[30], frame[31], frame[32], frame[33]];
    let to = ([a, b, c, d], [frame[36], frame[37]]);
    assert_eq!(frame, packet(protocol, flags, from, to), "nothing but the destination has changed");
    (reason, to)
}

fn endpoint(number: u32) -> Peer<V4> {
    ([10, 2, (number >> 8) as u8, number as u8], [0x1f, 0x90])
}

fn key(peer: Peer<V4>, protocol: u8) -> <V4 as Family>::EndpointKey {
    V4::endpoint_key(peer.0, peer.1, protocol)
}

fn service(tables: &mut MemoryTables, protocol: u8) -> &mut Inside {
    tables.v4.inside.get_mut(&key(VIP, protocol)).unwrap()
}

/// A service of two VIPs and both protocols with so many endpoints, of which the last ones linger or are local, if it says so.
fn tables(count: u32, service: Inside) -> MemoryTables {
    let mut tables = MemoryTables::default();
    let local = service.local;
    let usable = if service.lingering > 0 { count } else { count - local };
    let service = Inside { service: SERVICE, endpoints_base: BASE, endpoints: usable, ..service };
    for protocol in [TCP, UDP] {
        for vip in [VIP, OTHER_VIP] {
            tables.v4.inside.insert(key(vip, protocol), service);
        }
    }
    tables.v4.endpoints.extend((0..count + service.lingering).map(|n| (BASE + n, key(endpoint(n), TCP))));
    tables
}

/// A frame with right sums.
fn packet(protocol: u8, flags: u8, from: Peer<V4>, to: Peer<V4>) -> Vec<u8> {
    let mut transport = [from.1, to.1].concat();
    match protocol {
        TCP => transport.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]),
        _ => transport.extend([0, 24, 0, 0]),
    }
    transport.extend(*b"sixteen bytes...");
    let length = (transport.len() as u16).to_be_bytes();
    let pseudo_header = Sum::of(from.0).and(to.0).and([0, protocol]).and(length);
    let sum = sum_of(pseudo_header, &transport);
    let at = if protocol == TCP { 16 } else { 6 };
    transport[at..at + 2].copy_from_slice(&sum);
    frame_of(protocol, from.0, to.0, 0, &transport)
}

fn sum_of(begin: Sum, bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| [word[0], word.get(1).copied().unwrap_or(0)]);
    words.fold(begin, |sum, word| sum.and(word)).checksum()
}

fn frame_of(protocol: u8, from: [u8; 4], to: [u8; 4], place: u16, payload: &[u8]) -> Vec<u8> {
    let ethernet = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let [l0, l1] = (20 + payload.len() as u16).to_be_bytes();
    let [p0, p1] = place.to_be_bytes();
    let mut header = vec![0x45, 0, l0, l1, 0, 0, p0, p1, 64, protocol, 0, 0];
    header.extend(from);
    header.extend(to);
    let sum = sum_of(Sum::default(), &header);
    header[10..12].copy_from_slice(&sum);
    [&ethernet, &header[..], payload].concat()
}

/// A part of a frame's payload, from `offset` on, as a fragment of that datagram.
fn fragment(frame: &[u8], identification: u8, offset: u16, has_more: bool) -> Vec<u8> {
    let payload = &frame[34..];
    let payload = if has_more { &payload[usize::from(offset)..16] } else { &payload[usize::from(offset)..] };
    let address = |at: usize| [frame[at], frame[at + 1], frame[at + 2], frame[at + 3]];
    let place = (offset / 8) | if has_more { 0x2000 } else { 0 };
    let mut part = frame_of(frame[23], address(26), address(30), place, payload);
    part[19] = identification;
    part[24..26].copy_from_slice(&[0, 0]);
    let sum = sum_of(Sum::default(), &part[14..34]);
    part[24..26].copy_from_slice(&sum);
    part
}

/// "Port unreachable", which quotes all of the frame's packet.
fn error_about(from: [u8; 4], to: [u8; 4], frame: &[u8]) -> Vec<u8> {
    let mut message = vec![3, 3, 0, 0, 0, 0, 0, 0];
    message.extend(&frame[14..]);
    let sum = sum_of(Sum::default(), &message);
    message[2..4].copy_from_slice(&sum);
    frame_of(V4::ICMP, from, to, 0, &message)
}
