//! For how long the clients of a pod that went may not know that it did: from the round in which it left its service. Until
//! then their segments are strays, which the programs note so that a pod's reset reaches them.
//!
//! The maps say which frontends expect strays, not since when: after a restart of the agent the time runs anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use xlb_common::abi::frontend_flags::STRAYS;

use crate::plan::Observed;
use crate::plan::desired::{Desired, DesiredService, Protocol, ServiceName};

/// A client that sends more seldom waits until its own time-out, as it did when it met no xlb.
const STRAYS_LAST: Duration = Duration::from_secs(600);

/// The services that expect strays.
#[derive(Debug, Default)]
pub struct Strays {
    /// When each last lost a pod, on the agent's clock.
    since_ms: BTreeMap<ServiceName, u64>,
}

impl Strays {
    /// Says of each desired service, which are some or all, whether it expects strays; in this round `losing` lose a pod.
    /// Returns when the next of these times ends.
    pub fn limit(
        &mut self,
        desired: &mut Desired,
        losing: &BTreeSet<ServiceName>,
        observed: &Observed,
        now_ms: u64,
    ) -> Option<u64> {
        let mut next_end_ms: Option<u64> = None;
        for (name, service) in &mut desired.services {
            let known = self.since_ms.remove(name);
            let since_ms = losing
                .contains(name)
                .then_some(now_ms)
                .or(known)
                .or_else(|| is_marked(name, service, observed).then_some(now_ms));
            let Some(since_ms) = since_ms.filter(|_| name.protocol == Protocol::Tcp) else { continue };
            let end_ms = since_ms.saturating_add(STRAYS_LAST.as_millis() as u64);
            if now_ms < end_ms {
                service.has_strays = true;
                self.since_ms.insert(name.clone(), since_ms);
                next_end_ms = next_end_ms.into_iter().chain([end_ms]).min();
            }
        }
        next_end_ms
    }

    /// Forgets the services that are not served any more: these are all.
    pub fn forget_gone(&mut self, desired: &Desired) {
        self.since_ms.retain(|name, _| desired.services.contains_key(name));
    }
}

/// Whether an earlier agent said so.
fn is_marked(name: &ServiceName, service: &DesiredService, observed: &Observed) -> bool {
    service.keys(name.protocol).any(|key| observed.frontends.get(&key).is_some_and(|frontend| frontend.has(STRAYS)))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;
    use crate::agent::linger::keep_living;
    use crate::model::fixtures;
    use crate::node::{Location, PodLink};
    use crate::plan::desired::{Delivery, DesiredBackend, Family};
    use crate::plan::{Limits, plan};

    const LAST_MS: u64 = STRAYS_LAST.as_millis() as u64;

    /// A node whose agent plans and does what it plans.
    #[derive(Default)]
    struct Node {
        strays: Strays,
        observed: Observed,
        /// The interface behind which each pod is.
        links: BTreeMap<u8, u32>,
    }

    impl Node {
        /// Whether the service expects strays after a round with these pods, and until when.
        fn round(&mut self, pods: &[u8], protocol: Protocol, now_ms: u64) -> (bool, Option<u64>) {
            let (namespace, port) = ("default".into(), String::new());
            let name = ServiceName { namespace, name: "web".into(), port, protocol, family: Family::V4 };
            let service = DesiredService {
                vips: [IpAddr::from([203, 0, 113, 10])].into(),
                port: 80,
                backends: pods.iter().map(|&pod| (socket(pod), backend(self.links[&pod]))).collect(),
                ..DesiredService::default()
            };
            let mut desired = Desired { services: [(name, service)].into(), ..Desired::default() };
            let located = |(&pod, &ifindex): (&u8, &u32)| (socket(pod).ip(), Location::Link(link(ifindex)));
            let losing = keep_living(&mut desired, &self.observed, &self.links.iter().map(located).collect());
            let end_ms = self.strays.limit(&mut desired, &losing, &self.observed, now_ms);
            for op in plan(&desired, &self.observed, &Limits::default(), now_ms).ops {
                self.observed.apply(&op, now_ms);
            }
            (self.observed.frontends.values().all(|frontend| frontend.has(STRAYS)), end_ms)
        }
    }

    #[test]
    fn a_service_expects_strays_for_a_while_after_a_pod_of_it_went() {
        let mut node = Node { links: [(1, 11), (2, 12), (3, 13)].into(), ..Node::default() };
        assert_eq!(node.round(&[1, 2], Protocol::Tcp, 0), (false, None));
        assert_eq!(node.round(&[1], Protocol::Tcp, 5), (false, None), "the pod has left, and lives");
        node.links.remove(&2);
        assert_eq!(node.round(&[1], Protocol::Tcp, 7), (true, Some(LAST_MS + 7)));
        assert_eq!(node.round(&[1, 3], Protocol::Tcp, LAST_MS), (true, Some(LAST_MS + 7)));
        node.links.remove(&1);
        assert_eq!(node.round(&[3], Protocol::Tcp, LAST_MS + 3), (true, Some(2 * LAST_MS + 3)), "another one");
        assert_eq!(node.round(&[3], Protocol::Tcp, 2 * LAST_MS + 3), (false, None));
    }

    #[test]
    fn a_pod_replaced_at_its_address_went_too() {
        let mut node = Node { links: [(1, 11)].into(), ..Node::default() };
        assert_eq!(node.round(&[1], Protocol::Tcp, 0), (false, None));
        node.links.insert(1, 21);
        assert_eq!(node.round(&[1], Protocol::Tcp, 1), (true, Some(LAST_MS + 1)));
    }

    #[test]
    fn a_new_agent_counts_anew_and_begins_nothing_anew() {
        let mut node = Node { links: [(1, 11), (2, 12)].into(), ..Node::default() };
        node.round(&[1, 2], Protocol::Tcp, 0);
        node.links.remove(&2);
        node.round(&[1], Protocol::Tcp, 0);
        node.strays = Strays::default();
        assert_eq!(node.round(&[1], Protocol::Tcp, 10), (true, Some(LAST_MS + 10)));
        assert_eq!(node.round(&[1], Protocol::Tcp, LAST_MS + 10), (false, None));
        node.strays = Strays::default();
        assert_eq!(node.round(&[1], Protocol::Tcp, 0), (false, None));
    }

    #[test]
    fn udp_has_no_connections_to_refuse() {
        let mut node = Node { links: [(1, 11), (2, 12)].into(), ..Node::default() };
        node.round(&[1, 2], Protocol::Udp, 0);
        node.links.remove(&2);
        assert_eq!(node.round(&[1], Protocol::Udp, 1), (false, None));
    }

    fn socket(pod: u8) -> SocketAddr {
        ([10, 1, 0, pod], 8080).into()
    }

    fn backend(ifindex: u32) -> DesiredBackend {
        DesiredBackend { takes_new: true, weight: 1, delivery: Delivery::Direct(link(ifindex)) }
    }

    fn link(ifindex: u32) -> PodLink {
        PodLink { netns_id: Some(ifindex as i32), ..fixtures::link(ifindex, true) }
    }
}
