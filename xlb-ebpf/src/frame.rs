//! An XDP frame as a packet of the path.

use aya_ebpf::programs::XdpContext;
use xlb_common::checksum::TransportChange;
use xlb_common::packet::{Packet, follow_by_arithmetic};

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

    #[inline(always)]
    fn at<const N: usize>(&self, at: usize) -> Option<*mut [u8; N]> {
        if self.start + at + N > self.end { None } else { Some((self.start + at) as *mut [u8; N]) }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        // SAFETY: the N bytes lie between the frame's start and its end, as compared in `at`.
        self.at::<N>(at).map(|pointer| unsafe { *pointer })
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        // SAFETY: as for `load`, and a frame belongs to the program that runs on it.
        self.at::<N>(at).map(|pointer| unsafe { *pointer = bytes })
    }

    #[inline(always)]
    fn follow(&mut self, at: usize, change: TransportChange) -> Option<()> {
        follow_by_arithmetic(self, at, change)
    }
}
