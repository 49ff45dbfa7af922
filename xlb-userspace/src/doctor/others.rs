//! Others that have a say in packets for VIPs: kube-proxy, policy engines, and whoever gives a VIP to an interface.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::facts::Facts;
use super::{Finding, NODE};
use crate::node::netfilter::{Backend, KUBE_PROXY_TABLE, KUBE_SERVICES, Ruleset};
use crate::node::{NodeAddress, Snapshot};

/// The interface that kube-proxy's mode `ipvs` gives all Services' addresses.
const IPVS_LINK: &str = "kube-ipvs0";

/// A policy engine, and how its names in netfilter begin.
const ENGINES_BY_CHAIN: &[(&str, &[&str])] = &[
    ("Calico", &["cali-", "filter-cali-"]),
    ("kube-router", &["KUBE-NWPLCY", "KUBE-POD-FW"]),
    ("Weave Net", &["WEAVE-NPC"]),
    ("Canal or Romana", &["ROMANA-"]),
];
/// The same by tables of nftables.
const ENGINES_BY_TABLE: &[(&str, &[&str])] =
    &[("Calico", &["calico"]), ("kube-network-policies", &["kube-network-policies", "kindnet-network-policies"])];
/// The same by links.
const ENGINES_BY_LINK: &[(&str, &[&str])] =
    &[("Cilium", &["cilium_"]), ("Antrea", &["antrea-gw"]), ("OVN-Kubernetes", &["ovn-k8s-"]), ("Calico", &["cali"])];

/// What each of these comes to.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    vec![vips(facts), kube_proxy(facts), policies(facts)]
}

fn vips(facts: &Facts) -> Finding {
    let (Ok(snapshot), served) = (&facts.snapshot, served(facts)) else {
        return Finding::unknown("vip", NODE, "addresses cannot be listed", "ip address");
    };
    let both: Vec<_> = snapshot.addresses.iter().filter(|own| served.contains(&own.address)).collect();
    if !both.is_empty() {
        let words = |separator, words: fn(&dyn std::fmt::Display, &str) -> String| {
            let word = |own: &&NodeAddress| words(&own.address, &snapshot.link_name(Some(own.ifindex)));
            both.iter().map(word).collect::<Vec<_>>().join(separator)
        };
        let evidence = format!(
            "VIPs are addresses of this node's interfaces, and so are not served: {}",
            words(", ", |address, link| format!("{address} on {link}"))
        );
        let remedy = words("; ", |address, link| format!("ip address del {address} dev {link}"));
        return Finding::problem("vip", NODE, evidence, remedy);
    }
    if snapshot.link_by_name(IPVS_LINK).is_some() {
        let evidence =
            format!("kube-proxy gives the addresses of Services to {IPVS_LINK}: VIPs among them are refused");
        let remedy =
            "set ipMode: Proxy in the Services' status (and --ip-mode-proxy), or kube-proxy's mode to nftables";
        return Finding::warning("vip", NODE, evidence, remedy);
    }
    Finding::ok("vip", NODE, format!("none of {} VIPs is an address of an interface", served.len()))
}

fn served(facts: &Facts) -> BTreeSet<IpAddr> {
    match &facts.dataplane.maps {
        Some(Ok(maps)) => maps.vips.clone(),
        _ => BTreeSet::new(),
    }
}

fn kube_proxy(facts: &Facts) -> Finding {
    let ruleset = match &facts.ruleset {
        Ok(ruleset) => ruleset,
        Err(why) => return Finding::unknown("kube-proxy", NODE, why.clone(), "nft list ruleset; iptables-save -t nat"),
    };
    let modes = modes(ruleset, facts);
    if modes.is_empty() {
        let evidence = "no rules of kube-proxy: what xlb leaves to the host's stack (policy Cluster without a pod here) is not served";
        return Finding::ok("kube-proxy", NODE, evidence);
    }
    if modes.len() > 1 {
        let evidence =
            format!("rules of kube-proxy's modes {} are there at once: some are left over", modes.join(" and "));
        return Finding::warning("kube-proxy", NODE, evidence, "kube-proxy --cleanup, then start it again");
    }
    let served = served(facts);
    let both: Vec<String> = served.intersection(&ruleset.kube_proxy).map(ToString::to_string).collect();
    let overlap = match both.len() {
        0 => format!("it has rules for none of {} served VIPs", served.len()),
        _ => format!(
            "it has rules for {} of {} served VIPs ({}), whose packets meet xlb first",
            both.len(),
            served.len(),
            both[..both.len().min(5)].join(", ")
        ),
    };
    Finding::ok("kube-proxy", NODE, format!("mode {}; {overlap}", modes[0]))
}

fn modes(ruleset: &Ruleset, facts: &Facts) -> Vec<&'static str> {
    let has = |backend| ruleset.chains.contains(&(backend, KUBE_SERVICES.to_owned()));
    let is_there = [
        ("nftables", ruleset.tables.contains(KUBE_PROXY_TABLE)),
        ("iptables", has(Backend::Nftables)),
        ("iptables (legacy)", has(Backend::Legacy)),
        ("ipvs", facts.has_ipvs || links(facts).any(|name| name == IPVS_LINK)),
    ];
    is_there.into_iter().filter(|(_, is_there)| *is_there).map(|(mode, _)| mode).collect()
}

fn links(facts: &Facts) -> impl Iterator<Item = &str> {
    let snapshot: Option<&Snapshot> = facts.snapshot.as_ref().ok();
    snapshot.into_iter().flat_map(|snapshot| snapshot.links.values()).map(|link| link.name.as_str())
}

/// In mode direct packets pass by netfilter, and by programs at the host's end of pods' links.
fn policies(facts: &Facts) -> Finding {
    let engines = engines(facts);
    let direct = match &facts.dataplane.maps {
        Some(Ok(maps)) => maps.direct.len(),
        _ => 0,
    };
    let names: Vec<&str> = engines.iter().copied().collect();
    match (names.is_empty(), direct) {
        (true, _) if facts.ruleset.is_err() => Finding::unknown(
            "network-policy",
            NODE,
            "netfilter's rules cannot be read, and no link of a known policy engine is there",
            "run it as root, or with CAP_NET_ADMIN",
        ),
        (true, _) => Finding::ok("network-policy", NODE, "no known policy engine is at work here"),
        (false, 0) => {
            Finding::ok("network-policy", NODE, format!("{}; no backend is in mode direct", names.join(", ")))
        }
        (false, _) => Finding::warning(
            "network-policy",
            NODE,
            format!(
                "{} is at work, and {direct} backends are in mode direct, which passes by it; Services in whose namespace a \
                 NetworkPolicy restricts ingress are in mode stack, but cluster-wide policies are not seen",
                names.join(", ")
            ),
            "with cluster-wide policies that are to hold for clients of VIPs: xlb run --delivery stack",
        ),
    }
}

fn engines(facts: &Facts) -> BTreeSet<&'static str> {
    let empty = Ruleset::default();
    let ruleset = facts.ruleset.as_ref().unwrap_or(&empty);
    let chains = ruleset.chains.iter().map(|(_, name)| name.as_str());
    let tables = ruleset.tables.iter().map(String::as_str);
    let mut engines = of_names(ENGINES_BY_CHAIN, chains);
    engines.extend(of_names(ENGINES_BY_TABLE, tables));
    engines.extend(of_names(ENGINES_BY_LINK, links(facts)));
    engines
}

fn of_names<'a>(engines: &[(&'static str, &[&str])], names: impl Iterator<Item = &'a str>) -> BTreeSet<&'static str> {
    let engine = |name: &str| {
        engines.iter().find(|(_, begins)| begins.iter().any(|begin| name.starts_with(begin))).map(|(engine, _)| *engine)
    };
    names.filter_map(engine).collect()
}
