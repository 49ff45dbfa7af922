//! Rows of what may be wrong with a healthy node.

use aya::util::KernelVersion;

use super::facts::{AgentFacts, Dataplane, Facts, MapFacts};
use super::healthy::{healthy, vip};
use super::{Finding, Verdict, findings};
use crate::maps::attach::FrontDoor;
use crate::node::netfilter::{Backend, Ruleset};
use crate::node::xdp::XdpFeatures;
use crate::node::{Link, NodeAddress};
use crate::plan::desired::{Family, Refusal};

#[test]
fn nothing_is_wrong_with_a_healthy_node() {
    let found = findings(&healthy());
    let wrong: Vec<_> = found.iter().filter(|finding| finding.verdict != Verdict::Ok).collect();
    // What routers do cannot be seen from a node.
    assert!(wrong.iter().all(|finding| finding.check == "urpf") && wrong.len() == 1, "{wrong:#?}");
}

/// What is done to a healthy node; the check that has to say so, its object, its verdict, and a part of what it says or advises.
type Row = (fn(&mut Facts), &'static str, &'static str, Verdict, &'static str);

#[track_caller]
fn check(rows: &[Row]) {
    for (index, (harm, check, object, verdict, part)) in rows.iter().enumerate() {
        let mut facts = healthy();
        harm(&mut facts);
        let found = findings(&facts);
        let is_it = |finding: &&Finding| finding.check == *check && finding.object == *object;
        let finding =
            found.iter().find(is_it).unwrap_or_else(|| panic!("row {index}: no {check} {object}: {found:#?}"));
        assert_eq!(finding.verdict, *verdict, "row {index}: {finding:#?}");
        let said = format!("{} -> {}", finding.evidence, finding.remedy.as_deref().unwrap_or_default());
        assert!(said.contains(part), "row {index}: {part:?} is not in {said}");
        assert_eq!(finding.remedy.is_some(), *verdict != Verdict::Ok, "row {index}: {finding:#?}");
        // Of one fault nothing else is a problem.
        let problems = found.iter().filter(|finding| finding.verdict == Verdict::Problem).count();
        assert_eq!(problems, usize::from(*verdict == Verdict::Problem), "row {index}: {found:#?}");
    }
}

#[test]
fn each_fault_of_the_machine_is_found() {
    use Verdict::{CannotTell, Problem, Warning};
    check(&[
        (|it| it.machine.kernel = Some(KernelVersion::new(6, 1, 0)), "kernel", "node", Problem, "tcx links"),
        (|it| it.machine.kernel = None, "kernel", "node", CannotTell, "uname"),
        (|it| it.machine.jit = Some(0), "jit", "node", Problem, "sysctl -w net.core.bpf_jit_enable=1"),
        (|it| it.machine.jit = Some(2), "jit", "node", Warning, "log"),
        (|it| (it.machine.jit, it.dataplane.is_jitted) = (None, Some(false)), "jit", "node", Problem, "interprets"),
        (|it| (it.machine.jit, it.dataplane.is_jitted) = (None, None), "jit", "node", CannotTell, "hostNetwork"),
        (
            |it| (it.machine.jit, it.dataplane.is_jitted) = (None, Some(true)),
            "jit",
            "node",
            Verdict::Ok,
            "machine code",
        ),
        (|it| it.machine.harden = Some(2), "hardening", "node", Warning, "bpf_jit_harden=1"),
        (|it| it.machine.stats = Some(1), "hardening", "node", Warning, "bpf_stats_enabled=0"),
        (|it| it.machine.lockdown = None, "lockdown", "node", CannotTell, "integrity"),
        (
            |it| it.machine.lockdown = Some("none integrity [confidentiality]\n".into()),
            "lockdown",
            "node",
            Warning,
            "not tested",
        ),
        (|it| it.machine.has_btf = false, "btf", "node", Verdict::Ok, "does without"),
        (|it| it.machine.has_syn_cookies = false, "syn-cookies", "node", Problem, "CONFIG_SYN_COOKIES"),
        (|it| it.machine.capabilities = Some(1 << 12 | 1 << 38), "capabilities", "node", Problem, "CAP_BPF"),
        (
            |it| it.machine.capabilities = Some(1 << 12 | 1 << 38 | 1 << 39),
            "capabilities",
            "node",
            Verdict::Ok,
            "without SYS_ADMIN native XDP",
        ),
        (
            |it| it.machine.capabilities = Some(!(1 << 21)),
            "capabilities",
            "node",
            Verdict::Ok,
            "without SYS_ADMIN native XDP",
        ),
        (|it| it.machine.is_on_bpffs = Ok(false), "bpffs", "node", Warning, "mount -t bpf bpffs /sys/fs/bpf"),
        (
            |it| (it.machine.pins, it.machine.is_on_bpffs) = ("/var/lib/xlb".into(), Ok(false)),
            "bpffs",
            "node",
            Problem,
            "--bpffs-dir",
        ),
        (|it| it.machine.cgroup = Err("none is mounted".into()), "cgroup", "node", Problem, "mount -t cgroup2"),
    ]);
}

#[test]
fn what_is_wrong_with_the_dataplane_is_found() {
    use Verdict::{Problem, Warning};
    check(&[
        (|it| it.dataplane = Dataplane::default(), "dataplane", "node", Warning, "start xlb run"),
        (|it| it.dataplane.complaint = Some("v9 is newer".into()), "dataplane", "node", Problem, "v9 is newer"),
        (|it| it.dataplane.maps = Some(Err("no CONFIG".into())), "dataplane", "maps", Problem, "no CONFIG"),
        (|it| it.dataplane.agent = None, "agent", "node", Problem, "nothing follows the cluster"),
        (|it| agent(it).is_running = false, "agent", "node", Problem, "pid 7"),
        (
            |it| agent(it).refusals.push(refusal("link wg0", "lead over it: `ip route`")),
            "agent",
            "link wg0",
            Warning,
            "-> ip route",
        ),
    ]);
}

#[test]
fn what_is_wrong_with_uplinks_is_found() {
    use Verdict::{CannotTell, Ok, Problem, Warning};
    check(&[
        (|it| it.uplinks.clear(), "uplink", "node", CannotTell, "--uplink"),
        (|it| it.snapshot = Err("refused".into()), "uplink", "node", CannotTell, "CAP_NET_ADMIN"),
        (|it| it.uplinks[0].ifindex = None, "uplink", "eth0", Problem, "there are eth0, veth0"),
        (|it| link(it, 2).is_up = false, "uplink", "eth0", Problem, "ip link set eth0 up"),
        (|it| link(it, 2).has_carrier = false, "uplink", "eth0", Problem, "no carrier"),
        (|it| it.uplinks[0].door = None, "uplink", "eth0", Problem, "--uplink of xlb run"),
        (|it| it.uplinks[0].xdp = None, "driver", "eth0", CannotTell, "mlx5_core"),
        (|it| native(it, 0b1), "driver", "eth0", Problem, "--xdp off"),
        (|it| native(it, 0b11), "driver", "eth0", Ok, "can redirect"),
        (
            |it| {
                native(it, 0b11);
                link(it, 2).mtu = 9000;
            },
            "driver",
            "eth0",
            Problem,
            "MTU of 9000",
        ),
        (
            |it| (it.uplinks[0].door, it.uplinks[0].xdp) = (Some(FrontDoor::XdpGeneric), Some(XdpFeatures(0))),
            "driver",
            "eth0",
            Warning,
            "--xdp off",
        ),
        (|it| it.uplinks[0].xdp_program = Some((90, "guard".into())), "programs", "eth0", Warning, "guard (id 90)"),
        (
            |it| {
                native(it, 0b11);
                it.uplinks[0].xdp_program = Some((90, "guard".into()));
            },
            "programs",
            "eth0",
            Problem,
            "ip link set dev eth0 xdp off",
        ),
        (|it| tc(it, &[91, 11]), "programs", "eth0", Warning, "cil (id 91)"),
        (|it| tc(it, &[11, 91]), "programs", "eth0", Ok, "no program of others"),
        (|it| it.uplinks[0].tc_programs = Err("refused".into()), "programs", "eth0", CannotTell, "refused"),
        (
            |it| {
                native(it, 0b11);
                vlan(it);
                it.uplinks[0].strips_vlan_tags = Some(true);
            },
            "vlan",
            "eth0",
            Problem,
            "ethtool -K eth0 rxvlan off",
        ),
        (
            |it| {
                native(it, 0b11);
                vlan(it);
                it.uplinks[0].strips_vlan_tags = None;
            },
            "vlan",
            "eth0",
            CannotTell,
            "a trunk of eth0.5",
        ),
        (
            |it| {
                vlan(it);
                it.uplinks[0].strips_vlan_tags = Some(true);
            },
            "vlan",
            "eth0",
            Ok,
            "tc serves tagged frames",
        ),
    ]);
}

#[test]
fn settings_of_the_host_matter_to_mode_stack_alone() {
    use Verdict::{Ok, Problem, Warning};
    check(&[
        (|it| strict(it), "forwarding", "node", Ok, "do not matter"),
        (
            |it| {
                stack(it);
                it.uplinks[0].settings.forwards_v4 = false;
            },
            "forwarding",
            "uplink eth0",
            Problem,
            "-> sysctl -w net.ipv4.ip_forward=1",
        ),
        (
            |it| {
                stack(it);
                strict(it);
                it.snapshot.as_mut().unwrap().routes.clear();
            },
            "forwarding",
            "uplink eth0",
            Problem,
            "-> sysctl -w net.ipv4.conf.eth0.rp_filter=2",
        ),
        (stack, "forwarding", "node", Ok, "1 backends are in mode stack"),
        (
            |it| {
                it.dataplane = Dataplane::default();
                it.uplinks[0].settings.forwards_v4 = false;
            },
            "forwarding",
            "node",
            Warning,
            "ip_forward=1",
        ),
    ]);
}

#[test]
fn what_others_do_is_found() {
    use Verdict::{CannotTell, Ok, Warning};
    check(&[
        (|it| link(it, 3).mtu = 1600, "mtu", "pods", Warning, "veth0 (1600)"),
        (
            |it| {
                native(it, 0b11);
                maps(it).direct[0].2 = false;
            },
            "gro",
            "pods",
            Warning,
            "ethtool -K eth0 gro on",
        ),
        (
            |it| {
                let links = &mut it.snapshot.as_mut().unwrap().links;
                links.insert(9, Link { index: 9, name: "kube-ipvs0".into(), ..Link::default() });
            },
            "vip",
            "node",
            Warning,
            "ipMode: Proxy",
        ),
        (|it| it.ruleset = Err("refused".into()), "kube-proxy", "node", CannotTell, "refused"),
        (|it| rules(it).kube_proxy = [vip()].into(), "kube-proxy", "node", Ok, "1 of 1 served VIPs (203.0.113.10)"),
        (|it| rules(it).tables.clear(), "kube-proxy", "node", Ok, "no rules of kube-proxy"),
        (
            |it| _ = rules(it).chains.insert((Backend::Legacy, "KUBE-SERVICES".into())),
            "kube-proxy",
            "node",
            Warning,
            "nftables and iptables (legacy)",
        ),
        (
            |it| _ = rules(it).chains.insert((Backend::Nftables, "cali-FORWARD".into())),
            "network-policy",
            "node",
            Warning,
            "Calico is at work, and 1 backends",
        ),
        (
            |it| {
                let links = &mut it.snapshot.as_mut().unwrap().links;
                links.insert(9, Link { index: 9, name: "cilium_host".into(), ..Link::default() });
            },
            "network-policy",
            "node",
            Warning,
            "--delivery stack",
        ),
    ]);
}

#[test]
fn a_vip_on_an_interface_of_the_node_is_found() {
    check(&[(
        |it| {
            let address = NodeAddress { address: vip(), ifindex: 2, is_universal: true, is_secondary: false };
            it.snapshot.as_mut().unwrap().addresses.push(address);
        },
        "vip",
        "node",
        Verdict::Problem,
        "-> ip address del 203.0.113.10 dev eth0",
    )]);
}

fn link(facts: &mut Facts, index: u32) -> &mut Link {
    facts.snapshot.as_mut().unwrap().links.get_mut(&index).unwrap()
}

fn agent(facts: &mut Facts) -> &mut AgentFacts {
    facts.dataplane.agent.as_mut().unwrap()
}

fn maps(facts: &mut Facts) -> &mut MapFacts {
    facts.dataplane.maps.as_mut().unwrap().as_mut().unwrap()
}

fn rules(facts: &mut Facts) -> &mut Ruleset {
    facts.ruleset.as_mut().unwrap()
}

fn native(facts: &mut Facts, features: u64) {
    (facts.uplinks[0].door, facts.uplinks[0].xdp) = (Some(FrontDoor::XdpNative), Some(XdpFeatures(features)));
    facts.uplinks[0].xdp_program = Some((12, "ingress_xdp".into()));
}

fn tc(facts: &mut Facts, ids: &[u32]) {
    let name = |id: u32| if id == 11 { "ingress_tc".into() } else { "cil".into() };
    facts.uplinks[0].tc_programs = Ok(ids.iter().map(|&id| (id, name(id))).collect());
}

fn vlan(facts: &mut Facts) {
    let vlan = Link { index: 8, name: "eth0.5".into(), kind: "vlan".into(), peer_index: Some(2), ..Link::default() };
    facts.snapshot.as_mut().unwrap().links.insert(8, vlan);
}

fn strict(facts: &mut Facts) {
    facts.uplinks[0].settings.is_strict = true;
}

fn stack(facts: &mut Facts) {
    maps(facts).stacked.insert(Family::V4, (1, 1));
}

fn refusal(object: &str, why: &str) -> Refusal {
    Refusal { object: object.into(), why: why.into() }
}
