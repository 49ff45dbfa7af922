//! Packets of other kinds: ICMP errors that large packets cause, fragments, and what netfilter makes of all that.

use anyhow::{Context, Result, ensure};
use xlb_tests::kernel::sample::Version;
use xlb_tests::lab::{LabSpec, LineClient, PodShape, UdpClient, kube_proxy};

use super::stage::Endpoint::{Elsewhere, Here};
use super::stage::{PATIENCE, Stage, first_word};

const MEGABYTE: u64 = 1 << 20;
/// Of the way to another node.
const SMALL_MTU: u32 = 1300;
/// Three fragments, and fourteen.
const LONG: [usize; 2] = [4_000, 20_000];

#[test]
fn the_mtu_of_the_way_to_an_endpoint_is_learnt_as_that_to_the_vip() -> Result<()> {
    for pods in PodShape::ALL {
        let stage = Stage::up(spec(pods), &[Elsewhere], &[])?;
        stage.lab.node().ip(&format!("link set {} mtu {SMALL_MTU}", stage.lab.uplink(0).node_device))?;
        for version in Version::ALL {
            let vip = stage.vip(version);
            LineClient::connect(stage.lab.pod(0), vip)?.upload(MEGABYTE)?;
            let route = stage.lab.pod(0).output("ip", &["route", "get", &vip.ip().to_string()])?;
            ensure!(route.contains(&format!("mtu {SMALL_MTU}")), "{pods:?} {version:?}: {route}");
        }
        assert!(stage.count("link_error")? >= 2);
    }
    Ok(())
}

#[test]
fn datagrams_in_fragments_arrive_whole_both_ways() -> Result<()> {
    for pods in PodShape::ALL {
        let stage = Stage::up(spec(pods), &[Here(1), Elsewhere], &[])?;
        check_fragments(&stage).with_context(|| format!("{pods:?} pods"))?;
    }
    Ok(())
}

/// Connection tracking puts fragments together, takes them apart again, and knows no packet that it calls invalid.
#[test]
fn beside_kube_proxys_rules_netfilter_sees_both_directions() -> Result<()> {
    for pods in PodShape::ALL {
        let stage = Stage::up(LabSpec { kube_proxy_rules: true, ..spec(pods) }, &[Here(1), Elsewhere], &[])?;
        for version in Version::ALL {
            assert!(stage.reached(0, version, 16)?.iter().eq(["elsewhere", "pod-1"]), "{pods:?} {version:?}");
            let mut client = LineClient::connect(stage.lab.pod(0), stage.vip(version))?;
            client.download(MEGABYTE)?;
            client.upload(MEGABYTE)?;
        }
        check_fragments(&stage).with_context(|| format!("{pods:?} pods"))?;
        assert_eq!(stage.lab.dropped_as_invalid()?, 0, "{pods:?}");
        assert!(stage.lab.masqueraded()? > 0, "what leaves the node has its address");
    }
    Ok(())
}

/// What xlb leaves to the stack, kube-proxy serves: the only endpoint is the client itself.
#[test]
fn kube_proxy_leads_a_hidden_client_to_itself() -> Result<()> {
    let stage = Stage::up(LabSpec { kube_proxy_rules: true, ..spec(PodShape::Routed) }, &[Here(0)], &[])?;
    let (vip, pod) = (stage.lab.vip(0), stage.lab.pod_address(0));
    let endpoint = std::net::SocketAddrV4::new(pod, crate::stage::TARGET_PORT);
    kube_proxy::serve(stage.lab.node(), std::net::SocketAddrV4::new(vip, crate::stage::PORT), endpoint, true)?;
    assert!(stage.reached(0, Version::V4, 3)?.iter().eq(["pod-0"]));
    assert_eq!(stage.count("link_hairpin")?, 3, "a SYN each, and conntrack has the rest");
    assert!(stage.count("link_unknown")? > 0);
    Ok(())
}

fn check_fragments(stage: &Stage) -> Result<()> {
    for version in Version::ALL {
        for length in LONG {
            for _ in 0..6 {
                let client = UdpClient::connect(stage.lab.pod(0), stage.vip(version))?;
                let payload: String = (0..length).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
                let answer = client.ask(&payload, PATIENCE).with_context(|| format!("{version:?}, {length} bytes"))?;
                ensure!(answer.ends_with(&payload), "{} answered {} bytes", first_word(&answer), answer.len());
            }
        }
    }
    Ok(())
}

fn spec(pods: PodShape) -> LabSpec {
    LabSpec { pods, pod_count: 2, clients: 0, dual_stack: true, ..LabSpec::default() }
}
