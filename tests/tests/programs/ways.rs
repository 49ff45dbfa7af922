//! The ways to a pod. On each of them every program has to be content: an agent takes long to start, so they share one.

use anyhow::{Result, ensure};
use xlb_tests::lab::{Lab, LabSpec, PodShape, Version};

use crate::stage::{Served, Stage, Way};
use crate::{dns, http, neighbours, paths, sctp, small_hop, throughput};

/// Something that has to hold in an IP version.
type Check = fn(&Stage, Version) -> Result<()>;

/// The small hops come last: they stay.
const CHECKS: [(&str, Check); 9] = [
    ("curl by name", http::check),
    ("curl at the health port", http::check_health_port),
    ("dig", dns::check),
    ("iperf3", throughput::check),
    ("tsctp", sctp::check),
    ("tracepath", paths::check_tracepath),
    ("traceroute", paths::check_traceroute),
    ("neighbours", neighbours::check),
    ("curl over small hops", small_hop::check),
];

/// From a link as small as the IPv4 one becomes, IPv6 goes away (RFC 8200 chapter 5): it comes first.
const VERSIONS: [Version; 2] = [Version::V6, Version::V4];

#[test]
fn direct_by_tc() -> Result<()> {
    check(Way { delivery: "direct", xdp: "off" }, PodShape::Routed, false)
}

#[test]
fn direct_by_native_xdp() -> Result<()> {
    check(Way { delivery: "direct", xdp: "native" }, PodShape::Bridge, false)
}

#[test]
fn through_the_stack_by_tc() -> Result<()> {
    check(Way { delivery: "stack", xdp: "off" }, PodShape::Bridge, false)
}

#[test]
fn through_the_stack_by_tc_behind_native_xdp() -> Result<()> {
    check(Way { delivery: "stack", xdp: "native" }, PodShape::Routed, false)
}

#[test]
fn direct_by_tc_with_sums_and_segments_left_to_devices() -> Result<()> {
    check(Way { delivery: "direct", xdp: "off" }, PodShape::Bridge, true)
}

/// Makes every check, and tells all that failed.
fn check(way: Way, pods: PodShape, tx_offload: bool) -> Result<()> {
    let lab =
        Lab::new(LabSpec { pods, tx_offload, clients: 2, dual_stack: true, pod_gro: true, ..LabSpec::default() })?;
    let names = paths::names();
    let closed = paths::ports(&names);
    let mut stage = Stage::new(lab, way, &services(&closed), &[])?;
    stage.serve_http(small_hop::LOCATIONS)?;
    stage.serve_dns(&dns::records().each_ref().map(|(name, text)| (*name, text.as_str())))?;
    throughput::serve(&mut stage)?;
    sctp::serve(&mut stage)?;
    small_hop::prepare(&stage)?;

    let mut failures = Vec::new();
    for (name, check) in CHECKS {
        for version in VERSIONS {
            println!("{name}, {version:?}");
            if let Err(error) = check(&stage, version) {
                failures.push(format!("{name}, {version:?}: {error:#}"));
            }
        }
    }
    ensure!(failures.is_empty(), "{way:?}, {pods:?} pods:\n{}", failures.join("\n"));
    Ok(())
}

/// Their order is that of their VIPs: [`http::SERVICE`] and so on.
fn services<'a>(closed: &'a [(&'a str, &'a str, u16, u16)]) -> [Served<'a>; 4] {
    [
        Served { name: "web", ports: &http::PORTS, pods: 3, local_policy: true, fields: &[http::HEALTH_FIELD] },
        // iperf3 asks over TCP for what it then sends, to the same port: both have to meet one pod.
        Served { name: "iperf", ports: &throughput::PORTS, pods: 1, ..Served::default() },
        Served { name: "closed", ports: closed, pods: 1, ..Served::default() },
        Served { name: "sctp", ports: &sctp::PORTS, pods: 1, ..Served::default() },
    ]
}
