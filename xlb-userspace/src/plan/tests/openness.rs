//! Who may open connections, and where they go, while a plan is being done: what the filter and the hash depend on.

use std::collections::BTreeSet;

use ipnet::IpNet;
use proptest::prelude::*;
use xlb_common::abi::frontend_flags;

use super::maps::{Maps, Node};
use crate::plan::desired::{Desired, DesiredService};
use crate::plan::{Endpoint, Op};

/// Whom a frontend is open to; none: everybody.
type Clients = Option<BTreeSet<IpNet>>;

/// While a plan is being done, a frontend is never open to more than its first and its last state together are and, as
/// long as it stays with its service, never closed to what both are open to. One that comes or goes is open to the same
/// clients for as long as it is there.
pub fn check_openness(before: &Node, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut end = before.clone();
    ops.iter().for_each(|op| end.follow(op));
    let mut node = before.clone();
    for op in ops {
        node.follow(op);
        if matches!(op, Op::PutSlot { .. } | Op::PutMember { .. }) {
            continue;
        }
        for (key, frontend) in &node.maps.tables.frontends {
            let now = node.maps.open_to(frontend);
            let (was, will) = (open_to(&before.maps, key), open_to(&end.maps, key));
            let (Some(was), Some(will)) = (was.clone().or(will.clone()), will.or(was)) else { continue };
            let story = format!("{op}: {key} was open to {was:?}, will be to {will:?}, and is to {now:?}");
            prop_assert!(is_within(&now, &was, &will), "too far: {story}");
            let service = |node: &Node| node.maps.tables.frontends.get(key).map(|frontend| frontend.service);
            let stays = service(before).or(service(&end)) == service(&end).or(service(before));
            prop_assert!(!stays || holds_common(&now, &was, &will), "not far enough: {story}");
        }
        for (key, inside) in &node.maps.tables.inside.entries {
            let now = node.maps.open_to_inside(inside);
            let (was, will) = (open_inside(&before.maps, key), open_inside(&end.maps, key));
            let (Some(was), Some(will)) = (was.clone().or(will.clone()), will.or(was)) else { continue };
            prop_assert!(is_within(&now, &was, &will), "{op}: clients inside of {key} are let in too far");
        }
    }
    Ok(())
}

fn is_within(now: &Clients, was: &Clients, will: &Clients) -> bool {
    match (now, was, will) {
        (_, None, _) | (_, _, None) => true,
        (None, ..) => false,
        (Some(now), Some(was), Some(will)) => now.iter().all(|range| was.contains(range) || will.contains(range)),
    }
}

fn holds_common(now: &Clients, was: &Clients, will: &Clients) -> bool {
    match (now, was, will) {
        (None, ..) => true,
        (Some(_), None, None) => false,
        (Some(now), Some(one), None) | (Some(now), None, Some(one)) => one.is_subset(now),
        (Some(now), Some(was), Some(will)) => was.intersection(will).all(|range| now.contains(range)),
    }
}

/// None: there is no such frontend.
fn open_to(maps: &Maps, key: &Endpoint) -> Option<Clients> {
    maps.tables.frontends.get(key).map(|frontend| maps.open_to(frontend))
}

fn open_inside(maps: &Maps, key: &Endpoint) -> Option<Clients> {
    maps.tables.inside.entries.get(key).map(|inside| maps.open_to_inside(inside))
}

/// What frontends say of filter and affinity is what is asked for, and a service that was there and switched affinity
/// says so for as long as it is there.
pub fn check_affinity(before: &Node, after: &Node, desired: &Desired) -> Result<(), TestCaseError> {
    for (key, frontend) in &after.maps.tables.frontends {
        let name = &after.maps.services[&frontend.service].name;
        let wanted: &DesiredService =
            desired.services.iter().find(|(wanted, _)| wanted.to_string() == *name).unwrap().1;
        prop_assert_eq!(frontend.affinity_s, wanted.affinity_s);
        let ranges = after.maps.open_to(frontend);
        prop_assert_eq!(ranges.is_some(), wanted.sources.vips.contains(&key.socket.ip()));
        prop_assert!(ranges.unwrap_or_default().is_subset(&wanted.sources.ranges));

        let earlier = before.maps.tables.frontends.values().filter(|earlier| earlier.service == frontend.service);
        let is_rehashed = |flags: u16| flags & frontend_flags::REHASHED != 0;
        let has_switched = |affinity_s: u32| (affinity_s == 0) != (frontend.affinity_s == 0);
        let expected = earlier.clone().any(|earlier| is_rehashed(earlier.flags) || has_switched(earlier.affinity_s));
        prop_assert_eq!(is_rehashed(frontend.flags), expected);
    }
    Ok(())
}
