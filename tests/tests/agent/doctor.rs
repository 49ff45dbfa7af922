//! `xlb doctor`: each fault is planted on a node of the lab, and found there, with what mends it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use aya::programs::links::LinkOrder;
use aya::programs::tc::{SchedClassifierLinkId, TcAttachOptions};
use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::Value;
use xlb_common::abi::ABI_VERSION;
use xlb_tests::lab::{Lab, LabSpec};

use crate::command::{Ended, xlb};
use crate::stage::{Stage, lab};

/// What has to be found: the check, its object, its verdict, and parts of what it says.
type Expected<'a> = (&'a str, &'a str, &'a str, &'a [&'a str]);

#[test]
fn on_a_node_where_nothing_is_planted_no_problem_is_found() -> Result<()> {
    let stage = Stage::up()?;
    let (found, ended) = doctor(&stage.lab, &[])?;
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    for expected in [
        ("kernel", "node", "ok", &["has what xlb needs"][..]),
        ("jit", "node", "ok", &["machine code"]),
        ("syn-cookies", "node", "ok", &[]),
        ("capabilities", "node", "ok", &[]),
        ("bpffs", "node", "ok", &[&stage.lab.pin_directory().display().to_string()]),
        ("cgroup", "node", "ok", &[]),
        ("dataplane", "node", "ok", &[]),
        ("agent", "node", "ok", &["it runs"]),
        ("uplink", "eth0", "ok", &["served by tc"]),
        ("driver", "eth0", "ok", &["veth has native XDP"]),
        ("programs", "eth0", "ok", &[]),
        ("forwarding", "node", "ok", &["no backend is in mode stack"]),
        ("urpf", "routers", "cannot_tell", &["route to the VIP"]),
        ("mtu", "pods", "ok", &["2 links of pods"]),
        ("vip", "node", "ok", &["none of 1 VIPs"]),
        ("kube-proxy", "node", "ok", &["no rules of kube-proxy"]),
        ("network-policy", "node", "ok", &[]),
    ] {
        assert_found(&found, expected);
    }
    let told = xlb(&stage.lab, &["doctor", "--quiet"])?;
    assert_eq!(told.code, Some(0), "{}", told.text);
    told.says(&["cannot tell", "urpf", "-> on each router"]);
    assert!(!told.text.contains("has what xlb needs"), "{}", told.text);
    Ok(())
}

#[test]
fn without_an_agent_it_looks_at_what_it_can_and_at_the_uplinks_that_are_named() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    lab.node().sysctl(&[("net.ipv4.ip_forward", "0")])?;
    let (found, ended) = doctor(&lab, &[])?;
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert_found(&found, ("dataplane", "node", "warning", &["serves nothing here", "start xlb run"]));
    assert_found(&found, ("uplink", "node", "cannot_tell", &["--uplink"]));
    let (found, ended) = doctor(&lab, &["--uplink", "eth0,eth9"])?;
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    ended.says(&["xlb doctor found a problem"]);
    assert_found(&found, ("uplink", "eth0", "ok", &["it is up"]));
    assert_found(&found, ("uplink", "eth9", "problem", &["no such interface", "eth0"]));
    assert_found(&found, ("forwarding", "node", "warning", &["eth0", "sysctl -w net.ipv4.ip_forward=1"]));
    Ok(())
}

#[test]
fn an_agent_that_was_killed_and_what_it_refused_are_told() -> Result<()> {
    let mut stage = Stage::up()?;
    stage.agent.kill()?;
    let (found, ended) = doctor(&stage.lab, &[])?;
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert_found(&found, ("agent", "node", "problem", &["serves on", "start xlb run"]));
    Ok(())
}

#[test]
fn a_newer_dataplane_and_pins_beside_bpffs_are_problems() -> Result<()> {
    let mut stage = Stage::up()?;
    stage.agent.kill()?;
    stage.agent.become_version(ABI_VERSION + 1)?;
    let (found, _) = doctor(&stage.lab, &["--uplink", "eth0"])?;
    assert_found(&found, ("dataplane", "node", "problem", &["is newer than"]));
    let folder = tempfile::tempdir()?;
    let (found, ended) = doctor(&stage.lab, &["--bpffs-dir", &folder.path().display().to_string()])?;
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert_found(&found, ("bpffs", "node", "problem", &["is not on a BPF file system", "mount -t bpf"]));
    Ok(())
}

#[test]
fn an_uplink_without_carrier_or_program_is_a_problem() -> Result<()> {
    let stage = Stage::with(LabSpec { pod_count: 1, ..LabSpec::default() }, &[])?;
    stage.lab.router().ip(&format!("link set {} down", stage.lab.uplink(0).router_device))?;
    let (found, _) = doctor(&stage.lab, &[])?;
    assert_found(&found, ("uplink", "eth0", "problem", &["no carrier"]));
    stage.lab.node().ip("link set eth0 down")?;
    let (found, _) = doctor(&stage.lab, &["--uplink", "eth0,veth0"])?;
    assert_found(&found, ("uplink", "eth0", "problem", &["ip link set eth0 up"]));
    assert_found(&found, ("uplink", "veth0", "problem", &["none of xlb's programs"]));
    Ok(())
}

#[test]
fn a_closed_host_is_a_problem_for_mode_stack_alone() -> Result<()> {
    let closed = [("net.ipv4.ip_forward", "0")];
    let stage = Stage::with(LabSpec { pod_count: 1, ..LabSpec::default() }, &[])?;
    stage.lab.node().sysctl(&closed)?;
    let (found, ended) = doctor(&stage.lab, &[])?;
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert_found(&found, ("forwarding", "node", "ok", &["do not matter"]));
    drop(stage);
    let spec = LabSpec { pod_count: 1, uplinks: 2, ..LabSpec::default() };
    let stage = Stage::with(spec, &["--delivery", "stack"])?;
    let (found, _) = doctor(&stage.lab, &[])?;
    assert_found(&found, ("forwarding", "uplink eth1", "problem", &["sysctl -w net.ipv4.conf.eth1.rp_filter=2"]));
    stage.lab.node().sysctl(&[("net.ipv4.conf.eth1.rp_filter", "2")])?;
    let (found, _) = doctor(&stage.lab, &[])?;
    assert_found(&found, ("forwarding", "node", "ok", &["1 backends are in mode stack"]));
    stage.lab.node().sysctl(&closed)?;
    let (found, _) = doctor(&stage.lab, &[])?;
    assert_found(&found, ("forwarding", "uplink eth0", "problem", &["sysctl -w net.ipv4.ip_forward=1"]));
    Ok(())
}

#[test]
fn pods_with_a_larger_mtu_or_without_gro_behind_native_xdp_are_told() -> Result<()> {
    let stage = Stage::with(LabSpec { pod_count: 1, ..LabSpec::default() }, &["--xdp", "native"])?;
    let link = stage.lab.pod_host_end(0);
    stage.lab.node().ip(&format!("link set {link} mtu 1600"))?;
    let (found, ended) = doctor(&stage.lab, &[])?;
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert_found(&found, ("uplink", "eth0", "ok", &["served by native XDP"]));
    assert_found(&found, ("mtu", "pods", "warning", &[&format!("{link} (1600)"), "an MTU of 1500"]));
    let pod = stage.lab.pod_address(0).to_string();
    assert_found(&found, ("gro", "pods", "warning", &[&pod, "ethtool -K eth0 gro on"]));
    Ok(())
}

#[test]
fn a_vip_on_an_interface_of_the_node_is_a_problem() -> Result<()> {
    let mut stage = Stage::up()?;
    // An agent that runs takes such a VIP away, and says so.
    stage.agent.kill()?;
    let vip = stage.lab.vip(0);
    stage.lab.node().ip(&format!("address add {vip}/32 dev lo"))?;
    let (found, _) = doctor(&stage.lab, &[])?;
    assert_found(&found, ("vip", "node", "problem", &[&format!("ip address del {vip} dev lo")]));
    stage.agent.start_again()?;
    stage.until_refused(&[&vip.to_string()]);
    let (found, _) = doctor(&stage.lab, &[])?;
    let told = found.iter().any(|it| it["check"] == "agent" && it["verdict"] == "warning");
    assert!(told, "{found:#?}");
    Ok(())
}

#[test]
fn a_program_that_meets_packets_before_ours_is_named() -> Result<()> {
    let stage = Stage::up()?;
    let before = stage.lab.node().run(|| attach_first(&stage.lab, "eth0"))?;
    let (found, _) = doctor(&stage.lab, &[])?;
    assert_found(&found, ("programs", "eth0", "warning", &["meet packets first", "prove (id "]));
    drop(before);
    Ok(())
}

#[test]
fn rules_of_kube_proxy_are_found_in_each_of_its_modes() -> Result<()> {
    let stage = Stage::up()?;
    let vip = stage.lab.vip(0).to_string();
    let kind = "type ipv4_addr . inet_proto . inet_service : verdict";
    nft(&stage.lab, "add table ip kube-proxy; add chain ip kube-proxy service")?;
    nft(&stage.lab, &format!("add map ip kube-proxy service-ips {{ {kind} ; }}"))?;
    nft(&stage.lab, &format!("add element ip kube-proxy service-ips {{ {vip} . tcp . 80 : goto service }}"))?;
    let overlap = format!("rules for 1 of 1 served VIPs ({vip})");
    let (found, ended) = doctor(&stage.lab, &[])?;
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    assert_found(&found, ("kube-proxy", "node", "ok", &["mode nftables", &overlap]));
    // What an earlier mode left stands beside the new one.
    kube_services(&stage.lab, "iptables-nft", &vip)?;
    let (found, _) = doctor(&stage.lab, &[])?;
    assert_found(&found, ("kube-proxy", "node", "warning", &["nftables and iptables", "kube-proxy --cleanup"]));
    nft(&stage.lab, "delete table ip kube-proxy")?;
    let (found, _) = doctor(&stage.lab, &[])?;
    assert_found(&found, ("kube-proxy", "node", "ok", &["mode iptables; ", &overlap]));
    nft(&stage.lab, "flush ruleset")?;
    kube_services(&stage.lab, "iptables-legacy", &vip)?;
    let (found, _) = doctor(&stage.lab, &[])?;
    assert_found(&found, ("kube-proxy", "node", "ok", &["mode iptables (legacy); ", &overlap]));
    Ok(())
}

#[test]
fn policy_engines_are_found_by_chains_tables_and_links() -> Result<()> {
    let stage = Stage::up()?;
    for (engine, plant, remove) in [
        ("Calico", "add table ip filter; add chain ip filter cali-FORWARD", "flush ruleset"),
        ("kube-network-policies", "add table inet kube-network-policies", "flush ruleset"),
    ] {
        nft(&stage.lab, plant)?;
        let (found, _) = doctor(&stage.lab, &[])?;
        let parts = [engine, "2 backends are in mode direct", "--delivery stack"];
        assert_found(&found, ("network-policy", "node", "warning", &parts));
        nft(&stage.lab, remove)?;
    }
    stage.lab.node().output("iptables-legacy", &["-N", "KUBE-NWPLCY-DEFAULT"])?;
    let (found, _) = doctor(&stage.lab, &[])?;
    assert_found(&found, ("network-policy", "node", "warning", &["kube-router"]));
    stage.lab.node().ip("link add cilium_host type veth peer name cilium_net")?;
    let (found, _) = doctor(&stage.lab, &[])?;
    assert_found(&found, ("network-policy", "node", "warning", &["Cilium, kube-router"]));
    Ok(())
}

/// What it finds, and how it ended.
fn doctor(lab: &Lab, arguments: &[&str]) -> Result<(Vec<Value>, Ended)> {
    let ended = xlb(lab, &[&["doctor", "-o", "json"], arguments].concat())?;
    // What went wrong follows on the other output.
    let json = ended.text.split_inclusive("\n]").next().unwrap_or_default();
    let found = serde_json::from_str(json).with_context(|| format!("reading {}", ended.text))?;
    Ok((found, ended))
}

#[track_caller]
fn assert_found(found: &[Value], (check, object, verdict, parts): Expected) {
    let finding = found.iter().find(|it| it["check"] == check && it["object"] == object);
    let finding = finding.unwrap_or_else(|| panic!("no {check} of {object} in {found:#?}"));
    assert_eq!(finding["verdict"], verdict, "{finding:#}");
    let text = finding.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {finding:#}");
    }
}

/// Any program will do that is pinned and leaves packets alone, for as long as the answer lives.
fn attach_first(lab: &Lab, interface: &str) -> Result<(SchedClassifier, SchedClassifierLinkId)> {
    let pin = lab.pin_directory().join(format!("v{ABI_VERSION}/programs/prove"));
    let mut program = SchedClassifier::from_pin(pin)?;
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = program.attach_with_options(interface, TcAttachType::Ingress, order)?;
    Ok((program, link))
}

fn nft(lab: &Lab, rules: &str) -> Result<()> {
    lab.node().output("nft", &[rules]).map(drop)
}

/// The chain of kube-proxy's mode iptables, with the rule of a load balancer's address.
fn kube_services(lab: &Lab, program: &str, vip: &str) -> Result<()> {
    let at: SocketAddr = SocketAddr::new(vip.parse::<IpAddr>()?, 80);
    let port = at.port().to_string();
    lab.node().output(program, &["-t", "nat", "-N", "KUBE-SERVICES"])?;
    let rule = ["-d", vip, "-p", "tcp", "-m", "tcp", "--dport", &port, "-j", "RETURN"];
    lab.node().output(program, &[&["-t", "nat", "-A", "KUBE-SERVICES"], &rule[..]].concat()).map(drop)
}
