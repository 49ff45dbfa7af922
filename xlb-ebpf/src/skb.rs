//! An skb as a packet of the path.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::{bpf_l4_csum_replace, bpf_skb_pull_data};
use aya_ebpf::programs::TcContext;
use xlb_common::checksum::{Difference, TransportChange};
use xlb_common::packet::Packet;

use crate::bytes;

/// Bytes that the path may read: Ethernet, IPv4 and TCP headers.
const HEADERS: u32 = 54;
/// `__sk_buff::pkt_type` of a frame that is addressed to another host (include/uapi/linux/if_packet.h).
const PACKET_OTHERHOST: u32 = 3;

/// An skb whose headers are in its linear part.
pub struct Skb<'a> {
    ctx: &'a TcContext,
}

impl<'a> Skb<'a> {
    /// The skb of a run, with its headers pulled together if they were not.
    #[inline(always)]
    pub fn of(ctx: &'a TcContext) -> Self {
        if ctx.data() + HEADERS as usize > ctx.data_end() {
            let wanted = if ctx.len() < HEADERS { ctx.len() } else { HEADERS };
            // SAFETY: the helper only rearranges the skb; a failure is met by the bounds checks of `bytes`.
            unsafe { bpf_skb_pull_data(ctx.skb.skb, wanted) };
        }
        Self { ctx }
    }

    #[inline(always)]
    fn replace(&mut self, at: usize, difference: Difference, flags: u32) -> Option<()> {
        // SAFETY: the helper checks the offset; with a size of zero `to` is a ready difference.
        let result =
            unsafe { bpf_l4_csum_replace(self.ctx.skb.skb, at as u32, 0, u64::from(difference.0), u64::from(flags)) };
        (result == 0).then_some(())
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        bytes::load(self.ctx.data(), self.ctx.data_end(), at)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        bytes::store(self.ctx.data(), self.ctx.data_end(), at, bytes)
    }

    /// The kernel knows whether the sum is complete, partial, or the device's. Addresses and ports are two changes: in a
    /// partial sum only the addresses are contained. An unchanged port saves a call.
    #[inline(always)]
    fn follow(&mut self, at: usize, change: TransportChange) -> Option<()> {
        let mangled = if change.zero_means_none { BPF_F_MARK_MANGLED_0 } else { 0 };
        if !change.ports.is_nothing() {
            self.replace(at, change.ports, mangled)?;
        }
        self.replace(at, change.addresses, mangled | BPF_F_PSEUDO_HDR)
    }
}

/// The interface on which the skb arrived.
#[inline(always)]
pub fn ingress_ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid for the whole run.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// Whether the frame was addressed to another host, and is seen only because the interface is promiscuous.
#[inline(always)]
pub fn is_for_other_host(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid for the whole run.
    unsafe { (*ctx.skb.skb).pkt_type == PACKET_OTHERHOST }
}

/// Whether the frame belongs to a VLAN on top of the interface: the kernel has taken the tag out of the bytes.
#[inline(always)]
pub fn is_of_vlan(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid for the whole run.
    unsafe { (*ctx.skb.skb).vlan_present != 0 }
}
