//! The interfaces on which outside traffic arrives.

use super::dataplane::quoted;
use super::facts::{Facts, UplinkFacts};
use super::{Finding, NODE};
use crate::agent::forwarding::{Port, refusals};
use crate::maps::attach::FrontDoor;
use crate::node::{Link, Snapshot};

/// A frame with its headers that fits one page; drivers need several buffers for a larger one.
const PAGE_MTU: u32 = 3498;

/// What each of these comes to.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    if facts.uplinks.is_empty() {
        let why = "no uplink is served, and none was named";
        return vec![Finding::unknown("uplink", NODE, why, "xlb doctor --uplink eth0")];
    }
    let Ok(snapshot) = &facts.snapshot else {
        let why = "links and routes cannot be listed";
        return vec![Finding::unknown("uplink", NODE, why, "run it as root, or with CAP_NET_ADMIN")];
    };
    let mut findings: Vec<Finding> = facts.uplinks.iter().flat_map(|uplink| of(uplink, snapshot, facts)).collect();
    findings.extend(stack(facts, snapshot));
    findings.push(Finding::unknown(
        "urpf",
        "routers",
        "whether routers drop replies by a reverse path filter of theirs cannot be seen from here",
        "on each router: replies leave by the uplink that their connection came by, with the VIP as source, so a strict filter \
         needs a route to the VIP by that link, and a loose one any route to it",
    ));
    findings
}

fn of(uplink: &UplinkFacts, snapshot: &Snapshot, facts: &Facts) -> Vec<Finding> {
    let Some(link) = uplink.ifindex.and_then(|ifindex| snapshot.links.get(&ifindex)) else {
        let listed: Vec<&str> = snapshot.links.values().map(|link| link.name.as_str()).collect();
        let evidence = format!("there is no such interface; there are {}", listed.join(", "));
        return vec![Finding::problem(
            "uplink",
            &uplink.name,
            evidence,
            "name the interface that clients' packets come by",
        )];
    };
    vec![
        state(uplink, link, facts),
        driver(uplink, link),
        before(uplink, &facts.dataplane.programs),
        tags(uplink, link, snapshot),
    ]
}

fn state(uplink: &UplinkFacts, link: &Link, facts: &Facts) -> Finding {
    let name = &uplink.name;
    if !link.is_up {
        return Finding::problem("uplink", name, "it is down", format!("ip link set {name} up"));
    }
    if !link.has_carrier {
        return Finding::problem("uplink", name, "it has no carrier", "look at the cable, and at the other end");
    }
    match uplink.door {
        Some(door) => Finding::ok("uplink", name, format!("it is up, and served by {door}")),
        None if facts.dataplane.is_there => {
            let evidence = "it is up, and none of xlb's programs is attached to it";
            Finding::problem("uplink", name, evidence, "name it in --uplink of xlb run")
        }
        None => Finding::ok("uplink", name, "it is up"),
    }
}

fn driver(uplink: &UplinkFacts, link: &Link) -> Finding {
    let (name, driver) = (&uplink.name, &uplink.driver);
    let Some(xdp) = uplink.xdp else {
        let why = format!("the kernel does not tell what XDP driver {driver} has");
        return Finding::unknown("driver", name, why, "xlb run tries it: see `served by` in its log");
    };
    let is_native = uplink.door == Some(FrontDoor::XdpNative);
    let too_large = link.mtu > PAGE_MTU && !xdp.takes_several_buffers();
    match (xdp.runs(), xdp.redirects()) {
        (true, false) if is_native => {
            let evidence = format!("XDP of driver {driver} cannot hand frames to pods, so they are dropped");
            Finding::problem("driver", name, evidence, "start xlb run with --xdp off")
        }
        (true, true) if is_native && too_large => {
            let evidence =
                format!("XDP of driver {driver} takes no frame of several buffers, as an MTU of {} needs", link.mtu);
            Finding::problem("driver", name, evidence, format!("ip link set {name} mtu {PAGE_MTU}, or --xdp off"))
        }
        (true, true) => Finding::ok("driver", name, format!("{driver} has native XDP, and can redirect by it")),
        _ if uplink.door == Some(FrontDoor::XdpGeneric) => {
            let evidence = format!("{driver} has no native XDP: the generic one makes a copy of many packets");
            Finding::warning("driver", name, evidence, "start xlb run with --xdp off: tc is faster here")
        }
        _ => Finding::ok("driver", name, format!("{driver} has no native XDP that redirects: tc serves")),
    }
}

fn before(uplink: &UplinkFacts, own: &std::collections::BTreeSet<u32>) -> Finding {
    let name = &uplink.name;
    let is_xdp = uplink.door.is_some_and(|door| door != FrontDoor::Tc);
    if let Some((id, program)) = uplink.xdp_program.as_ref().filter(|(id, _)| !own.contains(id)) {
        let evidence = format!("the XDP program {program} (id {id}) of somebody else meets packets first");
        let remedy = format!("look what it does to packets for VIPs; ip link set dev {name} xdp off detaches it");
        return match is_xdp {
            true => Finding::problem("programs", name, evidence, remedy),
            false => Finding::warning("programs", name, evidence, remedy),
        };
    }
    let programs = match &uplink.tc_programs {
        Ok(programs) => programs,
        Err(why) => return Finding::unknown("programs", name, why.clone(), "run it as root, or with CAP_NET_ADMIN"),
    };
    let foreign: Vec<String> = programs
        .iter()
        .take_while(|(id, _)| !own.contains(id))
        .map(|(id, program)| format!("{program} (id {id})"))
        .collect();
    if foreign.is_empty() {
        return Finding::ok("programs", name, "no program of others meets packets before xlb's");
    }
    let evidence = format!("tc programs of others meet packets first: {}", foreign.join(", "));
    let remedy = "if clients of VIPs are not served, see what they drop or redirect; start xlb run before their owner to be first";
    Finding::warning("programs", name, evidence, remedy)
}

/// Frames whose tag the driver took out look untagged to XDP, and their replies leave without.
fn tags(uplink: &UplinkFacts, link: &Link, snapshot: &Snapshot) -> Finding {
    let name = &uplink.name;
    let is_lower = |other: &&Link| other.kind == "vlan" && other.peer_index == Some(link.index);
    let devices: Vec<&str> = snapshot.links.values().filter(is_lower).map(|other| other.name.as_str()).collect();
    let trunk = if devices.is_empty() {
        "no VLAN device is on it".into()
    } else {
        format!("a trunk of {}", devices.join(", "))
    };
    match (uplink.door, uplink.strips_vlan_tags) {
        (None | Some(FrontDoor::Tc), _) => Finding::ok("vlan", name, format!("{trunk}; tc serves tagged frames")),
        (Some(FrontDoor::XdpGeneric), _) if !devices.is_empty() => {
            let evidence =
                format!("{trunk}; generic XDP sees tagged frames without their tags, and replies leave without");
            Finding::problem("vlan", name, evidence, "start xlb run with --xdp off")
        }
        (Some(FrontDoor::XdpNative), Some(true)) if !devices.is_empty() => {
            let evidence = format!("{trunk}; the driver takes tags out before XDP, and replies leave without");
            Finding::problem("vlan", name, evidence, format!("ethtool -K {name} rxvlan off"))
        }
        (Some(FrontDoor::XdpNative), None) if !devices.is_empty() => {
            let why = format!("{trunk}; the driver does not tell whether it takes tags out before XDP");
            Finding::unknown("vlan", name, why, &format!("ethtool -k {name} | grep rx-vlan-offload"))
        }
        (Some(_), _) => Finding::ok("vlan", name, trunk),
    }
}

/// Forwarding, the reverse path filter and the default route matter to packets that the host's stack carries.
fn stack(facts: &Facts, snapshot: &Snapshot) -> Vec<Finding> {
    let port = |uplink: &UplinkFacts| {
        Some(Port { name: uplink.name.clone(), ifindex: uplink.ifindex?, settings: uplink.settings })
    };
    let ports: Vec<Port> = facts.uplinks.iter().filter_map(port).collect();
    let Some(Ok(maps)) = &facts.dataplane.maps else {
        return vec![without_maps(&ports)];
    };
    if maps.stacked.is_empty() {
        let evidence = "no backend is in mode stack: rp_filter and forwarding do not matter";
        return vec![Finding::ok("forwarding", NODE, evidence)];
    }
    let complaints = refusals(&maps.stacked, &ports, snapshot);
    if complaints.is_empty() {
        let count: usize = maps.stacked.values().map(|(all, _)| all).sum();
        let evidence = format!(
            "{count} backends are in mode stack; the host forwards, and no reverse path filter is in their way"
        );
        return vec![Finding::ok("forwarding", NODE, evidence)];
    }
    let finding = |refusal: &crate::plan::desired::Refusal| {
        let remedy = quoted(&refusal.why).unwrap_or("as the sentence says");
        Finding::problem("forwarding", &refusal.object, refusal.why.clone(), remedy)
    };
    complaints.iter().map(finding).collect()
}

fn without_maps(ports: &[Port]) -> Finding {
    let closed: Vec<&str> =
        ports.iter().filter(|port| !port.settings.forwards_v4).map(|port| port.name.as_str()).collect();
    let strict: Vec<&str> =
        ports.iter().filter(|port| port.settings.is_strict).map(|port| port.name.as_str()).collect();
    match (closed.is_empty(), ports.len() > 1 && !strict.is_empty()) {
        (true, false) => {
            Finding::ok("forwarding", NODE, "the host forwards what uplinks receive, should mode stack be used")
        }
        (false, _) => Finding::warning(
            "forwarding",
            NODE,
            format!("what {} receives is not forwarded, as mode stack needs; mode direct does not", closed.join(", ")),
            "sysctl -w net.ipv4.ip_forward=1",
        ),
        (true, true) => Finding::warning(
            "forwarding",
            NODE,
            format!(
                "the reverse path filter is strict at {}; with several uplinks mode stack needs a loose one, mode direct none",
                strict.join(", ")
            ),
            strict
                .iter()
                .map(|name| format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2"))
                .collect::<Vec<_>>()
                .join("; "),
        ),
    }
}
