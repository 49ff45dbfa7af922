//! The programs for packets of a kind, to which the usual ones hand over.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{classifier, map, xdp};
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::{TcContext, XdpContext};
use xlb_common::Reason;
use xlb_common::hook::{Hook, JUMPS_MAX, Kind};
use xlb_common::path::{self, Arrival, Delivery, Door};

use crate::forward;
use crate::frame::Frame;
use crate::maps::{Maps, settings};
use crate::skb::{self, Skb};

#[map]
static JUMPS_TC: ProgramArray = ProgramArray::with_max_entries(JUMPS_MAX, 0);
#[map]
static JUMPS_XDP: ProgramArray = ProgramArray::with_max_entries(JUMPS_MAX, 0);

/// Goes on in the hook's program for the packet's kind, if it is of one and the agent has put a program there: then this
/// does not return.
#[inline(always)]
pub fn hand_over<C: EbpfContext>(ctx: &C, hook: Hook, verdict: &Result<Delivery, Reason>) {
    let Some(kind) = Kind::of(verdict) else { return };
    // Most of what a backend's port sends without an entry goes to the cluster, and nobody asked for more than that.
    if kind == Kind::Sole && !settings().pods_are_clusters() {
        return;
    }
    let jumps = if hook.is_xdp() { &JUMPS_XDP } else { &JUMPS_TC };
    // SAFETY: nothing that is alive here has to be dropped.
    unsafe { jumps.tail_call(ctx, hook.jump(kind)) };
}

macro_rules! ingress_programs {
    ($kind:ident: $xdp:ident, $xdp_alone:ident, $tc:ident) => {
        #[xdp(frags)]
        pub fn $xdp(ctx: XdpContext) -> u32 {
            ingress_xdp(&ctx, Kind::$kind, Door::Xdp)
        }

        #[xdp(frags)]
        pub fn $xdp_alone(ctx: XdpContext) -> u32 {
            ingress_xdp(&ctx, Kind::$kind, Door::XdpAlone)
        }

        #[classifier]
        pub fn $tc(ctx: TcContext) -> i32 {
            let arrival = Arrival::at(Door::Tc, skb::device(&ctx));
            let verdict = path::ingress_of(Kind::$kind, &mut Skb::of(&ctx), &Maps::of_kind(&ctx), arrival);
            forward::to_pod(verdict, arrival.ifindex)
        }
    };
}

macro_rules! egress_programs {
    ($kind:ident: $pod:ident, $egress:ident) => {
        #[classifier]
        pub fn $pod(ctx: TcContext) -> i32 {
            forward::to_uplink(path::egress_of::<_, _, true>(Kind::$kind, &mut Skb::of(&ctx), &Maps::of(&ctx)))
        }

        #[classifier]
        pub fn $egress(ctx: TcContext) -> i32 {
            forward::to_uplink(path::egress_of::<_, _, false>(Kind::$kind, &mut Skb::of(&ctx), &Maps::of(&ctx)))
        }
    };
}

macro_rules! programs {
    ($kind:ident: $xdp:ident, $xdp_alone:ident, $tc:ident, $pod:ident, $egress:ident) => {
        ingress_programs!($kind: $xdp, $xdp_alone, $tc);
        egress_programs!($kind: $pod, $egress);
    };
}

programs!(Icmp: ingress_xdp_icmp, ingress_xdp_alone_icmp, ingress_tc_icmp, pod_icmp, uplink_egress_icmp);
programs!(Fragment: ingress_xdp_fragment, ingress_xdp_alone_fragment, ingress_tc_fragment, pod_fragment, uplink_egress_fragment);
programs!(Sctp: ingress_xdp_sctp, ingress_xdp_alone_sctp, ingress_tc_sctp, pod_sctp, uplink_egress_sctp);
programs!(Shape: ingress_xdp_shape, ingress_xdp_alone_shape, ingress_tc_shape, pod_shape, uplink_egress_shape);
ingress_programs!(Twin: ingress_xdp_twin, ingress_xdp_alone_twin, ingress_tc_twin);
egress_programs!(Sole: pod_sole, uplink_egress_sole);

#[inline(always)]
fn ingress_xdp(ctx: &XdpContext, kind: Kind, door: Door) -> u32 {
    let arrival = Arrival::at(door, ctx.ingress_ifindex() as u32);
    forward::xdp(path::ingress_of(kind, &mut Frame::of(ctx), &Maps::of_kind(ctx), arrival))
}
