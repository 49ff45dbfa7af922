//! The bytes that stand for a case: a hook, flows, the packets before, and the packet as it is. Whatever the bytes are, they
//! stand for one.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the hook |
//! | 1 | how many flows |
//! | 23 each | a flow |
//! | 1 | how many packets come before |
//! | 2 and its length, each | such a packet |
//! | the rest | the packet |

use std::net::{IpAddr, SocketAddr};

use xlb_common::abi::{FlowEntry, Tags, flow_flags};
use xlb_common::memory::MemoryTables;

use crate::case::Case;
use crate::kernel::flows::FlowKey;
use crate::kernel::generate;
use crate::kernel::outcome::Hook;
use crate::kernel::random::Random;
use crate::kernel::sample::{PORTS, Version, client_address, flow_entry, pod_address, vip_address};

const FLOWS_MAX: usize = 3;
const BEFORE_MAX: usize = 3;
/// Longer frames only have more data.
const FRAME_MAX: usize = 2_000;
/// XDP and tc get no frame without an Ethernet header.
const FRAME_MIN: usize = 14;
/// The byte of a MAC by which the sample tells them apart.
const MAC_AT: usize = 5;

/// A flow as bytes.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Record {
    table: u8,
    version: u8,
    pod: u8,
    vip: u8,
    client: u8,
    /// Last byte of the next hop's MAC.
    next_hop: u8,
    client_port: [u8; 2],
    flags: u8,
    acknowledged: [u8; 4],
    number: [u8; 2],
    tags: [u8; 8],
}
const RECORD: usize = size_of::<Record>();
/// Flags that a flow may have.
const FLAGS: u16 = flow_flags::STACK
    | flow_flags::SYN_ACK_SEEN
    | flow_flags::CLOSED
    | flow_flags::SUPERSEDED
    | flow_flags::UNSEEN
    | flow_flags::POD_FIN
    | flow_flags::ANSWERED
    | flow_flags::ADMITTED;

/// The case that the bytes stand for.
#[must_use]
pub fn case_of(bytes: &[u8], tables: &MemoryTables) -> Case {
    let mut rest = bytes;
    let hook = Hook::ALL[usize::from(byte(&mut rest)) % Hook::ALL.len()];
    let flows = usize::from(byte(&mut rest)) % (FLOWS_MAX + 1);
    let given = (0..flows).filter_map(|_| flow_of(take(&mut rest, RECORD), tables)).collect();
    let before = usize::from(byte(&mut rest)) % (BEFORE_MAX + 1);
    let mut frames: Vec<&[u8]> = (0..before).map(|_| sized(&mut rest)).collect();
    frames.push(rest);
    let frames = frames.into_iter().map(|frame| {
        let mut frame = frame[..frame.len().min(FRAME_MAX)].to_vec();
        frame.resize(frame.len().max(FRAME_MIN), 0);
        frame
    });
    Case { hook, given, frames: frames.collect() }
}

/// The bytes that stand for a case; none: it is larger than that, or has other addresses than the sample's.
#[must_use]
pub fn bytes_of(case: &Case, tables: &MemoryTables) -> Option<Vec<u8>> {
    let hook = Hook::ALL.iter().position(|hook| *hook == case.hook)?;
    let mut bytes = vec![hook as u8, case.given.len() as u8];
    for ((table, key), entry) in &case.given {
        bytes.extend(bytemuck::bytes_of(&record_of(*table, key, entry)));
    }
    let (frame, before) = case.frames.split_last()?;
    bytes.push(before.len() as u8);
    for frame in before {
        bytes.extend((frame.len() as u16).to_le_bytes());
        bytes.extend(frame);
    }
    bytes.extend(frame);
    (case_of(&bytes, tables) == *case).then_some(bytes)
}

/// The case that the random generator of the tests makes if these bytes are its choices.
#[must_use]
pub fn case_by_choices(bytes: &[u8], tables: &MemoryTables) -> Case {
    let mut random = Random::chosen(bytes);
    let hook = random.pick(&Hook::ALL);
    let flows = random.below(FLOWS_MAX + 1);
    let given = (0..flows).filter_map(|_| generate::flow(&mut random, tables)).collect();
    let frames = (0..=random.below(BEFORE_MAX + 1)).map(|_| generate::packet(&mut random, hook)).collect();
    Case { hook, given, frames }
}

fn flow_of(bytes: &[u8], tables: &MemoryTables) -> Option<((u8, FlowKey), FlowEntry)> {
    let record: Record = bytemuck::pod_read_unaligned(bytes);
    let table = record.table % (2 * PORTS.len() as u8);
    let (protocol, vip_port, pod_port) = PORTS[usize::from(table / 2)];
    let version = Version::ALL[usize::from(record.version) % Version::ALL.len()];
    let client = SocketAddr::new(client_address(version, record.client), u16::from_be_bytes(record.client_port));
    let key = FlowKey::between(client, SocketAddr::new(pod_address(version, record.pod), pod_port)).ok()?;
    let vip = SocketAddr::new(vip_address(version, record.vip), vip_port);
    let mut entry = flow_entry(tables, vip, protocol, &key)?;
    entry.flags = u16::from(record.flags) & FLAGS;
    entry.next_hop_mac[MAC_AT] = record.next_hop;
    entry.syn_ack_acknowledged = u32::from_be_bytes(record.acknowledged);
    entry.syn_ack_number = u16::from_be_bytes(record.number);
    entry.tags = lawful(bytemuck::cast(record.tags));
    Some(((table, key), entry))
}

/// Tags are remembered from packets: an outer one is a tag, and an inner one is behind it.
fn lawful(tags: Tags) -> Tags {
    let is_tag = |tag: [u8; 4]| matches!(tag, [0x81, 0x00, ..] | [0x88, 0xa8, ..]);
    match (is_tag(tags.outer), is_tag(tags.inner)) {
        (false, _) => Tags::NONE,
        (true, false) => Tags { inner: [0; 4], ..tags },
        (true, true) => tags,
    }
}

fn record_of(table: u8, key: &FlowKey, entry: &FlowEntry) -> Record {
    let [client, pod] = key.ends();
    let last = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => last_of_v6(address),
    };
    let vip = if client.is_ipv4() { entry.vip[3] } else { last_of_v6(entry.vip.into()) };
    Record {
        table,
        version: u8::from(client.is_ipv6()),
        pod: last(pod.ip()),
        vip,
        client: last(client.ip()),
        next_hop: entry.next_hop_mac[MAC_AT],
        client_port: client.port().to_be_bytes(),
        flags: entry.flags as u8,
        acknowledged: entry.syn_ack_acknowledged.to_be_bytes(),
        number: entry.syn_ack_number.to_be_bytes(),
        tags: bytemuck::cast(entry.tags),
    }
}

/// The sample's addresses look alike in both families: `::77` beside `.77`.
fn last_of_v6(address: std::net::Ipv6Addr) -> u8 {
    let [.., last] = address.segments();
    format!("{last:x}").parse().unwrap_or(0)
}

fn byte(rest: &mut &[u8]) -> u8 {
    take(rest, 1)[0]
}

fn sized<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let [low, high] = [byte(rest), byte(rest)];
    let (frame, behind) = rest.split_at(usize::from(u16::from_le_bytes([low, high])).min(rest.len()));
    *rest = behind;
    frame
}

/// So many bytes; zeros, if there are fewer.
fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    const ZEROS: [u8; RECORD] = [0; RECORD];
    match rest.split_at_checked(length) {
        Some((bytes, behind)) => {
            *rest = behind;
            bytes
        }
        None => {
            *rest = &[];
            &ZEROS[..length]
        }
    }
}
