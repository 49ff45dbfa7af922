//! Copies what an uplink's XDP meets, for `xlb watch`, and hands the packet on to the program that serves.
//!
//! It is loaded by whoever watches, put into the uplink's link, and taken out again: nobody else's packets pay for it.
#![no_std]
#![no_main]
#![allow(missing_docs, reason = "aya's macros wrap each documented program in a function of their own")]

mod object;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_xdp_get_buff_len};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{PerfEventByteArray, ProgramArray};
use aya_ebpf::programs::XdpContext;
use xlb_common::watched::{COPIED_MAX, Watched};

#[map]
static WATCH_NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);

#[map]
static WATCH_COPIES: PerfEventByteArray = PerfEventByteArray::new(0);

/// Of so many packets one is copied, chosen by chance.
#[unsafe(no_mangle)]
static WATCH_ONE_IN: u32 = 1;

/// Any packet. The program that serves is in `WATCH_NEXT` before this one gets its first.
#[xdp(frags)]
pub fn watch_xdp(ctx: XdpContext) -> u32 {
    copy(&ctx);
    // SAFETY: the context is the one that this program was called with.
    unsafe { WATCH_NEXT.tail_call(&ctx, 0) };
    xdp_action::XDP_PASS
}

#[inline(always)]
fn copy(ctx: &XdpContext) {
    // SAFETY: the loader writes it before the program is verified, and nobody after.
    let one_in = unsafe { core::ptr::read_volatile(&raw const WATCH_ONE_IN) };
    // SAFETY: the helper takes nothing.
    if one_in > 1 && unsafe { bpf_get_prandom_u32() } % one_in != 0 {
        return;
    }
    // SAFETY: one helper only reads the context, the other takes nothing.
    let (length, at_ns) = unsafe { (bpf_xdp_get_buff_len(ctx.ctx) as u32, bpf_ktime_get_ns()) };
    let copied = if length < COPIED_MAX { length } else { COPIED_MAX };
    WATCH_COPIES.output(ctx, &Watched { at_ns, length, copied }.bytes(), copied);
}
