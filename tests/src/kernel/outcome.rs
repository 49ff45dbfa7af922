//! What a run of a program is compared by, whoever ran it.

use xlb_common::Reason;

/// A program of the object that sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// `ingress_xdp`.
    Xdp,
    /// `ingress_xdp_alone`.
    XdpAlone,
    /// `ingress_tc`.
    Tc,
    /// `pod`.
    Pod,
    /// `uplink_egress`.
    Egress,
}

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

    /// Name of the program in the object.
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
}

/// What the hook does with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the next program or the stack.
    Pass,
    /// To another interface, or back by the one it came from.
    Redirect,
    /// Nowhere.
    Drop,
}

/// All that a run leaves behind, except for the flow maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// What was counted; none: the program had nothing to do.
    pub reason: Option<Reason>,
    /// The packet afterwards.
    pub frame: Vec<u8>,
}
