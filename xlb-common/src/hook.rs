//! Where packets meet the path, and which of them have a program of their own there.

use crate::path::Delivery;
use crate::reason::Reason;

/// A hook at which the path runs. Its number is part of [`Hook::jump`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// XDP on an uplink, with tc behind it.
    Xdp,
    /// XDP on an uplink, alone.
    XdpAlone,
    /// tc ingress on an uplink.
    Tc,
    /// tc ingress on the host's end of a pod's link.
    Pod,
    /// tc egress on an uplink.
    Egress,
}

/// Packets that the usual program of a hook hands over to another one by a tail call. Each has a program of its own at
/// each hook, with all of a kernel program's stack (512 bytes), and of the verifier's patience. Its number is part of
/// [`Hook::jump`]: a kind keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// ICMP and ICMPv6.
    Icmp,
    /// Fragments of IP datagrams.
    Fragment,
    /// SCTP.
    Sctp,
    /// VLAN tags, IPv4 options, IPv6 extension headers.
    Shape,
    /// Datagrams of a client's port that has a flow with another VIP of the same pod. Their answers are as usual.
    Twin,
    /// What comes from a backend's port, and no entry knows. Packets of clients are never that.
    Sole,
}

/// Most kinds.
const KINDS_MAX: u32 = 8;
/// Entries of `JUMPS_TC` and `JUMPS_XDP`, by [`Hook::jump`]. There are two, as the kernel lets a program call none of
/// another type.
pub const JUMPS_MAX: u32 = Hook::ALL.len() as u32 * KINDS_MAX;

impl Hook {
    /// Each of them.
    pub const ALL: [Self; 5] = [Self::Xdp, Self::XdpAlone, Self::Tc, Self::Pod, Self::Egress];

    /// Whether packets come from outside.
    #[must_use]
    pub const fn is_ingress(self) -> bool {
        self.is_xdp() || matches!(self, Self::Tc)
    }

    /// Whether packets are frames, and no skbs yet.
    #[must_use]
    pub const fn is_xdp(self) -> bool {
        matches!(self, Self::Xdp | Self::XdpAlone)
    }

    /// Name of its usual program in the object.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Xdp => "ingress_xdp",
            Self::XdpAlone => "ingress_xdp_alone",
            Self::Tc => "ingress_tc",
            Self::Pod => "pod",
            Self::Egress => "uplink_egress",
        }
    }

    /// Name of the map by which its programs call each other.
    #[must_use]
    pub const fn jumps(self) -> &'static str {
        if self.is_xdp() { "JUMPS_XDP" } else { "JUMPS_TC" }
    }

    /// Where in that map the program for `kind` is.
    #[inline(always)]
    #[must_use]
    pub const fn jump(self, kind: Kind) -> u32 {
        self as u32 * KINDS_MAX + kind as u32
    }
}

impl Kind {
    /// Each of them.
    pub const ALL: [Self; 6] = [Self::Icmp, Self::Fragment, Self::Sctp, Self::Shape, Self::Twin, Self::Sole];

    /// What the name of its program has behind that of the hook's usual one.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Icmp => "_icmp",
            Self::Fragment => "_fragment",
            Self::Sctp => "_sctp",
            Self::Shape => "_shape",
            Self::Twin => "_twin",
            Self::Sole => "_sole",
        }
    }

    /// Whether such packets are met at the hook.
    #[must_use]
    pub const fn is_at(self, hook: Hook) -> bool {
        match self {
            Self::Twin => hook.is_ingress(),
            Self::Sole => !hook.is_ingress(),
            _ => true,
        }
    }

    /// The kind of packet on which the usual program gave this verdict; none: the verdict is final.
    #[inline(always)]
    #[must_use]
    pub const fn of(verdict: &Result<Delivery, Reason>) -> Option<Self> {
        match verdict {
            Err(Reason::Icmp) => Some(Self::Icmp),
            Err(Reason::Fragment) => Some(Self::Fragment),
            Err(Reason::Sctp) => Some(Self::Sctp),
            Err(Reason::NotIp | Reason::IpOptions | Reason::ExtensionHeaders) => Some(Self::Shape),
            Err(Reason::OtherFrontend) => Some(Self::Twin),
            Err(Reason::ReplyUnknown) => Some(Self::Sole),
            _ => None,
        }
    }
}
const _: () = assert!(Kind::ALL.len() <= KINDS_MAX as usize);
