//! What the maps hold, byte for byte: shared by the kernel programs and userspace. A change here raises [`ABI_VERSION`].
//!
//! Addresses and ports are in network byte order, in arrays; everything else is in the machine's order.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytemuck::{Pod, Zeroable};

pub use self::flows::{FlowEntry, flow_flags};
pub use self::fragments::{FRAGMENTS_MAX, FragmentEntry, FragmentKeyV4, FragmentKeyV6, fragment_kind};
pub use self::inside::{
    ENDPOINTS_MAX, INSIDE_AFFINITY_MAX, INSIDE_FLOWS_MAX, INSIDE_UDP_FLOWS_MAX, Inside, InsideAffinity,
    InsideAffinityKey, InsideFlow, InsideFlowKey, NETNS_ADDRESSES_MAX, NetnsAddressKey, inside_flags,
};
pub use self::keys::{EndpointKeyV4, EndpointKeyV6, FlowKeyV4, FlowKeyV6, SourceKeyV4, SourceKeyV6};
pub use self::links::{CLIENT_LINKS_MAX, LINK_AFFINITY_MAX, LINK_FLOWS_MAX, LINK_UDP_FLOWS_MAX, LinkFlowKey};
pub use self::places::{DIRECTORY_WORDS, PlaceV4, PlaceV6};
pub use self::settings::{Config, Settings, vip_flags};
pub use self::sole::{CLUSTER_NETWORKS, SoleFrontend};
pub use self::stats::{COUNTED_SERVICES_MAX, OTHER_SERVICES, SERVICE_STATS_MAX, ServiceStats, stats_index};
pub use self::tags::Tags;
pub use self::ways::{WAYS_MAX, Way, WayKey, uplink_flags};

mod keys;
mod flows;
mod fragments;
mod inside;
mod links;
mod places;
mod settings;
mod sole;
mod stats;
mod tags;
mod ways;

/// Version of this file. It is part of the pin directory's name, so that two versions never share a map.
pub const ABI_VERSION: u32 = 8;

/// Most frontends of one family.
pub const FRONTENDS_MAX: u32 = 65_536;
/// Frontends of one family that packets find without a hash map, of [`FRONTENDS_MAX`]: every second one.
pub const PLACES_MAX: u32 = FRONTENDS_MAX / 2;
/// Most Service ports with a frontend.
pub const SERVICES_MAX: u32 = 65_536;
/// Words in the slot array: 8 MiB.
pub const SLOTS_MAX: u32 = 1 << 20;
/// Entries in the member array: 2 MiB.
pub const MEMBERS_MAX: u32 = 1 << 18;
/// Most backends on one node: 1 MiB.
pub const BACKENDS_MAX: u32 = 16_384;
/// Most that [`BACKENDS_MAX`] may be changed to: a [`Member`] names a backend by 16 bits, of which the last number is none.
pub const BACKENDS_LIMIT: u32 = u16::MAX as u32;
/// Accepted IPv4 TCP flows.
pub const FLOWS_MAX: u32 = 1 << 20;
/// Half-open TCP flows of one family: it must outlive a round trip, under a flood of 200 000 SYNs a second as well
/// (`docs/decisions/0044-flow-map-sizes.md`).
pub const PENDING_MAX: u32 = 262_144;
/// Answered IPv4 UDP flows.
pub const UDP_FLOWS_MAX: u32 = 262_144;
/// IPv4 UDP flows that no pod has answered yet.
pub const UDP_PENDING_MAX: u32 = 262_144;
/// Accepted IPv6 TCP flows: an entry costs half as much again as one of IPv4.
pub const FLOWS_V6_MAX: u32 = 262_144;
/// Answered IPv6 UDP flows, and as many that no pod has answered yet.
pub const UDP_FLOWS_V6_MAX: u32 = 65_536;
/// Accepted SCTP associations of one family.
pub const SCTP_FLOWS_MAX: u32 = 16_384;
/// SCTP associations of one family that no pod has accepted yet: an entry must outlive the pod's answer, no more.
pub const SCTP_PENDING_MAX: u32 = 4_096;
/// Flows of one family whose owner was searched for and found.
pub const PINS_MAX: u32 = 65_536;
/// Source ranges of all services of one family.
pub const SOURCE_RANGES_MAX: u32 = 65_536;
/// Clients of one family whose last backend is remembered.
pub const AFFINITY_MAX: u32 = 65_536;
/// Most VIPs of one family.
pub const VIPS_MAX: u32 = FRONTENDS_MAX;
/// Uplinks, by the low bits of their index.
pub const UPLINKS_MAX: u32 = 256;

/// IP protocol number of TCP (RFC 9293).
pub const TCP: u8 = 6;
/// IP protocol number of UDP (RFC 768).
pub const UDP: u8 = 17;
/// IP protocol number of SCTP (RFC 9260).
pub const SCTP: u8 = 132;

/// Value of `AFFINITY_V4` and `AFFINITY_V6`, whose keys are [`SourceKeyV4`] and [`SourceKeyV6`]: where the client's last
/// new connection went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct AffinityEntry {
    /// Id of the backend.
    pub backend: u32,
    /// The backend's generation then.
    pub generation: u32,
    /// When, in nanoseconds of the kernel's monotonic clock.
    pub last_new_ns: u64,
}
const _: () = assert!(size_of::<AffinityEntry>() == 16);

/// A reference to a backend. It counts only while the backend still has this generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Member {
    /// Index into `BACKENDS`.
    pub backend: u16,
    /// [`member_flags`].
    pub flags: u16,
    /// The backend's generation when the reference was made.
    pub generation: u32,
}
const _: () = assert!(size_of::<Member>() == 8);
const _: () = assert!(BACKENDS_MAX <= BACKENDS_LIMIT);

/// Bits of [`Member::flags`].
pub mod member_flags {
    /// The backend gets no new connections of this service, whatever a client's affinity says.
    pub const TAKES_NO_NEW: u16 = 1;
    /// A slot's word had no room for it any more when it was an owner before others: packets of flows that nobody named
    /// there has a claim on may be its own.
    pub const FORGOTTEN: u16 = 2;
}

impl Member {
    /// Index into `BACKENDS`.
    #[inline(always)]
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.backend as u32
    }

    /// Whether the backend gets new connections of this service.
    #[inline(always)]
    #[must_use]
    pub const fn takes_new(&self) -> bool {
        self.flags & member_flags::TAKES_NO_NEW == 0
    }

    /// Whether a slot had no room for it any more.
    #[inline(always)]
    #[must_use]
    pub const fn is_forgotten(&self) -> bool {
        self.flags & member_flags::FORGOTTEN != 0
    }
}

/// Value of `FRONTENDS_V4`: where a VIP, port and protocol lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Frontend {
    /// Id of the Service port, key of `SERVICES`.
    pub service: u32,
    /// First of the service's words in `SLOTS`.
    pub slots_base: u32,
    /// How many words; zero: the service has exactly one backend, [`Frontend::sole`].
    pub slots: u32,
    /// First of the service's entries in `MEMBERS`.
    pub members_base: u32,
    /// The only backend, when there are no slots.
    pub sole: Member,
    /// [`frontend_flags`].
    pub flags: u16,
    /// How many entries the service has in `MEMBERS`.
    pub members: u16,
    /// How long after its last new connection a client's next one goes to the same backend, in seconds; zero: no
    /// affinity.
    pub affinity_s: u32,
}
const _: () = assert!(size_of::<Frontend>() == 32);

impl Frontend {
    /// Whether one of [`frontend_flags`] is set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Bits of [`Frontend::flags`].
pub mod frontend_flags {
    /// Without a usable backend packets are dropped (`externalTrafficPolicy: Local`); else they are passed on.
    pub const DROP_WHEN_EMPTY: u16 = 1;
    /// No backend is usable in the whole cluster: new flows are refused by ICMP.
    pub const REJECT_WHEN_EMPTY: u16 = 2;
    /// New flows only from clients that `SOURCE_RANGES` lists.
    pub const SOURCE_RANGES: u16 = 4;
    /// Affinity was switched on or off while the service had connections: they may lie where the other hash of their
    /// flow leads.
    pub const REHASHED: u16 = 8;
    /// The host's stack served the frontend a while ago and may hold TCP connections to it ([`crate::handover`]).
    pub const HOST_BEFORE: u16 = 16;
    /// A pod of the service went a short while ago, and its connections' clients may not know: their segments are strays, and
    /// the pod that gets them refuses them.
    pub const STRAYS: u16 = 32;
}

/// Value of `BACKENDS`: one pod port on this node, in one cache line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Backend {
    /// The pod's address; an IPv4 address is in the first four bytes.
    pub address: [u8; 16],
    /// Grows each time this id gets a new meaning, so that an old reference is seen to be old.
    pub generation: u32,
    /// [`backend_flags`]; without `IN_USE` the id is free.
    pub flags: u32,
    /// The host's end of the pod's link; zero when it has none.
    pub ifindex: u32,
    /// Network namespace id of the pod, as seen from this node; [`NETNS_HOST`] for the node's own.
    pub netns_id: i32,
    /// MAC of the pod's end of the link.
    pub pod_mac: [u8; 6],
    /// MAC of the host's end of the link.
    pub host_mac: [u8; 6],
    /// The pod's port, network byte order.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Always zero.
    pub zero: [u8; 16],
}
const _: () = assert!(size_of::<Backend>() == 64);

/// [`Backend::netns_id`] of a pod on the host's network (BPF_F_CURRENT_NETNS).
pub const NETNS_HOST: i32 = -1;

/// Bits of [`Backend::flags`].
pub mod backend_flags {
    /// The entry is a backend.
    pub const IN_USE: u32 = 1;
    /// Packets are handed to the pod's link and replies to the uplink, past the host's stack; else through the stack.
    pub const DIRECT: u32 = 2;
    /// The pod's sockets cannot be asked: its flow entries have to do.
    pub const HIDDEN: u32 = 4;
    /// The pod's link takes frames redirected by XDP.
    pub const TAKES_XDP: u32 = 8;
}

impl Backend {
    /// Address and port.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        let [a, b, c, d, ..] = self.address;
        let port = u16::from_be_bytes(self.port);
        match self.family {
            6 => SocketAddr::from((Ipv6Addr::from(self.address), port)),
            _ => SocketAddr::from((Ipv4Addr::new(a, b, c, d), port)),
        }
    }

    /// Whether the entry is a backend.
    #[inline(always)]
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.flags & backend_flags::IN_USE != 0
    }

    /// Whether packets go past the host's stack.
    #[inline(always)]
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.flags & backend_flags::DIRECT != 0
    }

    /// Whether the pod's sockets cannot be asked.
    #[inline(always)]
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.flags & backend_flags::HIDDEN != 0
    }

    /// Whether an XDP program may redirect to the pod's link.
    #[inline(always)]
    #[must_use]
    pub fn takes_xdp(&self) -> bool {
        self.flags & (backend_flags::TAKES_XDP | backend_flags::DIRECT)
            == backend_flags::TAKES_XDP | backend_flags::DIRECT
    }
}

/// Value of `UPLINKS` at index `ifindex % UPLINKS_MAX`: which frames are addressed to this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Uplink {
    /// Index of the interface; zero: none.
    pub ifindex: u32,
    /// Its MAC.
    pub mac: [u8; 6],
    /// [`uplink_flags`].
    pub flags: u16,
    /// The node's IPv4 address there, from which it reports errors to clients; zero: it has none.
    pub address_v4: [u8; 4],
    /// The node's IPv6 address there; zero: it has none.
    pub address_v6: [u8; 16],
    /// [`uplink_flags::HOT`], or zero. Programs write it, where the agent does not write.
    pub hot: u16,
    /// Always zero.
    pub zero: [u8; 2],
}
const _: () = assert!(size_of::<Uplink>() == 36);

/// Bytes kept of a Service port's name: `namespace/name:port/udp`, each part at most 63 (RFC 1123).
pub const SERVICE_NAME_MAX: usize = 200;

/// Value of `SERVICES`: what the agent must find again after a restart, and what `xlb services` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ServiceRecord {
    /// First of its words in `SLOTS`.
    pub slots_base: u32,
    /// Words in `SLOTS`; zero: none.
    pub slots: u32,
    /// First of its entries in `MEMBERS`.
    pub members_base: u32,
    /// Entries in `MEMBERS`.
    pub members: u32,
    /// Bytes used of `name`.
    pub name_length: u32,
    /// `namespace/name:port/protocol`.
    pub name: [u8; SERVICE_NAME_MAX],
}
const _: () = assert!(size_of::<ServiceRecord>() == 220);

/// Question to the `prove` program (by test-run): which state has the socket of this flow in that namespace?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ProofQuestion {
    /// Always zero: room for the Ethernet header that a test-run wants.
    pub ethernet: [u8; 16],
    /// The flow; of IPv4 addresses the first four bytes count.
    pub flow: FlowKeyV6,
    /// Network namespace id of the pod.
    pub netns_id: i32,
    /// 4 or 6.
    pub family: u32,
}
const _: () = assert!(size_of::<ProofQuestion>() == 60);
