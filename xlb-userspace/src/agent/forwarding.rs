//! What the host's stack must be told for delivery mode stack: packets of a VIP pass through it, and it drops in silence
//! what its settings do not allow. Direct packets do not meet it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use xlb_common::abi::{Backend, NETNS_HOST};

use crate::agent::uplinks::ServedUplink;
use crate::node::{RouteKind, Snapshot};
use crate::plan::Observed;
use crate::plan::desired::{Family, Refusal};

/// An uplink, as far as these settings are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// The kernel's settings there.
    pub settings: Settings,
}

/// The kernel's settings at an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether packets are refused whose sender's route does not lead back by it (RFC 3704 chapter 2.2: strict).
    pub is_strict: bool,
    /// Whether IPv4 packets are forwarded that arrive there.
    pub forwards_v4: bool,
    /// Whether IPv6 packets are forwarded.
    pub forwards_v6: bool,
}

/// How many backends in delivery mode stack there are, by family, and how many of those are not the node itself.
pub type Stacked = BTreeMap<Family, (usize, usize)>;

/// Reads the settings of the uplinks.
#[must_use]
pub fn ports(uplinks: &[ServedUplink]) -> Vec<Port> {
    let port = |served: &ServedUplink| Port {
        name: served.name.clone(),
        ifindex: served.uplink.ifindex,
        settings: settings(&served.name),
    };
    uplinks.iter().map(port).collect()
}

/// The greater of two values counts for the filter (Documentation/networking/ip-sysctl.rst). What cannot be read counts as
/// right: of that nothing can be said.
pub(crate) fn settings(interface: &str) -> Settings {
    let read = |path: String| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u8>().ok());
    let v4 = |of: &str, what: &str| read(format!("/proc/sys/net/ipv4/conf/{of}/{what}"));
    let filter = v4("all", "rp_filter").max(v4(interface, "rp_filter"));
    Settings {
        is_strict: filter == Some(1),
        forwards_v4: v4(interface, "forwarding") != Some(0),
        forwards_v6: read("/proc/sys/net/ipv6/conf/all/forwarding".into()) != Some(0),
    }
}

/// The backends that packets reach through the host's stack.
#[must_use]
pub fn stacked(observed: &Observed) -> Stacked {
    let mut stacked = Stacked::new();
    for backend in observed.backends.values().filter(|backend| backend.is_in_use() && !backend.is_direct()) {
        let family = if backend.family == 6 { Family::V6 } else { Family::V4 };
        let (all, others) = stacked.entry(family).or_default();
        *all += 1;
        *others += usize::from(!is_node(backend));
    }
    stacked
}

/// A pod on the host's network: nothing is forwarded to it.
fn is_node(backend: &Backend) -> bool {
    backend.ifindex == 0 && backend.netns_id == NETNS_HOST && !backend.is_hidden()
}

/// What is wrong with the node, for these backends.
#[must_use]
pub fn refusals(stacked: &Stacked, ports: &[Port], snapshot: &Snapshot) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let v4 = stacked.get(&Family::V4);
    for port in ports.iter().filter(|port| v4.is_some() && port.settings.is_strict && !leads_back(snapshot, port)) {
        refusals.push(strict(port));
    }
    if v4.is_some_and(|(_, forwarded)| *forwarded > 0) {
        refusals.extend(ports.iter().filter(|port| !port.settings.forwards_v4).map(not_forwarding));
    }
    let forwards_v6 = ports.iter().all(|port| port.settings.forwards_v6);
    if stacked.get(&Family::V6).is_some_and(|(_, forwarded)| *forwarded > 0) && !forwards_v6 {
        let why = "the node does not forward IPv6, and so drops what is for backends in mode stack: \
                   `sysctl -w net.ipv6.conf.all.forwarding=1`";
        refusals.push(Refusal { object: "node".into(), why: why.into() });
    }
    refusals.extend(stacked.keys().filter_map(|family| unrestored(*family, ports, snapshot)));
    refusals
}

/// Whether the node's routes to clients, of which it has no others than the default ones, lead over this uplink.
fn leads_back(snapshot: &Snapshot, port: &Port) -> bool {
    defaults(snapshot, Family::V4).contains(&port.ifindex)
}

/// The links of the default route that counts.
fn defaults(snapshot: &Snapshot, family: Family) -> Vec<u32> {
    let any = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let routes = snapshot.routes.iter().filter(|route| {
        route.kind == RouteKind::Unicast && route.prefix_length == 0 && Family::of(route.destination) == Family::of(any)
    });
    let best = routes.clone().map(|route| route.metric).min();
    routes.filter(|route| Some(route.metric) == best).flat_map(|route| route.hops()).map(|(link, _)| link).collect()
}

fn strict(Port { name, .. }: &Port) -> Refusal {
    let why = format!(
        "the node drops what arrives there for backends in mode stack, as its route to the clients leads elsewhere and \
         rp_filter is strict: `sysctl -w net.ipv4.conf.{name}.rp_filter=2`"
    );
    Refusal { object: format!("uplink {name}"), why }
}

fn not_forwarding(Port { name, .. }: &Port) -> Refusal {
    let why = format!(
        "the node does not forward what arrives there, and so drops what is for backends in mode stack: \
         `sysctl -w net.ipv4.ip_forward=1`, or net.ipv4.conf.{name}.forwarding=1 alone"
    );
    Refusal { object: format!("uplink {name}"), why }
}

/// Replies of mode stack are restored where they leave by an uplink, and nowhere else.
fn unrestored(family: Family, ports: &[Port], snapshot: &Snapshot) -> Option<Refusal> {
    let links = defaults(snapshot, family);
    let other = links.iter().find(|&&link| ports.iter().all(|port| port.ifindex != link))?;
    let name = snapshot.link_name(Some(*other));
    let why = format!(
        "the node's default route leads over {name}, which is no uplink: replies of backends in mode stack leave there \
         with the pod's address; add it to --uplink, or route what is for clients over an uplink"
    );
    Some(Refusal { object: format!("link {name}"), why })
}

#[cfg(test)]
#[path = "forwarding_tests.rs"]
mod tests;
