//! Which clients a Service is open to (`loadBalancerSourceRanges`, semantics chapter 8).

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::desired::Refusals;
use super::objects::Service;
use super::policy::Policy;
use crate::node::NodeView;
use crate::plan::desired::{Family, SourceFilter};

/// The filter for VIPs of one family. Where the Service lists ranges, but none of this family, kube-proxy leaves the
/// family open to everybody (semantics 8.3), and so does xlb unless the operator wants it closed; it is told either way.
pub fn source_filter(
    service: &Service,
    vips: &BTreeSet<IpAddr>,
    family: Family,
    (node, policy): (&NodeView, &Policy),
    refusals: &mut Refusals,
) -> SourceFilter {
    let Some(listed) = &service.source_ranges else { return SourceFilter::default() };
    let vips = filtered_vips(service, vips, policy);
    let Some(first) = vips.first() else { return SourceFilter::default() };
    let mut ranges: BTreeSet<IpNet> =
        listed.iter().filter(|range| Family::of(range.addr()) == family).copied().collect();
    if ranges.is_empty() {
        let is_closed = policy.source_ranges_fail_closed;
        let to_whom = if is_closed { "closed to" } else { "open to" };
        let why = format!(
            "loadBalancerSourceRanges hold no {family} range, so {first} is {to_whom} every {family} client{}: list an \
             {family} range",
            if is_closed { "" } else { ", as it is with kube-proxy" }
        );
        refusals.add(&service.name, format!("Service {}", service.name), why);
        return if is_closed { SourceFilter { vips, ranges } } else { SourceFilter::default() };
    }
    if node.primary_address(family).is_some_and(|own| ranges.iter().any(|range| range.contains(&own))) {
        // A process of this node that talks to a VIP on this node has that VIP as its source (semantics 8.2).
        ranges.extend(vips.iter().copied().map(IpNet::from));
    }
    SourceFilter { vips, ranges }
}

/// Only ingress addresses are filtered; an externalIP that is one of them, too, is (semantics 8.1).
fn filtered_vips(service: &Service, vips: &BTreeSet<IpAddr>, policy: &Policy) -> BTreeSet<IpAddr> {
    let ingress: BTreeSet<IpAddr> = policy.ingress_ips(service).chain(service.vips.iter().copied()).collect();
    vips.intersection(&ingress).copied().collect()
}
