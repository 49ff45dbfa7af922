//! What happens to the services and pods of random histories.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;

use super::maps::Owner;
use super::world::{inside, link, name_of, pod_of, range_of, service, vip_of};
use crate::plan::Endpoint;
use crate::plan::desired::{Delivery, Desired, DesiredBackend, DesiredService, Family, ServiceName, SourceFilter};

/// A Service with both families, and two with one.
const SERVICES: [(&str, Family); 4] = [("a", Family::V4), ("a", Family::V6), ("b", Family::V4), ("c", Family::V6)];
const PODS: u16 = 20;

/// One of them.
#[derive(Clone, Debug)]
pub enum Event {
    /// A pod of a service: ready with a weight, draining, or gone.
    Pod { service: usize, pod: u16, state: State },
    /// Many pods of a service at once.
    Pods { service: usize, below: u16, state: State },
    /// A pod's address belongs to another pod now.
    Replaced { pod: u16 },
    /// A pod's delivery should be another one.
    Mode { pod: u16 },
    /// An address belongs to this service now.
    Vip { service: usize, vip: u8 },
    /// A service is open to these ranges only, at every other address of its own; none: to everybody.
    Sources { service: usize, ranges: Option<BTreeSet<u8>> },
    /// A service keeps clients with their backends for so long.
    Affinity { service: usize, affinity_s: u32 },
    /// A service leads clients inside somewhere from now on, or nowhere any more.
    Inside { service: usize },
    /// A service is deleted.
    Deleted { service: usize },
}

/// A pod of a service.
#[derive(Clone, Copy, Debug)]
pub enum State {
    Ready(u16),
    Draining,
    Gone,
}

pub fn event() -> impl Strategy<Value = Event> {
    let service = 0..SERVICES.len();
    let state = prop_oneof![
        4 => prop_oneof![4 => Just(1u16), 1 => 1u16..9].prop_map(State::Ready),
        2 => Just(State::Draining),
        2 => Just(State::Gone),
    ];
    let few = 0..5u16;
    prop_oneof![
        12 => (service.clone(), few.clone(), state.clone()).prop_map(|(service, pod, state)| Event::Pod { service, pod, state }),
        2 => (service.clone(), 0..PODS, state).prop_map(|(service, below, state)| Event::Pods { service, below, state }),
        2 => few.clone().prop_map(|pod| Event::Replaced { pod }),
        1 => few.prop_map(|pod| Event::Mode { pod }),
        3 => (service.clone(), 0u8..6).prop_map(|(service, vip)| Event::Vip { service, vip }),
        3 => (service.clone(), prop::option::of(prop::collection::btree_set(0u8..5, 0..4)))
            .prop_map(|(service, ranges)| Event::Sources { service, ranges }),
        2 => (service.clone(), prop::sample::select(vec![0u32, 60, 90]))
            .prop_map(|(service, affinity_s)| Event::Affinity { service, affinity_s }),
        1 => service.clone().prop_map(|service| Event::Inside { service }),
        1 => service.prop_map(|service| Event::Deleted { service }),
    ]
}

/// What services ask for, and which pods there are.
#[derive(Default)]
pub struct World {
    pub desired: Desired,
    ranges: BTreeMap<ServiceName, BTreeSet<u8>>,
    replaced: BTreeMap<u16, u32>,
    is_stack: BTreeSet<u16>,
    /// Services that lead clients inside nowhere.
    without_inside: BTreeSet<ServiceName>,
}

impl World {
    pub fn happen(&mut self, event: &Event) {
        match event.clone() {
            Event::Pod { service, pod, state } => self.set(service, pod, state),
            Event::Pods { service, below, state } => (0..below).for_each(|pod| self.set(service, pod, state)),
            Event::Replaced { pod } => *self.replaced.entry(pod).or_default() += 1,
            Event::Mode { pod } if !self.is_stack.remove(&pod) => drop(self.is_stack.insert(pod)),
            Event::Mode { .. } => {}
            Event::Vip { service, vip: last } => {
                let vip = vip_of(SERVICES[service].1, last);
                self.desired.services.values_mut().for_each(|other| other.vips.retain(|&address| address != vip));
                self.service(service).vips.insert(vip);
            }
            Event::Sources { service, ranges: Some(ranges) } => drop(self.ranges.insert(key(service), ranges)),
            Event::Sources { service, ranges: None } => drop(self.ranges.remove(&key(service))),
            Event::Affinity { service, affinity_s } => self.service(service).affinity_s = affinity_s,
            Event::Inside { service } if !self.without_inside.remove(&key(service)) => {
                self.without_inside.insert(key(service));
            }
            Event::Inside { .. } => {}
            Event::Deleted { service } => drop(self.desired.services.remove(&key(service))),
        }
        self.desired.services.retain(|_, service| !service.vips.is_empty());
        self.follow_pods();
        self.follow_ranges();
        self.follow_inside();
    }

    /// A service gets an address of another one: those that may have its connections and live drain in the new one.
    pub fn take_over(&mut self, taker: &ServiceName, owners: impl IntoIterator<Item = Owner>) {
        for (address, ifindex) in owners {
            let Some(number) = (0..PODS).find(|&number| pod_of(taker.family, number).ip() == address) else { continue };
            if self.ifindex(number) == ifindex
                && let Some(service) = self.desired.services.get_mut(taker)
            {
                let draining = DesiredBackend { takes_new: false, weight: 1, delivery: Delivery::Stack(None) };
                service.backends.entry(pod_of(taker.family, number)).or_insert(draining);
            }
        }
        self.follow_pods();
        self.follow_inside();
    }

    fn service(&mut self, at: usize) -> &mut DesiredService {
        let (_, family) = SERVICES[at];
        let fresh = || DesiredService { vips: [vip_of(family, 100 + at as u8)].into(), ..service(0, []) };
        self.desired.services.entry(key(at)).or_insert_with(fresh)
    }

    fn set(&mut self, service: usize, number: u16, state: State) {
        let (takes_new, weight) = match state {
            State::Ready(weight) => (true, weight),
            State::Draining => (false, 1),
            State::Gone => return drop(self.service(service).backends.remove(&pod_of(SERVICES[service].1, number))),
        };
        let backend = DesiredBackend { takes_new, weight, delivery: Delivery::Stack(None) };
        self.service(service).backends.insert(pod_of(SERVICES[service].1, number), backend);
    }

    fn follow_pods(&mut self) {
        for number in 0..PODS {
            let link = link(self.ifindex(number));
            let delivery =
                if self.is_stack.contains(&number) { Delivery::Stack(Some(link)) } else { Delivery::Direct(link) };
            for (name, service) in &mut self.desired.services {
                let pod = pod_of(name.family, number);
                service.backends.entry(pod).and_modify(|backend| backend.delivery = delivery.clone());
            }
        }
    }

    fn follow_ranges(&mut self) {
        for (name, service) in &mut self.desired.services {
            let Some(ranges) = self.ranges.get(name) else {
                service.sources = SourceFilter::default();
                continue;
            };
            let is_open = |vip: &IpAddr| [vip_of(name.family, 1), vip_of(name.family, 3)].contains(vip);
            let vips: BTreeSet<IpAddr> = service.vips.iter().copied().filter(|vip| !is_open(vip)).collect();
            let ranges = ranges.iter().map(|&number| range_of(name.family, number));
            let ranges = if vips.is_empty() { BTreeSet::new() } else { ranges.collect() };
            service.sources = SourceFilter { vips, ranges };
        }
    }

    fn follow_inside(&mut self) {
        for (name, service) in &mut self.desired.services {
            let inside = || inside(service);
            service.inside = (!self.without_inside.contains(name)).then(inside);
        }
    }

    fn ifindex(&self, number: u16) -> u32 {
        100 + u32::from(number) + 1000 * self.replaced.get(&number).copied().unwrap_or(0)
    }

    pub fn wants(&self, service: &str, key: &Endpoint) -> bool {
        let mut services = self.desired.services.iter().filter(|(name, _)| name.to_string() == service);
        services.any(|(_, service)| service.vips.contains(&key.socket.ip()))
    }

    /// The pods of a service: those alive, and of these those that take new connections.
    pub fn pods(&self, service: &str) -> (BTreeSet<Owner>, BTreeSet<Owner>) {
        let service = self.desired.services.iter().find(|(name, _)| name.to_string() == service);
        let (mut alive, mut takers) = (BTreeSet::new(), BTreeSet::new());
        for (address, backend) in service.iter().flat_map(|(_, service)| &service.backends) {
            let number = (0..PODS).find(|&number| Family::ALL.iter().any(|&family| pod_of(family, number) == *address));
            let owner = (address.ip(), self.ifindex(number.unwrap()));
            alive.insert(owner);
            takers.extend(backend.takes_new.then_some(owner));
        }
        (alive, takers)
    }
}

fn key(at: usize) -> ServiceName {
    let (name, family) = SERVICES[at];
    name_of(family, name)
}
