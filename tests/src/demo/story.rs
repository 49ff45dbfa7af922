//! The chapters, in order.

use std::ops::Range;

use anyhow::{Result, bail, ensure};
use xlb_common::Reason;

use super::counters::{self, Counters};
use super::downloads::Download;
use super::requests::{REQUESTS, show_client_addresses};
use super::servers::DNS_NAME;
use super::stage::{BareStage, DNS_PORT, HTTP_PORT, SERVICE_FILE, SLICE_FILE, Stage, VIP, pod_name};
use super::telling::{chapter, fact, quote, say};
use super::{departures, interrupt};
use crate::lab::Lab;
use crate::servers::{DNS_TARGET_PORT, HTTP_TARGET_PORT};

/// The numbers of the downloads of which one is explained. Those of the departures are below.
const EXPLAINED_DOWNLOADS: Range<usize> = 200..220;

/// The parts, before there is something to serve.
pub fn open() -> Result<Stage> {
    say("xlb demo: a LoadBalancer address, three pods, real servers and real clients");
    chapter("1. A small cluster of network namespaces");
    let bare = BareStage::build()?;
    tell_network(&bare.lab);
    interrupt::check()?;
    bare.balance()
}

/// What the Service is good for.
pub fn tell(stage: &mut Stage) -> Result<()> {
    chapter("2. A Service, and the agent that serves it");
    stage.wait_until_served()?;
    tell_service(stage)?;
    chapter(&format!("3. Clients ask: {REQUESTS} x `curl http://{VIP}/`, {REQUESTS} x `dig @{VIP} {DNS_NAME} TXT`"));
    show_client_addresses(stage)?;
    chapter("4. What the kernel programs counted meanwhile");
    let before = counters::show_since(stage, &Counters::new())?;
    chapter("5. A pod shuts down gently");
    departures::shut_down_gently(stage, 0)?;
    chapter("6. A pod dies");
    departures::die(stage, 1)?;
    departures::replace(stage)?;
    chapter("7. What the kernel programs counted in chapters 5 and 6");
    counters::show_since(stage, &before)?;
    chapter("8. Why a packet goes where it goes");
    explain(stage)
}

fn tell_network(lab: &Lab) {
    fact("clients", &format!("{} and {}", lab.client_address(0), lab.client_address(1)));
    fact("router", &format!("sends 203.0.113.0/24 to the node at {}", lab.uplink(0).node_address));
    for pod in lab.pods() {
        let (name, address) = (pod_name(pod), lab.pod_address(pod));
        fact(&name, &format!("{address}: nginx on port {HTTP_TARGET_PORT}, dnsmasq on port {DNS_TARGET_PORT}"));
    }
}

fn tell_service(stage: &Stage) -> Result<()> {
    let manifests = stage.manifests.path().display();
    fact("service", &format!("{VIP}, TCP port {HTTP_PORT} and UDP port {DNS_PORT}, externalTrafficPolicy: Local"));
    fact("manifests", &format!("{manifests}/{SERVICE_FILE}"));
    fact("", &format!("{manifests}/{SLICE_FILE}"));
    let uplinks = &stage.agent.inspect()?["agent"]["uplinks"];
    let uplinks: Vec<&str> = uplinks.as_array().into_iter().flatten().filter_map(|uplink| uplink.as_str()).collect();
    fact("agent", &format!("xlb run on the node, uplink {}", uplinks.join(", ")));
    fact("its log", &stage.agent_log()?.display().to_string());
    Ok(())
}

/// Asks xlb about a download that runs, and requires that it names the pod that serves it.
fn explain(stage: &Stage) -> Result<()> {
    let (download, explanation) = find_proven(stage)?;
    let source = download.client;
    fact("flow", &format!("a download from {} by {source} that runs now", download.pod));
    fact("command", &format!("xlb explain --proto tcp --src {source} --dst {VIP}:{HTTP_PORT} --established"));
    quote(&explanation);
    let pod = stage.lab.pods().find(|&pod| pod_name(pod) == download.pod);
    let names_pod = pod.is_some_and(|pod| explanation.contains(&format!("backend    {}:", stage.lab.pod_address(pod))));
    ensure!(names_pod, "xlb explains another way than the packets went");
    download.abandon()
}

/// A download whose slot had another owner before, so that the pods' kernels are asked: these have more to tell. When
/// chance gives none, the last one.
fn find_proven(stage: &Stage) -> Result<(Download, String)> {
    for number in EXPLAINED_DOWNLOADS {
        let download = Download::start(stage, number)?;
        let (source, target) = (download.client.to_string(), format!("{VIP}:{HTTP_PORT}"));
        let question = ["explain", "--proto", "tcp", "--src", &source, "--dst", &target, "--established"];
        let explanation = stage.agent.run_xlb(&question)?;
        if explanation.contains(Reason::ProvenOwner.label()) || number + 1 == EXPLAINED_DOWNLOADS.end {
            return Ok((download, explanation));
        }
        download.abandon()?;
    }
    bail!("there is no download to explain")
}
