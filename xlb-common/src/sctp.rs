//! SCTP (RFC 9260): what the path reads of a packet, how its sum follows a new port, and when an association is known.
//!
//! Nobody can be asked for the associations of a pod, as its kernel can be for TCP connections: its own packets are the
//! evidence. Before it has the client's cookie back it keeps no state, and sends only what the left side lists.
//!
//! | packet | what is written | what is read |
//! |---|---|---|
//! | the client's INIT, COOKIE ECHO | SCTP_PENDING | - |
//! | the pod's INIT ACK | - | SCTP_PENDING (it is newer), else SCTP_FLOWS |
//! | the pod's ABORT, ERROR, SHUTDOWN COMPLETE | SCTP_FLOWS is marked by all but ERROR | SCTP_FLOWS, else SCTP_PENDING |
//! | the pod's SHUTDOWN ACK | the same mark | the same |
//! | the pod's COOKIE ACK | SCTP_PENDING is copied to SCTP_FLOWS | SCTP_PENDING, else SCTP_FLOWS |
//! | the pod's other packets | the same copy, if there was no flow, or a marked one | SCTP_FLOWS, else SCTP_PENDING |
//!
//! A COOKIE ECHO counts as an INIT does: a flood of INITs may have evicted the entry of an honest client meanwhile.
//! A mark means that the next INIT begins anew; other packets of the flow still follow it.

use crate::abi::flow_flags;
use crate::crc32c::change_by_beginning;
use crate::family::Family;
use crate::packet::Packet;
use crate::parse::{ETHERNET_LENGTH, wanted};
use crate::path::{Arrival, Delivery, answered};
use crate::reason::Reason;
use crate::stats::count_flow;
use crate::tables::{FlowTable, Tables};

/// Bytes of the common header: ports, verification tag, checksum.
pub const HEADER_LENGTH: usize = 12;
/// Where the checksum is in it.
pub const CHECKSUM_AT: usize = 8;
/// Bytes of a chunk's header: type, flags, length of the chunk.
const CHUNK_HEADER_LENGTH: u32 = 4;
/// Packets of SCTP are no longer than their IP header can say.
const LENGTH_MAX: u32 = u16::MAX as u32;

/// Types of chunks (RFC 9260 chapter 3.2).
pub mod chunk {
    /// User data.
    pub const DATA: u8 = 0;
    /// The first packet of an association.
    pub const INIT: u8 = 1;
    /// The answer to it, with a cookie.
    pub const INIT_ACK: u8 = 2;
    /// The peer does not know the association, or wants no more of it.
    pub const ABORT: u8 = 6;
    /// The peer has no more data.
    pub const SHUTDOWN: u8 = 7;
    /// The answer to it.
    pub const SHUTDOWN_ACK: u8 = 8;
    /// Something was wrong, and the association goes on, or the cookie is too old.
    pub const ERROR: u8 = 9;
    /// The cookie comes back.
    pub const COOKIE_ECHO: u8 = 10;
    /// The association is open.
    pub const COOKIE_ACK: u8 = 11;
    /// The association is over.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// What the rules look at in an SCTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SctpView {
    /// Type of the first chunk, one of [`chunk`] or another one.
    pub chunk: u32,
}

impl SctpView {
    /// Whether a client asks for an association: INIT, and COOKIE ECHO.
    #[inline(always)]
    #[must_use]
    pub const fn asks(&self) -> bool {
        self.chunk == chunk::INIT as u32 || self.chunk == chunk::COOKIE_ECHO as u32
    }
}

/// The common header and the first chunk of a packet of `length` bytes behind its IP header. INIT, INIT ACK and COOKIE
/// ECHO are always first (RFC 9260 chapters 3.2 and 5.1), ABORT need not be.
#[inline(always)]
pub fn read<F: Family, P: Packet>(packet: &P, length: u32) -> Result<SctpView, Reason> {
    let [kind, _, l0, l1] = packet.load::<4>(F::TRANSPORT_AT + HEADER_LENGTH).ok_or(Reason::Truncated)?;
    let of_chunk = u32::from(u16::from_be_bytes([l0, l1]));
    if of_chunk < CHUNK_HEADER_LENGTH || length > LENGTH_MAX || HEADER_LENGTH as u32 + of_chunk > length {
        return Err(Reason::Malformed);
    }
    Ok(SctpView { chunk: u32::from(kind) })
}

/// A packet from outside. Its checksum follows a new port when the way is known: where ways part, the verifier would walk
/// through the arithmetic for each of them.
#[inline(always)]
pub fn serve<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    arrival: &Arrival,
) -> Result<Delivery, Reason> {
    // A packet without ports is not sent.
    let before = packet.load::<4>(F::TRANSPORT_AT).unwrap_or_default();
    let delivery = answered::<F, P, T, { wanted::SCTP }>(packet, tables, arrival)?;
    follow::<F, P>(packet, before).ok_or(Reason::Truncated)?;
    Ok(delivery)
}

/// Lets the checksum of a packet whose ports were `before` follow. Addresses are not part of it: there is no
/// pseudo-header. The length is the IP header's: a frame may have padding behind.
///
/// Zero stays: a sender on this machine left the sum to a device (`CHECKSUM_PARTIAL` with `csum_not_inet`; every veth
/// offers it, `NETIF_F_SCTP_CRC`), and whoever makes it sums over the field as well, without clearing it
/// (`skb_crc32c_csum_help` in net/core/dev.c). So do GSO packets, whose segments get their sums when they are cut
/// (`sctp_gso_segment`), and packets that are to have none (RFC 9653). One of 2^32 right sums is zero, too; its packet
/// is dropped by the receiver and sent again with another one, as another time or sequence number is in it.
#[inline(never)]
pub fn follow<F: Family, P: Packet>(packet: &mut P, before: [u8; 4]) -> Option<()> {
    let at = F::TRANSPORT_AT + CHECKSUM_AT;
    let change = u32::from_le_bytes(packet.load::<4>(F::TRANSPORT_AT)?) ^ u32::from_le_bytes(before);
    let sum = packet.load::<4>(at)?;
    if change == 0 || sum == [0; 4] {
        return Some(());
    }
    let length = F::ip_length(packet).wrapping_sub((F::TRANSPORT_AT - ETHERNET_LENGTH) as u32);
    let sum = u32::from_le_bytes(sum) ^ change_by_beginning(change, length);
    packet.store(at, sum.to_le_bytes())
}

/// What a packet of the pod does to the flow, and by which table it is a reply: SCTP_FLOWS for [`Reason::Replied`] and
/// [`Reason::RepliedAdmitted`], SCTP_PENDING for [`Reason::RepliedHalfOpen`], else none. In one register: of a larger
/// answer the verifier refuses the pointer that is left in it.
#[inline(never)]
pub fn heard<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, first_chunk: u32) -> Reason {
    let known = known(tables, key);
    let unless_pending = if known == Known::Absent { Reason::NotAReply } else { Reason::Replied };
    match first_chunk as u8 {
        // The pod is the client of another association.
        chunk::INIT | chunk::COOKIE_ECHO => Reason::NotAReply,
        chunk::INIT_ACK => half_open(tables, key, unless_pending),
        chunk::ABORT | chunk::ERROR | chunk::SHUTDOWN_ACK | chunk::SHUTDOWN_COMPLETE if known == Known::Absent => {
            half_open(tables, key, Reason::NotAReply)
        }
        chunk::ERROR => Reason::Replied,
        chunk::ABORT | chunk::SHUTDOWN_ACK | chunk::SHUTDOWN_COMPLETE => mark(tables, key),
        kind if kind != chunk::COOKIE_ACK && known == Known::Open => Reason::Replied,
        _ => admit(tables, key, unless_pending),
    }
}

/// What SCTP_FLOWS says of a flow: a number, as the compiler would do arithmetic with the pointers of two lookups, which
/// the verifier refuses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Absent,
    Open,
    Over,
}

#[inline(always)]
fn known<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey) -> Known {
    match tables.flow(FlowTable::Sctp, key) {
        None => Known::Absent,
        Some(entry) if entry.is_closed() => Known::Over,
        Some(_) => Known::Open,
    }
}

#[inline(always)]
fn half_open<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, otherwise: Reason) -> Reason {
    if tables.flow(FlowTable::SctpPending, key).is_some() { Reason::RepliedHalfOpen } else { otherwise }
}

#[inline(always)]
fn mark<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey) -> Reason {
    tables.change(FlowTable::Sctp, key, |entry| entry.flags |= flow_flags::CLOSED);
    Reason::Replied
}

#[inline(always)]
fn admit<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, otherwise: Reason) -> Reason {
    let Some(entry) = tables.flow(FlowTable::SctpPending, key) else { return otherwise };
    tables.remember(FlowTable::Sctp, key, &entry);
    count_flow(tables, &entry);
    Reason::RepliedAdmitted
}
