//! What travels, in the words that every design needs; only xlb makes frames of it.

use xlb_common::abi::{TCP, UDP};
use xlb_common::parse::tcp_flags::{ACK, FIN, RST, SYN};
use xlb_common::tables::Proof;

/// An IPv4 address with a port, network byte order.
pub type Socket = ([u8; 4], [u8; 2]);

/// Number of a pod that no other pod of the run has.
pub type Pod = u32;

/// What a packet is, as far as anybody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// The first one of a connection.
    Syn,
    /// Its answer.
    SynAck,
    /// An acknowledgement alone.
    Ack,
    /// With payload.
    Data,
    /// The last one with payload.
    Fin,
    /// A reset.
    Reset,
    /// UDP.
    Datagram,
}

impl Segment {
    /// IP protocol number.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        if matches!(self, Self::Datagram) { UDP } else { TCP }
    }

    /// TCP's flags.
    #[must_use]
    pub const fn flags(self) -> u8 {
        match self {
            Self::Syn => SYN,
            Self::SynAck => SYN | ACK,
            Self::Ack | Self::Data => ACK,
            Self::Fin => FIN | ACK,
            Self::Reset => RST,
            Self::Datagram => 0,
        }
    }

    /// Bytes of payload.
    #[must_use]
    pub const fn payload(self) -> u8 {
        matches!(self, Self::Data | Self::Datagram) as u8
    }
}

/// A packet of a client to a VIP, or of a pod to a client.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Who sends it.
    pub source: Socket,
    /// To whom.
    pub destination: Socket,
    /// What it is.
    pub segment: Segment,
    /// The last byte of its sequence number, as far as anybody looks.
    pub sequence: u8,
    /// The last byte of its acknowledgement number.
    pub acknowledged: u8,
}

impl Packet {
    /// A packet of a client, which has heard of this pod, if of any: an acknowledgement is of its SYN-ACK.
    #[must_use]
    pub const fn of_client(client: Socket, vip: Socket, segment: Segment, pod: Pod) -> Self {
        let acknowledged = if matches!(segment, Segment::Ack | Segment::Data) { number_of(pod) + 1 } else { 0 };
        Self { source: client, destination: vip, segment, sequence: 0, acknowledged }
    }

    /// A packet of a pod: a SYN-ACK has the pod's number, and acknowledges the SYN, all others more.
    #[must_use]
    pub const fn of_pod((pod, socket): (Pod, Socket), client: Socket, segment: Segment) -> Self {
        let (sequence, acknowledged) = if matches!(segment, Segment::SynAck) { (number_of(pod), 1) } else { (0, 2) };
        Self { source: socket, destination: client, segment, sequence, acknowledged }
    }
}

/// The number that a pod's SYN-ACKs have: another one than those of its neighbours.
#[must_use]
pub const fn number_of(pod: Pod) -> u8 {
    (pod % 251) as u8
}

/// What a pod's kernel has of one tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whose kernel.
    pub pod: Pod,
    /// That pod's network namespace, as the node numbers it.
    pub netns_id: i32,
    /// That pod's address.
    pub address: [u8; 4],
    /// In which state.
    pub state: State,
    /// From this tick on it has nothing.
    pub until: u32,
}

/// A state of a tuple in a pod's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing.
    Nothing,
    /// A SYN cookie went out: the kernel holds nothing, and knows the acknowledgement nevertheless.
    Cookie,
    /// A request socket.
    HalfOpen,
    /// A connection.
    Open,
    /// A connection that ended a moment ago.
    TimeWait,
}

impl State {
    /// What `bpf_skc_lookup_tcp` finds: the listener, where there is nothing else.
    #[must_use]
    pub const fn proof(self) -> Proof {
        match self {
            Self::Nothing | Self::Cookie => Proof::Listening,
            Self::HalfOpen => Proof::HalfOpen,
            Self::Open => Proof::Owned,
            Self::TimeWait => Proof::TimeWait,
        }
    }
}

/// Pods whose kernels may have something of one tuple; more never do.
pub const HOLDERS: usize = 3;

/// What the pods' kernels have of one tuple.
#[derive(Clone, Copy, Debug)]
pub struct Holders(pub [Held; HOLDERS]);

const NOBODY: Held = Held { pod: Pod::MAX, netns_id: i32::MIN, address: [0; 4], state: State::Nothing, until: 0 };

impl Holders {
    /// Nobody has anything.
    pub const NONE: Self = Self([NOBODY; HOLDERS]);

    /// The place of a pod's state, if it has one now.
    #[must_use]
    pub fn of(&self, pod: Pod, now: u32) -> Option<usize> {
        self.0.iter().position(|held| held.pod == pod && held.state != State::Nothing && now < held.until)
    }

    /// Without what pods have that do not live: their sockets went with them, whoever has their address now.
    #[must_use]
    pub fn of_living(mut self, lives: impl Fn(Pod) -> bool) -> Self {
        self.0.iter_mut().filter(|held| held.pod != Pod::MAX && !lives(held.pod)).for_each(|held| *held = NOBODY);
        self
    }

    /// The state with this pod now.
    #[must_use]
    pub fn state(&self, pod: Pod, now: u32) -> State {
        self.of(pod, now).map_or(State::Nothing, |at| self.0[at].state)
    }

    /// Notes what a pod's kernel has from now on; the oldest note gives way.
    pub fn note(&mut self, held: Held, now: u32) {
        let free = || self.0.iter().position(|other| other.state == State::Nothing || other.until <= now);
        let at = self.of(held.pod, now).or_else(free).unwrap_or(0);
        self.0[at] = held;
    }
}
