//! A VIP is served, by each door and in each delivery mode: the right pod, the client's own address, whole data.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use xlb_common::Reason;
use xlb_tests::lab::{LabSpec, LineClient, PodShape, Version, udp_ask_unconnected};

use crate::scene::{ANSWER_TIMEOUT, Counters, Delivery, Door, Scene, pod_number};

const TRIES: u64 = 60;
/// With three pods, fewer than this of 60 tries is one case in ten millions.
const SHARE_MIN: usize = 3;
const BULK_BYTES: u64 = 3_000_000;

/// Nothing of this happens while a service is healthy.
const UNHEALTHY: [Reason; 8] = [
    Reason::StaleReference,
    Reason::EmptyPassed,
    Reason::EmptyDropped,
    Reason::Malformed,
    Reason::OtherHost,
    Reason::ReplyUnknown,
    Reason::AcceptedUnknown,
    Reason::TtlExpired,
];

#[test]
fn direct_by_tc() -> Result<()> {
    check_both_shapes(&LabSpec::default(), Delivery::Direct, Door::Tc)
}

#[test]
fn direct_by_generic_xdp() -> Result<()> {
    check_both_shapes(&LabSpec::default(), Delivery::Direct, Door::XdpGeneric)
}

#[test]
fn direct_by_native_xdp_into_pods_with_gro() -> Result<()> {
    check_both_shapes(&LabSpec { pod_gro: true, ..LabSpec::default() }, Delivery::Direct, Door::XdpNative)
}

#[test]
fn direct_by_tc_behind_native_xdp_into_pods_without_gro() -> Result<()> {
    check_both_shapes(&LabSpec::default(), Delivery::Direct, Door::XdpNative)
}

#[test]
fn through_the_stack_by_tc() -> Result<()> {
    check_both_shapes(&LabSpec::default(), Delivery::Stack, Door::Tc)
}

#[test]
fn through_the_stack_by_generic_xdp() -> Result<()> {
    check_both_shapes(&LabSpec::default(), Delivery::Stack, Door::XdpGeneric)
}

#[test]
fn through_the_stack_by_tc_behind_native_xdp() -> Result<()> {
    check_both_shapes(&LabSpec::default(), Delivery::Stack, Door::XdpNative)
}

#[test]
fn direct_with_unfinished_sums() -> Result<()> {
    check_both_shapes(&LabSpec { tx_offload: true, ..LabSpec::default() }, Delivery::Direct, Door::Tc)
}

#[test]
fn through_the_stack_with_unfinished_sums() -> Result<()> {
    check_both_shapes(&LabSpec { tx_offload: true, ..LabSpec::default() }, Delivery::Stack, Door::Tc)
}

#[test]
fn over_ipv6_direct_by_tc() -> Result<()> {
    check_both_shapes(&LabSpec { dual_stack: true, ..LabSpec::default() }, Delivery::Direct, Door::Tc)
}

#[test]
fn over_ipv6_direct_by_native_xdp_into_pods_with_gro() -> Result<()> {
    check_both_shapes(
        &LabSpec { dual_stack: true, pod_gro: true, ..LabSpec::default() },
        Delivery::Direct,
        Door::XdpNative,
    )
}

#[test]
fn over_ipv6_through_the_stack_by_tc() -> Result<()> {
    check_both_shapes(&LabSpec { dual_stack: true, ..LabSpec::default() }, Delivery::Stack, Door::Tc)
}

#[test]
fn over_ipv6_with_unfinished_sums() -> Result<()> {
    for delivery in Delivery::ALL {
        let spec = LabSpec { dual_stack: true, tx_offload: true, ..LabSpec::default() };
        check_both_shapes(&spec, delivery, Door::Tc)?;
    }
    Ok(())
}

#[test]
fn a_dual_stack_service_serves_both_versions_and_leaves_neighbour_discovery_alone() -> Result<()> {
    for (pods, delivery) in [(PodShape::Routed, Delivery::Direct), (PodShape::Bridge, Delivery::Stack)] {
        let mut scene = Scene::new(LabSpec { pods, dual_stack: true, ..LabSpec::default() }, delivery, Door::Tc)?;
        let mut connections = Vec::new();
        for version in Version::ALL {
            scene.version = version;
            scene.wait_for_takers(&[0, 1, 2]);
            connections.push((version, LineClient::connect(scene.lab.client(0), scene.vip())?));
            check_served(&scene).with_context(|| format!("{version:?}"))?;
        }
        let node = scene.lab.uplink(0).node_address_v6.to_string();
        for from in [scene.lab.router(), scene.lab.client(0), scene.lab.pod(0)] {
            from.output("ip", &["-6", "neighbour", "flush", "all"])?;
            from.output("ping", &["-6", "-c", "1", "-W", "2", &node])?;
        }
        for (version, connection) in &mut connections {
            scene.version = *version;
            scene.check_identity(connection)?;
        }
        scene.counters()?.assert_none(&UNHEALTHY);
    }
    Ok(())
}

#[test]
fn the_only_pod_gets_everything_without_slots() -> Result<()> {
    for delivery in Delivery::ALL {
        let scene = Scene::new(LabSpec { pod_count: 1, ..LabSpec::default() }, delivery, Door::Tc)?;
        for _ in 0..10 {
            assert_eq!((scene.check_connection(0)?, scene.check_datagram(0)?), (0, 0));
        }
        let counters = scene.counters()?;
        counters.assert_some(&[Reason::SoleBackend, Reason::Replied, Reason::Accepted]);
        counters.assert_none(&[Reason::SlotOwner, Reason::UnprovenOwner]);
        counters.assert_none(&UNHEALTHY);
    }
    Ok(())
}

#[test]
fn clients_are_told_apart() -> Result<()> {
    for delivery in Delivery::ALL {
        let scene = Scene::new(LabSpec { clients: 2, ..LabSpec::default() }, delivery, Door::Tc)?;
        let mut connections = [0, 1].map(|client| LineClient::connect(scene.lab.client(client), scene.vip()));
        for (client, connection) in connections.iter_mut().enumerate() {
            let connection = connection.as_mut().expect("both clients are served");
            scene.check_identity(connection)?;
            assert_eq!(connection.local_address()?.ip(), scene.lab.client_address(client));
        }
    }
    Ok(())
}

fn check_both_shapes(spec: &LabSpec, delivery: Delivery, door: Door) -> Result<()> {
    for pods in PodShape::ALL {
        let scene = Scene::new(LabSpec { pods, ..spec.clone() }, delivery, door)?;
        check_served(&scene).with_context(|| format!("{pods:?} pods"))?;
        let counters = scene.counters()?;
        check_counters(&counters);
        let is_left_to_tc = counters.of(Reason::LeftToTc) > 0;
        assert_eq!(is_left_to_tc, door.leaves_to_tc(delivery, spec.pod_gro));
    }
    Ok(())
}

fn check_served(scene: &Scene) -> Result<()> {
    let answers = || Ok::<_, anyhow::Error>(scene.counters()?.of(Reason::RepliedHalfOpen));
    let before = answers()?;
    check_shares(|| scene.check_datagram(0))?;
    check_shares(|| {
        let (answer, source) = udp_ask_unconnected(scene.lab.client(0), scene.vip(), "hello", ANSWER_TIMEOUT)?;
        assert_eq!(source, scene.vip());
        pod_number(answer.split(' ').next().unwrap_or_default())
    })?;
    // Most datagrams begin a flow; a port that the client's kernel gives a second time does not.
    assert!(answers()? - before > TRIES);
    check_shares(|| scene.check_connection(0))?;
    let mut bulk = LineClient::connect(scene.lab.client(0), scene.vip())?;
    bulk.download(BULK_BYTES)?;
    bulk.upload(BULK_BYTES)
}

/// Each of the three pods is met by some of the tries.
fn check_shares(mut meet: impl FnMut() -> Result<usize>) -> Result<()> {
    let mut shares = BTreeMap::from([(0, 0), (1, 0), (2, 0)]);
    for _ in 0..TRIES {
        *shares.entry(meet()?).or_default() += 1;
    }
    assert!(shares.len() == 3 && shares.values().all(|&share| share >= SHARE_MIN), "{shares:?}");
    Ok(())
}

fn check_counters(counters: &Counters) {
    // Each try is a connection, and one more carried the bulk.
    assert_eq!(counters.of(Reason::Accepted), TRIES + 1);
    assert!(counters.of(Reason::SlotOwner) > 3 * TRIES);
    counters.assert_some(&[Reason::Replied, Reason::RepliedHalfOpen]);
    counters.assert_none(&[Reason::SoleBackend, Reason::UnprovenOwner]);
    counters.assert_none(&UNHEALTHY);
}
