//! The same over IPv6, with the messages of neighbour discovery (RFC 4861).

use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;

use anyhow::Result;
use xlb_common::Reason;
use xlb_tests::kernel::frame::ICMP_V6;
use xlb_tests::kernel::headers::transport_sum;
use xlb_tests::lab::Version;

use crate::scene::{Door, Scene};
use crate::untouched::{Traffic, check_bytes};

/// What the router sends to the node. C: the client, P: a pod, V: the VIP, N: the node, O: a VIP of nobody.
const FROM_ROUTER: [&str; 25] = [
    "udp C:5000 P:8080 data 40",
    "udp C:5001 P:8080 data 40 extension 60",
    "udp C:5002 P:8080 data 40 extension 0",
    "udp C:5003 P:8080 data 64 more",
    "udp C:5003 P:8080 data 64 offset 9",
    "tcp C:5004 P:8080 A ack 1 data 10",
    "tcp C:5005 P:7 S",
    "icmp C:0 P:0",
    "udp C:5006 O:9999 data 40 ttl 3",
    "udp C:5006 O:9999 data 40 extension 60 ttl 3",
    "tcp C:5007 O:9999 S ttl 3",
    "udp C:5008 O:80 data 40 routing 0 1 ttl 3",
    "udp C:5009 O:9999 data 64 more ttl 3",
    "udp C:5009 O:9999 data 64 offset 9 ttl 3",
    "udp C:5010 V:9999 data 40 vlan 5",
    "udp C:5010 V:80 data 40 type 88b5",
    "udp C:5010 V:80 data 40 version 5",
    "udp C:5011 O:80 data 40 ttl 3",
    "udp C:5012 N:80 data 40",
    "udp C:5012 N:80 data 64 more",
    "tcp C:5013 N:80 S",
    "tcp C:5013 N:8080 A ack 1 extension 60",
    "icmp C:0 N:0",
    "icmp C:0 N:0 ttl 1",
    "icmp C:0 N:0 extension 0",
];

/// What a pod sends of its own accord, some of it from the port where it serves.
const FROM_POD: [&str; 8] = [
    "udp P:8080 C:6000 data 40",
    "udp P:6001 C:6001 data 40",
    "udp P:8080 C:6002 data 40 extension 60",
    "udp P:8080 C:6003 data 64 more",
    "udp P:8080 C:6003 data 64 offset 9",
    "tcp P:8080 C:6004 SA ack 5",
    "tcp P:8080 C:6005 A ack 5 data 10",
    "icmp P:0 C:0",
];

const IPV6_TRAFFIC: Traffic = Traffic {
    version: Version::V6,
    from_router: &FROM_ROUTER,
    from_pod: &FROM_POD,
    asking,
    is_comparable,
    without_chance,
    passed: &[Reason::NotOurs, Reason::ExtensionHeaders, Reason::FragmentEarly, Reason::Icmp],
};

/// The address that asks for the node's MAC, and has no other business.
const ASKING: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x200, 0, 0, 0, 0, 3);
/// A router that announces itself.
const ANNOUNCING: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// Errors are limited in rate, so they differ from run to run (RFC 4443 chapter 2.4).
const ERROR_TYPES: Range<u8> = 1..128;

const ETHERNET_TYPE: Range<usize> = 12..14;
const IPV6: [u8; 2] = [0x86, 0xdd];
const NEXT_HEADER: usize = 20;
const ENDS: [Range<usize>; 2] = [22..38, 38..54];
const MESSAGE_TYPE: usize = 54;
/// A kernel's own has its target in it; what the lists call `icmp` ends before that.
const SOLICITATION_END: usize = MESSAGE_TYPE + 24;

#[test]
fn other_ipv6_traffic_passes_byte_for_byte_by_tc() -> Result<()> {
    check_bytes(&IPV6_TRAFFIC, Door::Tc)
}

#[test]
fn other_ipv6_traffic_passes_byte_for_byte_by_generic_xdp() -> Result<()> {
    check_bytes(&IPV6_TRAFFIC, Door::XdpGeneric)
}

#[test]
fn other_ipv6_traffic_passes_byte_for_byte_by_native_xdp() -> Result<()> {
    check_bytes(&IPV6_TRAFFIC, Door::XdpNative)
}

/// A neighbour solicitation for the node's address, which it answers, and a router advertisement.
fn asking(scene: &Scene) -> Result<Vec<Vec<u8>>> {
    let uplink = scene.lab.uplink(0);
    let (mac, node) = (scene.lab.router().link_address(&uplink.router_device)?, uplink.node_address_v6);
    let [.., a, b, c] = node.octets();
    let solicited = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    // The source link-layer address is an option of type 1 and one unit.
    let solicitation = [&[NEIGHBOUR_SOLICITATION][..], &[0; 7], &node.octets(), &[1, 1], &mac].concat();
    let advertisement = [&[ROUTER_ADVERTISEMENT][..], &[0; 15], &[1, 1], &mac].concat();
    Ok(vec![message(mac, [ASKING, solicited], solicitation), message(mac, [ANNOUNCING, ALL_NODES], advertisement)])
}

/// To a multicast address, with the hop limit that shows that no router forwarded it.
fn message(from: [u8; 6], ends: [Ipv6Addr; 2], mut message: Vec<u8>) -> Vec<u8> {
    let sum = transport_sum(ends.map(IpAddr::from), ICMP_V6, &message);
    message[2..4].copy_from_slice(&sum);
    let [source, destination] = ends.map(|end| end.octets());
    let header = [0x60, 0, 0, 0, 0, message.len() as u8, ICMP_V6, 255];
    [&[0x33, 0x33], &destination[12..], &from, &IPV6, &header, &source, &destination, &message].concat()
}

/// Packets from and to the client, the question and its answer, and the advertisement. What else is said of neighbours comes
/// when kernels think of it.
fn is_comparable(scene: &Scene, bytes: &[u8]) -> bool {
    let client = scene.lab.client_address_in(Version::V6, 0);
    let is_at = |end: usize, address: IpAddr| match (bytes.get(ENDS[end].clone()), address) {
        (Some(bytes), IpAddr::V6(address)) => bytes == address.octets(),
        _ => false,
    };
    let kind = bytes.get(MESSAGE_TYPE).copied().unwrap_or_default();
    let is_message = bytes.get(ETHERNET_TYPE) == Some(&IPV6) && bytes.get(NEXT_HEADER) == Some(&ICMP_V6);
    match kind {
        _ if !is_message => is_at(0, client) || is_at(1, client),
        NEIGHBOUR_SOLICITATION => is_at(0, ASKING.into()) || bytes.len() < SOLICITATION_END,
        NEIGHBOUR_ADVERTISEMENT => is_at(1, ASKING.into()),
        ROUTER_ADVERTISEMENT => is_at(0, ANNOUNCING.into()),
        REDIRECT => false,
        _ => !ERROR_TYPES.contains(&kind) && (is_at(0, client) || is_at(1, client)),
    }
}

/// Kernels give the packets that they make a flow label by chance; [`xlb_tests::kernel::frame::Spec`] gives none.
fn without_chance(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes[ETHERNET_TYPE] == IPV6 {
        bytes[15] &= 0xf0;
        bytes[16..18].fill(0);
    }
    bytes
}
