//! Makes floods for tests: SYNs from addresses and ports that nobody has. Never part of the production object.
//!
//! Run with live frames (BPF_F_TEST_XDP_LIVE_FRAMES), each run sends its frame out of a device.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(missing_docs, reason = "aya's macros wrap each documented program in a function of their own")]
#![allow(dead_code, reason = "the adapters serve more than this")]

mod bytes;
mod frame;
mod object;
mod segments;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_redirect};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::XdpContext;
use xlb_common::parse::tcp_flags;

use crate::frame::Frame;
use crate::segments::{Course, Origin};

#[map]
static FLOOD: Array<Course> = Array::with_max_entries(1, 0);

/// A maximum segment size of 1 460.
const TCP_OPTION: [u8; 4] = [2, 4, 0x05, 0xb4];

/// The next packet of the flood.
#[xdp]
pub fn flood(ctx: XdpContext) -> u32 {
    let Some(flood) = FLOOD.get(0) else { return xdp_action::XDP_ABORTED };
    match write(&mut Frame::of(&ctx), flood) {
        // SAFETY: the helper takes two numbers.
        Some(()) => unsafe { bpf_redirect(flood.ifindex, 0) as u32 },
        None => xdp_action::XDP_ABORTED,
    }
}

#[inline(always)]
fn write(frame: &mut Frame, flood: &Course) -> Option<()> {
    // SAFETY: the helper takes nothing.
    let (random, sequence) = unsafe { (bpf_get_prandom_u32(), bpf_get_prandom_u32()) };
    let from = Origin::of(random, (random >> 16) ^ (sequence & 0xffff), sequence);
    segments::write(frame, flood, &from, tcp_flags::SYN, TCP_OPTION)
}
