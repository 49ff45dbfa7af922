//! What `/metrics` and `xlb inspect` say of each service, and how much of it.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{Map, MapData, PerCpuArray};
use xlb_common::abi::{SERVICE_STATS_MAX, ServiceStats};
use xlb_tests::lab::{LabSpec, Namespace, ServiceSpec, service_yaml, wait_for};
use xlb_tests::openmetrics::Metrics;
use xlb_userspace::maps::pins::PinDirectory;

use crate::ask::{METRICS_PORT, get, metrics, soon};
use crate::stage::{LATER, Stage, find, lab, serves, service};

const OTHERS: &str = "_other";
const MANY: usize = 10_000;
/// Services with numbers of their own, unless the operator says otherwise.
const DEFAULT_MAX: usize = 1_000;

#[test]
fn each_service_has_its_own_numbers() -> Result<()> {
    let stage = stage(&["web", "x1"], &[])?;
    for (vip, connections) in [(0, 3), (1, 5)] {
        for _ in 0..connections {
            stage.who(vip)?;
        }
    }
    let told = counted(stage.lab.node(), 8.0)?;
    assert_eq!([flows(&told, "web"), flows(&told, "x1"), flows(&told, OTHERS)], [Some(3.0), Some(5.0), Some(0.0)]);
    for direction in ["forward", "return"] {
        let of = |name: &str| told.value(name, &[&labels("web")[..], &[("direction", direction)]].concat());
        let (packets, bytes) = (of("xlb_service_packets_total"), of("xlb_service_bytes_total"));
        assert!(packets >= Some(9.0) && bytes >= packets.map(|packets| packets * 40.0), "{packets:?} {bytes:?}");
    }
    Ok(())
}

#[test]
fn services_beyond_the_bound_are_told_together() -> Result<()> {
    let stage = stage(&["web", "x1", "x2"], &["--service-metrics-max", "2"])?;
    for vip in [0, 1, 1, 2, 2, 2] {
        stage.who(vip)?;
    }
    let told = counted(stage.lab.node(), 6.0)?;
    let of = ["web", "x1", "x2", OTHERS].map(|name| flows(&told, name));
    assert_eq!(of, [Some(1.0), Some(2.0), None, Some(3.0)]);
    Ok(())
}

#[test]
fn ten_thousand_services_do_not_make_more_series_than_the_bound_allows() -> Result<()> {
    let stage = stage(&["web"], &["--max-frontends", "16384"])?;
    stage.manifests.write("many.yaml", &many())?;
    let series = |told: &Metrics| told.samples.iter().filter(|sample| sample.name.starts_with("xlb_service_")).count();
    // Numbers of services follow with the agent's next round.
    let are_told = |told: &Metrics| told.value("xlb_services", &[]) > Some(MANY as f64) && series(told) > 2 * 6;
    let told = wait_for(2 * LATER, || metrics(stage.lab.node()).ok().filter(are_told));
    let told = told.context("not all services were served, or nothing is told of them")?;
    assert_eq!(series(&told), (DEFAULT_MAX + 1) * 6);
    assert_eq!(flows(&told, "web"), Some(0.0), "the first one keeps its own");
    let answer = soon("the page has them", || {
        let answer = get(stage.lab.node(), METRICS_PORT, "/api/v1/state").ok()?;
        (answer.json()["services"]["total"] == MANY + 1).then_some(answer)
    })?;
    assert!(answer.body.len() < 300_000, "{} bytes", answer.body.len());
    let shown = &answer.json()["services"];
    assert_eq!((&shown["total"], shown["rows"].as_array().map(Vec::len)), (&(MANY + 1).into(), Some(100)));
    assert!(shown["rows"][0]["backends"][0].is_object() && shown["rows"][1]["backends"][0].is_null(), "{shown}");
    Ok(())
}

#[test]
fn switched_off_nothing_is_counted_and_nothing_is_told() -> Result<()> {
    let mut stage = stage(&["web"], &["--service-metrics", "off"])?;
    stage.hold(0)?.answers()?;
    let told = metrics(stage.lab.node())?;
    assert!(told.value("xlb_services", &[]).is_some());
    assert!(!told.samples.iter().any(|sample| sample.name.starts_with("xlb_service_")));
    let maps = stage.until(|maps| serves(maps, "web"));
    assert!(find(&maps, "web").is_some_and(|service| service["traffic"].is_null()));
    assert_eq!(in_maps(&stage.lab.pin_directory())?, ServiceStats::default());
    Ok(())
}

/// The connection of the service that went goes on with the one that has its address now, and its id.
#[test]
fn a_service_that_gets_an_id_of_another_begins_at_zero() -> Result<()> {
    let mut stage = stage(&["web", "x1"], &[])?;
    let mut held = stage.hold(0)?;
    counted(stage.lab.node(), 1.0)?;
    stage.manifests.remove("web.yaml")?;
    stage.until(|maps| find(maps, "web").is_none());
    stage.manifests.write("next.yaml", &service(&stage.lab, "next", 0, &[0, 1]))?;
    let maps = stage.until(|maps| serves(maps, "next"));
    let traffic = |name: &str| find(&maps, name).map(|service| service["traffic"].clone()).unwrap_or_default();
    assert_eq!(traffic("next")["packets_to_pods"], 0);

    held.answers()?;
    stage.who(0)?;
    let told = soon("its own connection is counted", || {
        metrics(stage.lab.node()).ok().filter(|told| flows(told, "next") == Some(1.0))
    })?;
    assert_eq!(flows(&told, "web"), None);
    let of =
        |direction| told.value("xlb_service_bytes_total", &[&labels("next")[..], &[("direction", direction)]].concat());
    assert!(
        of("return") > Some(0.0) && of("return") < of("forward"),
        "replies of the other's connection are not its own"
    );
    Ok(())
}

/// Services with both pods, each at a VIP of its own and in a file of its own.
fn stage(names: &[&str], arguments: &[&str]) -> Result<Stage> {
    let lab = lab(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let manifests = xlb_tests::lab::Manifests::new()?;
    for (vip, name) in names.iter().enumerate() {
        manifests.write(&format!("{name}.yaml"), &service(&lab, name, vip, &[0, 1]))?;
    }
    let mut stage = Stage::start(lab, manifests, arguments)?;
    stage.until(|maps| names.iter().all(|name| serves(maps, name)));
    Ok(stage)
}

/// Services without endpoints.
fn many() -> String {
    let mut yaml = String::new();
    for number in 0..MANY {
        let vips = [std::net::Ipv4Addr::from_bits(0x6440_0000 + number as u32).into()];
        let (namespace, name) = ("many", format!("s{number}"));
        let spec = ServiceSpec {
            namespace,
            name: &name,
            vips: &vips,
            ports: &[("http", "TCP", 80)],
            ..ServiceSpec::default()
        };
        let _ = write!(yaml, "---\n{}", service_yaml(&spec));
    }
    yaml
}

/// The metrics, as soon as so many new flows are in them: they are read at most once a second.
fn counted(node: &Namespace, new_flows: f64) -> Result<Metrics> {
    soon("the flows are counted", || {
        metrics(node).ok().filter(|told| told.sum("xlb_service_new_flows_total") == new_flows)
    })
}

/// New flows of clients outside.
fn flows(told: &Metrics, service: &str) -> Option<f64> {
    told.value("xlb_service_new_flows_total", &[&labels(service)[..], &[("client", "outside")]].concat())
}

fn labels(service: &str) -> [(&'static str, &str); 5] {
    let of = |own| if service == OTHERS { OTHERS } else { own };
    [
        ("namespace", of("default")),
        ("service", service),
        ("port", of("http")),
        ("protocol", of("tcp")),
        ("family", of("ipv4")),
    ]
}

/// The numbers of all services, whatever the agent tells.
fn in_maps(pins: &Path) -> Result<ServiceStats> {
    let map = PinDirectory::new(pins).map("SERVICE_STATS");
    let map = MapData::from_pin(&map).with_context(|| format!("opening {}", map.display()))?;
    let map: PerCpuArray<_, [u8; size_of::<ServiceStats>()]> = Map::from_map_data(map)?.try_into()?;
    let mut sum = ServiceStats::default();
    for index in 0..SERVICE_STATS_MAX {
        for &of_cpu in map.get(&index, 0)?.iter() {
            sum = sum.plus(bytemuck::cast(of_cpu));
        }
    }
    Ok(ServiceStats { generation: 0, ..sum })
}
