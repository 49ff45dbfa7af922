//! An XDP frame as a packet of the path.

use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len};
use aya_ebpf::programs::XdpContext;
use xlb_common::checksum::{Difference, TransportChange};
use xlb_common::packet::{Packet, follow_by_arithmetic};

use crate::bytes;

/// The memory of a frame: only [`Packet::renew`] moves it.
pub struct Frame<'a> {
    ctx: &'a XdpContext,
    start: usize,
    end: usize,
}

impl<'a> Frame<'a> {
    /// The frame of a run.
    #[inline(always)]
    pub fn of(ctx: &'a XdpContext) -> Self {
        Self { ctx, start: ctx.data(), end: ctx.data_end() }
    }
}

impl Packet for Frame<'_> {
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

    /// Nobody has summed the frame up.
    #[inline(always)]
    fn note_change(&mut self, _change: Difference) {}

    /// It grows at its front: there every driver leaves room, and behind a short frame of a veth there may be none. All of it
    /// is written anew.
    #[inline(always)]
    fn renew(&mut self, length: usize) -> Option<()> {
        // The whole of a frame in several buffers, of which `end - start` is only the first.
        // SAFETY: the helper only reads the context.
        let whole = unsafe { bpf_xdp_get_buff_len(self.ctx.ctx) };
        let by = length as i32 - whole as i32;
        // SAFETY: both helpers check the length; the pointers that they make invalid are replaced at once.
        let result = unsafe {
            if by > 0 { bpf_xdp_adjust_head(self.ctx.ctx, -by) } else { bpf_xdp_adjust_tail(self.ctx.ctx, by) }
        };
        *self = Self::of(self.ctx);
        (result == 0).then_some(())
    }

    /// Of a frame in several buffers the first: nobody asks but for what is beyond 64 kB, which is no frame.
    #[inline(always)]
    fn length(&self) -> u32 {
        (self.end - self.start) as u32
    }
}
