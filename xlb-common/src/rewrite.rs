//! What changes in a packet: one address, its port, rarely the other end's port, perhaps a hop; the sums follow.

use crate::checksum::{Difference, TransportChange};
use crate::family::{End, Family, HeaderChange};
use crate::packet::Packet;
use crate::parse::{Endpoint, Parsed};

/// The ports that a packet is to have, network byte order.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Of the end whose address changes.
    pub of_end: [u8; 2],
    /// Of the other end; zero: it keeps its own.
    pub of_other: [u8; 2],
}

impl Ports {
    /// The other end keeps its own.
    #[inline(always)]
    #[must_use]
    pub const fn of_end(port: [u8; 2]) -> Self {
        Self { of_end: port, of_other: [0; 2] }
    }
}

/// Gives one end of the packet a new address, and its ends these ports. None if the packet is shorter than it was when it
/// was parsed.
#[inline(always)]
pub fn readdress<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    change: HeaderChange<F>,
    ports: Ports,
) -> Option<()> {
    let (source_at, destination_at) = (F::TRANSPORT_AT, F::TRANSPORT_AT + 2);
    let (Endpoint(old_address, old_port), port_at, Endpoint(_, other), other_at) = match change.end {
        End::Source => (parsed.source, source_at, parsed.destination, destination_at),
        End::Destination => (parsed.destination, destination_at, parsed.source, source_at),
    };
    F::store_header(packet, parsed, change)?;
    packet.store(port_at, ports.of_end)?;
    let mut difference = Difference::of_word(old_port, ports.of_end);
    if ports.of_other != [0; 2] {
        packet.store(other_at, ports.of_other)?;
        difference = difference.plus(Difference::of_word(other, ports.of_other));
    }
    if parsed.transport.is_sctp() {
        // Its sum has no pseudo-header, and follows in [`crate::sctp`].
        return Some(());
    }
    let sums = TransportChange {
        addresses: F::difference(old_address, change.address),
        ports: difference,
        zero_means_none: parsed.transport.is_udp(),
        has_header_sum: F::HAS_HEADER_SUM,
    };
    packet.follow(F::TRANSPORT_AT + parsed.transport.checksum_offset(), sums)
}

/// Gives the frame new MACs.
#[inline(always)]
pub fn readdress_frame<P: Packet>(packet: &mut P, destination: [u8; 6], source: [u8; 6]) -> Option<()> {
    packet.store(0, destination)?;
    packet.store(6, source)
}
