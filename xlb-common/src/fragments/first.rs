//! A first fragment as the whole packet that it stands for: so one path serves both.

use core::marker::PhantomData;

use crate::abi::Tags;
use crate::checksum::{Difference, TransportChange};
use crate::family::Family;
use crate::packet::Packet;

/// A first fragment, read and written as if it were whole: IPv4's fragment bits are zero, and IPv6's fragment header is not
/// there.
pub struct First<'a, F, P> {
    packet: &'a mut P,
    family: PhantomData<F>,
}

impl<'a, F: Family, P: Packet> First<'a, F, P> {
    /// The view of `packet`.
    #[inline(always)]
    pub fn of(packet: &'a mut P) -> Self {
        Self { packet, family: PhantomData }
    }
}

/// Where a byte of the whole packet is in the fragment.
#[inline(always)]
const fn place<F: Family>(at: usize) -> usize {
    if at < F::TRANSPORT_AT { at } else { at + F::FRAGMENT_HEADER }
}

impl<F: Family, P: Packet> Packet for First<'_, F, P> {
    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let bytes = self.packet.load::<N>(place::<F>(at))?;
        if at < F::TRANSPORT_AT { F::as_whole(self.packet, at, bytes) } else { Some(bytes) }
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        self.packet.store(place::<F>(at), bytes)
    }

    #[inline(always)]
    fn follow(&mut self, at: usize, change: TransportChange) -> Option<()> {
        self.packet.follow(place::<F>(at), change)
    }

    #[inline(always)]
    fn note_change(&mut self, change: Difference) {
        self.packet.note_change(change);
    }

    #[inline(always)]
    fn fits(&self, ifindex: u32) -> bool {
        self.packet.fits(ifindex)
    }

    #[inline(always)]
    fn leaves_by(&self) -> u32 {
        self.packet.leaves_by()
    }

    #[inline(always)]
    fn has_tag_beside(&self) -> bool {
        self.packet.has_tag_beside()
    }

    #[inline(always)]
    fn tag(&mut self, tags: Tags) -> Option<()> {
        self.packet.tag(tags)
    }

    /// [`Quoted`] is made anew, not this.
    #[inline(always)]
    fn renew(&mut self, _length: usize) -> Option<()> {
        None
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.packet.length()
    }
}

/// A first fragment that is to become the answer to its sender: read as if it were whole, and written anew.
pub struct Quoted<'a, F, P>(First<'a, F, P>);

impl<'a, F: Family, P: Packet> Quoted<'a, F, P> {
    /// The view of `packet`.
    #[inline(always)]
    pub fn of(packet: &'a mut P) -> Self {
        Self(First::of(packet))
    }
}

impl<F: Family, P: Packet> Packet for Quoted<'_, F, P> {
    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.load(at)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        self.0.packet.store(at, bytes)
    }

    /// Its sums are complete.
    #[inline(always)]
    fn follow(&mut self, _at: usize, _change: TransportChange) -> Option<()> {
        None
    }

    #[inline(always)]
    fn note_change(&mut self, _change: Difference) {}

    #[inline(always)]
    fn renew(&mut self, length: usize) -> Option<()> {
        self.0.packet.renew(length)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.packet.length()
    }
}
