//! The parts of the agent by themselves: the source, what the node should serve, the plan.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::runtime::Builder;
use tokio::time::timeout;
use xlb_userspace::agent::ClientsInside;
use xlb_userspace::agent::kept::{Kept, decide};
use xlb_userspace::model::{DeliveryChoice, Model, Policy, Setting, desired, pods_of_interest};
use xlb_userspace::node::{FamilyAddresses, Location, NodeView, PodLink};
use xlb_userspace::plan::desired::Desired;
use xlb_userspace::plan::{Limits, Observed, plan};
use xlb_userspace::source::Kube;

use super::Figure;
use crate::api::ApiServer;
use crate::scale::{NODE, Scale, World};

/// Within this time the cluster has to be read.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often what is short is repeated.
const REPETITIONS: u32 = 20;
/// How many changes are decided one by one.
const CHANGES: u32 = 2000;

/// Measures them once.
pub fn measure(scale: Scale) -> Result<Vec<Figure>> {
    let mut world = World::new(scale);
    let server = ApiServer::new();
    server.apply_all(world.objects());

    let opened = Instant::now();
    let mut model = read(&server)?;
    let read = opened.elapsed();
    let wanted = served(&model);
    let decided = opened.elapsed();
    ensure!(wanted.services.len() == scale.services as usize, "{} services are served", wanted.services.len());

    let (mut observed, limits) = (Observed::default(), Limits::default());
    let (cold, cold_plan) = timed(|| plan(&wanted, &observed, &limits, 0));
    cold_plan.ops.iter().for_each(|op| observed.apply(op, 0));
    let mut figures = vec![
        Figure::ms("source: watches open to all read", read),
        Figure::ms("source: watches open to desired computed", decided),
        Figure::ms("parts: pods_of_interest", mean(|| pods_of_interest(&Policy::default(), &model, NODE))),
        Figure::ms("parts: desired", mean(|| served(&model))),
        Figure::ms("parts: plan, everything is new", cold),
        Figure::ms("parts: plan, nothing to do", mean(|| plan(&wanted, &observed, &limits, 0))),
    ];
    figures.extend(changes(&mut world, &mut model, &mut observed));
    Ok(figures)
}

/// What one change costs: to decide and plan for what it touched, and to follow it.
fn changes(world: &mut World, model: &mut Model, observed: &mut Observed) -> [Figure; 3] {
    let (policy, mut view, limits) = (Policy::default(), view(model), Limits::default());
    let mut kept = Kept::default();
    let choice = DeliveryChoice::Auto;
    kept.keep(
        decide(Setting { policy: &policy, model, node: &view, choice }, observed, ClientsInside::On),
        (&policy, model, NODE),
        observed,
    );
    let [mut decided, mut planned, mut followed] = [Duration::ZERO; 3];
    for number in 0..CHANGES {
        let mut touched = BTreeSet::new();
        model.take_in(world.change().event(), &mut touched);
        let (time, part) = timed(|| {
            let asked = (&policy, &*model, NODE);
            let names = kept.part(&touched, asked)?;
            for pod in kept.pods_of(&names) {
                view.pods.entry(pod).or_insert_with(|| Location::Link(link()));
            }
            kept.decide_part(
                names,
                Setting { policy: &policy, model, node: &view, choice },
                observed,
                ClientsInside::On,
            )
        });
        decided += time;
        let part = part.expect("nothing is in doubt");
        let now_ms = u64::from(number * 2);
        let (time, plan) = timed(|| part.plan(observed, &limits, now_ms));
        planned += time;
        let (time, ()) = timed(|| {
            plan.ops.iter().for_each(|op| observed.apply(op, now_ms));
            kept.keep(part, (&policy, model, NODE), observed);
        });
        followed += time;
    }
    [("decided", decided), ("planned", planned), ("followed", followed)]
        .map(|(what, time)| Figure::ms(&format!("parts: one change, {what}"), time / CHANGES))
}

fn read(server: &ApiServer) -> Result<Model> {
    let mut model = Model::default();
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut kube = Kube::follow(&server.client(), NODE);
        while !model.is_synced() {
            timeout(PATIENCE, kube.next_change()).await?;
            for event in kube.take() {
                model.apply(event);
            }
        }
        anyhow::Ok(())
    })?;
    Ok(model)
}

fn served(model: &Model) -> Desired {
    desired(&Policy::default(), model, &view(model), DeliveryChoice::Auto)
}

fn link() -> PodLink {
    PodLink { ifindex: 7, name: "pod".into(), is_veth: true, host_mac: [2; 6], ..PodLink::default() }
}

fn view(model: &Model) -> NodeView {
    let pods = pods_of_interest(&Policy::default(), model, NODE);
    NodeView {
        node_name: NODE.into(),
        zone: None,
        addresses: [Ipv4Addr::LOCALHOST.into()].into(),
        primary: FamilyAddresses::default(),
        pods: pods.into_iter().map(|pod| (pod, Location::Link(link()))).collect(),
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let result = work();
    (begun.elapsed(), result)
}

fn mean<T>(mut work: impl FnMut() -> T) -> Duration {
    let (time, ()) = timed(|| (0..REPETITIONS).for_each(|_| drop(work())));
    time / REPETITIONS
}
