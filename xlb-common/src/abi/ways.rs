//! Ways back that are not those of the flows' entries any more: what the agent knows of next hops and uplinks that changed.

use bytemuck::{Pod, Zeroable};

/// Most ways that have moved.
pub const WAYS_MAX: u32 = 1_024;

/// Bits of [`Uplink::flags`](super::Uplink::flags).
pub mod uplink_flags {
    /// Clients of connections may come by another way than before: their packets are asked for it.
    pub const FOLLOW: u16 = 1;
    /// Replies that would leave here may have to take another way: `WAYS` says which.
    pub const MOVED: u16 = 2;
    /// Clients' packets bring entries back ([`crate::hot`]): as handshakes are many, which programs write to
    /// [`Uplink::hot`](super::Uplink::hot), or as FLOWS was full of connections that live, which the agent says.
    pub const HOT: u16 = 4;
}

/// Key of `WAYS`: how a flow's entry would send a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct WayKey {
    /// Index of the uplink.
    pub ifindex: u32,
    /// The next hop behind it; zero: every one that is not listed.
    pub next_hop_mac: [u8; 6],
    /// Always zero.
    pub zero: [u8; 2],
}
const _: () = assert!(size_of::<WayKey>() == 12);

impl WayKey {
    /// By this next hop.
    #[inline(always)]
    #[must_use]
    pub const fn of(ifindex: u32, next_hop_mac: [u8; 6]) -> Self {
        Self { ifindex, next_hop_mac, zero: [0; 2] }
    }

    /// By any next hop that is not listed.
    #[inline(always)]
    #[must_use]
    pub const fn any(ifindex: u32) -> Self {
        Self::of(ifindex, [0; 6])
    }
}

/// Value of `WAYS`: how a reply is sent instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Way {
    /// Index of the uplink; zero: nowhere, for the time being.
    pub ifindex: u32,
    /// MAC of the next hop; zero: the one of the flow's entry.
    pub next_hop_mac: [u8; 6],
    /// MAC that it is sent from.
    pub uplink_mac: [u8; 6],
}
const _: () = assert!(size_of::<Way>() == 16);
