//! Who is not served, and how the client hears of it.

use std::io::{Error, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use xlb_tests::kernel::sample::Version;
use xlb_tests::lab::{LabSpec, Namespace, PodShape, UdpClient, wait_for};

use super::stage::Endpoint::{Elsewhere, Here};
use super::stage::{PATIENCE, SOON, Stage};

/// After which a client asks again: nobody repeats an ICMP error.
const RETRY: Duration = Duration::from_millis(300);
/// An address that a pod forwards for.
const BEHIND: &str = "10.255.0.9";
const BEHIND_V6: &str = "fd00:255::9";

#[test]
fn without_any_usable_endpoint_a_hidden_client_is_refused_at_once() -> Result<()> {
    for pods in PodShape::ALL {
        let mut stage = Stage::up(spec(pods), &[Here(1)], &[])?;
        stage.publish(&[], &[], (0, 0))?;
        for version in Version::ALL {
            assert_eq!(
                stage.connect(stage.lab.pod(0), version),
                Err(ErrorKind::ConnectionRefused),
                "{pods:?} {version:?}"
            );
            until_refused(&UdpClient::connect(stage.lab.pod(0), stage.vip(version))?)
                .with_context(|| format!("{pods:?} pods, {version:?}"))?;
        }
        assert!(stage.count("link_rejected")? >= 4);
    }
    Ok(())
}

#[test]
fn a_closed_port_of_an_endpoint_is_heard_of() -> Result<()> {
    let stage = Stage::up(spec(PodShape::Routed), &[Elsewhere], &[])?;
    stage.elsewhere.1.stop();
    for version in Version::ALL {
        until_refused(&UdpClient::connect(stage.lab.pod(0), stage.vip(version))?)
            .with_context(|| format!("{version:?}"))?;
    }
    assert!(stage.count("link_error")? >= 2);
    Ok(())
}

/// What counts is the source of the packet, which need not be the pod's own address.
#[test]
fn source_ranges_are_for_hidden_clients_too() -> Result<()> {
    let ranges = format!("loadBalancerSourceRanges: [{BEHIND}/32, '{BEHIND_V6}/128']");
    let mut stage = Stage::up(spec(PodShape::Routed), &[Here(1)], &[&ranges])?;
    let pod = stage.lab.pod(0).clone();
    pod.ip(&format!("address add {BEHIND}/32 dev eth0\naddress add {BEHIND_V6}/128 dev eth0 nodad"))?;
    let device = stage.lab.pod_host_end(0);
    stage.lab.node().ip(&format!("route add {BEHIND}/32 dev {device}\nroute add {BEHIND_V6}/128 dev {device}"))?;
    for (version, behind) in [(Version::V4, BEHIND), (Version::V6, BEHIND_V6)] {
        let own = stage.pod_address(version, 0).to_string();
        assert!(ask(&pod, &own, stage.vip(version)).is_err(), "{version:?}");
        assert_eq!(ask(&pod, behind, stage.vip(version))?, stage.vip(version));
    }
    assert_eq!(stage.count("link_not_allowed")?, 2);

    stage.publish(&[Here(1)], &[], (1, 0))?;
    let is_open = || stage.connect(&pod, Version::V4).is_ok() && stage.connect(&pod, Version::V6).is_ok();
    stage.until("open to all", is_open)
}

fn spec(pods: PodShape) -> LabSpec {
    LabSpec { pods, pod_count: 2, clients: 0, dual_stack: true, ..LabSpec::default() }
}

/// Sends from this address; who seems to answer.
fn ask(place: &Namespace, from: &str, vip: SocketAddr) -> Result<SocketAddr> {
    let socket = place.run(|| UdpSocket::bind((from, 0)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"?", vip)?;
    Ok(socket.recv_from(&mut [0; 256])?.1)
}

fn until_refused(client: &UdpClient) -> Result<()> {
    let is_refused = |error: &anyhow::Error| {
        error.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    };
    let refused = wait_for(SOON, || client.ask("?", RETRY).err().filter(is_refused));
    refused.map(drop).context("nobody told the client")
}
