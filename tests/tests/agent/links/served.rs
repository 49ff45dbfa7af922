//! Who is served, and by which endpoint.

use anyhow::Result;
use xlb_tests::kernel::sample::Version;
use xlb_tests::lab::{LabSpec, LineClient, PodShape, UdpClient, udp_ask_unconnected};

use super::stage::Endpoint::{Elsewhere, Here};
use super::stage::{ELSEWHERE, PATIENCE, Stage, first_word};

/// Bytes of a download: many segments.
const MEGABYTE: u64 = 1 << 20;

fn spec(pods: PodShape, pod_count: usize) -> LabSpec {
    LabSpec { pods, pod_count, clients: 0, dual_stack: true, ..LabSpec::default() }
}

#[test]
fn a_hidden_client_reaches_pods_of_this_node_and_of_others_and_hears_the_vip() -> Result<()> {
    for shape in PodShape::ALL {
        let stage = Stage::up(spec(shape, 2), &[Here(1), Elsewhere], &[])?;
        for version in Version::ALL {
            let reached = stage.reached(0, version, 24)?;
            assert!(reached.iter().eq(["elsewhere", "pod-1"]), "{reached:?}, {shape:?} {version:?}");
            for _ in 0..8 {
                let servers = stage.servers(0, version)?;
                assert!(servers.iter().all(|server| ["pod-1", ELSEWHERE].contains(&server.as_str())), "{servers:?}");
            }
        }
        assert_eq!(stage.count("inside_served")?, 0, "no socket was seen");
        // A UDP socket may get the port of an earlier one, and goes on in its flow.
        let (tcp, all) = (2 * (24 + 8), 2 * (24 + 24));
        let served = stage.count("link_served")?;
        assert!((tcp..=all).contains(&served) && stage.count("link_replied")? > 0, "{served} of {all}");
    }
    Ok(())
}

#[test]
fn the_endpoint_sees_the_client_and_bytes_arrive_whole_both_ways() -> Result<()> {
    for (shape, tx_offload) in [(PodShape::Routed, true), (PodShape::Bridge, false)] {
        let stage = Stage::up(LabSpec { tx_offload, ..spec(shape, 2) }, &[Here(1)], &[])?;
        for version in Version::ALL {
            let mut client = LineClient::connect(stage.lab.pod(0), stage.vip(version))?;
            let identity = client.identity()?;
            assert_eq!(identity.peer, client.local_address()?);
            assert_eq!(identity.local.ip(), stage.pod_address(version, 1));
            client.download(MEGABYTE)?;
            client.upload(MEGABYTE)?;
        }
    }
    Ok(())
}

#[test]
fn a_client_gets_another_endpoint_than_itself() -> Result<()> {
    let mut stage = Stage::up(spec(PodShape::Routed, 2), &[Here(0), Here(1)], &[])?;
    for version in Version::ALL {
        assert!(stage.reached(0, version, 16)?.iter().eq(["pod-1"]));
        assert!(stage.reached(1, version, 16)?.iter().eq(["pod-0"]));
    }
    stage.publish(&[Here(0)], &[], (1, 0))?;
    assert_eq!(stage.count("link_hairpin")?, 0);
    assert!(stage.connect(stage.lab.pod(0), Version::V4).is_err(), "nobody else serves the VIP here");
    assert!(stage.count("link_hairpin")? > 0);
    Ok(())
}

#[test]
fn with_external_policy_a_hidden_client_gets_the_pods_of_this_node() -> Result<()> {
    let arguments = ["--clients-inside", "external-policy"];
    let mut stage = Stage::with(spec(PodShape::Routed, 2), &[Here(1), Elsewhere], &[], &arguments)?;
    for version in Version::ALL {
        assert!(stage.reached(0, version, 16)?.iter().eq(["pod-1"]));
    }
    stage.publish(&[Elsewhere], &[], (1, 0))?;
    for version in Version::ALL {
        assert!(stage.connect(stage.lab.pod(0), version).is_err());
    }
    assert!(stage.count("link_not_local")? > 0);
    Ok(())
}

#[test]
fn affinity_keeps_a_hidden_clients_connections_together() -> Result<()> {
    let endpoints = [Here(1), Here(2), Here(3), Elsewhere];
    let stage = Stage::up(spec(PodShape::Routed, 4), &endpoints, &["sessionAffinity: ClientIP"])?;
    for version in Version::ALL {
        assert_eq!(stage.reached(0, version, 24)?.len(), 1);
    }
    assert_eq!((stage.count("link_served")?, stage.count("link_affine")?), (2, 46));
    Ok(())
}

#[test]
fn datagrams_of_one_socket_stay_together() -> Result<()> {
    let stage = Stage::up(spec(PodShape::Bridge, 3), &[Here(1), Here(2), Elsewhere], &[])?;
    for version in Version::ALL {
        let client = UdpClient::connect(stage.lab.pod(0), stage.vip(version))?;
        let first = first_word(&client.ask("?", PATIENCE)?);
        for _ in 0..12 {
            assert_eq!(first_word(&client.ask("?", PATIENCE)?), first);
        }
    }
    assert_eq!((stage.count("link_served")?, stage.count("link_followed")?), (2, 24));
    Ok(())
}

/// It serves clients outside at the same time: its replies leave by the program for those.
#[test]
fn a_backend_is_a_client_too() -> Result<()> {
    let clients = LabSpec { clients: 1, ..spec(PodShape::Routed, 2) };
    let stage = Stage::up(clients, &[Here(0), Here(1)], &[])?;
    for version in Version::ALL {
        for _ in 0..8 {
            let mut outside = LineClient::connect(stage.lab.client(0), stage.vip(version))?;
            assert_eq!(stage.servers(0, version)?, ["pod-1"; 3]);
            assert_eq!(outside.identity()?.peer.ip(), stage.lab.client_address_in(version, 0));
            let (answer, sender) = udp_ask_unconnected(stage.lab.client(0), stage.vip(version), "?", PATIENCE)?;
            assert!(answer.starts_with("pod-") && sender == stage.vip(version), "{answer} of {sender}");
        }
    }
    Ok(())
}
