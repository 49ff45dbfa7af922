//! What the path asks of the maps and of the pods' kernels, whoever answers.

use core::ops::Deref;

use crate::abi::{
    AffinityEntry, Backend, FlowEntry, FragmentEntry, Frontend, Member, ServiceStats, Settings, SoleFrontend, Way,
    WayKey,
};
use crate::admit::acknowledged;
use crate::budget::Spending;
use crate::family::Family;
use crate::handover::pick_by_entry;
use crate::hot::is_to_relearn;
use crate::opening::{Opening, note_opening};
use crate::parse::{Parsed, TcpView};
use crate::reason::Reason;
use crate::select::{Pick, pick_by_asking, pick_unclaimed};
use crate::slot::SlotWord;
use crate::sources;

/// What the pod's kernel knows of a TCP flow (`bpf_skc_lookup_tcp` in the pod's namespace, flow-admission chapter 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// No socket at all: nobody listens, or the pod's sockets are not this kernel's.
    Absent,
    /// Only the listener (TCP_LISTEN, 10): an unknown flow, or one that waits behind a SYN cookie.
    Listening,
    /// A request that is not complete (TCP_NEW_SYN_RECV, 12): a handshake, or a spoofed SYN.
    HalfOpen,
    /// A connection that ended a moment ago (TCP_TIME_WAIT, 6).
    TimeWait,
    /// A connection.
    Owned,
}

impl Proof {
    /// From the state of the socket found; the numbers are those of include/net/tcp_states.h.
    #[inline(always)]
    #[must_use]
    pub const fn from_state(state: u32) -> Self {
        match state {
            10 => Self::Listening,
            12 => Self::HalfOpen,
            6 => Self::TimeWait,
            _ => Self::Owned,
        }
    }
}

/// Which of a family's flow maps: protocols are kept apart, so that a flood of one cannot evict another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowTable {
    /// Accepted TCP flows.
    Tcp,
    /// TCP flows that no pod has accepted yet.
    TcpPending,
    /// Answered UDP flows.
    Udp,
    /// UDP flows that no pod has answered yet.
    UdpPending,
    /// Accepted SCTP associations.
    Sctp,
    /// SCTP associations that no pod has accepted yet.
    SctpPending,
}

/// A step of the path, told to whoever explains it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stage {
    /// The frontend was found.
    Frontend(Frontend),
    /// The frontend has source ranges, and the client was looked for in them.
    Source {
        /// Whether one of them contains it.
        is_allowed: bool,
    },
    /// The flow belongs to this slot of the service.
    Slot {
        /// Number within the service.
        index: u32,
        /// What the slot holds.
        word: SlotWord,
    },
    /// A present or former owner was asked whether the flow is its own.
    Asked {
        /// Local index of the owner.
        owner: u8,
        /// Id of the backend.
        backend: u32,
        /// What its kernel said.
        proof: Proof,
    },
    /// A present or former owner was looked for in the flow maps.
    LookedUp {
        /// Local index of the owner.
        owner: u8,
        /// Id of the backend.
        backend: u32,
        /// Whether a flow map knows the flow with it.
        found: bool,
    },
    /// The connection that the owner's kernel holds is one to another frontend.
    OtherFrontend {
        /// Local index of the owner.
        owner: u8,
    },
    /// The client's port has a flow with another frontend of a pod: what was told before begins anew.
    PortTaken,
    /// The pod sees the flow come from this port of the client's address, network byte order.
    Seat {
        /// The client's own, or another one.
        port: [u8; 2],
    },
    /// The client's last connection to the service was looked up, and found.
    Affinity {
        /// Id of the backend that it went to.
        backend: u32,
        /// How long ago.
        age_ns: u64,
        /// Whether the backend still takes new connections of this slot, and the timeout has not passed.
        is_followed: bool,
    },
    /// The backend was chosen.
    Chosen(Backend),
}

/// The body of a loop with what it works on. Its type says which function it is: the verifier follows no pointer to one.
pub trait Step<T> {
    /// Does it for one index. Whether the loop ends here.
    fn step(&mut self, tables: &T, index: u32) -> bool;
}

/// A unit of [`Tables::now`]: 2^30 ns, or 1.07 s.
pub const NOW_NS: u64 = 1 << NOW_BITS;
const NOW_BITS: u32 = 30;

/// [`Tables::now`] by the monotonic clock in nanoseconds.
#[inline(always)]
#[must_use]
pub const fn now_of(ns: u64) -> u32 {
    (ns >> NOW_BITS) as u32
}

/// The maps and the pods' kernels.
pub trait Tables<F: Family> {
    /// A flow's entry where it is.
    type Flow: Deref<Target = FlowEntry>;

    /// The frontend of a VIP, port and protocol: where it is, so that a program need not copy it.
    fn frontend(&self, key: F::EndpointKey) -> Option<impl Deref<Target = Frontend>>;
    /// A word of `SLOTS`.
    fn slot(&self, index: u32) -> Option<SlotWord>;
    /// An entry of `MEMBERS`.
    fn member(&self, index: u32) -> Option<Member>;
    /// An entry of `BACKENDS`: where it is, as a frontend.
    fn backend(&self, id: u32) -> Option<impl Deref<Target = Backend>>;
    /// Whether an address, port and protocol are a backend's.
    fn is_backend(&self, key: &F::EndpointKey) -> bool;
    /// The only frontend that ever led to a backend ([`crate::sole`]).
    fn sole_frontend(&self, pod: &F::EndpointKey) -> Option<SoleFrontend>;
    /// How the host sends to a client by the node's only uplink, in a VIP's name.
    fn route(&self, vip: F::Address, client: F::Address) -> Option<Way>;
    /// Whether a frame with this destination MAC is addressed to this node's uplink.
    fn is_our_mac(&self, ifindex: u32, mac: [u8; 6]) -> bool;
    /// What is to be minded at an uplink; of an interface that is none, [`uplink_flags::MOVED`](crate::abi::uplink_flags::MOVED).
    fn uplink_flags(&self, ifindex: u32) -> u16;
    /// Counts a handshake that begins at an uplink, and lets its flags say whether times are hot.
    fn note_half_open(&self, ifindex: u32);
    /// Where replies go that would go this way.
    fn way(&self, key: &WayKey) -> Option<Way>;
    /// A flow's entry where it is, for a look or two: another flow may have its place soon.
    fn flow_at(&self, table: FlowTable, key: &F::FlowKey) -> Option<Self::Flow>;
    /// A flow's entry.
    #[inline(always)]
    fn flow(&self, table: FlowTable, key: &F::FlowKey) -> Option<FlowEntry> {
        self.flow_at(table, key).map(|entry| *entry)
    }
    /// Writes a flow's entry, new or not.
    fn remember(&self, table: FlowTable, key: &F::FlowKey, entry: &FlowEntry);
    /// Removes a flow's entry, if it is there.
    fn forget(&self, table: FlowTable, key: &F::FlowKey);
    /// Changes a flow's entry where it is. False: it is not there.
    fn change(&self, table: FlowTable, key: &F::FlowKey, change: impl FnOnce(&mut FlowEntry)) -> bool;
    /// Whether a service's source ranges contain a client.
    fn is_allowed_source(&self, service: u32, client: F::Address) -> bool;
    /// Where a client's last connection to a service went.
    fn affinity(&self, service: u32, client: F::Address) -> Option<AffinityEntry>;
    /// Writes where a client's last connection to a service went.
    fn record_affinity(&self, service: u32, client: F::Address, entry: &AffinityEntry);
    /// Where the first fragment of a datagram went.
    fn fragment(&self, key: &F::FragmentKey) -> Option<FragmentEntry>;
    /// Writes where the first fragment of a datagram went.
    fn record_fragment(&self, key: &F::FragmentKey, entry: &FragmentEntry);
    /// What the pod's kernel says of a TCP flow.
    fn prove(&self, backend: &Backend, key: &F::FlowKey) -> Proof;
    /// Whether this kernel gave the SYN cookie that the segment acknowledges, in the name of the key's pod: it keeps nothing of
    /// such a handshake, and knows its cookies (RFC 4987 chapter 3.6).
    fn gave_cookie(&self, key: &F::FlowKey, tcp: &TcpView) -> bool;
    /// Where the last search for the owner of a flow, by its client and VIP, found it.
    fn pin(&self, key: &F::FlowKey) -> Option<Member>;
    /// Writes that.
    fn record_pin(&self, key: &F::FlowKey, member: &Member);
    /// The kernel's monotonic clock in units of [`NOW_NS`], its low bits.
    fn now(&self) -> u32;
    /// The kernel's monotonic clock in nanoseconds, as of its last tick.
    fn now_ns(&self) -> u64;
    /// The node's address on an uplink, from which it reports errors.
    fn report_address(&self, ifindex: u32) -> Option<F::Address>;
    /// Whether one more may be spent now; if so, it counts as spent.
    fn may_spend(&self, spending: Spending) -> bool;
    /// [`vip_flags`](crate::abi::vip_flags) of an address, if it is a VIP.
    fn vip(&self, address: F::Address) -> Option<u32>;
    /// What the operator chose.
    fn settings(&self) -> Settings;
    /// Counts a packet.
    fn count(&self, reason: Reason);
    /// Changes the numbers of a service, if services are counted; by its index in `SERVICE_STATS`.
    fn count_service(&self, index: u16, change: impl FnOnce(&mut ServiceStats));
    /// Takes a step for 0, 1, ... below `count`, until one ends the loop; the body as the last one left it. In the kernel
    /// the verifier follows one step for all of them.
    #[inline(always)]
    fn each_until<S: Step<Self>>(&self, count: u32, mut body: S) -> S
    where
        Self: Sized,
    {
        for index in 0..count {
            if body.step(self, index) {
                break;
            }
        }
        body
    }
    /// [`pick_by_asking`]. This and the six below are what few packets need: in the kernel each is a function that the
    /// verifier walks through by itself, whoever calls it.
    #[inline(always)]
    fn ask_owners(&self, frontend: &Frontend, parsed: &Parsed<F>, is_by_client: bool) -> Pick
    where
        Self: Sized,
    {
        pick_by_asking::<F, Self, false>(self, frontend, parsed, is_by_client)
    }
    /// [`pick_unclaimed`].
    #[inline(always)]
    fn search_owner(&self, frontend: &Frontend, parsed: &Parsed<F>, waiting: Pick) -> Pick
    where
        Self: Sized,
    {
        pick_unclaimed::<F, Self, false>(self, frontend, parsed, waiting)
    }
    /// [`pick_by_entry`].
    #[inline(always)]
    fn ask_entries(&self, frontend: &Frontend, parsed: &Parsed<F>) -> Pick
    where
        Self: Sized,
    {
        pick_by_entry(self, frontend, parsed)
    }
    /// [`sources::admit`].
    #[inline(always)]
    fn admit_source(&self, frontend: &Frontend, parsed: &Parsed<F>, pick: Pick) -> Result<(), Reason>
    where
        Self: Sized,
    {
        sources::admit::<F, Self, false>(self, frontend, parsed, pick)
    }
    /// [`is_to_relearn`].
    #[inline(always)]
    fn is_to_relearn(&self, parsed: &Parsed<F>, pick: Pick) -> bool
    where
        Self: Sized,
    {
        is_to_relearn(self, parsed, pick)
    }
    /// [`acknowledged`].
    #[inline(always)]
    fn hear_client(&self, parsed: &Parsed<F>, pick: Pick) -> Pick
    where
        Self: Sized,
    {
        acknowledged(self, parsed, pick)
    }
    /// [`note_opening`].
    #[inline(always)]
    fn open(&self, opening: &Opening<F>) -> Result<bool, Reason>
    where
        Self: Sized,
    {
        note_opening(self, opening)
    }
    /// Hears of a stage; only `explain` listens.
    #[inline(always)]
    fn note(&self, _stage: Stage) {}
}
