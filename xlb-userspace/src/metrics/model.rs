//! What Kubernetes asks for, in numbers.

use std::collections::BTreeMap;

use crate::model::endpoints::is_on;
use crate::model::frontends::{claiming_services, effective_policy};
use crate::model::objects::{Endpoint, ServicePort, Slice, TrafficPolicy};
use crate::model::{Model, ObjectName, Policy};

/// What an endpoint can be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointState {
    /// Gets new connections.
    Ready,
    /// Is shutting down, and would serve if no other were ready.
    TerminatingServing,
    /// Gets nothing.
    NotUsable,
}

impl EndpointState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ready, Self::TerminatingServing, Self::NotUsable];

    /// As a label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::TerminatingServing => "terminating_serving",
            Self::NotUsable => "not_usable",
        }
    }

    fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint { ready: true, .. } => Self::Ready,
            Endpoint { serving: true, terminating: true, .. } => Self::TerminatingServing,
            _ => Self::NotUsable,
        }
    }
}

/// The numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelCounts {
    /// Endpoints of Services that ask for a VIP, by state and whether they are on this node.
    pub endpoints: BTreeMap<(EndpointState, bool), usize>,
    /// Service ports with policy Local that have nothing usable here, but elsewhere (semantics chapter 16).
    pub without_local_endpoints: usize,
}

/// Counts.
#[must_use]
pub fn count(model: &Model, policy: &Policy, node_name: &str) -> ModelCounts {
    let mut slices: BTreeMap<&ObjectName, Vec<&Slice>> =
        claiming_services(model, policy).map(|service| (&service.name, Vec::new())).collect();
    for slice in model.slices().filter(|slice| slice.labels.are_ours()) {
        if let Some(of_service) = slice.service.as_ref().and_then(|service| slices.get_mut(service)) {
            of_service.push(slice);
        }
    }
    let mut counts = ModelCounts::default();
    for endpoint in slices.values().flatten().flat_map(|slice| &slice.endpoints) {
        let key = (EndpointState::of(endpoint), is_on(endpoint, node_name));
        *counts.endpoints.entry(key).or_default() += 1;
    }
    for service in claiming_services(model, policy) {
        if effective_policy(service) == TrafficPolicy::Local {
            let is_elsewhere_only = |port: &&ServicePort| is_elsewhere_only(&slices[&service.name], port, node_name);
            counts.without_local_endpoints += service.ports.iter().filter(is_elsewhere_only).count();
        }
    }
    counts
}

fn is_elsewhere_only(slices: &[&Slice], port: &ServicePort, node_name: &str) -> bool {
    let leads_there =
        |slice: &&&Slice| slice.ports.iter().any(|target| target.name == port.name && target.protocol == port.protocol);
    let endpoints = slices.iter().filter(leads_there).flat_map(|slice| &slice.endpoints);
    let mut usable = endpoints.filter(|endpoint| EndpointState::of(endpoint) != EndpointState::NotUsable).peekable();
    usable.peek().is_some() && !usable.any(|endpoint| is_on(endpoint, node_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::{endpoints, model, service, slice};
    use crate::model::objects::Service;

    fn counts(traffic: TrafficPolicy, text: &str) -> ModelCounts {
        let web = Service { external_traffic_policy: traffic, ..service() };
        let model = model([web.into(), slice("s", &endpoints(text)).into()]);
        count(&model, &Policy::default(), "node-a")
    }

    #[test]
    fn endpoints_are_counted_by_state_and_place() {
        let text =
            "10.1.0.1, 10.1.0.2 terminating, 10.1.0.3 stopped, 10.1.0.4 unready, 10.9.0.1 remote, 10.9.0.2 remote";
        let expected = [
            ((EndpointState::Ready, true), 1),
            ((EndpointState::Ready, false), 2),
            ((EndpointState::TerminatingServing, true), 1),
            ((EndpointState::NotUsable, true), 2),
        ];
        assert_eq!(counts(TrafficPolicy::Cluster, text).endpoints, expected.into());
    }

    #[test]
    fn a_local_service_with_pods_only_elsewhere_is_counted_and_one_without_any_is_not() {
        for (traffic, text, expected) in [
            (TrafficPolicy::Local, "10.9.0.1 remote", 1),
            (TrafficPolicy::Local, "10.9.0.1 remote terminating, 10.1.0.1 stopped", 1),
            (TrafficPolicy::Local, "10.9.0.1 remote, 10.1.0.1 terminating", 0),
            (TrafficPolicy::Local, "10.9.0.1 remote stopped", 0),
            (TrafficPolicy::Local, "", 0),
            (TrafficPolicy::Cluster, "10.9.0.1 remote", 0),
        ] {
            assert_eq!(counts(traffic, text).without_local_endpoints, expected, "{traffic:?} {text}");
        }
    }
}
