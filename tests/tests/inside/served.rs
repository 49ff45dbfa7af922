//! Connections: they reach an endpoint, and their peer is the VIP.

use std::collections::BTreeSet;

use anyhow::Result;
use xlb_common::Reason;
use xlb_common::abi::Inside;

use crate::stage::{Name, Stage, connect, greeting};

#[test]
fn a_connection_to_a_vip_reaches_an_endpoint_and_its_peer_is_the_vip() -> Result<()> {
    let stage = Stage::serving(2, &[0, 1], Inside::default())?;
    for name in Name::ALL {
        for place in stage.places() {
            let stream = connect(place, stage.vip(name))?;
            assert_eq!(stream.peer_addr()?, stage.vip(name), "{name:?} from {}", place.name());
            let answer = greeting(&stream)?;
            assert_eq!(answer.peer.ip(), stream.local_addr()?.ip().to_canonical(), "the pod sees the client's address");
        }
    }
    assert_eq!(stage.hooks.counts()?, [(Reason::InsideServed, 9)].into());
    Ok(())
}

#[test]
fn a_pod_reaches_itself_through_its_vip() -> Result<()> {
    let stage = Stage::serving(1, &[0], Inside::default())?;
    for name in Name::ALL {
        let stream = connect(stage.lab.pod(0), stage.vip(name))?;
        assert_eq!(stream.peer_addr()?, stage.vip(name));
        let (answer, own) = (greeting(&stream)?, stage.endpoint(name, 0).ip().to_canonical());
        assert_eq!((answer.pod, answer.peer.ip()), (0, own));
    }
    Ok(())
}

#[test]
fn connections_of_one_client_are_spread() -> Result<()> {
    let stage = Stage::serving(3, &[0, 1, 2], Inside::default())?;
    let pods = (0..60).map(|_| Ok(greeting(&connect(stage.lab.node(), stage.vip(Name::V4))?)?.pod));
    assert_eq!(pods.collect::<Result<BTreeSet<_>>>()?, [0, 1, 2].into());
    Ok(())
}

#[test]
fn affinity_keeps_a_clients_connections_together() -> Result<()> {
    let stage = Stage::serving(3, &[0, 1, 2], Inside { affinity_s: 60, ..Inside::default() })?;
    for place in stage.places() {
        let pods = (0..20).map(|_| Ok(greeting(&connect(place, stage.vip(Name::V4))?)?.pod));
        assert_eq!(pods.collect::<Result<BTreeSet<_>>>()?.len(), 1, "from {}", place.name());
    }
    assert_eq!(stage.hooks.counts()?, [(Reason::InsideServed, 3), (Reason::InsideAffine, 57)].into());
    Ok(())
}

#[test]
fn what_is_sent_to_nobodys_vip_is_untouched_and_uncounted() -> Result<()> {
    let stage = Stage::serving(2, &[0], Inside::default())?;
    for name in Name::ALL {
        let direct = stage.endpoint(name, 1);
        let stream = connect(stage.lab.node(), direct)?;
        assert_eq!((stream.peer_addr()?, greeting(&stream)?.pod), (direct, 1));
    }
    assert!(stage.hooks.counts()?.is_empty());
    Ok(())
}
