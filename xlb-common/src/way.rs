//! The way back: the uplink and the next hop that a flow's client came by. They may change while the flow lasts: a router
//! takes another's place, an uplink fails, or is made anew.
//!
//! | what is told of an uplink | a client's packet | a reply |
//! |---|---|---|
//! | nothing, which is usual | - | by the flow's entry |
//! | [`uplink_flags::FOLLOW`] | the flow's entry becomes what the packet came by ([`follow`]) | by the flow's entry |
//! | [`uplink_flags::MOVED`] | - | as `WAYS` says for the entry's next hop, else for its uplink, else by the entry ([`way_of`]) |
//!
//! So a client that speaks corrects its flow's entry, and until it speaks the agent's knowledge has to do. In normal times
//! no packet of a connection pays for it more than a look at the uplink's flags.

use crate::abi::{FlowEntry, Way, WayKey, uplink_flags};
use crate::family::Family;
use crate::packet::Packet;
use crate::parse::Parsed;
use crate::path::Arrival;
use crate::reason::Reason;
use crate::select::{Pick, backend_of};
use crate::tables::{FlowTable, Tables};

/// Lets a flow's entry follow its client's packet, which does not open the flow. Without an entry nothing is learnt: any
/// packet of a client may be one that somebody else made up.
#[inline(never)]
pub fn follow<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, pick: Pick, arrival: &Arrival) {
    let Ok(backend) = backend_of(tables, &pick) else { return };
    let key = F::flow_key(parsed.source.pair(), (F::from_stored(backend.address), backend.port));
    let (accepted, pending) = if parsed.transport.is_sctp() {
        (FlowTable::Sctp, FlowTable::SctpPending)
    } else {
        (FlowTable::Tcp, FlowTable::TcpPending)
    };
    if !correct(tables, accepted, &key, parsed, arrival) {
        correct(tables, pending, &key, parsed, arrival);
    }
}

/// Whether the table has the flow.
#[inline(always)]
fn correct<F: Family, T: Tables<F>>(
    tables: &T,
    table: FlowTable,
    key: &F::FlowKey,
    parsed: &Parsed<F>,
    arrival: &Arrival,
) -> bool {
    let Some(mut entry) = tables.flow(table, key) else { return false };
    let is_same_way = entry.ingress_ifindex == arrival.ifindex
        && entry.next_hop_mac == parsed.macs.source
        && entry.uplink_mac == parsed.macs.destination
        && entry.tags == arrival.tags;
    if !is_same_way {
        entry.ingress_ifindex = arrival.ifindex;
        entry.next_hop_mac = parsed.macs.source;
        entry.uplink_mac = parsed.macs.destination;
        entry.tags = arrival.tags;
        tables.remember(table, key, &entry);
    }
    true
}

impl Way {
    /// By the flow's entry.
    #[inline(always)]
    #[must_use]
    pub const fn of(entry: &FlowEntry) -> Self {
        Self { ifindex: entry.ingress_ifindex, next_hop_mac: entry.next_hop_mac, uplink_mac: entry.uplink_mac }
    }
}

/// How a reply leaves now, by its flow's entry. Its VLAN tags stay those of the entry.
#[inline(always)]
pub fn way_of<F: Family, T: Tables<F>>(tables: &T, entry: &FlowEntry) -> Result<Way, Reason> {
    let mut way = Way::of(entry);
    if has_moved(tables, &way) {
        turn_apart::<F, T>(tables, &mut way);
    }
    if way.ifindex == 0 { Err(Reason::ReplyUplinkGone) } else { Ok(way) }
}

/// Turns the way of a reply in delivery mode stack, which the host's routes are sending by some uplink. False: it leaves as
/// the host has it, which is usual; so does a packet that has tags already, or is too large for its uplink.
#[inline(never)]
pub fn is_elsewhere<F: Family, P: Packet, T: Tables<F>>(packet: &P, tables: &T, way: &mut Way) -> bool {
    let leaves_by = packet.leaves_by();
    if way.ifindex == leaves_by || packet.has_tag_beside() {
        return false;
    }
    if has_moved(tables, way) {
        turn(tables, way);
    }
    way.ifindex != 0 && way.ifindex != leaves_by && packet.fits(way.ifindex)
}

#[inline(always)]
fn has_moved<F: Family, T: Tables<F>>(tables: &T, way: &Way) -> bool {
    tables.uplink_flags(way.ifindex) & uplink_flags::MOVED != 0
}

/// A function beside the large one of a reply: few replies need its place on the stack.
#[inline(never)]
fn turn_apart<F: Family, T: Tables<F>>(tables: &T, way: &mut Way) {
    turn(tables, way);
}

/// Turns a way to what the agent says.
#[inline(always)]
fn turn<F: Family, T: Tables<F>>(tables: &T, way: &mut Way) {
    let mut key = WayKey::of(way.ifindex, way.next_hop_mac);
    for _ in 0..2 {
        if let Some(moved) = tables.way(&key) {
            let next_hop_mac = if moved.next_hop_mac == [0; 6] { way.next_hop_mac } else { moved.next_hop_mac };
            *way = Way { next_hop_mac, ..moved };
            return;
        }
        key = WayKey::any(way.ifindex);
    }
}
