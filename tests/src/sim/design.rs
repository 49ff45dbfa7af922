//! What is compared: each design decides where packets go, and sees what a design of its kind sees.

use super::cluster::Cluster;
use super::packet::{Holders, Packet, Pod, Socket};

/// Why a packet went astray, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The table changed, and nothing says who had the connection.
    Stateless,
    /// The connection's entry was evicted, or never made.
    NoEntry,
    /// The slot does not name the pod any more: seven others came after it.
    ForgottenOwner,
    /// The pod answered by a SYN cookie, which nobody checks.
    CookieUnproven,
    /// Another owner holds a request of the same connection, or an earlier connection of the tuple, and counts as its owner.
    HalfOpenUnproven,
    /// A newer owner has the entry of a UDP flow that was its own before.
    UdpOlderEntry,
    /// The pod's sockets cannot be seen, and no flow map knows the flow.
    Hidden,
    /// No flow map knows the UDP flow.
    UdpUnknown,
    /// The reply has no entry that says which VIP it is of.
    ReplyUnknown,
    /// A bug, until it is explained.
    Other,
}

impl Cause {
    /// In the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stateless => "stateless",
            Self::NoEntry => "no-entry",
            Self::ForgottenOwner => "forgotten-owner",
            Self::CookieUnproven => "cookie-unproven",
            Self::HalfOpenUnproven => "half-open-unproven",
            Self::UdpOlderEntry => "udp-older-entry",
            Self::Hidden => "hidden",
            Self::UdpUnknown => "udp-unknown",
            Self::ReplyUnknown => "reply-unknown",
            Self::Other => "other",
        }
    }
}

/// A load balancer.
pub trait Design {
    /// The pod that a client's packet goes to, if it goes to one.
    fn forward(&mut self, packet: &Packet, holders: &Holders) -> Option<Pod>;
    /// The VIP that a pod's packet is made to come from, if it is.
    fn back(&mut self, reply: &Packet, was_to: Socket, holders: &Holders) -> Option<Socket>;
    /// The pod's kernel accepted a connection, where it can be heard.
    fn accepted(&mut self, client: Socket, pod: Socket);
    /// The pod's socket closed, where it can be heard.
    fn closed(&mut self, client: Socket, pod: Socket);
    /// Why a packet of a connection that `own` has did not reach it.
    fn cause(&self, packet: &Packet, own: Pod, cluster: &Cluster, holders: &Holders) -> Cause;
    /// What became of the last packet, in the design's own words.
    fn say(&self) -> String;
    /// Time goes on.
    fn at(&mut self, tick: u64);
    /// The agent looks at the cluster. Later: when to look again at the latest.
    fn learn(&mut self, cluster: &Cluster) -> Option<u64>;
    /// The agent does so many map operations. Whether there is more to do.
    fn work(&mut self, operations: usize) -> bool;
    /// Map operations that are still to be done.
    fn left(&self) -> usize;
    /// The agent dies between two operations, and another one reads the maps.
    fn restart(&mut self);
}
