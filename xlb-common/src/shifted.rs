//! A packet of another shape, seen as one of the usual shape.

use core::marker::PhantomData;

use crate::abi::Tags;
use crate::checksum::{Difference, TransportChange};
use crate::family::Family;
use crate::packet::Packet;
use crate::parse::ETHER_TYPE_AT;
use crate::shape::{Between, Shape};

/// The view: the MACs are where they are, the Ethernet type and the IP header are behind the tags, and the transport header
/// is behind what is between the headers.
pub struct Shifted<'a, F: Family, P: Packet> {
    packet: &'a mut P,
    shape: Shape,
    family: PhantomData<F>,
}

impl<'a, F: Family, P: Packet> Shifted<'a, F, P> {
    /// The view of a packet that was measured.
    #[inline(always)]
    pub fn of(packet: &'a mut P, shape: Shape) -> Self {
        Self { packet, shape, family: PhantomData }
    }

    /// By how many bytes what is usually at `at` has moved.
    #[inline(always)]
    fn shift(&self, at: usize) -> u32 {
        let between = if at < F::TRANSPORT_AT { 0 } else { self.shape.between().length };
        self.shape.tags() + between
    }
}

impl<F: Family, P: Packet> Packet for Shifted<'_, F, P> {
    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        if at < ETHER_TYPE_AT { self.packet.load(at) } else { self.packet.load_moved(at, self.shift(at)) }
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        let by = self.shift(at);
        if at < ETHER_TYPE_AT { self.packet.store(at, bytes) } else { self.packet.store_moved(at, by, bytes) }
    }

    #[inline(always)]
    fn follow(&mut self, at: usize, change: TransportChange) -> Option<()> {
        let at = at + self.shift(at) as usize;
        self.packet.follow(at, change)
    }

    /// A packet is renewed in its usual shape only.
    #[inline(always)]
    fn renew(&mut self, _length: usize) -> Option<()> {
        None
    }

    #[inline(always)]
    fn load_with_ports<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut bytes = self.load::<N>(at)?;
        *bytes.last_chunk_mut::<4>()? = self.load::<4>(F::TRANSPORT_AT)?;
        Some(bytes)
    }

    #[inline(always)]
    fn between(&self, _protocol: u8) -> Between {
        self.shape.between()
    }

    #[inline(always)]
    fn fits(&self, ifindex: u32) -> bool {
        self.packet.fits(ifindex)
    }

    #[inline(always)]
    fn leaves_by(&self) -> u32 {
        self.packet.leaves_by()
    }

    /// Its tags are no part of what is seen of it.
    #[inline(always)]
    fn has_tag_beside(&self) -> bool {
        self.shape.tags() != 0 || self.packet.has_tag_beside()
    }

    #[inline(always)]
    fn note_change(&mut self, change: Difference) {
        self.packet.note_change(change);
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.packet.length()
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        self.packet.segments()
    }

    #[inline(always)]
    fn tag(&mut self, tags: Tags) -> Option<()> {
        self.packet.tag(tags)
    }
}
