//! The host's ends of pods' links: clients whose sockets nobody sees.
//!
//! Two programs are attached to every link, and write nothing: a program that may write to packets begins by making those
//! its own that are shared with the sender's socket (`bpf_unclone_prologue`), and each packet of each pod would pay for it.

use aya_ebpf::bindings::{BPF_ANY, TC_ACT_SHOT};
use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_redirect};
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::{Array, LruHashMap, ProgramArray};
use aya_ebpf::programs::TcContext;
use xlb_common::abi::{
    CLIENT_LINKS_MAX, InsideAffinity, InsideFlow, LINK_AFFINITY_MAX, LINK_FLOWS_MAX, LINK_UDP_FLOWS_MAX, LinkFlowKey,
    SourceKeyV6, TCP,
};
use xlb_common::links::{self, Job, Link, LinkTables, errors, fragments};
use xlb_common::{Disposition, Reason};

use crate::apart::Apart;
use crate::forward::TC_NEXT;
use crate::maps::{FamilyMaps, Maps, count};
use crate::skb::{Skb, device};

#[map]
static LINK_FLOWS: LruHashMap<LinkFlowKey, InsideFlow> = LruHashMap::with_max_entries(LINK_FLOWS_MAX, 0);
#[map]
static LINK_UDP_FLOWS: LruHashMap<LinkFlowKey, InsideFlow> = LruHashMap::with_max_entries(LINK_UDP_FLOWS_MAX, 0);
#[map]
static LINK_AFFINITY: LruHashMap<SourceKeyV6, InsideAffinity> = LruHashMap::with_max_entries(LINK_AFFINITY_MAX, 0);
#[map]
static CLIENT_LINKS: Array<u32> = Array::with_max_entries(CLIENT_LINKS_MAX, 0);
#[map]
static JUMPS_LINKS: ProgramArray = ProgramArray::with_max_entries(Job::ALL.len() as u32, 0);

/// What a pod sends.
#[classifier]
pub fn link_ingress(ctx: TcContext) -> i32 {
    hand_over(&ctx, links::look(&Skb::readable(&ctx), &Maps::of(&ctx)))
}

/// What goes into a pod.
#[classifier]
pub fn link_egress(ctx: TcContext) -> i32 {
    if !has_clients(device(&ctx)) {
        return TC_NEXT;
    }
    hand_over(&ctx, links::look_back(&Skb::readable(&ctx)))
}

#[classifier]
pub fn link_serve(ctx: TcContext) -> i32 {
    let link = link(&ctx);
    end(links::serve(&mut Skb::of(&ctx), &Maps::of(&ctx), link), link.ifindex)
}

#[classifier]
pub fn link_serve_error(ctx: TcContext) -> i32 {
    end(errors::serve(&mut Skb::of(&ctx), &Maps::of(&ctx)), 0)
}

#[classifier]
pub fn link_serve_fragment(ctx: TcContext) -> i32 {
    let link = link(&ctx);
    end(fragments::serve(&mut Skb::of(&ctx), &Maps::of(&ctx), link), link.ifindex)
}

#[classifier]
pub fn link_restore(ctx: TcContext) -> i32 {
    end(links::restore(&mut Skb::of(&ctx), &Maps::of(&ctx)), 0)
}

#[classifier]
pub fn link_restore_error(ctx: TcContext) -> i32 {
    end(errors::restore(&mut Skb::of(&ctx), &Maps::of(&ctx)), 0)
}

#[classifier]
pub fn link_restore_fragment(ctx: TcContext) -> i32 {
    end(fragments::restore(&mut Skb::of(&ctx), &Maps::of(&ctx)), 0)
}

/// Goes on in the program for the packet; without one the packet goes on.
#[inline(always)]
fn hand_over(ctx: &TcContext, job: Option<Job>) -> i32 {
    if let Some(job) = job {
        // SAFETY: nothing that is alive here has to be dropped.
        unsafe { JUMPS_LINKS.tail_call(ctx, job as u32) };
    }
    TC_NEXT
}

#[inline(always)]
fn link(ctx: &TcContext) -> Link {
    // SAFETY: the helper takes nothing.
    Link { ifindex: device(ctx), random: unsafe { bpf_get_prandom_u32() } }
}

/// What a verdict means at a link. Packets of others are not counted.
#[inline(always)]
fn end(verdict: Option<Reason>, link: u32) -> i32 {
    let Some(reason) = verdict else { return TC_NEXT };
    count(reason);
    match reason.disposition() {
        // SAFETY: the helper only records the target; the kernel checks it when the program has returned.
        Disposition::Reply => (unsafe { bpf_redirect(link, 0) }) as i32,
        Disposition::Drop => TC_ACT_SHOT as i32,
        Disposition::Pass | Disposition::Forward => TC_NEXT,
    }
}

#[inline(always)]
fn has_clients(ifindex: u32) -> bool {
    CLIENT_LINKS.get(ifindex % CLIENT_LINKS_MAX).is_some_and(|&has| has != 0)
}

#[inline(always)]
fn flows(key: &LinkFlowKey) -> &'static LruHashMap<LinkFlowKey, InsideFlow> {
    if key.protocol == TCP { &LINK_FLOWS } else { &LINK_UDP_FLOWS }
}

impl<F: FamilyMaps, C: Apart<F>> LinkTables<F> for Maps<'_, C> {
    #[inline(always)]
    fn link_flow(&self, key: &LinkFlowKey) -> Option<InsideFlow> {
        // SAFETY: an entry that is evicted meanwhile stays readable until the program has ended (RCU); a torn read is of
        // one client's peers.
        unsafe { flows(key).get(key) }.copied()
    }

    #[inline(always)]
    fn remember_link_flow(&self, key: &LinkFlowKey, value: &InsideFlow) {
        // A full LRU evicts; a connection without its entry is left to the stack.
        let _ = flows(key).insert(key, value, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn link_affinity(&self, service: u32, client: F::Address) -> Option<InsideAffinity> {
        // SAFETY: an entry that is evicted meanwhile stays readable until the program has ended (RCU); of a torn read
        // only an endpoint that the service has is followed.
        unsafe { LINK_AFFINITY.get(SourceKeyV6 { service, client: F::to_stored(client) }) }.copied()
    }

    #[inline(always)]
    fn record_link_affinity(&self, service: u32, client: F::Address, value: &InsideAffinity) {
        // A full LRU evicts; without a record the client's next connection goes to any endpoint.
        let key = SourceKeyV6 { service, client: F::to_stored(client) };
        let _ = LINK_AFFINITY.insert(key, value, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn has_clients(&self, ifindex: u32) -> bool {
        has_clients(ifindex)
    }

    #[inline(always)]
    fn note_clients(&self, ifindex: u32) {
        if !has_clients(ifindex)
            && let Some(has) = CLIENT_LINKS.get_ptr_mut(ifindex % CLIENT_LINKS_MAX)
        {
            // SAFETY: the entry lives as long as the map; every writer writes the same number.
            unsafe { has.write(1) };
        }
    }
}
