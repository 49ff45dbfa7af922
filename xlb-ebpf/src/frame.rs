//! An XDP frame as a packet of the path.

use aya_ebpf::programs::XdpContext;
use xlb_common::checksum::TransportChange;
use xlb_common::packet::{Packet, follow_by_arithmetic};

use crate::bytes;

/// The memory of a frame: nothing that the path calls moves it.
pub struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// The frame of a run.
    #[inline(always)]
    pub fn of(ctx: &XdpContext) -> Self {
        Self { start: ctx.data(), end: ctx.data_end() }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        bytes::load(self.start, self.end, at)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        bytes::store(self.start, self.end, at, bytes)
    }

    #[inline(always)]
    fn follow(&mut self, at: usize, change: TransportChange) -> Option<()> {
        follow_by_arithmetic(self, at, change)
    }
}
