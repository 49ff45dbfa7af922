//! A reply, with its transport header, as its pod sent it: by the flow's entry it becomes the VIP's.

use core::num::NonZeroU32;

use crate::abi::{FlowEntry, Tags, Way};
use crate::admit::find_reply;
use crate::family::{End, Family, HeaderChange};
use crate::packet::Packet;
use crate::parse::Parsed;
use crate::path::Delivery;
use crate::reason::Reason;
use crate::rewrite::{Ports, readdress, readdress_frame};
use crate::sctp;
use crate::stats::count_reply;
use crate::tables::Tables;
use crate::way;

/// A reply with its transport header: straight to the uplink, or after the host's stack.
#[inline(never)]
pub fn reply<F: Family, P: Packet, T: Tables<F>, const IS_DIRECT: bool, const WANTED: u8>(
    packet: &mut P,
    tables: &T,
) -> Result<Delivery, Reason> {
    let parsed = F::parse::<P, WANTED>(packet)?;
    let (entry, reason) = find_reply(tables, &parsed)?;
    send::<F, P, T, IS_DIRECT>(packet, tables, &parsed, &entry, reason)
}

/// Sends what the entry makes a reply.
#[inline(always)]
pub(crate) fn send<F: Family, P: Packet, T: Tables<F>, const IS_DIRECT: bool>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed<F>,
    entry: &FlowEntry,
    reason: Reason,
) -> Result<Delivery, Reason> {
    if IS_DIRECT {
        send_directly(packet, tables, parsed, entry, reason)
    } else {
        send_after_stack(packet, tables, parsed, entry, reason)
    }
}

/// Straight to the uplink that the entry names.
#[inline(always)]
fn send_directly<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed<F>,
    entry: &FlowEntry,
    reason: Reason,
) -> Result<Delivery, Reason> {
    if entry.is_stack() {
        return Err(Reason::ReplyLeftToStack);
    }
    if parsed.hops <= 1 {
        return Err(Reason::ReplyTtlExpired);
    }
    let way = way::way_of::<F, T>(tables, entry)?;
    if !packet.fits(way.ifindex) {
        return Err(if F::may_be_cut(packet) { Reason::ReplyNotCut } else { Reason::ReplyTooBig });
    }
    readdress_frame(packet, way.next_hop_mac, way.uplink_mac).ok_or(Reason::Truncated)?;
    restore(packet, parsed, entry, true).ok_or(Reason::Truncated)?;
    count_reply::<F, P, T>(tables, packet, entry);
    to_uplink(packet, way, entry.tags, reason)
}

/// After the host's stack, if the entry is one of its flows.
#[inline(always)]
fn send_after_stack<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    parsed: &Parsed<F>,
    entry: &FlowEntry,
    reason: Reason,
) -> Result<Delivery, Reason> {
    if !entry.is_stack() {
        return Err(Reason::NotAReply);
    }
    restore(packet, parsed, entry, false).ok_or(Reason::Truncated)?;
    count_reply::<F, P, T>(tables, packet, entry);
    after_stack::<F, P, T>(packet, tables, entry, reason)
}

/// What has become a reply after the host's stack leaves by the uplink that its connection came by, whatever the host's
/// routes chose. The program at that uplink's egress sees it once more, as a packet that is none of a pod.
#[inline(always)]
pub(crate) fn after_stack<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    entry: &FlowEntry,
    reason: Reason,
) -> Result<Delivery, Reason> {
    let mut way = Way::of(entry);
    if !way::is_elsewhere::<F, P, T>(packet, tables, &mut way) {
        return Ok(Delivery { to: None, reason });
    }
    readdress_frame(packet, way.next_hop_mac, way.uplink_mac).ok_or(Reason::Truncated)?;
    to_uplink(packet, way, entry.tags, reason)
}

/// The packet goes where its connection came from, with the VLAN tags that it came with. These are the last change: they move
/// the packet's headers.
#[inline(always)]
pub(crate) fn to_uplink<P: Packet>(packet: &mut P, way: Way, tags: Tags, reason: Reason) -> Result<Delivery, Reason> {
    if !tags.is_none() && packet.tag(tags).is_none() {
        return Err(Reason::TagsNotMoved);
    }
    Ok(Delivery { to: NonZeroU32::new(way.ifindex), reason })
}

/// The packet becomes the VIP's, and goes to the client's own port.
#[inline(always)]
fn restore<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    entry: &FlowEntry,
    counts_hop: bool,
) -> Option<()> {
    let change = HeaderChange { end: End::Source, address: F::from_stored(entry.vip), counts_hop };
    readdress(packet, parsed, change, Ports { of_end: entry.vip_port, of_other: entry.client_port })?;
    if parsed.transport.is_sctp() { sctp::follow::<F, P>(packet, parsed.ports()) } else { Some(()) }
}
