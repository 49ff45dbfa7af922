//! Programs for `cargo xtask bench path` only: never part of the production object. They are made of the production
//! adapters, and each begins with [`vary`], because a test-run repeats on one buffer.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(missing_docs, reason = "aya's macros wrap each documented program in a function of their own")]
#![allow(dead_code, reason = "the adapters serve more hooks than are measured here")]

mod apart;
mod bare;
mod bytes;
mod cookies;
mod forward;
mod frame;
mod maps;
mod object;
mod operations;
mod prove;
mod route;
mod skb;
mod steps;

use core::num::NonZeroU32;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::{TcContext, XdpContext};
use xlb_common::V4;
use xlb_common::abi::TCP;
use xlb_common::family::{End, Family as _, HeaderChange};
use xlb_common::hook::Kind;
use xlb_common::packet::Packet;
use xlb_common::path::{self, Arrival, Delivery, Door};
use xlb_common::reason::Reason;
use xlb_common::rewrite::{Ports, readdress, readdress_frame};
use xlb_common::tables::Tables;

use crate::frame::Frame;
use crate::maps::Maps;
use crate::skb::Skb;

/// What the packets of a measurement have in common, and where it is.
#[repr(C)]
struct Traffic {
    /// Flows in turn.
    flows: u32,
    /// Number of the next packet's flow.
    next: u32,
    /// Their VIP; an IPv4 address is in the first four bytes.
    vip: [u8; 16],
    /// The VIP's port, network byte order, and the first flow's client port.
    ports: [u8; 4],
    /// IP protocol number, TCP's or UDP's.
    protocol: u8,
    /// Always zero.
    zero: [u8; 3],
}

#[map]
static TRAFFIC: Array<Traffic> = Array::with_max_entries(1, 0);

/// The packet's first bytes, for [`restore`].
#[map]
static HEADERS: Array<[[u8; 8]; 10]> = Array::with_max_entries(1, 0);

/// What the harness itself costs.
#[xdp]
pub fn empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// What making the next packet costs.
#[xdp]
pub fn varied(ctx: XdpContext) -> u32 {
    let _ = vary(&mut Frame::of(&ctx));
    xdp_action::XDP_PASS
}

/// What making the next IPv6 packet costs.
#[xdp]
pub fn varied_v6(ctx: XdpContext) -> u32 {
    let _ = vary_v6(&mut Frame::of(&ctx));
    xdp_action::XDP_PASS
}

/// The limit: one lookup, and everything that need not be looked up is known beforehand.
#[xdp]
pub fn forwarder(ctx: XdpContext) -> u32 {
    let mut frame = Frame::of(&ctx);
    let _ = vary(&mut frame);
    forward::xdp(hard_coded(&mut frame, &Maps::of(&ctx)).ok_or(Reason::NotOurs))
}

/// The path, as `ingress_xdp` runs it.
#[xdp]
pub fn path_xdp(ctx: XdpContext) -> u32 {
    let _ = vary(&mut Frame::of(&ctx));
    let arrival = Arrival::at(Door::Xdp, ctx.ingress_ifindex() as u32);
    forward::xdp(path::ingress_usual(&mut Frame::of(&ctx), &Maps::of(&ctx), arrival))
}

/// The same with IPv6 packets.
#[xdp]
pub fn path_xdp_v6(ctx: XdpContext) -> u32 {
    let _ = vary_v6(&mut Frame::of(&ctx));
    let arrival = Arrival::at(Door::Xdp, ctx.ingress_ifindex() as u32);
    forward::xdp(path::ingress_usual(&mut Frame::of(&ctx), &Maps::of(&ctx), arrival))
}

/// What it costs to make the same packet again.
#[xdp]
pub fn restored(ctx: XdpContext) -> u32 {
    let _ = restore(&mut Frame::of(&ctx));
    xdp_action::XDP_PASS
}

/// An ICMP error, as the program beside `ingress_xdp` serves it.
#[xdp]
pub fn path_icmp(ctx: XdpContext) -> u32 {
    let _ = restore(&mut Frame::of(&ctx));
    let arrival = Arrival::at(Door::Xdp, ctx.ingress_ifindex() as u32);
    forward::xdp(path::ingress_of(Kind::Icmp, &mut Frame::of(&ctx), &Maps::of(&ctx), arrival))
}

/// What the harness costs with skbs.
#[classifier]
pub fn empty_tc(_ctx: TcContext) -> i32 {
    forward::TC_NEXT
}

/// What making the next packet costs with skbs.
#[classifier]
pub fn varied_tc(ctx: TcContext) -> i32 {
    let _ = vary(&mut Skb::of(&ctx));
    forward::TC_NEXT
}

/// The limit with skbs.
#[classifier]
pub fn forwarder_tc(ctx: TcContext) -> i32 {
    let mut skb = Skb::of(&ctx);
    let _ = vary(&mut skb);
    forward::to_pod(hard_coded(&mut skb, &Maps::of(&ctx)).ok_or(Reason::NotOurs), 1)
}

/// The path, as `ingress_tc` runs it.
#[classifier]
pub fn path_tc(ctx: TcContext) -> i32 {
    let mut skb = Skb::of(&ctx);
    let _ = vary(&mut skb);
    // A test-run's packets come by the loopback device.
    let arrival = Arrival::at(Door::Tc, 1);
    forward::to_pod(path::ingress_usual(&mut skb, &Maps::of(&ctx), arrival), 1)
}

/// Undoes what the path did to the packet before, and makes it the next flow's. In the words that the path reads: a
/// packet's bytes come from a device long before, and a read that spans two fresh writes would wait for both. Tells the traffic, and the flow's number.
#[inline(always)]
fn vary<P: Packet>(frame: &mut P) -> Option<(&'static Traffic, u32)> {
    let (traffic, flow) = next_flow()?;
    let [[v0, v1, c0, c1], [s0, s1, s2, s3]] = [traffic.ports, (0x0a00_0000 + flow).to_be_bytes()];
    let [d0, d1, d2, d3] = V4::from_stored(traffic.vip);
    frame.store(0, [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2])?;
    // TTL, protocol, and a checksum: only its arithmetic costs, whatever it is.
    frame.store(22, [64, traffic.protocol, 0x12, 0x34, s0, s1, s2, s3])?;
    frame.store(30, [d0, d1, d2, d3, c0, c1, v0, v1])?;
    frame.store(50, [0x56, 0x78])?;
    Some((traffic, flow))
}

/// The same for IPv6: the clients are those of one network.
#[inline(always)]
fn vary_v6<P: Packet>(frame: &mut P) -> Option<()> {
    let (traffic, flow) = next_flow()?;
    let [[v0, v1, c0, c1], [f0, f1, f2, f3]] = [traffic.ports, flow.to_be_bytes()];
    let [a, b, c, d, e, f, g, _] = frame.load::<8>(14)?;
    frame.store(0, [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2])?;
    frame.store(14, [a, b, c, d, e, f, g, 64])?;
    frame.store(30, [0, 0, 0, 0, f0, f1, f2, f3])?;
    frame.store(38, traffic.vip)?;
    frame.store(54, [c0, c1, v0, v1])?;
    frame.store(70, [0x56, 0x78])
}

/// Makes the packet what it was before the path came to it, whatever it is.
#[inline(always)]
fn restore(frame: &mut Frame) -> Option<()> {
    let words = HEADERS.get(0)?;
    for (index, word) in words.iter().enumerate() {
        frame.store(index * size_of_val(word), *word)?;
    }
    Some(())
}

/// The flow of the next packet.
#[inline(always)]
fn next_flow() -> Option<(&'static Traffic, u32)> {
    let traffic = TRAFFIC.get_ptr_mut(0)?;
    // SAFETY: the entry is this program's alone, and a measurement runs on one CPU.
    let traffic = unsafe { &mut *traffic };
    let flow = traffic.next;
    traffic.next = if flow + 1 < traffic.flows { flow + 1 } else { 0 };
    Some((traffic, flow))
}

#[inline(always)]
fn hard_coded<P: Packet>(frame: &mut P, maps: &impl Tables<V4>) -> Option<Delivery> {
    let parsed = bare::parsed(frame)?;
    maps.frontend(V4::endpoint_key(parsed.destination.0, parsed.destination.1, TCP))?;
    readdress_frame(frame, [2, 0, 0, 1, 0, 1], [2, 0, 0, 2, 0, 1])?;
    let change = HeaderChange { end: End::Destination, address: [10, 244, 1, 1], counts_hop: true };
    readdress(frame, &parsed, change, Ports::of_end([0x1f, 0x90]))?;
    Some(Delivery { to: NonZeroU32::new(1), reason: Reason::SlotOwner })
}
