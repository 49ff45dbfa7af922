//! After any history, what was decided and planned for parts is what deciding and planning for all gives.

use proptest::prelude::*;

use super::*;
use crate::model::fixtures::*;
use crate::model::objects::{Object, ServicePort, Slice, TargetPort, TrafficPolicy};
use crate::model::{DeliveryChoice, Event};
use crate::node::{Location, NodeView};

const NAMES: u8 = 5;
const PODS: u8 = 6;

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    Apply(Object),
    Delete(Object),
    /// A pod moves to another link, or is not found any more.
    Move(u8, Option<u32>),
    /// Nothing, but time passes, in milliseconds.
    Pass(u64),
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn after_any_history_parts_are_decided_and_planned_as_the_whole_is(rounds in prop::collection::vec((prop::collection::vec(step(), 0..4), 0..8u8), 1..24)) {
        let mut agent = Agent::default();
        for (steps, chance) in rounds {
            let touched = agent.take(steps);
            agent.round(touched, chance == 0)?;
        }
    }
}

#[test]
fn only_what_was_touched_and_what_is_tied_to_it_is_decided_again() {
    let mut agent = Agent::default();
    let objects = (0..3).map(|number| Step::Apply(of_number(number, 10 + number, None, false)));
    let objects = objects.chain((0..3).map(|number| Step::Apply(slice_of(number, number, &[number.min(1)]))));
    let touched = agent.take(objects.collect());
    agent.round(touched, false).unwrap();
    agent.again.clear();

    let touched = agent.take(vec![Step::Apply(slice_of(0, 0, &[3]))]);
    assert_eq!(agent.part(&touched), ["web-0"]);
    let touched = agent.take(vec![Step::Apply(slice_of(1, 1, &[3]))]);
    assert_eq!(agent.part(&touched), ["web-0", "web-1", "web-2"], "the pod 1 left one, and 3 is another's, too");
    assert_eq!(agent.take(vec![Step::Apply(slice_of(1, 1, &[3]))]), BTreeSet::new());
}

/// An agent without a kernel.
struct Agent {
    policy: Policy,
    model: Model,
    view: NodeView,
    observed: Observed,
    kept: Kept,
    /// What the last round has changed.
    again: BTreeSet<ObjectName>,
    now_ms: u64,
}

impl Default for Agent {
    fn default() -> Self {
        let policy = Policy { external_ip_cidrs: vec!["192.0.2.12/30".parse().unwrap()], ..Policy::default() };
        let (model, observed, kept, again) = (Model::default(), Observed::default(), Kept::default(), BTreeSet::new());
        Self { policy, model, view: node(), observed, kept, again, now_ms: 0 }
    }
}

impl Agent {
    fn take(&mut self, steps: Vec<Step>) -> BTreeSet<ObjectName> {
        let mut touched = BTreeSet::new();
        for step in steps {
            match step {
                Step::Apply(object) => drop(self.model.take_in(Event::Applied(object), &mut touched)),
                Step::Delete(object) => drop(self.model.take_in(Event::Deleted(object.key()), &mut touched)),
                Step::Move(pod, ifindex) => {
                    let unreachable = || Location::Unreachable("it is gone".into());
                    let location = ifindex.map_or_else(unreachable, |ifindex| Location::Link(link(ifindex, true)));
                    let address = IpAddr::from([10, 1, 0, pod]);
                    self.view.pods.insert(address, location);
                    touched.extend(self.kept.ties().with_pod(&address).cloned());
                }
                Step::Pass(ms) => self.now_ms += ms,
            }
        }
        touched
    }

    /// Decides and plans both ways, and keeps one.
    fn round(&mut self, mut touched: BTreeSet<ObjectName>, is_full: bool) -> Result<(), TestCaseError> {
        touched.append(&mut self.again);
        let ask = (&self.policy, &self.model, "node-a");
        let setting =
            Setting { policy: &self.policy, model: &self.model, node: &self.view, choice: DeliveryChoice::Auto };
        let whole = decide(setting, &self.observed, ClientsInside::ExternalPolicy);
        let names = self.kept.part(&touched, ask).expect("few enough");
        let part = self
            .kept
            .decide_part(names.clone(), setting, &self.observed, ClientsInside::ExternalPolicy)
            .expect("nothing in doubt");
        let planned = whole.plan(&self.observed, &Limits::default(), self.now_ms);
        let planned_part = part.plan(&self.observed, &Limits::default(), self.now_ms);
        prop_assert_eq!(words(&planned_part), words(&planned), "{:?}", names);

        planned.ops.iter().for_each(|op| self.observed.apply(op, self.now_ms));
        self.kept.keep(part, ask, &self.observed);
        prop_assert_eq!(self.kept.services(), &whole.desired.services);
        prop_assert_eq!(&self.kept.refusals, &whole.refusals);
        let mut afresh = Kept::default();
        afresh.keep(whole, ask, &self.observed);
        prop_assert_eq!(&afresh.in_doubt, &self.kept.in_doubt);
        prop_assert!(afresh.families().eq(self.kept.families()));
        if is_full {
            self.kept = afresh;
        }
        if !planned.ops.is_empty() {
            self.again = self.kept.lingering(if is_full { None } else { Some(&names) });
        }
        Ok(())
    }

    fn part(&mut self, touched: &BTreeSet<ObjectName>) -> Vec<String> {
        let names = self.kept.part(touched, (&self.policy, &self.model, "node-a")).unwrap();
        names.into_iter().map(|name| name.name).collect()
    }
}

fn words(plan: &Plan) -> Vec<String> {
    plan.ops.iter().map(|op| format!("{op:?}")).collect()
}

fn step() -> impl Strategy<Value = Step> {
    let service = (0..NAMES, 10..14u8, prop::option::of(11..16u8), any::<bool>())
        .prop_map(|(number, vip, external, is_local)| of_number(number, vip, external, is_local));
    let pods = prop::collection::vec(1..PODS, 0..4);
    let slice = (0..NAMES + 2, 0..NAMES, pods).prop_map(|(number, of, pods)| slice_of(number, of, &pods));
    let ifindex = prop_oneof![2 => Just(None), 3 => (1..9u32).prop_map(Some)];
    prop_oneof![
        3 => service.clone().prop_map(Step::Apply),
        1 => service.prop_map(Step::Delete),
        6 => slice.clone().prop_map(Step::Apply),
        1 => slice.prop_map(Step::Delete),
        1 => any::<bool>().prop_map(|restricts| Step::Apply(policy("default", restricts).into())),
        2 => (1..PODS, ifindex).prop_map(|(pod, ifindex)| Step::Move(pod, ifindex)),
        1 => prop::sample::select(vec![3_000, 11_000]).prop_map(Step::Pass),
    ]
}

/// TCP port 80 and UDP port 53; few addresses, for which they contend.
fn of_number(number: u8, vip: u8, external: Option<u8>, is_local: bool) -> Object {
    let address = |last: u8| IpAddr::from([192, 0, 2, last]);
    let port = |name: &str, protocol, port| ServicePort { name: name.into(), protocol, port };
    Object::from(Service {
        name: name(&format!("web-{number}")),
        created_s: (number > 2).then_some(number.into()),
        vips: vec![address(vip)],
        external_ips: external.map(address).into_iter().collect(),
        external_traffic_policy: if is_local { TrafficPolicy::Local } else { TrafficPolicy::Cluster },
        ports: vec![port("web", TCP, 80), port("dns", UDP, 53)],
        affinity_s: is_local.then_some(60),
        ..service()
    })
}

/// Pods on this node, and one elsewhere; those with an odd sum of numbers are not ready, and one of 4 terminates.
fn slice_of(number: u8, of: u8, pods: &[u8]) -> Object {
    let condition = |pod: u8| match (pod + number) % 4 {
        0 | 2 => "",
        1 => " unready",
        _ => " terminating",
    };
    let local = pods.iter().map(|&pod| endpoint(&format!("10.1.0.{pod}{}", condition(pod))));
    let endpoints: Vec<_> = local.chain([endpoint(&format!("10.9.0.{number} remote"))]).collect();
    let port = |name: &str, protocol, port| TargetPort { name: name.into(), protocol, port };
    let ports = vec![port("web", TCP, 8080), port("dns", UDP, 5353)];
    let service = Some(name(&format!("web-{of}")));
    Object::Slice(Slice { service, ports, ..slice(&format!("slice-{number}"), &endpoints) })
}
