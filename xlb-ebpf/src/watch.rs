//! Copies packets for `xlb watch` before the programs that serve see them.
//!
//! It is loaded by whoever watches, attached, and taken away again: nobody else's packets pay for it.
#![no_std]
#![no_main]
#![allow(missing_docs, reason = "aya's macros wrap each documented program in a function of their own")]

mod object;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_xdp_get_buff_len};
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::{PerfEventByteArray, ProgramArray};
use aya_ebpf::programs::{TcContext, XdpContext};
use xlb_common::watched::{COPIED_MAX, Watched};

/// include/uapi/linux/if_packet.h.
const PACKET_OTHERHOST: u32 = 3;

/// The programs that serve, by native and by generic XDP.
#[map]
static WATCH_NEXT: ProgramArray = ProgramArray::with_max_entries(2, 0);

#[map]
static WATCH_COPIES: PerfEventByteArray = PerfEventByteArray::new(0);

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

#[inline(always)]
fn copy<C: EbpfContext>(ctx: &C, watched: Watched) {
    let copied = if watched.length < COPIED_MAX { watched.length } else { COPIED_MAX };
    // SAFETY: the helper takes nothing.
    let at_ns = unsafe { bpf_ktime_get_ns() };
    WATCH_COPIES.output(ctx, &Watched { at_ns, copied, ..watched }.bytes(), copied);
}
