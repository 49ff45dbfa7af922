//! The kernel programs of xlb. Each is a thin adapter around `xlb_common::path`: it says where packets come from, what
//! answers for the tables, and what the verdict means at its hook.
//!
//! Read in this order: this file (the programs), [`kinds`] (those for few packets), [`forward`] (verdicts), [`maps`] (tables), [`frame`] and [`skb`]
//! (packets), [`inside`] (calls of sockets), [`links`] (pods whose sockets nobody sees).
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(missing_docs, reason = "aya's macros wrap each documented program in a function of their own")]

mod accepted;
mod apart;
mod bytes;
mod cookies;
mod forward;
mod frame;
mod inside;
mod kinds;
mod links;
mod maps;
mod object;
mod prove;
mod route;
mod skb;
mod steps;
mod words;

use aya_ebpf::macros::{cgroup_sock_addr, classifier, sock_ops, xdp};
use aya_ebpf::programs::{SockAddrContext, SockOpsContext, TcContext, XdpContext};
use xlb_common::Reason;
use xlb_common::hook::Hook;
use xlb_common::path::{self, Arrival, Door};
use xlb_common::unowned::is_to_vip;

use crate::frame::Frame;
use crate::inside::{ALLOW, Ip4, Ip6};
use crate::maps::Maps;
use crate::skb::Skb;

/// XDP on an uplink: what arrives from outside, before the stack made an skb of it. Only the headers are looked at, so a
/// frame in several buffers (jumbo MTU) is as good as any.
#[xdp(frags)]
pub fn ingress_xdp(ctx: XdpContext) -> u32 {
    let arrival = Arrival::at(Door::Xdp, ctx.ingress_ifindex() as u32);
    let verdict = path::ingress_usual(&mut Frame::of(&ctx), &Maps::of(&ctx), arrival);
    kinds::hand_over(&ctx, Hook::Xdp, &verdict);
    forward::xdp(verdict)
}

/// The same in generic mode, where no tc program of xlb is behind it.
#[xdp(frags)]
pub fn ingress_xdp_alone(ctx: XdpContext) -> u32 {
    let arrival = Arrival::at(Door::XdpAlone, ctx.ingress_ifindex() as u32);
    let verdict = path::ingress_usual(&mut Frame::of(&ctx), &Maps::of(&ctx), arrival);
    kinds::hand_over(&ctx, Hook::XdpAlone, &verdict);
    forward::xdp(verdict)
}

/// tc ingress on an uplink: the same path on skbs.
#[classifier]
pub fn ingress_tc(ctx: TcContext) -> i32 {
    let arrival = Arrival::at(Door::Tc, skb::device(&ctx));
    if skb::is_for_other_host(&ctx) {
        return forward::to_pod(Err(Reason::OtherHost), arrival.ifindex);
    }
    let verdict = path::ingress_usual(&mut Skb::of(&ctx), &Maps::of(&ctx), arrival);
    kinds::hand_over(&ctx, Hook::Tc, &verdict);
    forward::to_pod(verdict, arrival.ifindex)
}

/// tc ingress on the host's end of a pod's link: what the pod sends.
#[classifier]
pub fn pod(ctx: TcContext) -> i32 {
    let verdict = path::egress_usual::<_, _, true>(&mut Skb::of(&ctx), &Maps::of(&ctx));
    kinds::hand_over(&ctx, Hook::Pod, &verdict);
    forward::to_uplink(verdict)
}

/// tc egress on an uplink: what leaves after the host's stack. What came for a VIP and goes out again would come back.
#[classifier]
pub fn uplink_egress(ctx: TcContext) -> i32 {
    if maps::is_uplink(skb::came_by(&ctx)) && is_to_vip(&Skb::of(&ctx), &Maps::of(&ctx)) {
        return forward::to_uplink(Err(Reason::VipLooped));
    }
    if !maps::is_stack_in_use() {
        return forward::TC_NEXT;
    }
    let verdict = path::egress_usual::<_, _, false>(&mut Skb::of(&ctx), &Maps::of(&ctx));
    kinds::hand_over(&ctx, Hook::Egress, &verdict);
    forward::to_uplink(verdict)
}

/// sock_ops on the root cgroup: a pod's kernel accepted a connection, or its socket closed.
#[sock_ops]
pub fn accepted(ctx: SockOpsContext) -> u32 {
    accepted::on_event(&ctx);
    1
}

/// connect(2) of a process of this node or of its pods, to an IPv4 address.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    inside::connect::<Ip4>(&ctx)
}

/// The same for an IPv6 socket, also to an IPv4 address.
#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    inside::connect6(&ctx)
}

/// sendto(2) or sendmsg(2) of a UDP socket to an IPv4 address, an IPv6 socket's too.
#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    inside::send::<Ip4>(&ctx)
}

/// The same to an IPv6 address.
#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    inside::send::<Ip6>(&ctx)
}

/// recvfrom(2) or recvmsg(2) of an IPv4 UDP socket that asks for the sender.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    inside::received(inside::restore::<Ip4>(&ctx))
}

/// The same of an IPv6 socket, also from an IPv4 sender.
#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    inside::received(inside::restore6(&ctx))
}

/// getpeername(2) of an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    inside::restore::<Ip4>(&ctx);
    ALLOW
}

/// The same of an IPv6 socket, also with an IPv4 peer.
#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    inside::restore6(&ctx);
    ALLOW
}

/// Never attached: userspace asks by test-run which state a pod's socket has.
#[classifier]
pub fn prove(ctx: TcContext) -> i32 {
    prove::answer(&ctx)
}
