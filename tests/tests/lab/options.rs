//! Real clients whose sockets ask for IPv4 options, or for an IPv6 destination-options header.

use anyhow::{Context, Result};
use xlb_common::Reason;
use xlb_tests::lab::{LabSpec, LineClient, Version};

use crate::scene::{Delivery, Door, Scene};

const BULK_BYTES: u64 = 1_000_000;

#[test]
fn clients_with_options_are_served() -> Result<()> {
    let ways = [(Delivery::Direct, Door::Tc), (Delivery::Direct, Door::XdpNative), (Delivery::Stack, Door::Tc)];
    for (delivery, door) in ways {
        let spec = LabSpec { dual_stack: true, pod_gro: true, ..LabSpec::default() };
        let mut scene = Scene::new(spec, delivery, door)?;
        for version in Version::ALL {
            scene.version = version;
            scene.wait_for_takers(&[0, 1, 2]);
            check(&scene).with_context(|| format!("{version:?}, {delivery:?}, {door:?}"))?;
        }
        let counters = scene.counters()?;
        counters.assert_none(&[Reason::IpOptions, Reason::ExtensionHeaders, Reason::ReplyUnknown]);
        assert_eq!(counters.of(Reason::LeftToTc) > 0, door == Door::XdpNative);
    }
    Ok(())
}

fn check(scene: &Scene) -> Result<()> {
    let mut connection = LineClient::connect_with_options(scene.lab.client(0), scene.vip())?;
    scene.check_identity(&mut connection)?;
    connection.download(BULK_BYTES)?;
    connection.upload(BULK_BYTES)
}
