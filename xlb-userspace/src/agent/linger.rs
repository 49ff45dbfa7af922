//! Pods that left their service but still live: a label changed, or the endpoint was deleted before the pod was. They get
//! no new connections, and keep those they have for as long as their link exists.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use xlb_common::abi::{Backend, TCP};

use crate::node::{Location, PodLink};
use crate::plan::Observed;
use crate::plan::desired::{Delivery, Desired, DesiredBackend, Protocol, ServiceName};

/// Addresses of the pods that are backends now.
#[must_use]
pub fn addresses(observed: &Observed) -> BTreeSet<Ipv4Addr> {
    observed.backends.values().filter(|backend| backend.is_in_use()).map(|backend| *socket(backend).ip()).collect()
}

/// Adds to each desired service the backends that it has now, is to lose, and whose pod is still where it was.
pub fn keep_living(desired: &mut Desired, observed: &Observed, pods: &BTreeMap<Ipv4Addr, Location>) {
    let served: BTreeMap<&str, u32> =
        observed.services.iter().map(|(id, service)| (service.name.as_str(), *id)).collect();
    for (name, service) in &mut desired.services {
        let Some(&id) = served.get(name.to_string().as_str()) else { continue };
        for backend in backends_of(observed, id, name) {
            let Some(link) = still_there(&backend, pods) else { continue };
            service.backends.entry(socket(&backend)).or_insert_with(|| DesiredBackend {
                takes_new: false,
                weight: 1,
                delivery: if backend.is_direct() { Delivery::Direct(link) } else { Delivery::Stack(Some(link)) },
            });
        }
    }
}

/// The backends that a service has now, in its slots or as its only one.
fn backends_of(observed: &Observed, id: u32, name: &ServiceName) -> Vec<Backend> {
    let protocol = if name.protocol == Protocol::Tcp { TCP } else { xlb_common::abi::UDP };
    let service = &observed.services[&id];
    let members = observed.members.range(service.members_base..service.members_base + service.members);
    let soles = observed.frontends.values().filter(|frontend| frontend.service == id && frontend.slots == 0);
    let references = members.map(|(_, member)| *member).chain(soles.map(|frontend| frontend.sole));
    let found = references.filter_map(|member| {
        let backend = observed.backends.get(&member.backend)?;
        let is_current = backend.is_in_use() && backend.generation == member.generation;
        (is_current && backend.protocol == protocol).then_some(*backend)
    });
    found.collect()
}

/// The pod's link, if it is the one that the backend was made for.
fn still_there(backend: &Backend, pods: &BTreeMap<Ipv4Addr, Location>) -> Option<PodLink> {
    let Location::Link(link) = pods.get(socket(backend).ip())? else { return None };
    let is_same_netns = link.netns_id.is_none_or(|netns_id| netns_id == backend.netns_id);
    (link.ifindex == backend.ifindex && is_same_netns).then(|| link.clone())
}

fn socket(backend: &Backend) -> SocketAddrV4 {
    let [a, b, c, d, ..] = backend.address;
    SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes(backend.port))
}
