//! What is counted of services while real clients speak to them.

use anyhow::{Context, Result};
use xlb_tests::lab::{Lab, LabSpec, LineClient, Version};

use crate::scene::{Delivery, Door, Scene, list, service_name};

/// Connections to the Service's first port with one question each.
const CONNECTIONS: u64 = 7;
/// Connections to its second, which says one line.
const GREETED: u64 = 4;
/// What one more connection sends, and receives.
const BYTES: u64 = 300_000;
/// Payload of the largest TCP segment on links of 1500 bytes.
const SEGMENT_BYTES: u64 = 1_460;
/// From the IP header to the options of TCP, in the larger family.
const HEADERS_MAX: u64 = 80;

const HTTP: &str = "default/web:http";
const BANNER: &str = "default/web:banner";
const UDP: &str = "default/web:udp/udp";

#[test]
fn connections_and_bytes_are_counted_for_their_service_and_for_no_other() -> Result<()> {
    // With unfinished sums clients, pods and GRO make few large packets of many. A veth's XDP cannot finish them.
    let ways = [
        (Delivery::Direct, Door::Tc, true),
        (Delivery::Stack, Door::Tc, true),
        (Delivery::Direct, Door::XdpNative, false),
    ];
    for (delivery, door, tx_offload) in ways {
        let spec = LabSpec { dual_stack: true, pod_count: 2, pod_gro: true, tx_offload, ..LabSpec::default() };
        let mut scene = Scene::new(spec, delivery, door)?;
        for version in Version::ALL {
            scene.version = version;
            speak(&scene)?;
            check(&scene).with_context(|| format!("{delivery:?}, {door:?}, {version:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn the_next_agent_counts_on() -> Result<()> {
    let mut scene = Scene::on(Lab::new(LabSpec::default())?, Delivery::Direct, Door::Tc, &["--keep-dataplane"])?;
    let ask = |scene: &Scene| (0..5).try_for_each(|_| scene.check_connection(0).map(drop));
    ask(&scene)?;
    scene.agent.kill()?;
    ask(&scene)?;
    scene.agent.start_again()?;
    scene.agent.wait_until_it_reports();
    ask(&scene)?;
    assert_eq!(number(&scene, HTTP, "new_flows")?, 15);
    assert!(number(&scene, HTTP, "packets_to_pods")? >= 15 * 5);
    assert!(number(&scene, HTTP, "packets_to_clients")? >= 15 * 4);
    Ok(())
}

/// Each connection closes before the next one opens, so that nothing is under way when the numbers are read.
fn speak(scene: &Scene) -> Result<()> {
    for _ in 0..CONNECTIONS {
        scene.check_connection(0)?;
    }
    let mut connection = LineClient::connect(scene.lab.client(0), scene.vip())?;
    connection.upload(BYTES)?;
    for _ in 0..GREETED {
        LineClient::connect(scene.lab.client(0), scene.banner_vip())?.greeting()?;
    }
    connection.download(BYTES)?;
    scene.check_datagram(0).map(drop)
}

fn check(scene: &Scene) -> Result<()> {
    let of = |service, what| number(scene, service, what);
    assert_eq!(of(HTTP, "new_flows")?, CONNECTIONS + 1);
    assert_eq!(of(BANNER, "new_flows")?, GREETED);
    assert_eq!([of(UDP, "new_flows")?, of(UDP, "packets_to_pods")?, of(UDP, "packets_to_clients")?], [1; 3]);
    for (packets, bytes) in [("packets_to_pods", "bytes_to_pods"), ("packets_to_clients", "bytes_to_clients")] {
        let counted = |service| Ok::<_, anyhow::Error>((of(service, packets)?, of(service, bytes)?));
        let (segments, length) = counted(HTTP)?;
        assert!(segments >= BYTES / SEGMENT_BYTES, "{segments} {packets}");
        assert!((BYTES..=BYTES + (segments + 1) * HEADERS_MAX + 10_000).contains(&length), "{length} {bytes}");
        let (segments, length) = counted(BANNER)?;
        assert!(segments >= GREETED * 3 && length < 10_000, "{segments} {packets}, {length} {bytes}");
    }
    Ok(())
}

/// A number of a service in the version that clients speak.
fn number(scene: &Scene, service: &str, what: &str) -> Result<u64> {
    let maps = scene.agent.inspect()?;
    let name = service_name(service, scene.version);
    let view = list(&maps, "services").find(|view| view["name"] == *name).context("no such service")?;
    view["traffic"][what].as_u64().with_context(|| format!("{name} has no {what}"))
}
