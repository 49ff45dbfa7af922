//! Pods' links: whether packets of the uplinks' size get through, and whether native XDP can use them.

use std::net::SocketAddr;

use super::Finding;
use super::facts::Facts;
use crate::maps::attach::FrontDoor;
use crate::node::{Link, Snapshot};

/// How many pods or links a sentence names.
const NAMED_MAX: usize = 5;

/// What each of these comes to.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let Ok(snapshot) = &facts.snapshot else { return Vec::new() };
    let mut findings = vec![mtu(facts, snapshot)];
    findings.extend(gro(facts));
    findings
}

/// A pod whose packets are larger than the uplink's hears so by ICMP, connection by connection.
fn mtu(facts: &Facts, snapshot: &Snapshot) -> Finding {
    let uplinks = facts.uplinks.iter().filter_map(|uplink| snapshot.links.get(&uplink.ifindex?));
    let Some(smallest) = uplinks.min_by_key(|link| link.mtu) else {
        let remedy = "xlb doctor --uplink eth0";
        return Finding::unknown("mtu", "pods", "no uplink is known to compare pods' links with", remedy);
    };
    let is_uplink = |link: &Link| facts.uplinks.iter().any(|uplink| uplink.ifindex == Some(link.index));
    let links: Vec<&Link> = snapshot.pod_links().filter(|link| !is_uplink(link)).collect();
    let larger: Vec<String> = links
        .iter()
        .filter(|link| link.mtu > smallest.mtu)
        .map(|link| format!("{} ({})", link.name, link.mtu))
        .collect();
    if larger.is_empty() {
        let evidence = format!("{} links of pods are no larger than {} ({})", links.len(), smallest.name, smallest.mtu);
        return Finding::ok("mtu", "pods", evidence);
    }
    let evidence = format!(
        "pods' links are larger than {} ({}): {}; pods learn of it for each connection anew (reply_too_big), and what may be \
         fragmented is dropped (reply_not_cut)",
        smallest.name,
        smallest.mtu,
        listed(&larger)
    );
    Finding::warning(
        "mtu",
        "pods",
        evidence,
        format!("give pods an MTU of {} in the CNI's configuration", smallest.mtu),
    )
}

fn gro(facts: &Facts) -> Option<Finding> {
    let is_native = facts.uplinks.iter().any(|uplink| uplink.door == Some(FrontDoor::XdpNative));
    let Some(Ok(maps)) = facts.dataplane.maps.as_ref().filter(|_| is_native) else { return None };
    let closed: Vec<String> =
        maps.direct.iter().filter(|(_, _, takes)| !takes).map(|(pod, ..)| SocketAddr::to_string(pod)).collect();
    if closed.is_empty() {
        return Some(Finding::ok("gro", "pods", "the links of all pods take frames from XDP"));
    }
    let evidence =
        format!("the links of {} take no frames from XDP, so tc serves them: GRO is off there", listed(&closed));
    Some(Finding::warning("gro", "pods", evidence, "in each pod's network namespace: ethtool -K eth0 gro on"))
}

fn listed(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMED_MAX)].join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
