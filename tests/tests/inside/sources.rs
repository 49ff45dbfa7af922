//! Source ranges: which address counts as a client's.

use std::net::{IpAddr, TcpListener, UdpSocket};

use anyhow::{Result, bail};
use xlb_common::Reason;
use xlb_common::abi::{Inside, inside_flags};

use crate::stage::{Name, PORT, Stage, connect, datagrams, greeting, receive};

const RESTRICTED: Inside = Inside {
    service: 0,
    endpoints_base: 0,
    endpoints: 0,
    lingering: 0,
    affinity_s: 0,
    flags: inside_flags::SOURCE_RANGES,
    local: 0,
};

#[test]
fn a_namespace_whose_address_nobody_knows_is_left_to_the_stack() -> Result<()> {
    let stage = Stage::serving(2, &[1], RESTRICTED)?;
    let pod = stage.lab.pod(0);
    pod.ip(&format!("address add {}/32 dev lo", stage.lab.vip(0)))?;
    let listener = pod.run(|| TcpListener::bind((stage.lab.vip(0), PORT)))?;
    let stream = connect(pod, stage.vip(Name::V4))?;
    assert_eq!(listener.accept()?.1, stream.local_addr()?, "the connection went on to the VIP itself");
    assert_eq!(stage.hooks.counts()?, [(Reason::InsideSourceUnknown, 1)].into());
    Ok(())
}

#[test]
fn a_connection_with_somebody_else_tells_the_address_of_a_namespace() -> Result<()> {
    let mut stage = Stage::serving(2, &[1], RESTRICTED)?;
    connect(stage.lab.pod(0), stage.endpoint(Name::V4, 0))?;
    assert!(stage.hooks.addresses()?.is_empty(), "a connection to itself says nothing");
    connect(stage.lab.pod(0), stage.endpoint(Name::V4, 1))?;
    let IpAddr::V4(own) = stage.endpoint(Name::V4, 0).ip() else { bail!("not of IPv4") };
    assert_eq!(stage.hooks.addresses()?, [own.octets()]);

    assert!(connect(stage.lab.pod(0), stage.vip(Name::V4)).is_err(), "no range lists it");
    stage.hooks.allow(own.octets(), 32)?;
    assert_eq!(greeting(&connect(stage.lab.pod(0), stage.vip(Name::V4))?)?.pod, 1);
    assert_eq!(stage.hooks.counts()?, [(Reason::InsideServed, 1), (Reason::InsideNotAllowed, 1)].into());
    Ok(())
}

#[test]
fn the_address_that_a_socket_is_bound_to_counts() -> Result<()> {
    let mut stage = Stage::serving(2, &[1], RESTRICTED)?;
    stage.lab.pod(0).ip("address add 10.255.0.9/32 dev lo")?;
    stage.hooks.allow([10, 255, 0, 0], 24)?;
    let bind = |address: &str| stage.lab.pod(0).run(|| UdpSocket::bind(address));
    let own = format!("{}:0", stage.endpoint(Name::V4, 0).ip());
    let (listed, other) = (bind("10.255.0.9:0")?, bind(&own)?);
    stage.lab.node().ip(&format!("route add 10.255.0.9/32 dev {}", stage.lab.pod_host_end(0)))?;

    listed.send_to(b"?", stage.vip(Name::V4))?;
    assert_eq!(receive(&listed)?.1, stage.vip(Name::V4));
    assert!(other.send_to(b"?", stage.vip(Name::V4)).is_err());
    stage.lab.pod(0).run(|| listed.connect(stage.vip(Name::V4)))?;
    assert!(stage.lab.pod(0).run(|| other.connect(stage.vip(Name::V4))).is_err());
    Ok(())
}

#[test]
fn narrowing_the_ranges_cuts_no_datagrams_of_a_socket_that_is_served() -> Result<()> {
    let mut stage = Stage::serving(2, &[1], Inside::default())?;
    let (vip, node) = (stage.vip(Name::V4), stage.lab.node().clone());
    connect(&node, stage.endpoint(Name::V4, 1))?;
    let [served, late] = [datagrams(&node, vip)?, datagrams(&node, vip)?];
    served.send_to(b"?", vip)?;
    stage.publish(&[1], RESTRICTED)?;
    served.send_to(b"?", vip)?;
    assert_eq!(receive(&served)?.1, vip);
    assert!(late.send_to(b"?", vip).is_err());
    Ok(())
}
