//! How the path reads and changes a packet, whoever holds it.

use crate::abi::Tags;
use crate::checksum::{Difference, TransportChange};
#[cfg(feature = "std")]
use crate::parse::ETHER_TYPE_AT;
#[cfg(feature = "std")]
use crate::shape::TAGS_MAX;
use crate::shape::{Between, TAG_LENGTH};

/// In ordinary memory packets leave by the first interface, as those of a test-run do.
const MEMORY_LEAVES_BY: u32 = 1;

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

    /// Index of the interface by which the host's stack is sending the packet.
    #[inline(always)]
    fn leaves_by(&self) -> u32 {
        MEMORY_LEAVES_BY
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

    /// [`Packet::load`] at an offset that varies: `by` bytes behind the constant `at`.
    #[inline(always)]
    fn load_moved<const N: usize>(&self, at: usize, by: u32) -> Option<[u8; N]> {
        self.load(at + by as usize)
    }

    /// [`Packet::store`] at an offset that varies.
    #[inline(always)]
    fn store_moved<const N: usize>(&mut self, at: usize, by: u32, bytes: [u8; N]) -> Option<()> {
        self.store(at + by as usize, bytes)
    }

    /// [`Packet::load`] of bytes of the IP header, of which the last four are the ports behind it.
    #[inline(always)]
    fn load_with_ports<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.load(at)
    }

    /// What is between the fixed IP header, which names `protocol`, and the transport's: usually nothing.
    #[inline(always)]
    fn between(&self, protocol: u8) -> Between {
        Between { length: 0, protocol }
    }

    /// Whether the outermost VLAN tag is kept beside the packet, and not in its bytes.
    #[inline(always)]
    fn has_tag_beside(&self) -> bool {
        false
    }

    /// The tag that is kept beside the packet.
    #[inline(always)]
    fn tag_beside(&self) -> [u8; TAG_LENGTH] {
        [0; TAG_LENGTH]
    }

    /// The number itself. The kernel's verifier learns nothing of it: what follows is verified once, and not once for each
    /// value that it could tell.
    #[inline(always)]
    fn any(&self, number: u32) -> u32 {
        number
    }

    /// Takes `in_line` bytes of VLAN tags out of the packet, and that beside it. None if it cannot be: XDP frames keep
    /// theirs, and go on to tc.
    #[inline(always)]
    fn untag(&mut self, _in_line: u32) -> Option<()> {
        None
    }

    /// Gives a packet without VLAN tags these. None if it cannot be.
    #[inline(always)]
    fn tag(&mut self, _tags: Tags) -> Option<()> {
        None
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

    /// As in a test-run, where no other interface is there.
    fn fits(&self, ifindex: u32) -> bool {
        ifindex != MEMORY_LEAVES_BY || self.0.len() <= ETHERNET_MAX
    }

    fn note_change(&mut self, _change: Difference) {}

    fn renew(&mut self, length: usize) -> Option<()> {
        self.0.resize(length, 0);
        Some(())
    }

    fn length(&self) -> u32 {
        self.0.len() as u32
    }

    fn untag(&mut self, in_line: u32) -> Option<()> {
        let end = ETHER_TYPE_AT + in_line as usize;
        self.0.get(..end)?;
        self.0.drain(ETHER_TYPE_AT..end);
        Some(())
    }

    fn tag(&mut self, tags: Tags) -> Option<()> {
        let length = if tags.are_two() { TAGS_MAX } else { TAG_LENGTH };
        self.0.get(..ETHER_TYPE_AT)?;
        self.0.splice(ETHER_TYPE_AT..ETHER_TYPE_AT, bytemuck::bytes_of(&tags)[..length].iter().copied());
        Some(())
    }
}
