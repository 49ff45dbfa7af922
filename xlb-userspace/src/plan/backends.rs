//! Which id a pod's port has. One pod port is one backend, however many services name it.

use std::net::IpAddr;

use xlb_common::abi::{Backend, Member, NETNS_HOST, backend_flags as flags};

use super::desired::{Delivery, Desired, DesiredBackend, Refusal};
use super::endpoint::Endpoint;
use super::id_set::IdSet;
use super::observed::{Observed, rests};
use super::op::Op;
use super::part::Part;
use crate::node::PodLink;

/// The backends of a plan, with the ids of those that its services asked for.
pub(super) struct Backends<'a> {
    /// What the services of the plan have.
    part: &'a Part<'a>,
    /// What all services have.
    whole: &'a Observed,
    limit: u32,
    now_ms: u64,
    /// Those that the plan may ask for, in order of their keys.
    entries: Vec<Entry<'a>>,
    /// Those that it asked for, by their place in `entries`.
    order: Vec<usize>,
    /// Where the next one is looked for first: a service asks for its backends in order.
    next_place: usize,
    next_id: u32,
}

/// A moment to return to.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    resolved: usize,
    next_id: u32,
}

/// A backend of the desired state.
struct Entry<'a> {
    key: Endpoint,
    wanted: &'a DesiredBackend,
    /// The id that its address and port have now, and what has this id.
    known: Option<(u32, Option<&'a Backend>)>,
    /// What it shall be, once it was asked for.
    resolved: Option<(u32, Backend)>,
}

/// A backend as desired, without generation and without `TAKES_XDP`, which depend on what is observed.
struct Wanted {
    backend: Backend,
    takes_xdp_frames: bool,
}

impl<'a> Backends<'a> {
    pub(super) fn new(
        desired: &'a Desired,
        (part, whole): (&'a Part<'a>, &'a Observed),
        limit: u32,
        now_ms: u64,
    ) -> Self {
        let mut ids = part.backend_ids.iter().peekable();
        let entry = |(key, wanted)| {
            while ids.next_if(|(known, _)| *known < key).is_some() {}
            let known = ids.next_if(|(known, _)| *known == key).map(|(_, id)| (*id, whole.backends.get(id)));
            Entry { key, wanted, known, resolved: None }
        };
        let entries = wanted(desired).into_iter().map(entry).collect();
        Self { part, whole, limit, now_ms, entries, order: Vec::new(), next_place: 0, next_id: 0 }
    }

    /// The reference to a backend of the desired state; none: no id is free.
    pub(super) fn resolve(&mut self, key: &Endpoint) -> Option<Member> {
        let place = self.place(key, self.next_place)?;
        self.next_place = place + 1;
        if self.entries[place].resolved.is_none() {
            self.entries[place].resolved = Some(self.found(place)?);
            self.order.push(place);
        }
        self.entries[place].member()
    }

    /// The reference to a backend that was asked for, and has an id.
    pub(super) fn known(&self, key: &Endpoint) -> Option<Member> {
        self.entries[self.place(key, 0)?].member()
    }

    /// The moment before a service that may turn out not to fit.
    pub(super) fn mark(&self) -> Mark {
        Mark { resolved: self.order.len(), next_id: self.next_id }
    }

    /// Forgets every backend resolved since then.
    pub(super) fn return_to(&mut self, mark: Mark) {
        for place in self.order.drain(mark.resolved..) {
            self.entries[place].resolved = None;
        }
        self.next_id = mark.next_id;
    }

    /// Whether a backend is served through the stack.
    pub(super) fn use_stack(&self) -> bool {
        if self.resolved().any(|(_, _, backend)| !backend.is_direct()) {
            return true;
        }
        let is_stack = |backend: &Backend| backend.is_in_use() && !backend.is_direct();
        let mut stacks = self.whole.backends.iter().filter(|(_, backend)| is_stack(backend)).peekable();
        let are_there = stacks.peek().is_some();
        let own = IdSet::of(self.own_ids().filter(|_| are_there));
        stacks.any(|(id, _)| !own.contains(id))
    }

    /// Operations that write backends, then those that make them known by address.
    pub(super) fn puts(&self) -> (Vec<Op>, Vec<Op>) {
        let (mut backends, mut ids) = (Vec::new(), Vec::new());
        for (entry, id, backend) in self.resolved() {
            let known = entry.known.filter(|(known, _)| *known == id);
            let was = known.map_or_else(|| self.whole.backends.get(&id), |(_, was)| was);
            if was != Some(backend) {
                backends.push(Op::PutBackend { id, backend: *backend });
            }
            if known.is_none() {
                ids.push(Op::PutBackendId { key: entry.key, id });
            }
        }
        (backends, ids)
    }

    /// Operations that remove the addresses of backends that nobody asked for, then free their ids.
    pub(super) fn removals(&self) -> Vec<Op> {
        let mut asked_for = self.resolved().peekable();
        let is_unknown = |key: &Endpoint| {
            while asked_for.next_if(|(entry, ..)| entry.key < *key).is_some() {}
            asked_for.peek().is_none_or(|(entry, ..)| entry.key != *key)
        };
        let unknown: Vec<Endpoint> = self.part.backend_ids.iter().map(|(key, _)| *key).filter(is_unknown).collect();
        let asked_for = IdSet::of(self.resolved().map(|(_, id, _)| id));
        let mut unused: Vec<u32> = self.own_ids().filter(|&id| !asked_for.contains(id)).collect();
        unused.sort_unstable();
        unused.dedup();
        let freed = unused.into_iter().filter_map(|id| {
            let generation = self.whole.backends.get(&id).filter(|backend| backend.is_in_use())?.generation;
            Some(Op::PutBackend { id, backend: Backend { generation, ..Backend::default() } })
        });
        unknown.into_iter().map(|key| Op::RemoveBackendId { key }).chain(freed).collect()
    }

    /// The backends whose delivery mode should change and does not while they are in use.
    pub(super) fn keeping_their_mode(&self) -> Vec<Refusal> {
        let differs = |(entry, _, backend): &(&Entry, u32, &Backend)| is_direct(entry.wanted) != backend.is_direct();
        let refusal = |(entry, _, backend): (&Entry, u32, &Backend)| {
            let mode = if backend.is_direct() { "direct" } else { "stack" };
            let why = format!("stays in delivery mode {mode} until its connections end: restart the pod to switch");
            Refusal { object: object_of_backend(&entry.key), why }
        };
        self.resolved().filter(differs).map(refusal).collect()
    }

    /// The ids of the backends that the services of the plan have, some of them twice; if it is for all services, also those
    /// that no address leads to.
    fn own_ids(&self) -> impl Iterator<Item = u32> {
        let known = self.part.backend_ids.iter().map(|(_, id)| *id);
        known.chain(self.part.observed.backends.iter().map(|(id, _)| id))
    }

    /// Those that were asked for, each with what it shall be, in order of their keys.
    fn resolved(&self) -> impl Iterator<Item = (&Entry<'a>, u32, &Backend)> {
        self.entries.iter().filter_map(|entry| entry.resolved.as_ref().map(|(id, backend)| (entry, *id, backend)))
    }

    /// The place of a backend, which is looked for at `first` first.
    fn place(&self, key: &Endpoint, first: usize) -> Option<usize> {
        if self.entries.get(first).is_some_and(|entry| entry.key == *key) {
            return Some(first);
        }
        self.entries.binary_search_by(|entry| entry.key.cmp(key)).ok()
    }

    /// The backend that is there already, if it is the same pod, as it should be from now on; or one with the lowest id that
    /// is free.
    fn found(&mut self, place: usize) -> Option<(u32, Backend)> {
        let Entry { key, wanted, known, .. } = &self.entries[place];
        let wanted = wanted_backend(key, wanted);
        let known = known.and_then(|(id, was)| Some((id, was?)));
        match known.filter(|(_, was)| was.is_in_use() && is_same_pod(was, &wanted.backend)) {
            Some((id, was)) => Some((id, updated(was, &wanted))),
            None => self.created(&wanted),
        }
    }

    fn created(&mut self, wanted: &Wanted) -> Option<(u32, Backend)> {
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

impl Entry<'_> {
    fn member(&self) -> Option<Member> {
        let (id, backend) = self.resolved.as_ref()?;
        Some(Member { backend: *id as u16, flags: 0, generation: backend.generation })
    }
}

/// The object of a refusal about a backend.
#[must_use]
pub fn object_of_backend(key: &Endpoint) -> String {
    format!("endpoint {key}")
}

/// Every backend of the desired state, in order. If services disagree about its delivery, netfilter may have to see its
/// packets.
fn wanted(desired: &Desired) -> Vec<(Endpoint, &DesiredBackend)> {
    let mut all = Vec::new();
    for (name, service) in &desired.services {
        let key = |socket| Endpoint { socket, protocol: name.protocol };
        all.extend(service.backends.iter().map(|(&socket, backend)| (key(socket), backend)));
    }
    all.sort_by_key(|(key, _)| *key);
    all.dedup_by(|(next, backend), (key, chosen)| {
        if next == key && !is_direct(backend) {
            *chosen = *backend;
        }
        next == key
    });
    all
}

fn is_direct(backend: &DesiredBackend) -> bool {
    matches!(backend.delivery, Delivery::Direct(_))
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
