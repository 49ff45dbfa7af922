//! Makes floods for tests: SYNs from addresses and ports that nobody has. Never part of the production object.
//!
//! Run with live frames (BPF_F_TEST_XDP_LIVE_FRAMES), each run sends its frame out of a device. The kernel uses frames again
//! that their receiver has rewritten, so the whole packet is written each time.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(missing_docs, reason = "aya's macros wrap each documented program in a function of their own")]
#![allow(dead_code, reason = "the adapters serve more than this")]

mod bytes;
mod frame;
mod object;
mod sums;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_redirect};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::XdpContext;
use xlb_common::packet::Packet as _;

use crate::frame::Frame;
use crate::sums::{folded, halves, words};

/// What all packets of a flood have in common.
#[repr(C)]
struct Flood {
    /// The device that they leave by.
    ifindex: u32,
    /// The MACs of their receiver and of that device.
    macs: [u8; 12],
    /// Where they go.
    address: [u8; 4],
    /// Its port, network byte order.
    port: [u8; 2],
    /// Always zero.
    zero: [u8; 2],
}

#[map]
static FLOOD: Array<Flood> = Array::with_max_entries(1, 0);

/// Sources are those of 100.64.0.0/10 (RFC 6598), which no lab has.
const NETWORK: u32 = 0x6440_0000;
const HOSTS: u32 = 0x003f_ffff;
/// Version, header length, type of service; length; identification; do not fragment.
const IP_START: [u8; 8] = [0x45, 0, 0, 44, 0, 0, 0x40, 0];
const TTL_AND_TCP: [u8; 2] = [64, 6];
/// Header length, SYN; window.
const TCP_MIDDLE: [u8; 4] = [0x60, 0x02, 0xfa, 0xf0];
/// A maximum segment size of 1 460.
const TCP_OPTION: [u8; 4] = [2, 4, 0x05, 0xb4];
const TCP_BYTES: u32 = 24;

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
fn write(frame: &mut Frame, flood: &Flood) -> Option<()> {
    // SAFETY: the helper takes nothing.
    let (random, sequence) = unsafe { (bpf_get_prandom_u32(), bpf_get_prandom_u32()) };
    let source = NETWORK | (random & HOSTS);
    // Ports from 1 024 on.
    let source_port = 1_024 + ((random >> 16) ^ (sequence & 0xffff)) % 64_512;
    let [s0, s1, s2, s3] = source.to_be_bytes();
    let [.., p0, p1] = source_port.to_be_bytes();
    let [q0, q1, q2, q3] = sequence.to_be_bytes();
    let [d0, d1, d2, d3] = flood.address;
    let [v0, v1] = flood.port;
    let ends = halves(source) + halves(u32::from_be_bytes(flood.address));
    let ip = ends + words(IP_START) + u32::from(u16::from_be_bytes(TTL_AND_TCP));
    let ports = source_port + u32::from(u16::from_be_bytes(flood.port));
    let tcp = ends + u32::from(TTL_AND_TCP[1]) + TCP_BYTES + ports + halves(sequence);
    let [i0, i1] = folded(ip);
    let [t0, t1] = folded(tcp + words(TCP_MIDDLE) + words(TCP_OPTION));
    frame.store(0, flood.macs)?;
    frame.store(12, [0x08, 0x00])?;
    frame.store(14, IP_START)?;
    frame.store(22, TTL_AND_TCP)?;
    frame.store(24, [i0, i1, s0, s1, s2, s3, d0, d1, d2, d3])?;
    frame.store(34, [p0, p1, v0, v1, q0, q1, q2, q3, 0, 0, 0, 0])?;
    frame.store(46, TCP_MIDDLE)?;
    frame.store(50, [t0, t1, 0, 0])?;
    frame.store(54, TCP_OPTION)
}
