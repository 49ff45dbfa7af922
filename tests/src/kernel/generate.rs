//! Random packets toward the sample's VIPs and away from its pods: mostly valid, often bent.

use std::net::SocketAddr;

use xlb_common::abi::{FlowEntry, SCTP, Settings, TCP, UDP, flow_flags};
use xlb_common::memory::MemoryTables;
use xlb_common::twin::PROBES;

use super::flows::{FlowKey, Flows};
use super::frame::{Echo, Extension, ICMP, ICMP_V6, OTHER_MAC, Spec, tag};
use super::icmp::{KINDS, Message};
use super::lies;
use super::outcome::Hook;
use super::random::Random;
use super::rows::{AGO, IDLE};
use super::sample::{
    PODS, PORTS, ROUTER_2_MAC, ROUTER_MAC, UPLINKS, VIPS, Version, client_address, flow_entry, pod_address, vip_address,
};
use super::twins::twin_of;

/// Few clients, so that packets of one flow meet.
const CLIENTS: usize = 12;
/// Flows that packets may meet, of the 1 800 that there could be.
const FLOWS_MAX: usize = 1_300;
/// Bytes of a header that a bent packet may have wrong.
const HEADER_BYTES: usize = 80;
/// The same of an error, with what it quotes.
const ERROR_BYTES: usize = 140;
/// Quotes are cut in front of that: behind it is only data.
const QUOTE_BYTES: usize = 80;
/// A test-run takes frames up to a page less headroom; this is above any header and below that.
const DATA_MAX: usize = 3_000;

/// A packet for one of the hooks.
pub fn packet(random: &mut Random, hook: Hook) -> Vec<u8> {
    let is_ingress = hook.is_ingress() != random.one_in(12);
    let version = random.pick(&Version::ALL);
    let mut spec = if is_ingress { toward_vip(random, version) } else { from_pod(random, version) };
    if random.one_in(24) {
        spec.protocol = if version == Version::V4 { ICMP } else { ICMP_V6 };
        spec.echo = Some(random.pick(&[Echo::Request, Echo::Request, Echo::Request, Echo::Reply]));
    }
    if random.one_in(5) {
        spec = error_about(random, &mut spec, is_ingress, version);
    }
    vary(random, &mut spec);
    let mut frame = spec.build();
    if random.one_in(6) {
        bend(random, &mut frame, if spec.message.is_some() { ERROR_BYTES } else { HEADER_BYTES });
    }
    frame
}

/// An error about the answer to a client's packet, on its way to the VIP; or about what the answer answers, by the pod or
/// by the node.
fn error_about(random: &mut Random, answered: &mut Spec, is_ingress: bool, version: Version) -> Spec {
    vary(random, answered);
    let quote = Spec {
        source: answered.destination,
        destination: answered.source,
        tags: Vec::new(),
        frame_length: None,
        ..answered.clone()
    };
    let routers = [client(random, version), SocketAddr::new(client_address(version, 77), 0)];
    let reporter = if is_ingress || random.one_in(3) { random.pick(&routers) } else { answered.source };
    let to = if random.one_in(20) { random.pick(&routers) } else { quote.source };
    let is_cut = random.one_in(3);
    let keep = is_cut.then(|| random.below(QUOTE_BYTES));
    let message = Message { kind: random.below(KINDS.len()), quote: Box::new(quote), keep };
    let protocol = if version == Version::V4 { ICMP } else { ICMP_V6 };
    Spec { message: Some(message), ..Spec::new(protocol, reporter, to) }
}

/// What the operator may have chosen.
pub fn settings(random: &mut Random) -> Settings {
    let unowned =
        random.pick(&[Settings::NONE, Settings::NONE.with_unowned_dropped(), Settings::NONE.with_unowned_rejected()]);
    let echo = if random.one_in(3) { unowned } else { unowned.with_echo() };
    if random.one_in(3) { echo.with_tcp_reset() } else { echo }
}

/// Entries that earlier packets could have left.
pub fn flows(random: &mut Random, tables: &MemoryTables) -> Flows {
    (0..random.below(FLOWS_MAX)).filter_map(|_| flow(random, tables)).collect()
}

/// One entry; none if the pod does not exist in that.
pub fn flow(random: &mut Random, tables: &MemoryTables) -> Option<((u8, FlowKey), FlowEntry)> {
    let (table, version) = (random.below(2 * PORTS.len()) as u8, random.pick(&Version::ALL));
    let (protocol, vip_port, pod_port) = PORTS[usize::from(table / 2)];
    let pod = pod_address(version, 1 + random.below(usize::from(PODS)) as u8);
    let mut key = FlowKey::between(client(random, version), SocketAddr::new(pod, pod_port)).ok()?;
    let vip = SocketAddr::new(vip_address(version, random.pick(&VIPS)), vip_port);
    let mut entry = flow_entry(tables, vip, protocol, &key)?;
    if protocol == UDP && random.one_in(3) {
        let [client, pod] = key.ends();
        key = FlowKey::between(twin_of(client, vip, random.below(PROBES as usize)).ok()?, pod).ok()?;
        entry.client_port = client.port().to_be_bytes();
    }
    entry.last_seen = random.pick(&[AGO, AGO, AGO, IDLE]);
    entry.flags = random.below(8) as u16 & !(flow_flags::STACK * u16::from(random.one_in(2)));
    entry.flags |= flow_flags::SUPERSEDED * u16::from(random.one_in(8));
    entry.flags |= flow_flags::ANSWERED * u16::from(random.one_in(4));
    entry.flags |= flow_flags::ADMITTED * u16::from(random.one_in(2));
    entry.syn_ack_acknowledged = acknowledged(random);
    entry.syn_ack_number = random.pick(&[0, 1_000, 1_001]);
    if random.one_in(8) {
        entry.ingress_ifindex = random.pick(&UPLINKS);
        entry.next_hop_mac = random.pick(&[ROUTER_MAC, ROUTER_2_MAC]);
    }
    Some(((table, key), entry))
}

fn toward_vip(random: &mut Random, version: Version) -> Spec {
    let (protocol, port, _) = random.pick(&PORTS);
    let last = if random.one_in(20) { 99 } else { random.pick(&VIPS) };
    let port = if random.one_in(20) { 81 } else { port };
    let mut spec = Spec::new(protocol, client(random, version), (vip_address(version, last), port));
    spec.flags = random.pick(&[0x02, 0x02, 0x10, 0x10, 0x18, 0x11, 0x04, 0x12, 0xc2, 0x00]);
    spec
}

fn from_pod(random: &mut Random, version: Version) -> Spec {
    let (protocol, _, port) = random.pick(&PORTS);
    let pod = 1 + random.below(usize::from(PODS) + 1) as u8;
    let mut to = client(random, version);
    if protocol == UDP && random.one_in(6) {
        let vip = SocketAddr::new(vip_address(version, random.pick(&VIPS)), PORTS[1].1);
        to = twin_of(to, vip, random.below(2)).unwrap_or(to);
    }
    let mut spec = Spec::new(protocol, (pod_address(version, pod), port), to);
    spec.flags = random.pick(&[0x12, 0x12, 0x10, 0x10, 0x18, 0x11, 0x14, 0x04, 0x02, 0x00]);
    spec
}

fn client(random: &mut Random, version: Version) -> SocketAddr {
    let number = random.below(CLIENTS) as u8;
    SocketAddr::new(client_address(version, number / 2), 40_000 + u16::from(number))
}

fn acknowledged(random: &mut Random) -> u32 {
    1_000 + random.below(2) as u32
}

/// What a packet may rightly be.
fn vary(random: &mut Random, spec: &mut Spec) {
    spec.acknowledged = acknowledged(random);
    spec.ttl = random.pick(&[64, 64, 64, 255, 3, 2, 1, 0]);
    spec.data = random.pick(&[0, 0, 0, 1, 2, 7, 100, DATA_MAX]);
    spec.no_sum = matches!(spec.protocol, UDP | SCTP) && random.one_in(8);
    vary_chunk(random, spec);
    spec.options.1 = usize::from(spec.protocol == TCP && random.one_in(4)) * random.below(11);
    if spec.data >= 2 && random.one_in(6) {
        let any = random.bits() as u16 | 1;
        spec.wanted_sum = Some(random.pick(&[0xffff, 0x0001, 0xfffe, any]));
    }
    if matches!(spec.protocol, TCP | UDP) || random.one_in(4) {
        shape(random, spec);
    }
    match random.below(60) {
        1 => spec.fragment = random.pick(&[0x2000, 0x2001, 0x0001, 0x1fff, 0x8000]),
        2 => spec.fragment = 0x4000,
        3 => spec.to = OTHER_MAC,
        4 => spec.to = [0xff; 6],
        5 => spec.from = OTHER_MAC,
        7 => spec.ether_type = random.pick(&[0x0806, 0x86dd, 0x88cc, 0x0000]),
        8 => spec.protocol = random.pick(&[ICMP, ICMP_V6, 47, 50, 136]),
        9 => spec.frame_length = Some(spec.build().len().max(60) + 20),
        _ => {}
    }
    if random.one_in(8) {
        lies::tell(random, spec);
    }
}

/// Mostly what opens, carries and ends an association.
fn vary_chunk(random: &mut Random, spec: &mut Spec) {
    let any = random.below(16) as u8;
    spec.chunk = random.pick(&[0, 1, 1, 2, 10, 11, any, any]);
    if spec.protocol == SCTP && random.one_in(24) {
        spec.lies.chunk_length = Some(random.pick(&[0, 3, 4, 5, 100, 0xffff]));
    }
}

/// Tags, options and extension headers, also such as are too many, or not to be followed.
fn shape(random: &mut Random, spec: &mut Spec) {
    if random.one_in(10) {
        let tags = 1 + random.below(2) + usize::from(random.one_in(8));
        spec.tags = (0..tags).map(|_| tag(random.pick(&["vlan", "provider"]), random.bits() as u16)).collect();
    }
    if random.one_in(10) {
        spec.ip_options = random.pick(&OPTIONS).to_vec();
        spec.options.0 = random.below(11 - spec.ip_options.len().div_ceil(4));
        let kinds = [0, 60, 60, 60, 43, 51, 44];
        let extension = |random: &mut Random| Extension {
            kind: random.pick(&kinds),
            units: random.pick(&[0, 0, 1, 5, 12]),
            route: [random.pick(&[0, 2, 4]), u8::from(random.one_in(4))],
            ..Extension::new(0)
        };
        spec.extensions = (0..=random.below(3)).map(|_| extension(random)).collect();
        if random.one_in(8) {
            spec.extensions =
                vec![Extension { units: random.pick(&[0, 0, 4]), ..Extension::new(60) }; 5 + random.below(4)];
        }
    }
}

/// Nothing, record route, a time stamp, a router alert, an end, two source routes, and a length that lies.
const OPTIONS: [&[u8]; 8] = [
    &[],
    &[7, 7, 4, 0, 0, 0, 0],
    &[68, 8, 5, 0, 0, 0, 0, 0],
    &[148, 4, 0, 0],
    &[1, 0, 131],
    &[131, 7, 4, 10, 0, 0, 1],
    &[137, 7, 4, 10, 0, 0, 1],
    &[7, 60, 4],
];

/// What a packet must not be.
fn bend(random: &mut Random, frame: &mut Vec<u8>, header_bytes: usize) {
    match random.below(3) {
        0 => frame.truncate(14 + random.below(frame.len().min(header_bytes + 40) - 14)),
        1 => {
            for _ in 0..=random.below(3) {
                let at = random.below(frame.len().min(header_bytes));
                frame[at] = random.bits() as u8;
            }
        }
        _ => {
            // IP version and header length, total and payload length, next header, TCP header length by family.
            let at = random.pick(&[14, 16, 17, 18, 19, 20, 46, 66]);
            if let Some(byte) = frame.get_mut(at) {
                *byte = random.pick(&[0, 6, 17, 0x40, 0x44, 0x45, 0x46, 0x50, 0x60, 0xff]);
            }
        }
    }
}
