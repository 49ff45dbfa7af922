use super::*;
use crate::node::{Link, Route};

const ETH0: u32 = 2;
const ETH1: u32 = 3;
const MGMT: u32 = 4;
const RIGHT: Settings = Settings { is_strict: false, forwards_v4: true, forwards_v6: true };
const STRICT: Settings = Settings { is_strict: true, ..RIGHT };

#[test]
fn a_node_with_the_right_settings_is_fine() {
    assert_eq!(objects(&both(1), [RIGHT, RIGHT], &[(ETH0, 0)]), Vec::<String>::new());
}

#[test]
fn without_backends_in_mode_stack_nothing_matters() {
    let wrong = Settings { is_strict: true, forwards_v4: false, forwards_v6: false };
    assert_eq!(objects(&Stacked::new(), [wrong, wrong], &[(MGMT, 0)]), Vec::<String>::new());
}

#[test]
fn a_strict_filter_matters_where_no_route_leads_back() {
    assert_eq!(objects(&both(1), [STRICT, STRICT], &[(ETH0, 0)]), ["uplink eth1"]);
    assert_eq!(objects(&both(1), [STRICT, RIGHT], &[(ETH0, 0)]), Vec::<String>::new());
    assert_eq!(objects(&both(1), [STRICT, STRICT], &[(ETH0, 5), (ETH1, 2)]), ["uplink eth0"]);
    assert_eq!(objects(&both(1), [STRICT, STRICT], &[]), ["uplink eth0", "uplink eth1"]);
    // Of IPv6 the kernel has no such filter.
    assert_eq!(objects(&[(Family::V6, (1, 1))].into(), [STRICT, STRICT], &[(ETH0, 0)]), Vec::<String>::new());
}

#[test]
fn each_link_of_a_route_with_several_leads_back() {
    let mut snapshot = node(&[(ETH0, 0)]);
    snapshot.routes[0].others = vec![(ETH1, None)];
    assert_eq!(refusals(&both(1), &ports([STRICT, STRICT]), &snapshot), []);
}

#[test]
fn a_node_that_does_not_forward_reaches_only_pods_on_its_own_network() {
    let closed = Settings { forwards_v4: false, forwards_v6: false, ..RIGHT };
    assert_eq!(objects(&both(1), [closed, RIGHT], &[(ETH0, 0)]), ["uplink eth0", "node"]);
    assert_eq!(objects(&both(0), [closed, closed], &[(ETH0, 0)]), Vec::<String>::new());
}

#[test]
fn replies_that_leave_by_another_link_are_not_restored() {
    assert_eq!(objects(&[(Family::V4, (1, 1))].into(), [RIGHT, RIGHT], &[(MGMT, 0)]), ["link mgmt0"]);
}

#[test]
fn the_sentence_has_the_setting() {
    let told = refusals(&both(1), &ports([RIGHT, STRICT]), &node(&[(ETH0, 0)]));
    assert!(told[0].why.contains("sysctl -w net.ipv4.conf.eth1.rp_filter=2"), "{told:?}");
}

fn objects(stacked: &Stacked, settings: [Settings; 2], defaults: &[(u32, u32)]) -> Vec<String> {
    refusals(stacked, &ports(settings), &node(defaults)).into_iter().map(|refusal| refusal.object).collect()
}

/// A backend of each family, of which so many have to be forwarded to.
fn both(forwarded: usize) -> Stacked {
    Family::ALL.into_iter().map(|family| (family, (1, forwarded))).collect()
}

fn ports([eth0, eth1]: [Settings; 2]) -> Vec<Port> {
    let port = |name: &str, ifindex, settings| Port { name: name.into(), ifindex, settings };
    vec![port("eth0", ETH0, eth0), port("eth1", ETH1, eth1)]
}

/// A node with these IPv4 default routes: link and metric.
fn node(defaults: &[(u32, u32)]) -> Snapshot {
    let links = [(ETH0, "eth0"), (ETH1, "eth1"), (MGMT, "mgmt0")];
    let link = |(index, name): (u32, &str)| (index, Link { index, name: name.into(), ..Link::default() });
    let route = |&(link, metric): &(u32, u32)| Route {
        destination: Ipv4Addr::UNSPECIFIED.into(),
        prefix_length: 0,
        kind: RouteKind::Unicast,
        gateway: None,
        output: Some(link),
        others: Vec::new(),
        metric,
    };
    let routes = defaults.iter().map(route).collect();
    Snapshot { links: links.map(link).into(), routes, ..Snapshot::default() }
}
