//! From what is desired and what is observed to the operations that close the gap. Pure.
//!
//! Read in this order:
//! [`desired`] (the input),
//! [`endpoint`] (an address with its port),
//! [`observed`] (what the maps hold),
//! [`entries`] (arrays in it),
//! [`slots`] (its words, and what they say),
//! [`endpoints`] (its part for clients inside),
//! [`op`] (one change to them),
//! [`plan()`] (all of it),
//! [`part`] (what some services have of it),
//! `cursor` (entries in order),
//! `services` (each service in turn),
//! `frontends` (where its VIPs lead),
//! `vips` (which addresses those are),
//! `formers` (who had them),
//! `sole` (who alone leads to a pod),
//! `inside` (where they lead clients inside),
//! `sources` (for whom),
//! `layout` (a service's members and slots),
//! `table` (how they change),
//! `draft` (a table that is being changed),
//! [`sticky`] (who owns which slot),
//! `backends` (ids of pods),
//! `id_set` (ids as bits),
//! `space` (free parts of the arrays),
//! `refuse` (what does not fit),
//! [`maglev`] (tables that nodes agree on).

pub mod desired;
pub mod endpoint;
pub mod observed;
pub mod entries;
pub mod slots;
pub mod endpoints;
pub mod op;
pub mod part;
mod cursor;
mod services;
mod frontends;
mod vips;
mod formers;
mod sole;
mod inside;
mod sources;
mod layout;
mod table;
mod draft;
pub mod sticky;
mod backends;
mod id_set;
mod space;
mod refuse;
pub mod maglev;

#[cfg(test)]
mod tests;

use xlb_common::abi;

use self::backends::Backends;
use self::part::Part;
use self::refuse::Shortage;
use self::services::{ServiceOps, Services};

pub use self::backends::object_of_backend;
pub use self::desired::{Desired, Refusal};
pub use self::endpoint::Endpoint;
pub use self::observed::Observed;
pub use self::op::Op;

/// How much the maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of `FRONTENDS_V4`, and as many of `FRONTENDS_V6`.
    pub frontends: u32,
    /// Entries of `SERVICES`.
    pub services: u32,
    /// Words of `SLOTS`.
    pub slots: u32,
    /// Entries of `MEMBERS`.
    pub members: u32,
    /// Entries of `BACKENDS`.
    pub backends: u32,
    /// Entries of `SOURCE_RANGES_V4`, and as many of `SOURCE_RANGES_V6`.
    pub source_ranges: u32,
    /// Entries of `ENDPOINTS_V4`, and as many of `ENDPOINTS_V6`.
    pub endpoints: u32,
    /// Entries of `SOLE_FRONTENDS_V4`, and as many of `SOLE_FRONTENDS_V6`; zero: replies need entries (`--pod-ips routed`).
    pub sole_frontends: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frontends: abi::FRONTENDS_MAX,
            services: abi::SERVICES_MAX,
            slots: abi::SLOTS_MAX,
            members: abi::MEMBERS_MAX,
            backends: abi::BACKENDS_MAX,
            source_ranges: abi::SOURCE_RANGES_MAX,
            endpoints: abi::ENDPOINTS_MAX,
            sole_frontends: 0,
        }
    }
}

/// The way from what is observed to what is desired.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The operations, in the order in which they must be done. After each of them the dataplane is consistent.
    pub ops: Vec<Op>,
    /// What is not done and will not be, as long as nothing else changes.
    pub refusals: Vec<Refusal>,
    /// What is not done yet.
    pub waiting: Vec<Refusal>,
    /// When to plan again for what waits for room; none: nothing does.
    pub retry_at_ms: Option<u64>,
}

impl Plan {
    /// Whether it does all that is asked for, now.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.refusals.is_empty() && self.retry_at_ms.is_none()
    }
}

/// The operations that make `observed` what is desired, as far as it fits. None if it is already.
///
/// Invariant: nothing is removed before what replaces it is in place, so a crash between two operations breaks nothing.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed, limits: &Limits, now_ms: u64) -> Plan {
    plan_part(desired, &observed.whole(), observed, limits, now_ms)
}

/// The operations that [`plan()`] gives when nothing is to be done but for some services: `desired` is what is asked for of
/// these, and `part` is [`Observed::part`] of them.
#[must_use]
pub fn plan_part(desired: &Desired, part: &Part, whole: &Observed, limits: &Limits, now_ms: u64) -> Plan {
    let mut backends = Backends::new(desired, (part, whole), limits.backends, now_ms);
    let mut services = Services::new((&part.observed, whole), *limits, now_ms, &mut backends);
    services.plan(desired);
    let (service_ops, shortages, mut refusals) = services.into_results();
    let ops = in_order(service_ops, &backends, whole);
    let next_release_ms = whole.next_release_ms(now_ms);
    let may_pass = |shortage: &Shortage| shortage.limit.may_pass(!ops.is_empty(), next_release_ms.is_some());
    let (passing, last): (Vec<_>, Vec<_>) = shortages.into_iter().partition(may_pass);
    let next_chance_ms = if ops.is_empty() { next_release_ms } else { Some(now_ms) };
    let retry_at_ms = next_chance_ms.filter(|_| !passing.is_empty());
    refusals.extend(last.into_iter().map(|shortage| shortage.refusal(limits)));
    let mut waiting = backends.keeping_their_mode();
    waiting.extend(passing.into_iter().map(|shortage| shortage.refusal(limits)));
    Plan { ops, refusals, waiting, retry_at_ms }
}

/// Never delete before add: what is referred to comes before what refers to it, and goes after it.
fn in_order(services: ServiceOps, backends: &Backends, observed: &Observed) -> Vec<Op> {
    let (put_backends, put_backend_ids) = backends.puts();
    let phases = [
        services.removed_sole_frontends,
        put_backends,
        put_backend_ids,
        services.sole_frontends,
        services.members,
        services.endpoints,
        services.slots,
        services.records,
        services.removed_vips,
        services.early_removed_frontends,
        services.source_ranges,
        services.frontends,
        services.removed_frontends,
        services.removed_source_ranges,
        services.late_frontends,
        services.late_slots,
        services.taken_frontends,
        services.vips,
        services.late_records,
        backends.removals(),
    ];
    let mut ops = Vec::with_capacity(phases.iter().map(Vec::len).sum::<usize>() + 2);
    let stack_in_use = backends.use_stack();
    let generation = observed.generation;
    // Replies of the first backend behind the stack need `uplink_egress` before its first packet.
    if stack_in_use && !observed.stack_in_use {
        ops.push(Op::PutConfig { stack_in_use, generation });
    }
    phases.into_iter().for_each(|phase| ops.extend(phase));
    if !ops.is_empty() || stack_in_use != observed.stack_in_use {
        ops.push(Op::PutConfig { stack_in_use, generation: generation.wrapping_add(1) });
    }
    ops
}
