//! How the path reads and changes a packet, whoever holds it.

use crate::checksum::{Difference, TransportChange};

/// A packet from its Ethernet header on. Reads and writes are of arrays by value: the verifier accepts nothing else.
pub trait Packet {
    /// The `N` bytes at `at`, or none if the packet ends before them.
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// Writes `bytes` at `at`; none if the packet ends before.
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()>;

    /// Lets the transport checksum at `at` follow a change. Whoever holds the packet knows how far its sum is made.
    /// Called after the last `store`: it may move the packet's memory.
    fn follow(&mut self, at: usize, change: TransportChange) -> Option<()>;

    /// Makes the first `length` bytes readable, or all if there are fewer. What lies far behind the headers of common packets
    /// may be out of reach before.
    #[inline(always)]
    fn gather(&mut self, _length: usize) {}

    /// Whether the interface sends the packet as it is, or as the segments that it is to be cut into.
    #[inline(always)]
    fn fits(&self, _ifindex: u32) -> bool {
        true
    }

    /// Hears of a change behind the Ethernet header that no sum in the packet takes up. Only a device's sum of the whole
    /// packet has to follow. Called after the last `store`.
    fn note_change(&mut self, change: Difference);

    /// Makes a packet of `length` bytes of this one: all behind the Ethernet header is to be written anew, with every
    /// sum complete. None if it cannot be.
    fn renew(&mut self, length: usize) -> Option<()>;

    /// Bytes of the whole packet, the Ethernet header among them.
    fn length(&self) -> u32;

    /// Packets of the wire that this one was made of.
    #[inline(always)]
    fn segments(&self) -> u32 {
        1
    }
}

/// The transport checksum of a packet whose sum is complete: what XDP and the host do for [`Packet::follow`].
#[inline(always)]
pub fn follow_by_arithmetic<P: Packet>(packet: &mut P, at: usize, change: TransportChange) -> Option<()> {
    match change.applied_to(packet.load::<2>(at)?) {
        Some(checksum) => packet.store(at, checksum),
        None => Some(()),
    }
}

/// Bytes of the largest frame of a link with Ethernet's MTU.
#[cfg(feature = "std")]
const ETHERNET_MAX: usize = 14 + 1500;

/// A packet in ordinary memory, for links with Ethernet's MTU.
#[cfg(feature = "std")]
#[derive(Debug)]
pub struct BytePacket<'a>(pub &'a mut Vec<u8>);

#[cfg(feature = "std")]
impl Packet for BytePacket<'_> {
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        self.0.get_mut(at..at.checked_add(N)?)?.copy_from_slice(&bytes);
        Some(())
    }

    fn follow(&mut self, at: usize, change: TransportChange) -> Option<()> {
        follow_by_arithmetic(self, at, change)
    }

    fn fits(&self, _ifindex: u32) -> bool {
        self.0.len() <= ETHERNET_MAX
    }

    fn note_change(&mut self, _change: Difference) {}

    fn renew(&mut self, length: usize) -> Option<()> {
        self.0.resize(length, 0);
        Some(())
    }

    fn length(&self) -> u32 {
        self.0.len() as u32
    }
}
