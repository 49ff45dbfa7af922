//! Which id a pod's port has. One pod port is one backend, however many services name it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use xlb_common::abi::{Backend, Member, NETNS_HOST, backend_flags as flags};

use super::desired::{Delivery, Desired, DesiredBackend, Refusal};
use super::endpoint::Endpoint;
use super::observed::{Observed, rests};
use super::op::Op;
use crate::node::PodLink;

/// The backends of a plan: those that its services asked for, with their ids.
pub(super) struct Backends<'a> {
    /// What the services of the plan have.
    observed: &'a Observed,
    /// What all services have.
    whole: &'a Observed,
    limit: u32,
    now_ms: u64,
    wanted: BTreeMap<Endpoint, Wanted>,
    resolved: BTreeMap<Endpoint, (u32, Backend)>,
    order: Vec<Endpoint>,
    next_id: u32,
}

/// A moment to return to.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    resolved: usize,
    next_id: u32,
}

/// A backend as desired, without generation and without `TAKES_XDP`, which depend on what is observed.
struct Wanted {
    backend: Backend,
    takes_xdp_frames: bool,
}

impl<'a> Backends<'a> {
    pub(super) fn new(
        desired: &Desired,
        (observed, whole): (&'a Observed, &'a Observed),
        limit: u32,
        now_ms: u64,
    ) -> Self {
        let (resolved, order) = (BTreeMap::new(), Vec::new());
        Self { observed, whole, limit, now_ms, wanted: wanted(desired), resolved, order, next_id: 0 }
    }

    /// The reference to a backend of the desired state; none: no id is free.
    pub(super) fn resolve(&mut self, key: Endpoint) -> Option<Member> {
        if let Some((id, backend)) = self.resolved.get(&key) {
            return Some(member(*id, backend));
        }
        let (id, backend) = self.adopted(&key).or_else(|| self.created(&key))?;
        self.resolved.insert(key, (id, backend));
        self.order.push(key);
        Some(member(id, &backend))
    }

    /// The reference to a backend that was asked for, and has an id.
    pub(super) fn known(&self, key: &Endpoint) -> Option<Member> {
        self.resolved.get(key).map(|(id, backend)| member(*id, backend))
    }

    /// The moment before a service that may turn out not to fit.
    pub(super) fn mark(&self) -> Mark {
        Mark { resolved: self.order.len(), next_id: self.next_id }
    }

    /// Forgets every backend resolved since then.
    pub(super) fn return_to(&mut self, mark: Mark) {
        for key in self.order.drain(mark.resolved..) {
            self.resolved.remove(&key);
        }
        self.next_id = mark.next_id;
    }

    /// Whether a backend is served through the stack.
    pub(super) fn use_stack(&self) -> bool {
        let is_of_others = |id: &u32| !self.observed.backends.contains_key(id);
        let mut others = self.whole.backends.iter().filter(|(id, backend)| backend.is_in_use() && is_of_others(id));
        self.resolved.values().any(|(_, backend)| !backend.is_direct())
            || others.any(|(_, backend)| !backend.is_direct())
    }

    /// Operations that write backends, then those that make them known by address.
    pub(super) fn puts(&self) -> (Vec<Op>, Vec<Op>) {
        let (mut backends, mut ids) = (Vec::new(), Vec::new());
        for (&key, &(id, backend)) in &self.resolved {
            if self.observed.backends.get(&id) != Some(&backend) {
                backends.push(Op::PutBackend { id, backend });
            }
            if self.observed.backend_ids.get(&key) != Some(&id) {
                ids.push(Op::PutBackendId { key, id });
            }
        }
        (backends, ids)
    }

    /// Operations that remove the addresses of backends that nobody asked for, then free their ids.
    pub(super) fn removals(&self) -> Vec<Op> {
        let is_unknown = |key: &&Endpoint| !self.resolved.contains_key(key);
        let unknown = self.observed.backend_ids.keys().filter(is_unknown);
        let ids: BTreeSet<u32> = self.resolved.values().map(|(id, _)| *id).collect();
        let is_unused = |(id, backend): &(&u32, &Backend)| backend.is_in_use() && !ids.contains(id);
        let unused = self.observed.backends.iter().filter(is_unused);
        let freed = unused.map(|(&id, backend)| {
            let generation = backend.generation;
            Op::PutBackend { id, backend: Backend { generation, ..Backend::default() } }
        });
        unknown.map(|&key| Op::RemoveBackendId { key }).chain(freed).collect()
    }

    /// The backends whose delivery mode should change and does not while they are in use.
    pub(super) fn keeping_their_mode(&self) -> Vec<Refusal> {
        let differs = |(key, (_, backend)): &(&Endpoint, &(u32, Backend))| {
            self.wanted.get(key).is_some_and(|wanted| wanted.backend.is_direct() != backend.is_direct())
        };
        let refusal = |(key, (_, backend)): (&Endpoint, &(u32, Backend))| {
            let mode = if backend.is_direct() { "direct" } else { "stack" };
            let why = format!("stays in delivery mode {mode} until its connections end: restart the pod to switch");
            Refusal { object: object_of_backend(key), why }
        };
        self.resolved.iter().filter(differs).map(refusal).collect()
    }

    /// The backend that is there already, if it is the same pod, as it should be from now on.
    fn adopted(&self, key: &Endpoint) -> Option<(u32, Backend)> {
        let wanted = self.wanted.get(key)?;
        let id = *self.observed.backend_ids.get(key)?;
        let was = self.observed.backends.get(&id).filter(|was| was.is_in_use() && is_same_pod(was, &wanted.backend))?;
        Some((id, updated(was, wanted)))
    }

    /// A backend with the lowest id that is free.
    fn created(&mut self, key: &Endpoint) -> Option<(u32, Backend)> {
        let wanted = self.wanted.get(key)?;
        let id = (self.next_id..self.limit).find(|id| self.is_free(*id))?;
        self.next_id = id + 1;
        let last = self.whole.backends.get(&id).map_or(0, |was| was.generation);
        // Generation zero is what an array entry that was never written refers to.
        let generation = last.wrapping_add(1).max(1);
        Some((id, with_xdp(Backend { generation, ..wanted.backend }, wanted.takes_xdp_frames)))
    }

    fn is_free(&self, id: u32) -> bool {
        let is_in_use = self.whole.backends.get(&id).is_some_and(Backend::is_in_use);
        let rests = self.whole.resting.backends.get(&id).is_some_and(|&since_ms| rests(since_ms, self.now_ms));
        !is_in_use && !rests
    }
}

/// The object of a refusal about a backend.
#[must_use]
pub fn object_of_backend(key: &Endpoint) -> String {
    format!("endpoint {key}")
}

/// Every backend of the desired state. If services disagree about its delivery, netfilter may have to see its packets.
fn wanted(desired: &Desired) -> BTreeMap<Endpoint, Wanted> {
    let mut all = BTreeMap::new();
    for (name, service) in &desired.services {
        for (&socket, backend) in &service.backends {
            let key = Endpoint { socket, protocol: name.protocol };
            let is_stack = matches!(backend.delivery, Delivery::Stack(_));
            if is_stack || !all.contains_key(&key) {
                all.insert(key, wanted_backend(&key, backend));
            }
        }
    }
    all
}

fn wanted_backend(key: &Endpoint, desired: &DesiredBackend) -> Wanted {
    let (address, family) = stored(key.socket.ip());
    let (mode, link) = match &desired.delivery {
        Delivery::Direct(link) => (flags::DIRECT, Some(link)),
        Delivery::Stack(link) => (0, link.as_ref()),
    };
    let (port, protocol) = (key.socket.port().to_be_bytes(), key.protocol.number());
    let mut backend = Backend { address, port, protocol, family, ..Backend::default() };
    backend.flags = flags::IN_USE | mode;
    backend.netns_id = NETNS_HOST;
    if let Some(link) = link {
        follow_link(&mut backend, link);
    }
    Wanted { backend, takes_xdp_frames: link.is_some_and(|link| link.takes_xdp_frames) }
}

fn follow_link(backend: &mut Backend, link: &PodLink) {
    backend.ifindex = link.ifindex;
    backend.host_mac = link.host_mac;
    backend.pod_mac = link.pod_mac.unwrap_or_default();
    backend.netns_id = link.netns_id.unwrap_or(NETNS_HOST);
    if link.netns_id.is_none() || link.hides_sockets {
        backend.flags |= flags::HIDDEN;
    }
}

/// An address can be given to another pod. An interface index is not used again soon, a namespace id is at once; a
/// namespace that is not known on one side tells nothing.
fn is_same_pod(was: &Backend, now: &Backend) -> bool {
    let is_same_port = Endpoint::of(was) == Endpoint::of(now);
    let is_unknown = was.netns_id == NETNS_HOST || now.netns_id == NETNS_HOST;
    is_same_port && was.ifindex == now.ifindex && (is_unknown || was.netns_id == now.netns_id)
}

/// The same pod: its delivery mode belongs to its flows, and a MAC that the neighbour table forgot is still its MAC.
fn updated(was: &Backend, wanted: &Wanted) -> Backend {
    let mut backend = Backend { generation: was.generation, ..wanted.backend };
    backend.flags = backend.flags & !flags::DIRECT | was.flags & flags::DIRECT;
    if backend.pod_mac == [0; 6] {
        backend.pod_mac = was.pod_mac;
    }
    with_xdp(backend, wanted.takes_xdp_frames)
}

/// XDP needs to know the pod's MAC.
fn with_xdp(mut backend: Backend, takes_xdp_frames: bool) -> Backend {
    if takes_xdp_frames && backend.is_direct() && backend.pod_mac != [0; 6] {
        backend.flags |= flags::TAKES_XDP;
    }
    backend
}

fn member(id: u32, backend: &Backend) -> Member {
    Member { backend: id as u16, flags: 0, generation: backend.generation }
}

/// An address as `Backend` keeps it, with the number of its family.
pub(super) fn stored(address: IpAddr) -> ([u8; 16], u8) {
    match address {
        IpAddr::V4(address) => {
            let mut stored = [0; 16];
            stored[..4].copy_from_slice(&address.octets());
            (stored, 4)
        }
        IpAddr::V6(address) => (address.octets(), 6),
    }
}
