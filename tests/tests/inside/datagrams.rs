//! Datagrams of unconnected and of connected sockets: answers come from the VIP.

use std::net::{SocketAddr, UdpSocket};

use anyhow::Result;
use xlb_common::Reason;
use xlb_common::abi::{Inside, UDP};

use crate::stage::{Name, PATIENCE, Stage, TARGET_PORT, datagrams, receive};

#[test]
fn an_unconnected_socket_hears_the_vip_and_stays_with_its_endpoint() -> Result<()> {
    let stage = Stage::serving(3, &[0, 1, 2], Inside::default())?;
    for name in Name::ALL {
        for place in stage.places() {
            let (socket, vip) = (datagrams(place, stage.vip(name))?, stage.vip(name));
            let mut pods = Vec::new();
            for _ in 0..5 {
                socket.send_to(b"?", vip)?;
                let (answer, sender) = receive(&socket)?;
                assert_eq!(sender, vip, "{name:?} from {}", place.name());
                pods.push(answer.pod);
            }
            assert!(pods.windows(2).all(|two| two[0] == two[1]), "{name:?}: {pods:?}");
        }
    }
    let expected = [(Reason::InsideServed, 9), (Reason::InsideRemembered, 36), (Reason::InsideAnswered, 45)];
    assert_eq!(stage.hooks.counts()?, expected.into());
    Ok(())
}

#[test]
fn a_connected_socket_hears_the_vip_which_is_its_peer() -> Result<()> {
    let stage = Stage::serving(2, &[0, 1], Inside::default())?;
    for name in Name::ALL {
        for place in stage.places() {
            let (socket, vip) = (datagrams(place, stage.vip(name))?, stage.vip(name));
            place.run(|| socket.connect(vip))?;
            socket.send(b"?")?;
            assert_eq!((receive(&socket)?.1, socket.peer_addr()?), (vip, vip), "{name:?} from {}", place.name());
        }
    }
    Ok(())
}

#[test]
fn a_pod_sends_datagrams_to_itself_through_its_vip() -> Result<()> {
    let stage = Stage::serving(1, &[0], Inside::default())?;
    for name in Name::ALL {
        let (socket, vip) = (datagrams(stage.lab.pod(0), stage.vip(name))?, stage.vip(name));
        socket.send_to(b"?", vip)?;
        let (answer, sender) = receive(&socket)?;
        assert_eq!((answer.pod, sender), (0, vip));
        assert_eq!(answer.peer.ip(), stage.endpoint(name, 0).ip().to_canonical());
    }
    Ok(())
}

#[test]
fn a_socket_leaves_its_endpoint_only_when_that_no_longer_serves() -> Result<()> {
    let mut stage = Stage::serving(2, &[1], Inside::default())?;
    let (socket, vip) = (datagrams(stage.lab.node(), stage.vip(Name::V4))?, stage.vip(Name::V4));
    let ask = || -> Result<usize> {
        socket.send_to(b"?", vip)?;
        Ok(receive(&socket)?.0.pod)
    };
    assert_eq!(ask()?, 1);
    stage.publish(&[0, 1], Inside { lingering: 1, ..Inside::default() })?;
    assert_eq!(ask()?, 1);
    stage.publish(&[0], Inside::default())?;
    assert_eq!(ask()?, 0);
    Ok(())
}

#[test]
fn a_server_below_the_cgroup_sees_its_clients_as_they_are() -> Result<()> {
    let mut stage = Stage::new(2)?;
    for name in [Name::V4, Name::V6] {
        let (vip, pod) = (stage.vip(name), SocketAddr::new(stage.endpoint(name, 0).ip(), TARGET_PORT + 1));
        stage.hooks.publish(vip, UDP, &[pod], Inside::default())?;
        let server = stage.lab.pod(0).run(|| UdpSocket::bind(pod))?;
        server.set_read_timeout(Some(PATIENCE))?;
        let client = datagrams(stage.lab.pod(1), vip)?;
        client.send_to(b"?", vip)?;
        let (_, peer) = server.recv_from(&mut [0; 8])?;
        assert_eq!(peer, SocketAddr::new(stage.endpoint(name, 1).ip(), client.local_addr()?.port()));
        server.send_to(format!("0 {peer}").as_bytes(), peer)?;
        assert_eq!(receive(&client)?.1, vip);
    }
    assert_eq!(stage.hooks.counts()?, [(Reason::InsideServed, 2), (Reason::InsideAnswered, 2)].into());
    Ok(())
}

#[test]
fn who_asks_a_pod_itself_hears_the_pod() -> Result<()> {
    let stage = Stage::serving(2, &[0], Inside::default())?;
    for name in Name::ALL {
        let (vip, direct) = (stage.vip(name), stage.endpoint(name, 1));
        let socket = datagrams(stage.lab.node(), vip)?;
        for to in [vip, direct] {
            socket.send_to(b"?", to)?;
            assert_eq!(receive(&socket)?.1, to);
        }
    }
    Ok(())
}
