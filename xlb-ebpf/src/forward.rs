//! What a verdict of the path means at each hook. Every verdict is counted here, once.

use aya_ebpf::bindings::{TC_ACT_SHOT, xdp_action};
use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_peer};
use xlb_common::path::Delivery;
use xlb_common::{Disposition, Reason};

use crate::maps::count;

/// Leave the packet to the next program, or to the stack (TCX_NEXT, which is TC_ACT_UNSPEC for clsact).
pub const TC_NEXT: i32 = -1;

/// XDP: redirect to the pod's link, drop, or pass.
#[inline(always)]
pub fn xdp(verdict: Result<Delivery, Reason>) -> u32 {
    match counted(verdict) {
        // SAFETY: the helper only records the target for the driver's redirect.
        Ok(Delivery { to: Some(ifindex), .. }) => (unsafe { bpf_redirect(ifindex.get(), 0) }) as u32,
        Ok(_) => xdp_action::XDP_PASS,
        Err(Disposition::Drop) => xdp_action::XDP_DROP,
        Err(Disposition::Reply) => xdp_action::XDP_TX,
        Err(Disposition::Pass | Disposition::Forward) => xdp_action::XDP_PASS,
    }
}

/// tc on the uplink: straight into the pod's namespace, back by the uplink, drop, or next.
#[inline(always)]
pub fn to_pod(verdict: Result<Delivery, Reason>, uplink: u32) -> i32 {
    match counted(verdict) {
        // SAFETY: the helper only records the target; the kernel checks it when the program has returned.
        Ok(Delivery { to: Some(ifindex), .. }) => (unsafe { bpf_redirect_peer(ifindex.get(), 0) }) as i32,
        // SAFETY: as above.
        Err(Disposition::Reply) => (unsafe { bpf_redirect(uplink, 0) }) as i32,
        Err(Disposition::Drop) => TC_ACT_SHOT as i32,
        _ => TC_NEXT,
    }
}

/// tc on the way out: to the uplink's egress, drop, or next.
#[inline(always)]
pub fn to_uplink(verdict: Result<Delivery, Reason>) -> i32 {
    match counted(verdict) {
        // SAFETY: the helper only records the target; the kernel checks it when the program has returned.
        Ok(Delivery { to: Some(ifindex), .. }) => (unsafe { bpf_redirect(ifindex.get(), 0) }) as i32,
        Err(Disposition::Drop) => TC_ACT_SHOT as i32,
        _ => TC_NEXT,
    }
}

#[inline(always)]
fn counted(verdict: Result<Delivery, Reason>) -> Result<Delivery, Disposition> {
    match verdict {
        Ok(delivery) => {
            count(delivery.reason);
            Ok(delivery)
        }
        Err(reason) => {
            count(reason);
            Err(reason.disposition())
        }
    }
}
