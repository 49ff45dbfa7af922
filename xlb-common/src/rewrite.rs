//! What changes in a packet: one address, one port, perhaps a hop; the sums follow.

use crate::checksum::{Difference, TransportChange};
use crate::family::{End, Family, HeaderChange};
use crate::packet::Packet;
use crate::parse::{Endpoint, Parsed};

/// Gives one end of the packet a new address and port. None if the packet is shorter than it was when it was parsed.
#[inline(always)]
pub fn readdress<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F>,
    change: HeaderChange<F>,
    port: [u8; 2],
) -> Option<()> {
    let (Endpoint(old_address, old_port), port_at) = match change.end {
        End::Source => (parsed.source, F::TRANSPORT_AT),
        End::Destination => (parsed.destination, F::TRANSPORT_AT + 2),
    };
    F::store_header(packet, parsed, change)?;
    packet.store(port_at, port)?;
    if parsed.transport.is_sctp() {
        // Its sum has no pseudo-header, and follows in [`crate::sctp`].
        return Some(());
    }
    let sums = TransportChange {
        addresses: F::difference(old_address, change.address),
        ports: Difference::of_word(old_port, port),
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
