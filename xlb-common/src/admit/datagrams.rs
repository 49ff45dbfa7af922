//! The same for UDP, whose flows nobody accepts: the rules 3, 9 and 15.

use bytemuck::cast;

use super::{is_same_frontend, refresh_at};
use crate::abi::{FlowEntry, flow_flags};
use crate::family::Family;
use crate::reason::Reason;
use crate::tables::{FlowTable, Tables};

/// Rule 3 for datagrams. True if the flow is new; a way out if the client's port has a flow with another frontend, or is
/// another flow's with this pod. Each of the two entries is compared by itself, rather than the newer one of both: a SYN
/// takes 97 ns so and 105 otherwise, although it does not come here.
#[inline(always)]
pub fn note_datagram<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, entry: &FlowEntry) -> Result<bool, Reason> {
    match tables.flow_at(FlowTable::UdpPending, key) {
        Some(known) => note_known(tables, key, entry, (FlowTable::UdpPending, &known)),
        None => match tables.flow_at(FlowTable::Udp, key) {
            Some(known) => note_known(tables, key, entry, (FlowTable::Udp, &known)),
            None => {
                tables.remember(FlowTable::UdpPending, key, entry);
                Ok(true)
            }
        },
    }
}

/// The same for what is known in a table. Of a flow that goes the same way only the time is written, and seldom.
#[inline(always)]
fn note_known<F: Family, T: Tables<F>>(
    tables: &T,
    key: &F::FlowKey,
    entry: &FlowEntry,
    (table, known): (FlowTable, &FlowEntry),
) -> Result<bool, Reason> {
    if !is_same_frontend(known, entry) {
        return Err(Reason::OtherFrontend);
    }
    if !is_same_way(known, entry) {
        tables.remember(FlowTable::UdpPending, key, entry);
    } else {
        if table == FlowTable::UdpPending && known.flags & flow_flags::ADMITTED == 0 {
            admit_datagrams(tables, key, known);
        }
        if known.last_seen != entry.last_seen {
            tables.change(table, key, |known| known.last_seen = entry.last_seen);
        }
    }
    Ok(!is_of_same_service(known, entry) || known.backend != entry.backend)
}

/// Whether both are flows of one service, and not of one and of another that has its id now.
#[inline(always)]
fn is_of_same_service(known: &FlowEntry, new: &FlowEntry) -> bool {
    (known.service ^ new.service) | u32::from(known.generation ^ new.generation) == 0
}

/// Whether a reply by either entry would take the same way, and count alike.
#[inline(always)]
fn is_same_way(known: &FlowEntry, new: &FlowEntry) -> bool {
    let mac = |[a, b, c, d, e, f]: [u8; 6]| u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]);
    let numbers = |entry: &FlowEntry| u64::from(entry.service) << 32 | u64::from(entry.ingress_ifindex);
    let flags = |entry: &FlowEntry| u64::from(entry.flags & flow_flags::STACK) << 32;
    let backend = |entry: &FlowEntry| u64::from(entry.generation) << 16 | u64::from(entry.backend) | flags(entry);
    let difference = (numbers(known) ^ numbers(new))
        | (backend(known) ^ backend(new))
        | (mac(known.next_hop_mac) ^ mac(new.next_hop_mac))
        | (mac(known.uplink_mac) ^ mac(new.uplink_mac))
        | (cast::<_, u64>(known.tags) ^ cast::<_, u64>(new.tags));
    is_same_frontend(known, new) && difference == 0
}

/// UDP: the first answer marks the flow, and the next one admits it, unless a datagram of the client did (rule 15): what somebody sends in
/// many names comes once from each, and is answered once. Of a flow that is admitted, the client's newest datagram decides which way
/// answers take.
#[inline(always)]
pub(super) fn udp_reply<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey) -> Option<(T::Flow, Reason)> {
    let Some(newest) = tables.flow_at(FlowTable::UdpPending, key) else {
        let known = tables.flow_at(FlowTable::Udp, key)?;
        refresh_at(tables, FlowTable::Udp, key, known.last_seen);
        return Some((known, Reason::Replied));
    };
    refresh_at(tables, FlowTable::UdpPending, key, newest.last_seen);
    let reason = match tables.flow_at(FlowTable::Udp, key) {
        Some(known) if is_same_way(&known, &newest) => Reason::Replied,
        Some(_) => {
            tables.remember(FlowTable::Udp, key, &newest);
            Reason::Replied
        }
        None if newest.flags & flow_flags::ANSWERED != 0 => {
            admit_datagrams(tables, key, &newest);
            Reason::RepliedAdmitted
        }
        None => {
            tables.change(FlowTable::UdpPending, key, |entry| entry.flags |= flow_flags::ANSWERED);
            Reason::RepliedHalfOpen
        }
    };
    Some((newest, reason))
}

/// Rule 15: one of both sides has spoken again.
#[inline(always)]
fn admit_datagrams<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, entry: &FlowEntry) {
    tables.remember(FlowTable::Udp, key, entry);
    tables.change(FlowTable::UdpPending, key, |entry| entry.flags |= flow_flags::ADMITTED);
}

/// The entry written last: an answered flow's is a copy of a pending one, so what is pending is never older.
#[inline(always)]
pub fn newest_udp<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey) -> Option<T::Flow> {
    tables.flow_at(FlowTable::UdpPending, key).or_else(|| tables.flow_at(FlowTable::Udp, key))
}
