//! Programs for `cargo xtask bench pps` only: never part of the production object. One makes packets, two forward them with no
//! more than it takes, and two count what arrives.
//!
//! [`segments`] is run with live frames, as `flood` is, and writes whole packets for the same reason.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(missing_docs, reason = "aya's macros wrap each documented program in a function of their own")]
#![allow(dead_code, reason = "the adapters serve more than is measured here")]

mod bytes;
mod frame;
mod object;
mod skb;
mod sums;

use aya_ebpf::bindings::{TC_ACT_SHOT, xdp_action};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_redirect, bpf_redirect_peer};
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::{TcContext, XdpContext};
use xlb_common::V4;
use xlb_common::abi::TCP;
use xlb_common::family::{End, Family, HeaderChange};
use xlb_common::packet::Packet;
use xlb_common::parse::{Endpoint, Macs, Parsed, TcpView, Transport};
use xlb_common::rewrite::{Ports, readdress, readdress_frame};

use crate::frame::Frame;
use crate::skb::Skb;
use crate::sums::{folded, halves, words};

/// What all packets have in common.
#[repr(C)]
struct Traffic {
    /// The device that they leave by.
    ifindex: u32,
    /// The MACs of their receiver and of that device.
    macs: [u8; 12],
    /// Where they go.
    address: [u8; 4],
    /// Its port, network byte order.
    port: [u8; 2],
    /// TCP's flags.
    flags: u8,
    /// Zero: all packets are of one flow. One: each is of a flow that was not seen before.
    is_new: u8,
}

/// Where a bare forwarder sends what is for an endpoint.
#[repr(C)]
struct Target {
    /// The node's end of the pod's link.
    ifindex: u32,
    /// The MACs of the pod and of that end.
    macs: [u8; 12],
    /// The pod's address.
    address: [u8; 4],
    /// The pod's port, network byte order.
    port: [u8; 2],
    /// Always zero.
    zero: [u8; 2],
}

#[map]
static TRAFFIC: Array<Traffic> = Array::with_max_entries(1, 0);
#[map]
static TARGETS: HashMap<<V4 as Family>::EndpointKey, Target> = HashMap::with_max_entries(16, 0);
#[map]
static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// Sources are those of 100.64.0.0/10 (RFC 6598), which no lab has.
const NETWORK: u32 = 0x6440_0000;
const HOSTS: u32 = 0x003f_ffff;
/// Version, header length, type of service; length; identification; do not fragment.
const IP_START: [u8; 8] = [0x45, 0, 0, 40, 0, 0, 0x40, 0];
const TTL_AND_TCP: [u8; 2] = [64, TCP];
const TCP_LENGTH: u8 = 0x50;
const WINDOW: [u8; 2] = [0xfa, 0xf0];
const TCP_BYTES: u32 = 20;
/// The only flow, and its sequence number.
const ONE_FLOW: u32 = 0x0001_0001;
/// TCX_NEXT.
const TC_NEXT: i32 = -1;

/// The next packet.
#[xdp]
pub fn segments(ctx: XdpContext) -> u32 {
    let Some(traffic) = TRAFFIC.get(0) else { return xdp_action::XDP_ABORTED };
    match write(&mut Frame::of(&ctx), traffic) {
        // SAFETY: the helper takes two numbers.
        Some(()) => unsafe { bpf_redirect(traffic.ifindex, 0) as u32 },
        None => xdp_action::XDP_ABORTED,
    }
}

/// XDP on the uplink: into the pod's link.
#[xdp]
pub fn bare_xdp(ctx: XdpContext) -> u32 {
    match forward(&mut Frame::of(&ctx)) {
        // SAFETY: the helper only records the target for the driver's redirect.
        Some(ifindex) => unsafe { bpf_redirect(ifindex, 0) as u32 },
        None => xdp_action::XDP_PASS,
    }
}

/// tc on the uplink: into the pod's namespace.
#[classifier]
pub fn bare_tc(ctx: TcContext) -> i32 {
    match forward(&mut Skb::of(&ctx)) {
        // SAFETY: the helper only records the target; the kernel checks it when the program has returned.
        Some(ifindex) => unsafe { bpf_redirect_peer(ifindex, 0) as i32 },
        None => TC_NEXT,
    }
}

/// Counts and drops, by XDP.
#[xdp]
pub fn count_xdp(ctx: XdpContext) -> u32 {
    if is_counted(&Frame::of(&ctx)) { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}

/// Counts and drops, at tc ingress.
#[classifier]
pub fn count_tc(ctx: TcContext) -> i32 {
    if is_counted(&Skb::of(&ctx)) { TC_ACT_SHOT as i32 } else { TC_NEXT }
}

#[inline(always)]
fn write(frame: &mut Frame, traffic: &Traffic) -> Option<()> {
    // SAFETY: the helper takes nothing.
    let random = || if traffic.is_new == 0 { ONE_FLOW } else { unsafe { bpf_get_prandom_u32() } };
    let (source, sequence) = (NETWORK | (random() & HOSTS), random());
    // Ports from 1 024 on.
    let source_port = 1_024 + (sequence >> 16) % 64_512;
    let [s0, s1, s2, s3] = source.to_be_bytes();
    let [.., p0, p1] = source_port.to_be_bytes();
    let [q0, q1, q2, q3] = sequence.to_be_bytes();
    let ([d0, d1, d2, d3], [v0, v1]) = (traffic.address, traffic.port);
    let middle = [TCP_LENGTH, traffic.flags, WINDOW[0], WINDOW[1]];
    let ends = halves(source) + words(traffic.address);
    let [i0, i1] = folded(ends + words(IP_START) + words(TTL_AND_TCP));
    let pseudo = ends + u32::from(TCP) + TCP_BYTES;
    let [t0, t1] = folded(pseudo + source_port + words(traffic.port) + halves(sequence) + words(middle));
    frame.store(0, traffic.macs)?;
    frame.store(12, [0x08, 0x00])?;
    frame.store(14, IP_START)?;
    frame.store(22, TTL_AND_TCP)?;
    frame.store(24, [i0, i1, s0, s1, s2, s3, d0, d1, d2, d3])?;
    frame.store(34, [p0, p1, v0, v1, q0, q1, q2, q3, 0, 0, 0, 0])?;
    frame.store(46, middle)?;
    frame.store(50, [t0, t1, 0, 0])
}

/// The limit: what need not be looked up is known beforehand. The device by which the packet has to leave.
#[inline(always)]
fn forward<P: Packet>(packet: &mut P) -> Option<u32> {
    let (kind, header) = (packet.load::<2>(12)?, packet.load::<24>(14)?);
    if kind != [8, 0] || [header[0], header[9]] != [0x45, TCP] {
        return None;
    }
    let [.., s0, s1, s2, s3, d0, d1, d2, d3, c0, c1, v0, v1] = header;
    let parsed: Parsed<V4> = Parsed {
        source: Endpoint([s0, s1, s2, s3], [c0, c1]),
        destination: Endpoint([d0, d1, d2, d3], [v0, v1]),
        transport: Transport::of_tcp(TcpView::NOTHING),
        hops: header[8],
        macs: Macs { destination: [0; 6], source: [0; 6] },
    };
    let key = V4::endpoint_key(parsed.destination.0, parsed.destination.1, TCP);
    // SAFETY: nobody changes the map while packets pass.
    let target = unsafe { TARGETS.get(&key) }?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = target.macs;
    readdress_frame(packet, [a, b, c, d, e, f], [g, h, i, j, k, l])?;
    let change = HeaderChange { end: End::Destination, address: target.address, counts_hop: true };
    readdress(packet, &parsed, change, Ports::of_end(target.port))?;
    Some(target.ifindex)
}

/// TCP over IPv4 is counted; what neighbours ask each other is not.
#[inline(always)]
fn is_counted<P: Packet>(packet: &P) -> bool {
    if packet.load::<2>(12) != Some([8, 0]) || packet.load::<1>(23) != Some([TCP]) {
        return false;
    }
    if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: the entry is this CPU's alone, and a program is not interrupted by itself.
        unsafe { *arrived += 1 };
    }
    true
}
