//! What the operator chose for packets to a VIP that go to no pod.

use bytemuck::{Pod, Zeroable};

/// The one entry of `CONFIG`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Config {
    /// Not zero while a backend is served through the stack: `uplink_egress` has work.
    pub stack_in_use: u32,
    /// What the operator chose.
    pub settings: Settings,
    /// Counts the completed updates of the maps.
    pub generation: u64,
    /// Index of the node's uplink, if it has only one; else zero.
    pub only_uplink: u32,
    /// Always zero.
    pub zero: u32,
}
const _: () = assert!(size_of::<Config>() == 24);

/// A part of `CONFIG`: bits, so that a new choice takes effect with one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Settings(u32);

impl Settings {
    /// Nothing is answered or stopped; TCP is refused by ICMP.
    pub const NONE: Self = Self(0);

    const ANSWERS_ECHO: u32 = 1;
    const DROPS_UNOWNED: u32 = 2;
    const REJECTS_UNOWNED: u32 = 4;
    const RESETS_TCP: u32 = 8;
    const PODS_ARE_CLUSTERS: u32 = 16;

    /// Echo requests to a VIP with a usable backend are answered.
    #[must_use]
    pub const fn with_echo(self) -> Self {
        Self(self.0 | Self::ANSWERS_ECHO)
    }

    /// Packets to a port of a VIP that no service has are dropped.
    #[must_use]
    pub const fn with_unowned_dropped(self) -> Self {
        Self(self.0 | Self::DROPS_UNOWNED)
    }

    /// Packets that begin a flow to a port of a VIP that no service has are refused, others are dropped.
    #[must_use]
    pub const fn with_unowned_rejected(self) -> Self {
        Self(self.0 | Self::REJECTS_UNOWNED)
    }

    /// TCP is refused by a reset instead of an ICMP error.
    #[must_use]
    pub const fn with_tcp_reset(self) -> Self {
        Self(self.0 | Self::RESETS_TCP)
    }

    /// Clients outside of the cluster reach pods by VIPs alone (`--pod-ips cluster-only`).
    #[must_use]
    pub const fn with_pods_of_cluster(self) -> Self {
        Self(self.0 | Self::PODS_ARE_CLUSTERS)
    }

    /// Clients outside of the cluster may reach pods by their own addresses (`--pod-ips routed`).
    #[must_use]
    pub const fn without_pods_of_cluster(self) -> Self {
        Self(self.0 & !Self::PODS_ARE_CLUSTERS)
    }

    /// Whether echo requests are answered.
    #[inline(always)]
    #[must_use]
    pub const fn answers_echo(self) -> bool {
        self.0 & Self::ANSWERS_ECHO != 0
    }

    /// Whether packets to unowned ports are not passed on.
    #[inline(always)]
    #[must_use]
    pub const fn stops_unowned(self) -> bool {
        self.0 & (Self::DROPS_UNOWNED | Self::REJECTS_UNOWNED) != 0
    }

    /// Whether packets that begin a flow to an unowned port are refused.
    #[inline(always)]
    #[must_use]
    pub const fn rejects_unowned(self) -> bool {
        self.0 & Self::REJECTS_UNOWNED != 0
    }

    /// Whether TCP is refused by a reset.
    #[inline(always)]
    #[must_use]
    pub const fn resets_tcp(self) -> bool {
        self.0 & Self::RESETS_TCP != 0
    }

    /// Whether clients outside of the cluster reach pods by VIPs alone.
    #[inline(always)]
    #[must_use]
    pub const fn pods_are_clusters(self) -> bool {
        self.0 & Self::PODS_ARE_CLUSTERS != 0
    }
}

/// Bits of the values of `VIPS_V4` and `VIPS_V6`, whose keys are addresses. An entry says that the address is a VIP.
pub mod vip_flags {
    /// A frontend of the VIP has a backend on this node that takes new connections.
    pub const USABLE: u32 = 1;
}
