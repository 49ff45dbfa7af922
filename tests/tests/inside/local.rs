//! Clients in pods that get the local set, and the node's own processes, which do not.

use std::collections::BTreeSet;

use anyhow::Result;
use xlb_common::Reason;
use xlb_common::abi::{Inside, inside_flags};
use xlb_tests::lab::Namespace;

use crate::stage::{Name, Stage, connect, datagrams, greeting, receive};

/// A service whose pods here get its local endpoints.
fn local() -> Inside {
    Inside { flags: inside_flags::LOCAL_FOR_PODS, ..Inside::default() }
}

#[test]
fn pods_reach_the_local_endpoints_and_the_node_those_of_the_cluster() -> Result<()> {
    let stage = Stage::serving(3, &[0, 1, 2], Inside { local: 1, ..local() })?;
    for name in Name::ALL {
        for place in stage.places() {
            let expected: BTreeSet<usize> = if is_node(&stage, place) { [0, 1].into() } else { [2].into() };
            let connected = (0..30).map(|_| Ok(greeting(&connect(place, stage.vip(name))?)?.pod));
            assert_eq!(connected.collect::<Result<BTreeSet<_>>>()?, expected, "{name:?} from {}", place.name());
            let sent = (0..30).map(|_| {
                let socket = datagrams(place, stage.vip(name))?;
                socket.send_to(b"?", stage.vip(name))?;
                let (answer, sender) = receive(&socket)?;
                assert_eq!(sender, stage.vip(name));
                Ok(answer.pod)
            });
            assert_eq!(sent.collect::<Result<BTreeSet<_>>>()?, expected, "{name:?} from {}", place.name());
        }
    }
    Ok(())
}

#[test]
fn a_pod_without_a_local_endpoint_is_not_permitted_and_the_node_is_served() -> Result<()> {
    let stage = Stage::serving(2, &[0, 1], local())?;
    for name in Name::ALL {
        for place in stage.places() {
            let (vip, socket) = (stage.vip(name), datagrams(place, stage.vip(name))?);
            let calls = [connect(place, vip).map(drop), socket.send_to(b"?", vip).map(drop)];
            let expected = (!is_node(&stage, place)).then_some(libc::EPERM);
            let errors = calls.map(|call| call.err().and_then(|error| error.raw_os_error()));
            assert_eq!(errors, [expected; 2], "{name:?} from {}", place.name());
        }
    }
    assert_eq!(stage.hooks.counts()?, [(Reason::InsideServed, 6), (Reason::InsideNotLocal, 12)].into());
    Ok(())
}

#[test]
fn affinity_leads_no_pod_to_an_endpoint_that_is_not_local() -> Result<()> {
    let affine = Inside { affinity_s: 60, ..Inside::default() };
    let mut stage = Stage::serving(3, &[0], affine)?;
    let pods = |stage: &Stage| -> Result<Vec<usize>> {
        stage.places().iter().map(|place| Ok(greeting(&connect(place, stage.vip(Name::V4))?)?.pod)).collect()
    };
    assert_eq!(pods(&stage)?, [0, 0, 0]);
    stage.publish(&[0, 1, 2], Inside { affinity_s: 60, local: 1, ..local() })?;
    assert_eq!(pods(&stage)?, [0, 2, 2]);
    assert_eq!(pods(&stage)?, [0, 2, 2]);
    let affine = [(Reason::InsideServed, 5), (Reason::InsideAffine, 4)];
    assert_eq!(stage.hooks.counts()?, affine.into());
    Ok(())
}

fn is_node(stage: &Stage, place: &Namespace) -> bool {
    place.name() == stage.lab.node().name()
}
