//! What is remembered of a flow.

use bytemuck::{Pod, Zeroable};

use super::Tags;

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
    pub backend: u16,
    /// [`ServiceStats::generation`] of the service when the entry was made.
    pub generation: u16,
    /// Interface on which the client's packet arrived: replies leave there.
    pub ingress_ifindex: u32,
    /// MAC that a reply is sent to: the sender of the client's packet.
    pub next_hop_mac: [u8; 6],
    /// MAC that a reply is sent from: the one the client's packet was sent to.
    pub uplink_mac: [u8; 6],
    /// Acknowledgement number of the pod's SYN-ACK, host byte order; counts with `SYN_ACK_SEEN`.
    pub syn_ack_acknowledged: u32,
    /// When a packet of the flow passed last, of UDP, of SCTP, and of TCP with `UNSEEN`, or the entry was written:
    /// [`Tables::now`](crate::tables::Tables::now).
    pub last_seen: u32,
    /// The VLAN tags of the client's packet: replies regain them. In delivery mode stack they are the host's affair.
    pub tags: Tags,
    /// The client's port, network byte order, where the pod sees another one ([`crate::twin`]); else zero.
    pub client_port: [u8; 2],
    /// Of a TCP flow: of the number that acknowledges the pod's SYN-ACK, what is kept to know it again; zero: none came.
    pub syn_ack_number: u16,
}
const _: () = assert!(size_of::<FlowEntry>() == 64);

/// Bits of [`FlowEntry::flags`].
pub mod flow_flags {
    /// The backend was served through the host's stack: the reply is restored at the uplink, after netfilter.
    pub const STACK: u16 = 1;
    /// The pod has answered with a SYN-ACK.
    pub const SYN_ACK_SEEN: u16 = 2;
    /// The pod's socket is closed (it may linger in TIME_WAIT), or it ended the SCTP association, or the connection that
    /// nobody sees.
    pub const CLOSED: u16 = 4;
    /// The pod has answered a SYN to another frontend since: the accepted entry is of a connection that is over.
    pub const SUPERSEDED: u16 = 8;
    /// Of an accepted TCP flow: the pod's packets showed it, not its kernel, which cannot be asked whether it goes on either.
    pub const UNSEEN: u16 = 16;
    /// With `UNSEEN`: the pod has sent its FIN.
    pub const POD_FIN: u16 = 32;
    /// Of a pending UDP flow: the pod has answered once.
    pub const ANSWERED: u16 = 64;
    /// Of a pending UDP flow: it was copied to the flows that stay.
    pub const ADMITTED: u16 = 128;
}

impl FlowEntry {
    /// Whether it is an entry, and not what stands for none: every VIP has a port.
    #[inline(always)]
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.vip_port != [0; 2]
    }

    /// Whether replies pass through the host's stack.
    #[inline(always)]
    #[must_use]
    pub fn is_stack(&self) -> bool {
        self.flags & flow_flags::STACK != 0
    }

    /// Whether another frontend's handshake has begun where the entry is an accepted flow's.
    #[inline(always)]
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.flags & flow_flags::SUPERSEDED != 0
    }

    /// Whether the pod's socket is closed.
    #[inline(always)]
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.flags & flow_flags::CLOSED != 0
    }
}
