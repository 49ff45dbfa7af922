//! Pods that left their service but still live: a label changed, or the endpoint was deleted before the pod was. They get
//! no new connections, and keep those they have for as long as their link exists. So do pods whose service lost an address
//! to another one: they linger in that one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use xlb_common::abi::{Backend, Member, NETNS_HOST};

use crate::node::{LinkState, Location, PodLink};
use crate::plan::Observed;
use crate::plan::desired::{Delivery, Desired, DesiredBackend, DesiredService, Protocol, ServiceName};

/// Addresses of the pods that are backends now.
#[must_use]
pub fn addresses(observed: &Observed) -> BTreeSet<IpAddr> {
    observed.backends.values().filter(|backend| backend.is_in_use()).map(|backend| backend.socket().ip()).collect()
}

/// Where the backends were when an earlier agent last saw them: what it knew must not be lost with it. A bridge forgets
/// behind which port a pod is, as direct traffic does not pass it.
#[must_use]
pub fn locations(observed: &Observed) -> BTreeMap<IpAddr, Location> {
    let in_use = observed.backends.values().filter(|backend| backend.is_in_use());
    in_use.filter_map(|backend| Some((backend.socket().ip(), Location::Link(linked(backend)?)))).collect()
}

/// The backend's link, if it has one.
fn linked(backend: &Backend) -> Option<PodLink> {
    (backend.ifindex != 0).then(|| PodLink {
        ifindex: backend.ifindex,
        name: String::new(),
        is_veth: backend.is_direct(),
        netns_id: Some(backend.netns_id).filter(|&id| id != NETNS_HOST),
        hides_sockets: backend.is_hidden(),
        host_mac: backend.host_mac,
        pod_mac: (backend.pod_mac != [0; 6]).then_some(backend.pod_mac),
        takes_xdp_frames: backend.takes_xdp(),
        state: LinkState::Carries,
    })
}

/// Adds to each desired service the backends that it has now, is to lose, and whose pod is still where it was; and those
/// of the services that have its addresses now. Answers which services lose a pod that is gone.
pub fn keep_living(
    desired: &mut Desired,
    observed: &Observed,
    pods: &BTreeMap<IpAddr, Location>,
) -> BTreeSet<ServiceName> {
    keep_living_of_part(desired, (observed, observed), pods)
}

/// The same for some services: `part` is what they have of the whole.
pub fn keep_living_of_part(
    desired: &mut Desired,
    (part, whole): (&Observed, &Observed),
    pods: &BTreeMap<IpAddr, Location>,
) -> BTreeSet<ServiceName> {
    let mut losing = BTreeSet::new();
    let served: BTreeMap<&str, u32> = part.services.iter().map(|(id, service)| (service.name.as_str(), *id)).collect();
    let soles = soles(part);
    for (name, service) in &mut desired.services {
        let own = served.get(name.to_string().as_str()).copied();
        for id in own.into_iter().chain(former_services(part, own, name, service)) {
            if keep(service, &backends_of(whole, &soles, id, name), pods) {
                losing.insert(name.clone());
            }
        }
    }
    losing
}

/// What is left of what is served when nothing new is to begin: every service with its addresses and the backends that it
/// has, none of which takes a new connection. What begins is left to the host's stack, as are the packets of its
/// connections.
#[must_use]
pub fn let_go(observed: &Observed) -> Desired {
    let soles = soles(observed);
    let mut desired = Desired::default();
    for (&id, served) in &observed.services {
        let Some(name) = ServiceName::parse(&served.name) else { continue };
        let mut frontends = observed.frontends.iter().filter(|(_, frontend)| frontend.service == id).peekable();
        let Some((first, _)) = frontends.peek() else { continue };
        let (port, affinity_s) = (first.socket.port(), frontends.peek().map_or(0, |(_, frontend)| frontend.affinity_s));
        let vips: BTreeSet<IpAddr> = frontends.map(|(key, _)| key.socket.ip()).collect();
        let backends = backends_of(observed, &soles, id, &name);
        let service = DesiredService {
            host_before: vips.clone(),
            vips,
            port,
            backends: backends
                .iter()
                .map(|backend| (backend.socket(), without_new(backend, linked(backend))))
                .collect(),
            affinity_s,
            ..DesiredService::default()
        };
        desired.services.insert(name, service);
    }
    desired
}

/// The backend in the mode that it has, behind this link.
fn without_new(backend: &Backend, link: Option<PodLink>) -> DesiredBackend {
    let delivery = match link {
        Some(link) if backend.is_direct() => Delivery::Direct(link),
        link => Delivery::Stack(link),
    };
    DesiredBackend { takes_new: false, weight: 1, delivery }
}

/// The services that have an address of this one, which is `own` if it is served already.
fn former_services(
    observed: &Observed,
    own: Option<u32>,
    name: &ServiceName,
    service: &DesiredService,
) -> BTreeSet<u32> {
    let holders = service.keys(name.protocol).filter_map(|key| Some(observed.frontends.get(&key)?.service));
    holders.filter(|&holder| Some(holder) != own && observed.services.contains_key(&holder)).collect()
}

/// Keeps those of the backends that live. Answers whether one is gone.
fn keep(service: &mut DesiredService, backends: &[Backend], pods: &BTreeMap<IpAddr, Location>) -> bool {
    let mut is_one_gone = false;
    for backend in backends {
        let Some(link) = still_there(backend, pods) else {
            is_one_gone |= is_gone(service, backend);
            continue;
        };
        if is_forgotten(service, backend.socket().ip()) {
            continue;
        }
        service.backends.entry(backend.socket()).or_insert_with(|| without_new(backend, Some(link)));
    }
    is_one_gone
}

/// The only backends of the services that have one, by service: they are looked up for each service in each round.
fn soles(observed: &Observed) -> BTreeMap<u32, Vec<Member>> {
    let mut soles: BTreeMap<u32, Vec<Member>> = BTreeMap::new();
    for frontend in observed.frontends.values().filter(|frontend| frontend.slots == 0) {
        soles.entry(frontend.service).or_default().push(frontend.sole);
    }
    soles
}

/// The backends that a service has now, in its slots or as its only one.
fn backends_of(observed: &Observed, soles: &BTreeMap<u32, Vec<Member>>, id: u32, name: &ServiceName) -> Vec<Backend> {
    let service = &observed.services[&id];
    let members = observed.members.range(service.members_base..service.members_base + service.members);
    let soles = soles.get(&id).into_iter().flatten().copied();
    let references = members.map(|(_, member)| *member).chain(soles);
    let found = references.filter_map(|member| {
        let backend = observed.backends.get(&member.id())?;
        let is_current = backend.is_in_use() && backend.generation == member.generation;
        (is_current && Protocol::of_number(backend.protocol) == name.protocol).then_some(*backend)
    });
    found.collect()
}

/// Semantics 11.2: flows of UDP end with their endpoint if others serve. It is the address that counts there.
fn is_forgotten(service: &DesiredService, pod: IpAddr) -> bool {
    service.forgets_departed && !service.backends.keys().any(|socket| socket.ip() == pod)
}

/// Whether the backend is none of the service any more, or another pod has its address.
fn is_gone(service: &DesiredService, backend: &Backend) -> bool {
    let Some(now) = service.backends.get(&backend.socket()) else { return true };
    match &now.delivery {
        Delivery::Direct(link) | Delivery::Stack(Some(link)) => link.ifindex != backend.ifindex,
        Delivery::Stack(None) => backend.ifindex != 0,
    }
}

/// The pod's link, if it is the one that the backend was made for.
fn still_there(backend: &Backend, pods: &BTreeMap<IpAddr, Location>) -> Option<PodLink> {
    let Location::Link(link) = pods.get(&backend.socket().ip())? else { return None };
    let is_same_netns = link.netns_id.is_none_or(|netns_id| netns_id == backend.netns_id);
    (link.ifindex == backend.ifindex && is_same_netns).then(|| link.clone())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

    use xlb_common::abi::frontend_flags::{DROP_WHEN_EMPTY, HOST_BEFORE};

    use super::*;
    use crate::model::fixtures;
    use crate::plan::desired::{Family, WhenEmpty};
    use crate::plan::{Limits, plan};

    const POD: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 5), 8080));

    fn link(ifindex: u32, netns_id: i32) -> PodLink {
        PodLink { netns_id: Some(netns_id), ..fixtures::link(ifindex, true) }
    }

    fn desired(backends: &[(SocketAddr, PodLink)]) -> Desired {
        let name = ServiceName {
            namespace: "default".into(),
            name: "web".into(),
            port: String::new(),
            protocol: Protocol::Tcp,
            family: Family::V4,
        };
        let backend =
            |link: &PodLink| DesiredBackend { takes_new: true, weight: 1, delivery: Delivery::Direct(link.clone()) };
        let service = DesiredService {
            vips: ["203.0.113.10".parse().unwrap()].into(),
            port: 80,
            when_empty: WhenEmpty::Drop,
            backends: backends.iter().map(|(socket, link)| (*socket, backend(link))).collect(),
            ..DesiredService::default()
        };
        Desired { services: [(name, service)].into(), refusals: Vec::new() }
    }

    fn observed(desired: &Desired) -> Observed {
        let mut observed = Observed::default();
        for op in plan(desired, &observed, &Limits::default(), 0).ops {
            observed.apply(&op, 0);
        }
        observed
    }

    /// What is left of the pod as a backend when its endpoint vanished and its address is now found there.
    fn lingering(now_at: Option<Location>) -> Option<DesiredBackend> {
        let others = [("10.1.0.6:8080".parse().unwrap(), link(8, 1))];
        let before = observed(&desired(&[(POD, link(7, 0)), others[0].clone()]));
        let mut desired = desired(&others);
        keep_living(&mut desired, &before, &now_at.map(|location| (POD.ip(), location)).into_iter().collect());
        desired.services.into_values().next()?.backends.remove(&POD)
    }

    #[test]
    fn a_pod_that_left_its_service_but_lives_keeps_its_connections_and_gets_no_new_ones() {
        let kept = lingering(Some(Location::Link(link(7, 0)))).expect("kept");
        assert!(!kept.takes_new);
        assert_eq!(kept.delivery, Delivery::Direct(link(7, 0)));
    }

    #[test]
    fn a_pod_whose_link_is_gone_or_anothers_is_forgotten() {
        assert_eq!(lingering(None), None);
        assert_eq!(lingering(Some(Location::Unreachable("no route".into()))), None);
        assert_eq!(lingering(Some(Location::Link(link(9, 0)))), None, "another link");
        assert_eq!(lingering(Some(Location::Link(link(7, 4)))), None, "another namespace behind the same index");
    }

    /// The connections of the former service go on with its pods, whichever of the two services lives on.
    #[test]
    fn pods_of_the_service_that_had_an_address_linger_in_the_one_that_gets_it() {
        let before = observed(&desired(&[(POD, link(7, 0))]));
        let pods = [(POD.ip(), Location::Link(link(7, 0)))].into();
        for (vip, is_kept) in [("203.0.113.10", true), ("203.0.113.11", false)] {
            let mut after = desired(&[("10.1.0.6:8080".parse().unwrap(), link(8, 1))]);
            let (name, mut service) = after.services.pop_first().unwrap();
            service.vips = [vip.parse().unwrap()].into();
            after.services.insert(ServiceName { name: "new".into(), ..name }, service);
            keep_living(&mut after, &before, &pods);
            let kept = after.services.values().find_map(|service| service.backends.get(&POD));
            assert_eq!(kept.map(|kept| kept.takes_new), is_kept.then_some(false), "{vip}");
        }
    }

    #[test]
    fn what_is_let_go_keeps_its_pods_and_gets_nothing_new() {
        let other: SocketAddr = "10.1.0.6:8080".parse().unwrap();
        for pods in [vec![(POD, link(7, 0))], vec![(POD, link(7, 0)), (other, link(8, 1))]] {
            let mut observed = observed(&desired(&pods));
            for op in plan(&let_go(&observed), &observed.clone(), &Limits::default(), 0).ops {
                observed.apply(&op, 0);
            }
            let frontend = observed.frontends.values().next().expect("it stays");
            assert!(frontend.has(HOST_BEFORE) && !frontend.has(DROP_WHEN_EMPTY) && frontend.slots > 0);
            let words = observed.slots.values().flatten();
            assert!(words.clone().all(|word| word.current().is_none() && word.has_history()), "{words:?}");
            assert_eq!(addresses(&observed).len(), pods.len());
            assert!(plan(&let_go(&observed), &observed, &Limits::default(), 0).ops.is_empty(), "once is enough");
        }
    }

    /// Semantics 11: there is no end of a UDP flow to wait for.
    #[test]
    fn a_udp_pod_that_left_is_forgotten_if_others_serve() {
        let other = ("10.1.0.6:8080".parse().unwrap(), link(8, 1));
        let udp = |backends: &[(SocketAddr, PodLink)], forgets_departed| {
            let mut desired = desired(backends);
            let (mut name, service) = desired.services.pop_first().unwrap();
            name.protocol = Protocol::Udp;
            desired.services.insert(name, DesiredService { forgets_departed, ..service });
            desired
        };
        let before = observed(&udp(&[(POD, link(7, 0)), other.clone()], true));
        let there = [(POD.ip(), Location::Link(link(7, 0)))].into();
        for forgets_departed in [true, false] {
            let mut after = udp(std::slice::from_ref(&other), forgets_departed);
            keep_living(&mut after, &before, &there);
            let is_kept = after.services.values().any(|service| service.backends.contains_key(&POD));
            assert_eq!(is_kept, !forgets_departed);
        }
    }

    #[test]
    fn the_only_backend_of_a_service_lingers_too() {
        let before = observed(&desired(&[(POD, link(7, 0))]));
        let mut after = desired(&[]);
        keep_living(&mut after, &before, &[(POD.ip(), Location::Link(link(7, 0)))].into());
        assert!(after.services.values().all(|service| service.backends.contains_key(&POD)));
        assert_eq!(addresses(&before), [POD.ip()].into());
    }
}
