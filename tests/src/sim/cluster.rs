//! Services and their pods: what is so, and what the API server has told the agent of it so far.

use std::net::{IpAddr, Ipv4Addr};

use xlb_common::abi::{TCP, UDP};

use super::packet::{Pod, Socket};

/// A Service port with its VIPs.
#[derive(Clone, Copy)]
pub struct Service {
    /// Its name.
    pub name: &'static str,
    /// IP protocol number.
    pub protocol: u8,
    /// Where clients reach it.
    pub vips: &'static [[u8; 4]],
    /// On which port.
    pub port: u16,
    /// Port of its pods.
    pub target_port: u16,
    /// Its share of new connections, in a hundred.
    pub share: usize,
}

/// The services of every run. The first has two frontends for each of its pods.
pub const SERVICES: [Service; 3] = [
    Service {
        name: "web",
        protocol: TCP,
        vips: &[[192, 0, 2, 1], [192, 0, 2, 2]],
        port: 80,
        target_port: 8080,
        share: 56,
    },
    Service { name: "shop", protocol: TCP, vips: &[[192, 0, 2, 3]], port: 443, target_port: 8443, share: 30 },
    Service { name: "dns", protocol: UDP, vips: &[[192, 0, 2, 4]], port: 53, target_port: 5353, share: 14 },
];

impl Service {
    /// One of its frontends.
    #[must_use]
    pub fn frontend(&self, number: usize) -> Socket {
        (self.vips[number % self.vips.len()], self.port.to_be_bytes())
    }
}

/// What an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Gets new connections.
    Ready,
    /// Lives, and is not ready.
    Unready,
    /// Lives, and ends soon.
    Terminating,
    /// Does not live.
    Gone,
}

/// A pod with what its kernel does to strangers.
#[derive(Clone, Debug)]
pub struct PodState {
    /// Index of its service.
    pub service: usize,
    /// Its address: another pod's before and after it.
    pub address: [u8; 4],
    /// Number of its namespace: given away again at once.
    pub netns_id: i32,
    /// As it is.
    pub phase: Phase,
    /// As the agent knows it; none: it does not know the pod.
    pub known: Option<Phase>,
    /// When the agent has all news of it that are under way.
    pub told_at: u64,
    /// How often the agent heard that it became unready, and looked again after it heard otherwise: its UDP flows of before may be
    /// another pod's. The second, as the agent may be doing what follows from the first until then.
    pub departures: u32,
    /// Whether the agent has not looked since it heard that the pod is ready again.
    pub has_returned: bool,
    /// Whether it was chosen to end.
    pub is_ending: bool,
    /// Whether it takes new connections: some close their listener when they are told to end.
    pub listens: bool,
    /// Whether the node's kernel does not have its sockets.
    pub is_hidden: bool,
    /// Half-open requests of strangers, by the second in which they end.
    half_open: [u32; EXPIRY_S],
    half_open_sum: u32,
}

/// Requests that a listener keeps half-open; with more it sends SYN cookies.
const BACKLOG: u32 = 4096;
/// How long a request of nobody stays: three SYN-ACKs are sent again.
const EXPIRY_S: usize = 15;

/// All pods that ever were.
pub struct Cluster {
    /// By number.
    pub pods: Vec<PodState>,
    free_addresses: Vec<[u8; 4]>,
    next_address: u32,
    /// Whether a new pod gets the address that was given back last.
    pub reuses_addresses: bool,
}

impl Cluster {
    /// Without pods.
    #[must_use]
    pub fn new(reuses_addresses: bool) -> Self {
        Self { pods: Vec::new(), free_addresses: Vec::new(), next_address: 0x0a01_0001, reuses_addresses }
    }

    /// A new pod, ready, of which the agent does not know yet.
    pub fn add(&mut self, service: usize, is_hidden: bool) -> Pod {
        let reused = if self.reuses_addresses { self.free_addresses.pop() } else { None };
        let address = reused.unwrap_or_else(|| {
            self.next_address += 1;
            self.next_address.to_be_bytes()
        });
        let is_taken = |id: &i32| self.pods.iter().any(|pod| pod.lives() && pod.netns_id == *id);
        let netns_id = (0..).find(|id| !is_taken(id)).unwrap_or_default();
        self.pods.push(PodState {
            service,
            address,
            netns_id,
            phase: Phase::Ready,
            known: None,
            told_at: 0,
            departures: 0,
            has_returned: false,
            is_ending: false,
            listens: true,
            is_hidden,
            half_open: [0; EXPIRY_S],
            half_open_sum: 0,
        });
        self.pods.len() as Pod - 1
    }

    /// A pod that is.
    #[must_use]
    pub fn pod(&self, pod: Pod) -> &PodState {
        &self.pods[pod as usize]
    }

    /// The pod changes; at its end it gives its address back.
    pub fn set(&mut self, pod: Pod, phase: Phase) {
        let state = &mut self.pods[pod as usize];
        state.phase = phase;
        state.departures += u32::from(phase == Phase::Unready);
        if phase == Phase::Gone {
            self.free_addresses.push(state.address);
        }
    }

    /// The pods of a service that are ready and shall not end, oldest first.
    pub fn ready(&self, service: usize) -> impl Iterator<Item = Pod> {
        let is_it = move |pod: &PodState| pod.service == service && pod.phase == Phase::Ready && !pod.is_ending;
        (0..).zip(&self.pods).filter(move |(_, pod)| is_it(pod)).map(|(number, _)| number)
    }

    /// Those that the agent gives new connections: ready ones, else those that end.
    #[must_use]
    pub fn takers(&self, service: usize) -> Vec<Pod> {
        let known = |phase| {
            let is_it = move |pod: &PodState| pod.service == service && pod.known == Some(phase);
            (0..).zip(&self.pods).filter(move |(_, pod)| is_it(pod)).map(|(number, _)| number).collect::<Vec<Pod>>()
        };
        let ready = known(Phase::Ready);
        if ready.is_empty() { known(Phase::Terminating) } else { ready }
    }
}

impl PodState {
    /// Whether it is there.
    #[must_use]
    pub fn lives(&self) -> bool {
        self.phase != Phase::Gone
    }

    /// Whether it serves what it has, and the agent has not heard otherwise.
    #[must_use]
    pub fn serves(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Terminating) && self.known != Some(Phase::Unready)
    }

    /// The agent hears how it is.
    pub fn tell(&mut self, phase: Phase) {
        self.has_returned |= self.known == Some(Phase::Unready) && phase != Phase::Unready;
        self.departures += u32::from(phase == Phase::Unready);
        self.known = Some(phase);
    }

    /// The agent looks at what it knows.
    pub fn looked_at(&mut self) {
        self.departures += u32::from(std::mem::take(&mut self.has_returned));
    }

    /// Its address and the port of its service.
    #[must_use]
    pub fn socket(&self) -> Socket {
        (self.address, SERVICES[self.service].target_port.to_be_bytes())
    }

    /// Its address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        Ipv4Addr::from(self.address).into()
    }

    /// Whether the next SYN is answered by a cookie.
    #[must_use]
    pub fn sends_cookies(&self) -> bool {
        self.half_open_sum >= BACKLOG
    }

    /// A SYN of nobody came at second `now_s`.
    pub fn take_spoofed(&mut self, now_s: u64) {
        if !self.sends_cookies() {
            self.half_open[(now_s as usize) % EXPIRY_S] += 1;
            self.half_open_sum += 1;
        }
    }

    /// The requests of so long ago end.
    pub fn expire(&mut self, now_s: u64) {
        let ended = std::mem::take(&mut self.half_open[(now_s as usize) % EXPIRY_S]);
        self.half_open_sum -= ended;
    }
}
