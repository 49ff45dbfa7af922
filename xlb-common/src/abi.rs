//! What the maps hold, byte for byte: shared by the kernel programs and userspace. A change here raises [`ABI_VERSION`].
//!
//! Addresses and ports are in network byte order, in arrays; everything else is in the machine's order.

use core::net::{Ipv4Addr, SocketAddrV4};

use bytemuck::{Pod, Zeroable};

/// Version of this file. It is part of the pin directory's name, so that two versions never share a map.
pub const ABI_VERSION: u32 = 1;

/// Most frontends of one family.
pub const FRONTENDS_MAX: u32 = 65_536;
/// Most Service ports with a frontend.
pub const SERVICES_MAX: u32 = 65_536;
/// Words in the slot array: 8 MiB.
pub const SLOTS_MAX: u32 = 1 << 20;
/// Entries in the member array: 2 MiB.
pub const MEMBERS_MAX: u32 = 1 << 18;
/// Most backends on one node: 1 MiB.
pub const BACKENDS_MAX: u32 = 16_384;
/// Accepted flows of one family and protocol.
pub const FLOWS_MAX: u32 = 1 << 20;
/// Half-open TCP flows of one family. Flow-admission chapter 3: it must outlive the pod's SYN-ACK, and 64 k does.
pub const PENDING_MAX: u32 = 65_536;
/// Answered UDP flows of one family.
pub const UDP_FLOWS_MAX: u32 = 262_144;
/// UDP flows that no pod has answered yet.
pub const UDP_PENDING_MAX: u32 = 262_144;
/// Uplinks, by the low bits of their index.
pub const UPLINKS_MAX: u32 = 256;

/// IP protocol number of TCP (RFC 9293).
pub const TCP: u8 = 6;
/// IP protocol number of UDP (RFC 768).
pub const UDP: u8 = 17;

/// Key of `FRONTENDS_V4` and `BACKEND_IDS_V4`: an address, a protocol and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct EndpointKeyV4 {
    /// IPv4 address.
    pub address: [u8; 4],
    /// Port, network byte order.
    pub port: [u8; 2],
    /// IP protocol number.
    pub protocol: u8,
    /// Always zero.
    pub zero: u8,
}
const _: () = assert!(size_of::<EndpointKeyV4>() == 8);

/// Key of the flow maps: the two ends as the pod sees them. TCP and UDP have maps of their own, so no protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct FlowKeyV4 {
    /// The client's address.
    pub client: [u8; 4],
    /// The pod's address.
    pub pod: [u8; 4],
    /// The client's port, network byte order.
    pub client_port: [u8; 2],
    /// The pod's port, network byte order.
    pub pod_port: [u8; 2],
}
const _: () = assert!(size_of::<FlowKeyV4>() == 12);

/// A reference to a backend. It counts only while the backend still has this generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Member {
    /// Index into `BACKENDS`.
    pub backend: u32,
    /// The backend's generation when the reference was made.
    pub generation: u32,
}
const _: () = assert!(size_of::<Member>() == 8);

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
    pub flags: u32,
    /// Always zero.
    pub zero: u32,
}
const _: () = assert!(size_of::<Frontend>() == 32);

/// Bits of [`Frontend::flags`].
pub mod frontend_flags {
    /// Without a usable backend packets are dropped (`externalTrafficPolicy: Local`); else they are passed on.
    pub const DROP_WHEN_EMPTY: u32 = 1;
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
    /// 4 for IPv4.
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
    /// Address and port of an IPv4 backend.
    #[must_use]
    pub fn socket_v4(&self) -> SocketAddrV4 {
        let [a, b, c, d, ..] = self.address;
        SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes(self.port))
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

/// Value of the flow maps: what a reply needs to look as if the VIP had sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FlowEntry {
    /// The VIP; an IPv4 address is in the first four bytes.
    pub vip: [u8; 16],
    /// The VIP's port, network byte order.
    pub vip_port: [u8; 2],
    /// [`flow_flags`].
    pub flags: u16,
    /// Id of the Service port.
    pub service: u32,
    /// Id of the backend.
    pub backend: u32,
    /// Interface on which the client's packet arrived: replies leave there.
    pub ingress_ifindex: u32,
    /// MAC that a reply is sent to: the sender of the client's packet.
    pub next_hop_mac: [u8; 6],
    /// MAC that a reply is sent from: the one the client's packet was sent to.
    pub uplink_mac: [u8; 6],
    /// Acknowledgement number of the pod's SYN-ACK, host byte order; counts with `SYN_ACK_SEEN`.
    pub syn_ack_acknowledged: u32,
    /// Low bits of the kernel's jiffies when the entry was last written.
    pub last_seen: u32,
}
const _: () = assert!(size_of::<FlowEntry>() == 52);

/// Bits of [`FlowEntry::flags`].
pub mod flow_flags {
    /// The backend was served through the host's stack: the reply is restored at the uplink, after netfilter.
    pub const STACK: u16 = 1;
    /// The pod has answered with a SYN-ACK.
    pub const SYN_ACK_SEEN: u16 = 2;
    /// The pod's socket is closed (it may linger in TIME_WAIT).
    pub const CLOSED: u16 = 4;
}

impl FlowEntry {
    /// Whether replies pass through the host's stack.
    #[inline(always)]
    #[must_use]
    pub fn is_stack(&self) -> bool {
        self.flags & flow_flags::STACK != 0
    }

    /// Whether the pod's socket is closed.
    #[inline(always)]
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.flags & flow_flags::CLOSED != 0
    }
}

/// The one entry of `CONFIG`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Config {
    /// Not zero while a backend is served through the stack: `uplink_egress` has work.
    pub stack_in_use: u32,
    /// Always zero.
    pub zero: u32,
    /// Counts the completed updates of the maps.
    pub generation: u64,
}
const _: () = assert!(size_of::<Config>() == 16);

/// Value of `UPLINKS` at index `ifindex % UPLINKS_MAX`: which frames are addressed to this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Uplink {
    /// Index of the interface; zero: none.
    pub ifindex: u32,
    /// Its MAC.
    pub mac: [u8; 6],
    /// Always zero.
    pub zero: [u8; 2],
}
const _: () = assert!(size_of::<Uplink>() == 12);

/// Bytes kept of a Service port's name: `namespace/name:port/udp`, each part at most 63 (RFC 1123).
pub const SERVICE_NAME_MAX: usize = 200;

/// Value of `SERVICES`: what the agent must find again after a restart, and what `xlb inspect` shows.
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
    /// The flow.
    pub flow: FlowKeyV4,
    /// Network namespace id of the pod.
    pub netns_id: i32,
}
const _: () = assert!(size_of::<ProofQuestion>() == 32);
