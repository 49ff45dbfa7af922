//! For how long the host's stack may hold TCP connections of a frontend that has become xlb's: from the first round that
//! serves it. As long as xlb passes the frontend's packets on, the host may get new ones, and the time does not run.
//!
//! The maps say which frontends are being handed over, not since when: after a restart of the agent the time runs anew.

use std::collections::BTreeMap;
use std::time::Duration;

use xlb_common::abi::frontend_flags::HOST_BEFORE;

use crate::plan::desired::{Desired, DesiredService, Protocol, WhenEmpty};
use crate::plan::{Endpoint, Observed};

/// The frontends that are being handed over.
#[derive(Debug, Default)]
pub struct Handovers {
    /// When xlb began to serve each, on the agent's clock.
    since_ms: BTreeMap<Endpoint, u64>,
}

impl Handovers {
    /// Leaves to each desired service, which are some or all, those VIPs of which the host may still hold connections.
    /// Returns when the next of these ends.
    pub fn limit(&mut self, desired: &mut Desired, observed: &Observed, lasts: Duration, now_ms: u64) -> Option<u64> {
        let mut next_end_ms: Option<u64> = None;
        let lasts_ms = lasts.as_millis() as u64;
        for (name, service) in desired.services.iter_mut().filter(|(_, service)| !service.host_before.is_empty()) {
            let (port, passes) = (service.port, passes_on(service));
            service.host_before.retain(|&vip| {
                let key = Endpoint { socket: (vip, port).into(), protocol: name.protocol };
                let since_ms = self.since_ms.remove(&key).unwrap_or(now_ms);
                if lasts_ms == 0 || name.protocol != Protocol::Tcp {
                    return false;
                }
                if passes {
                    return true;
                }
                let is_handed_over = observed.frontends.get(&key).is_none_or(|frontend| frontend.has(HOST_BEFORE));
                let end_ms = since_ms.saturating_add(lasts_ms);
                let goes_on = is_handed_over && now_ms < end_ms;
                if goes_on {
                    self.since_ms.insert(key, since_ms);
                    next_end_ms = next_end_ms.into_iter().chain([end_ms]).min();
                }
                goes_on
            });
        }
        next_end_ms
    }

    /// Forgets the frontends that are not served any more.
    pub fn forget_gone(&mut self, observed: &Observed) {
        self.since_ms.retain(|key, _| observed.frontends.contains_key(key));
    }
}

/// Whether the service's new connections are left to the host.
fn passes_on(service: &DesiredService) -> bool {
    service.when_empty == WhenEmpty::Pass && !service.backends.values().any(|backend| backend.takes_new)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::plan::desired::{Delivery, DesiredBackend, Family, ServiceName};
    use crate::plan::{Limits, plan};

    const HOUR: Duration = Duration::from_secs(3600);
    const HOUR_MS: u64 = 3_600_000;
    const VIP: [u8; 4] = [203, 0, 113, 10];

    /// A node whose agent plans and does what it plans.
    #[derive(Default)]
    struct Node {
        handovers: Handovers,
        observed: Observed,
    }

    impl Node {
        /// Whether the frontend is being handed over after a round, and when that ends.
        fn round(&mut self, service: &DesiredService, protocol: Protocol, now_ms: u64) -> (bool, Option<u64>) {
            let (namespace, port) = ("default".into(), String::new());
            let name = ServiceName { namespace, name: "web".into(), port, protocol, family: Family::V4 };
            let mut desired = Desired { services: [(name, service.clone())].into(), ..Desired::default() };
            let ends_ms = self.handovers.limit(&mut desired, &self.observed, HOUR, now_ms);
            for op in plan(&desired, &self.observed, &Limits::default(), now_ms).ops {
                self.observed.apply(&op, now_ms);
            }
            (self.observed.frontends.values().all(|frontend| frontend.has(HOST_BEFORE)), ends_ms)
        }
    }

    fn service(pods: u8) -> DesiredService {
        let backend = DesiredBackend { takes_new: true, weight: 1, delivery: Delivery::Stack(None) };
        DesiredService {
            vips: [IpAddr::from(VIP)].into(),
            host_before: [IpAddr::from(VIP)].into(),
            port: 80,
            backends: (0..pods).map(|pod| (([10, 1, 0, pod], 8080).into(), backend.clone())).collect(),
            ..DesiredService::default()
        }
    }

    #[test]
    fn a_new_frontend_is_handed_over_for_the_time_that_is_given() {
        let mut node = Node::default();
        let rows = [(5, true), (HOUR_MS, true), (HOUR_MS + 4, true), (HOUR_MS + 5, false), (HOUR_MS * 9, false)];
        for (now_ms, expected) in rows {
            let ends_ms = expected.then_some(HOUR_MS + 5);
            assert_eq!(node.round(&service(1), Protocol::Tcp, now_ms), (expected, ends_ms), "{now_ms}");
        }
    }

    #[test]
    fn the_time_runs_from_the_first_pod_of_this_node() {
        let mut node = Node::default();
        for (now_ms, pods, expected) in [
            (0, 1, (true, Some(HOUR_MS))),
            (HOUR_MS, 1, (false, None)),
            (HOUR_MS * 2, 0, (true, None)),
            (HOUR_MS * 9, 0, (true, None)),
            (HOUR_MS * 10, 2, (true, Some(HOUR_MS * 11))),
            (HOUR_MS * 11, 2, (false, None)),
        ] {
            assert_eq!(node.round(&service(pods), Protocol::Tcp, now_ms), expected, "{now_ms}");
        }
    }

    #[test]
    fn a_new_agent_counts_anew_and_begins_nothing_anew() {
        let mut node = Node::default();
        node.round(&service(1), Protocol::Tcp, 0);
        node.handovers = Handovers::default();
        assert_eq!(node.round(&service(1), Protocol::Tcp, 10), (true, Some(HOUR_MS + 10)));
        assert_eq!(node.round(&service(1), Protocol::Tcp, HOUR_MS + 10), (false, None));
        node.handovers = Handovers::default();
        assert_eq!(node.round(&service(1), Protocol::Tcp, 0), (false, None));
    }

    #[test]
    fn a_frontend_that_is_xlbs_alone_or_udp_is_not_handed_over() {
        let alone = DesiredService { host_before: [].into(), ..service(1) };
        assert_eq!(Node::default().round(&alone, Protocol::Tcp, 0), (false, None));
        assert_eq!(Node::default().round(&service(1), Protocol::Udp, 0), (false, None));
    }

    #[test]
    fn a_frontend_without_a_pod_anywhere_is_refused_and_goes_on_being_handed_over() {
        let mut node = Node::default();
        node.round(&service(0), Protocol::Tcp, 0);
        for when_empty in [WhenEmpty::Reject, WhenEmpty::Drop] {
            let service = DesiredService { when_empty, ..service(0) };
            assert_eq!(node.round(&service, Protocol::Tcp, 5), (true, Some(HOUR_MS + 5)));
        }
    }
}
