//! An skb as a packet of the path.

use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::bpf_check_mtu_flags::BPF_MTU_CHK_SEGS;
use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::{
    bpf_check_mtu, bpf_csum_update, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_pull_data,
    bpf_skb_vlan_pop, bpf_skb_vlan_push,
};
use aya_ebpf::programs::TcContext;
use xlb_common::abi::Tags;
use xlb_common::checksum::{Difference, TransportChange};
use xlb_common::packet::Packet;
use xlb_common::shape::TAG_LENGTH;

use crate::bytes;

/// Bytes that the path may read: Ethernet, IPv6 and TCP headers.
const HEADERS: u32 = 74;
/// Bytes of a packet that is not asked about: an Ethernet header, and what every host takes over IPv4 (RFC 1122 chapter
/// 3.3.2). Links with a smaller MTU than that are no uplinks.
const FITS_ANYWHERE: u32 = 14 + 576;
/// Bytes behind the Ethernet header that are cut off a packet to be renewed: no transport header begins behind them.
const CUT: u32 = 64;
/// `bpf_l4_csum_replace`: no header sum takes the change of an IPv6 address up, so the sum that the device made of the
/// whole packet stays (BPF_F_IPV6 of include/uapi/linux/bpf.h, since Linux 6.16 and in stable kernels).
const BPF_F_IPV6: u32 = 1 << 7;
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
        let mut skb = Self { ctx };
        skb.gather(HEADERS as usize);
        skb
    }

    /// The skb of a run that only reads, with its headers pulled together if some are elsewhere. Short packets, which have
    /// nothing elsewhere, cost a comparison.
    #[inline(always)]
    pub fn readable(ctx: &'a TcContext) -> Self {
        let mut skb = Self { ctx };
        let (start, end) = skb.bounds();
        if start + (HEADERS as usize) > end && ctx.len() > (end - start) as u32 {
            skb.gather(HEADERS as usize);
        }
        skb
    }

    /// Begin and end of the linear part. Read anew each time: a 32-bit copy of a pointer, which the compiler makes of one
    /// read that serves twice, is a number to the verifier.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        let skb = self.ctx.skb.skb;
        // SAFETY: the context is valid for the whole run.
        let (start, end) =
            unsafe { ((&raw const (*skb).data).read_volatile(), (&raw const (*skb).data_end).read_volatile()) };
        (start as usize, end as usize)
    }

    #[inline(always)]
    fn replace(&mut self, at: usize, difference: Difference, flags: u32) -> Option<()> {
        // SAFETY: the helper checks the offset; with a size of zero `to` is a ready difference.
        let result =
            unsafe { bpf_l4_csum_replace(self.ctx.skb.skb, at as u32, 0, u64::from(difference.0), u64::from(flags)) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<()> {
        // SAFETY: the helper only changes the skb, whose pointers are read anew at each access.
        let result = unsafe { bpf_skb_vlan_pop(self.ctx.skb.skb) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn push(&mut self, [a, b, c, d]: [u8; TAG_LENGTH]) -> Option<()> {
        let (kind, control) = (u16::from_ne_bytes([a, b]), u16::from_be_bytes([c, d]));
        // SAFETY: as above.
        let result = unsafe { bpf_skb_vlan_push(self.ctx.skb.skb, kind, control) };
        (result == 0).then_some(())
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn gather(&mut self, length: usize) {
        let (start, end) = self.bounds();
        if start + length > end {
            let wanted = if self.ctx.len() < length as u32 { self.ctx.len() } else { length as u32 };
            // SAFETY: the helper only rearranges the skb; a failure is met by the bounds checks of `bytes`.
            unsafe { bpf_skb_pull_data(self.ctx.skb.skb, wanted) };
        }
    }

    /// An interface that is gone takes anything: the redirect drops it.
    #[inline(always)]
    fn fits(&self, ifindex: u32) -> bool {
        if self.ctx.len() <= FITS_ANYWHERE {
            return true;
        }
        let mut mtu = 0;
        // SAFETY: the helper writes to `mtu`, which outlives the call.
        let result =
            unsafe { bpf_check_mtu(self.ctx.skb.skb.cast(), ifindex, &raw mut mtu, 0, u64::from(BPF_MTU_CHK_SEGS)) };
        result <= 0
    }

    #[inline(always)]
    fn leaves_by(&self) -> u32 {
        device(self.ctx)
    }

    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let (start, end) = self.bounds();
        bytes::load(start, end, at)
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        let (start, end) = self.bounds();
        bytes::store(start, end, at, bytes)
    }

    /// The kernel knows whether the sum is complete, partial, or the device's. Addresses and ports are two changes: in a
    /// partial sum only the addresses are contained. An unchanged port saves a call.
    ///
    /// A kernel without BPF_F_IPV6 refuses it and changes nothing. Its stack then finds the device's sum wrong, and
    /// computes its own.
    #[inline(always)]
    fn follow(&mut self, at: usize, change: TransportChange) -> Option<()> {
        let mangled = if change.zero_means_none { BPF_F_MARK_MANGLED_0 } else { 0 };
        if !change.ports.is_nothing() {
            self.replace(at, change.ports, mangled)?;
        }
        let addresses = mangled | BPF_F_PSEUDO_HDR;
        if change.has_header_sum {
            return self.replace(at, change.addresses, addresses);
        }
        self.replace(at, change.addresses, addresses | BPF_F_IPV6)
            .or_else(|| self.replace(at, change.addresses, addresses))
    }

    /// The helper does nothing where no device has summed the packet up.
    #[inline(always)]
    fn note_change(&mut self, change: Difference) {
        // SAFETY: the helper changes only the skb's sum.
        unsafe { bpf_csum_update(self.ctx.skb.skb, change.0) };
    }

    /// The helpers are meant for answers made of the packet: the skb becomes linear and its own, and loses its segments.
    ///
    /// What the kernel knew of its sum has to go, too. What a device summed up goes when the skb grows
    /// (`__skb_grow_rcsum`); what a device is still to sum up goes when its beginning is cut off (`skb_postpull_rcsum`):
    /// a sum that is left to the device would be written into the answer.
    #[inline(always)]
    fn renew(&mut self, length: usize) -> Option<()> {
        let (skb, length) = (self.ctx.skb.skb, length as u32);
        // SAFETY: the helpers check the lengths; pointers into the skb are read anew from the context at each access.
        let failed = unsafe {
            bpf_skb_change_tail(skb, length, 0) != 0
                || bpf_skb_change_tail(skb, length + CUT, 0) != 0
                || bpf_skb_adjust_room(skb, -(CUT as i32), BPF_ADJ_ROOM_MAC, 0) != 0
        };
        (!failed).then_some(())
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.ctx.len()
    }

    /// Zero segments, or a number that nobody knows, are one.
    #[inline(always)]
    fn segments(&self) -> u32 {
        // SAFETY: the context is valid for the whole run.
        let segments = unsafe { (*self.ctx.skb.skb).gso_segs };
        if segments == 0 { 1 } else { segments }
    }

    #[inline(always)]
    fn load_moved<const N: usize>(&self, at: usize, by: u32) -> Option<[u8; N]> {
        let (start, end) = self.bounds();
        bytes::load(bytes::moved(start, by), end, at)
    }

    #[inline(always)]
    fn store_moved<const N: usize>(&mut self, at: usize, by: u32, bytes: [u8; N]) -> Option<()> {
        let (start, end) = self.bounds();
        bytes::store(bytes::moved(start, by), end, at, bytes)
    }

    /// The kernel has taken the outermost tag of what it received out of the bytes (net/core/dev.c, skb_vlan_untag).
    #[inline(always)]
    fn has_tag_beside(&self) -> bool {
        // SAFETY: the context is valid for the whole run.
        unsafe { (*self.ctx.skb.skb).vlan_present != 0 }
    }

    #[inline(always)]
    fn tag_beside(&self) -> [u8; TAG_LENGTH] {
        let skb = self.ctx.skb.skb;
        // SAFETY: the context is valid for the whole run. The type is in network byte order there, the rest is not.
        let (kind, control) = unsafe { ((*skb).vlan_proto as u16, (*skb).vlan_tci as u16) };
        let ([a, b], [c, d]) = (kind.to_ne_bytes(), control.to_be_bytes());
        [a, b, c, d]
    }

    #[inline(always)]
    fn any(&self, number: u32) -> u32 {
        bytes::any(number, self.ctx.len())
    }

    /// The kernel takes off the outermost one, wherever that is.
    #[inline(always)]
    fn untag(&mut self, in_line: u32) -> Option<()> {
        let tags = in_line as usize / TAG_LENGTH + usize::from(self.has_tag_beside());
        if tags > 0 {
            self.pop()?;
        }
        if tags > 1 { self.pop() } else { Some(()) }
    }

    #[inline(always)]
    fn tag(&mut self, tags: Tags) -> Option<()> {
        if tags.are_two() {
            self.push(tags.inner)?;
        }
        self.push(tags.outer)
    }
}

/// The interface on which the skb arrived, or, at egress, by which it is to leave.
#[inline(always)]
pub fn device(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid for the whole run.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// The interface on which the skb that leaves came; zero: it is the node's own.
#[inline(always)]
pub fn came_by(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid for the whole run.
    unsafe { (*ctx.skb.skb).ingress_ifindex }
}

/// Whether the frame was addressed to another host, and is seen only because the interface is promiscuous.
#[inline(always)]
pub fn is_for_other_host(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid for the whole run.
    unsafe { (*ctx.skb.skb).pkt_type == PACKET_OTHERHOST }
}
