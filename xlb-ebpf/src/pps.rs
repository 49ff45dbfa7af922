//! Programs for `cargo xtask bench pps` only: never part of the production object. One makes packets, two forward them with no
//! more than it takes, and two count what arrives.
//!
//! [`segments()`] is run with live frames, as `flood` is.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(missing_docs, reason = "aya's macros wrap each documented program in a function of their own")]
#![allow(dead_code, reason = "the adapters serve more than is measured here")]

mod bare;
mod bytes;
mod frame;
mod object;
mod segments;
mod skb;

use aya_ebpf::bindings::{TC_ACT_SHOT, xdp_action};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_redirect, bpf_redirect_peer};
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::programs::{TcContext, XdpContext};
use xlb_common::V4;
use xlb_common::abi::TCP;
use xlb_common::family::{End, Family, HeaderChange};
use xlb_common::packet::Packet;
use xlb_common::rewrite::{Ports, readdress, readdress_frame};

use crate::frame::Frame;
use crate::segments::{Course, Origin};
use crate::skb::Skb;

/// Where packets go; with TCP's flags, and whether each is of a flow that was not seen before: zero or one.
#[map]
static TRAFFIC: Array<Course> = Array::with_max_entries(1, 0);
/// Where a bare forwarder sends what is for an endpoint.
#[map]
static TARGETS: HashMap<<V4 as Family>::EndpointKey, Course> = HashMap::with_max_entries(16, 0);
#[map]
static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

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
fn write(frame: &mut Frame, traffic: &Course) -> Option<()> {
    let [flags, is_new] = traffic.more;
    // SAFETY: the helper takes nothing.
    let random = || if is_new == 0 { ONE_FLOW } else { unsafe { bpf_get_prandom_u32() } };
    let (host, sequence) = (random(), random());
    segments::write(frame, traffic, &Origin::of(host, sequence >> 16, sequence), flags, [])
}

/// The limit: what need not be looked up is known beforehand. The device by which the packet has to leave.
#[inline(always)]
fn forward<P: Packet>(packet: &mut P) -> Option<u32> {
    let parsed = bare::parsed(packet)?;
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
