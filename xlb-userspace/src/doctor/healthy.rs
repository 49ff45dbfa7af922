//! A node with nothing wrong with it, for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aya::util::KernelVersion;

use super::facts::{AgentFacts, Dataplane, Facts, Machine, MapFacts, UplinkFacts};
use crate::agent::forwarding::Settings;
use crate::maps::attach::FrontDoor;
use crate::node::netfilter::Ruleset;
use crate::node::xdp::XdpFeatures;
use crate::node::{Link, Route, RouteKind, Snapshot};

pub(super) fn vip() -> IpAddr {
    [203, 0, 113, 10].into()
}

/// One uplink, one pod in mode direct, one VIP.
pub(super) fn healthy() -> Facts {
    let up = Link { is_up: true, has_carrier: true, mtu: 1500, ..Link::default() };
    let pod = Link { index: 3, name: "veth0".into(), kind: "veth".into(), netns_id: Some(1), ..up };
    let links = BTreeMap::from([(2, Link { index: 2, name: "eth0".into(), ..up }), (3, pod)]);
    let default = Route {
        destination: [0, 0, 0, 0].into(),
        prefix_length: 0,
        kind: RouteKind::Unicast,
        gateway: Some([192, 0, 2, 1].into()),
        output: Some(2),
        others: Vec::new(),
        metric: 0,
    };
    let snapshot = Snapshot { links, routes: vec![default], ..Snapshot::default() };
    let maps = MapFacts {
        vips: BTreeSet::from([vip()]),
        direct: vec![("10.1.0.7:80".parse().unwrap(), 3, true)],
        ..MapFacts::default()
    };
    let machine = Machine {
        kernel: Some(KernelVersion::new(6, 6, 0)),
        jit: Some(1),
        harden: Some(0),
        stats: Some(0),
        lockdown: Some("[none] integrity confidentiality\n".into()),
        has_btf: true,
        has_syn_cookies: true,
        capabilities: Some(u64::MAX),
        pins: "/sys/fs/bpf/xlb".into(),
        is_on_bpffs: Ok(true),
        cgroup: Ok("/sys/fs/cgroup".into()),
    };
    let uplink = UplinkFacts {
        name: "eth0".into(),
        ifindex: Some(2),
        door: Some(FrontDoor::Tc),
        driver: "mlx5_core".into(),
        xdp: Some(XdpFeatures(0b11)),
        xdp_program: None,
        tc_programs: Ok(vec![(11, "ingress_tc".into())]),
        strips_vlan_tags: Some(true),
        settings: Settings { is_strict: false, forwards_v4: true, forwards_v6: true },
    };
    let dataplane = Dataplane {
        is_there: true,
        complaint: None,
        is_jitted: Some(true),
        agent: Some(AgentFacts { is_running: true, pid: 7, refusals: Vec::new() }),
        maps: Some(Ok(maps)),
        programs: [11, 12].into(),
    };
    let ruleset = Ruleset { tables: ["kube-proxy".into()].into(), ..Ruleset::default() };
    Facts { machine, dataplane, uplinks: vec![uplink], snapshot: Ok(snapshot), ruleset: Ok(ruleset), has_ipvs: false }
}
