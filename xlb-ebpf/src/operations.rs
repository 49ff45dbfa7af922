//! What the path does with maps, each by itself: where its nanoseconds go. Programs for `cargo xtask bench path` only. Each makes the
//! next packet first, as the others do, so that the difference is the operation.

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use xlb_common::V4;
use xlb_common::abi::{FlowEntry, FlowKeyV4, TCP};
use xlb_common::family::Family as _;
use xlb_common::reason::Reason;
use xlb_common::stats::count_forward;
use xlb_common::tables::{FlowTable, Tables};

use crate::frame::Frame;
use crate::maps::{Maps, count};
use crate::vary;

const FOUND: u32 = xdp_action::XDP_PASS;
const MISSING: u32 = xdp_action::XDP_DROP;
/// A service and a backend that the bench has.
const SERVICE: u32 = 1;

/// A look for a frontend: DIRECTORY and PLACES, two arrays.
#[xdp]
pub fn look_frontend(ctx: XdpContext) -> u32 {
    let Some((traffic, _)) = vary(&mut Frame::of(&ctx)) else { return MISSING };
    let [v0, v1, ..] = traffic.ports;
    let key = V4::endpoint_key(V4::from_stored(traffic.vip), [v0, v1], TCP);
    let maps = Maps::of(&ctx);
    let found = Tables::<V4>::frontend(&maps, key).is_some();
    if found { FOUND } else { MISSING }
}

/// A slot's word, its member and its backend: three arrays.
#[xdp]
pub fn look_backend(ctx: XdpContext) -> u32 {
    let Some((_, flow)) = vary(&mut Frame::of(&ctx)) else { return MISSING };
    let maps = Maps::of(&ctx);
    let owner = Tables::<V4>::slot(&maps, 251 + flow % 251).and_then(|word| word.current());
    let Some(owner) = owner else { return MISSING };
    let Some(member) = Tables::<V4>::member(&maps, 3 + u32::from(owner)) else { return MISSING };
    let is_that_one = Tables::<V4>::backend(&maps, member.id()).is_some_and(|it| it.generation == member.generation);
    if is_that_one { FOUND } else { MISSING }
}

/// A look into a flow map: an LRU hash.
#[xdp]
pub fn look_flow(ctx: XdpContext) -> u32 {
    let Some((_, flow)) = vary(&mut Frame::of(&ctx)) else { return MISSING };
    let maps = Maps::of(&ctx);
    if Tables::<V4>::flow_at(&maps, FlowTable::Udp, &key_of(flow)).is_some() { FOUND } else { MISSING }
}

/// An entry written to it: of as many flows as it holds, most are there already.
#[xdp]
pub fn write_flow(ctx: XdpContext) -> u32 {
    let Some((_, flow)) = vary(&mut Frame::of(&ctx)) else { return MISSING };
    let maps = Maps::of(&ctx);
    Tables::<V4>::remember(&maps, FlowTable::Udp, &key_of(flow), &FlowEntry::default());
    FOUND
}

/// A verdict's counter.
#[xdp]
pub fn count_reason(ctx: XdpContext) -> u32 {
    if vary(&mut Frame::of(&ctx)).is_none() {
        return MISSING;
    }
    count(Reason::SlotOwner);
    FOUND
}

/// A service's packets and bytes.
#[xdp]
pub fn count_service(ctx: XdpContext) -> u32 {
    if vary(&mut Frame::of(&ctx)).is_none() {
        return MISSING;
    }
    count_forward::<V4, _, _>(&Maps::of(&ctx), &Frame::of(&ctx), SERVICE);
    FOUND
}

#[inline(always)]
fn key_of(flow: u32) -> FlowKeyV4 {
    V4::flow_key((flow.to_be_bytes(), [0x9c, 0x40]), ([10, 244, 1, 1], [0x1f, 0x90]))
}
