//! Copies packets for `xlb watch` before the programs that serve see them.
//!
//! It is loaded by whoever watches, attached, and taken away again: nobody else's packets pay for it.
#![no_std]
#![no_main]
#![allow(missing_docs, reason = "aya's macros wrap each documented program in a function of their own")]

mod object;

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, BPF_RB_NO_WAKEUP, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::helpers::{
    bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::{PerCpuArray, ProgramArray, RingBuf};
use aya_ebpf::programs::{TcContext, XdpContext};
use xlb_common::watched::{COPIED_MAX, QUEUE_BYTES, Watched};

/// include/uapi/linux/if_packet.h.
const PACKET_OTHERHOST: u32 = 3;

/// The programs that serve, by native and by generic XDP.
#[map]
static WATCH_NEXT: ProgramArray = ProgramArray::with_max_entries(2, 0);

#[map]
static WATCH_COPIES: RingBuf = RingBuf::with_byte_size(QUEUE_BYTES, 0);

#[map]
static WATCH_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Bytes of a packet that a record has room for: the kernel makes room of a length that it knows when it verifies the program, so
/// that a packet takes the first that is long enough. A record of the first two is of 256 and 2048 bytes.
const SMALL: u32 = 256 - Watched::BYTES as u32;
const USUAL: u32 = 2048 - Watched::BYTES as u32;
const JUMBO: u32 = 16 * 1024;

/// Of so many packets one is copied, chosen by chance.
#[unsafe(no_mangle)]
static WATCH_ONE_IN: u32 = 1;

/// What a link received, before other programs at tc.
#[classifier]
pub fn watch_tc(ctx: TcContext) -> i32 {
    if is_chosen() {
        // SAFETY: the context is valid for the whole run.
        let skb: &__sk_buff = unsafe { &*ctx.skb.skb };
        let [a, b] = (skb.vlan_proto as u16).to_ne_bytes();
        let [c, d] = (skb.vlan_tci as u16).to_be_bytes();
        let tag = if skb.vlan_present != 0 { [a, b, c, d] } else { [0; 4] };
        let is_for_other_host = u32::from(skb.pkt_type == PACKET_OTHERHOST);
        copy(&ctx, Watched { ifindex: skb.ifindex, length: skb.len, tag, is_for_other_host, ..Watched::default() });
    }
    TC_ACT_UNSPEC
}

/// What an uplink received, before native XDP. The program that serves is in `WATCH_NEXT` before this one gets its first packet.
#[xdp(frags)]
pub fn watch_xdp(ctx: XdpContext) -> u32 {
    watch(&ctx, 0)
}

/// The same before generic XDP.
#[xdp(frags)]
pub fn watch_xdp_alone(ctx: XdpContext) -> u32 {
    watch(&ctx, 1)
}

#[inline(always)]
fn watch(ctx: &XdpContext, next: u32) -> u32 {
    if is_chosen() {
        // SAFETY: the helper only reads the context.
        let length = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as u32;
        copy(ctx, Watched { ifindex: ctx.ingress_ifindex() as u32, length, ..Watched::default() });
    }
    // SAFETY: the context is the one that this program was called with.
    unsafe { WATCH_NEXT.tail_call(ctx, next) };
    xdp_action::XDP_PASS
}

#[inline(always)]
fn is_chosen() -> bool {
    // SAFETY: the loader writes it before the program is verified, and nobody after.
    let one_in = unsafe { core::ptr::read_volatile(&raw const WATCH_ONE_IN) };
    // SAFETY: the helper takes nothing.
    one_in <= 1 || unsafe { bpf_get_prandom_u32() } % one_in == 0
}

/// Who copies bytes of a packet from its beginning on.
trait Load {
    /// Whether all these bytes are there now. There is at least one.
    fn load(&self, to: *mut c_void, length: u32) -> bool;
}

impl Load for TcContext {
    #[inline(always)]
    fn load(&self, to: *mut c_void, length: u32) -> bool {
        // SAFETY: the verifier checks that there is room.
        unsafe { bpf_skb_load_bytes(self.as_ptr(), 0, to, length) == 0 }
    }
}

impl Load for XdpContext {
    #[inline(always)]
    fn load(&self, to: *mut c_void, length: u32) -> bool {
        // SAFETY: the verifier checks that there is room.
        unsafe { bpf_xdp_load_bytes(self.ctx, 0, to, length) == 0 }
    }
}

#[inline(always)]
fn copy<C: Load>(ctx: &C, watched: Watched) {
    // SAFETY: the helper takes nothing.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    let copied = if watched.length < COPIED_MAX { watched.length } else { COPIED_MAX };
    let watched = Watched { at_ns, copied, ..watched };
    let is_there = match copied {
        0 => true,
        ..=SMALL => record::<C, { SMALL as usize }>(ctx, watched),
        ..=USUAL => record::<C, { USUAL as usize }>(ctx, watched),
        ..=JUMBO => record::<C, { JUMBO as usize }>(ctx, watched),
        _ => record::<C, { COPIED_MAX as usize }>(ctx, watched),
    };
    if !is_there && let Some(lost) = WATCH_LOST.get_ptr_mut(0) {
        // SAFETY: the entry is this CPU's alone, and a program is not interrupted by itself.
        unsafe { *lost += 1 };
    }
}

/// A packet in the ring buffer.
#[repr(C)]
struct Record<const ROOM: usize> {
    watched: Watched,
    bytes: [u8; ROOM],
}

/// Nobody is woken: that would cost a packet many times what its copy does. Whoever watches looks by itself.
#[inline(always)]
fn record<C: Load, const ROOM: usize>(ctx: &C, watched: Watched) -> bool {
    let Some(mut room) = WATCH_COPIES.reserve::<Record<ROOM>>(0) else { return false };
    let record = room.as_mut_ptr();
    // SAFETY: it is as long as the record.
    let bytes = unsafe {
        (&raw mut (*record).watched).write(watched);
        (&raw mut (*record).bytes).cast()
    };
    let is_there = ctx.load(bytes, watched.copied);
    match is_there {
        true => room.submit(BPF_RB_NO_WAKEUP.into()),
        false => room.discard(BPF_RB_NO_WAKEUP.into()),
    }
    is_there
}
