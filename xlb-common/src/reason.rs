//! Each way out of the packet path, named once: counter index, metric label, event field, and the sentence in
//! `xlb explain`.

use bytemuck::checked::try_cast;
use bytemuck::{CheckedBitPattern, NoUninit};

/// What becomes of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// xlb served it.
    Forward,
    /// It goes on to the stack exactly as it came.
    Pass,
    /// It ends here.
    Drop,
    /// It has become the answer to its sender, and goes back by the interface it came from.
    Reply,
}

/// On which of xlb's ways the reason arises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the pod.
    Forward,
    /// From the pod to the client.
    Return,
    /// An event of a pod's socket.
    Socket,
    /// From a client inside: a process of this node, or of a pod on it.
    Inside,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $direction:ident, $disposition:ident, $sentence:literal;)*) => {
        /// Why a packet went the way it went. The number is the index into `REASONS`; a verdict with it fits a register.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, CheckedBitPattern, NoUninit)]
        #[repr(u16)]
        pub enum Reason { $(#[doc = $sentence] $name,)* }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Name in counters, metrics and JSON.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label),* }
            }

            /// What became of the packet, for people.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence),* }
            }

            /// On which way it arises.
            #[must_use]
            pub const fn direction(self) -> Direction {
                match self { $(Self::$name => Direction::$direction),* }
            }

            /// What becomes of the packet.
            #[inline(always)]
            #[must_use]
            pub const fn disposition(self) -> Disposition {
                match self { $(Self::$name => Disposition::$disposition),* }
            }
        }
    };
}

reasons! {
    NotIp = "not_ip", Forward, Pass, "neither IPv4 nor IPv6, behind two VLAN tags at most: left to the stack";
    Truncated = "truncated", Forward, Pass, "the packet ends inside its headers: left to the stack";
    Malformed = "malformed", Forward, Pass, "its header lengths contradict each other: left to the stack";
    IpOptions = "ip_options", Forward, Pass, "an IPv4 source route, or options that contradict each other: left to the stack";
    ExtensionHeaders = "extension_headers", Forward, Pass, "an IPv6 routing header that is not at its end, or too many extension headers: left to the stack";
    Fragment = "fragment", Forward, Pass, "a later IP fragment whose first one xlb has not served: left to the stack";
    FragmentEarly = "fragment_early", Forward, Pass,
        "a later IP fragment that came before the first one: left to the stack, as its whole datagram will be";
    FragmentLeft = "fragment_left", Forward, Pass, "an IP fragment whose datagram is left to the stack, as a later one came first";
    OtherProtocol = "other_protocol", Forward, Pass, "none of TCP, UDP and SCTP: left to the stack";
    Sctp = "sctp", Forward, Pass, "an SCTP packet in fragments, or with VLAN tags, IPv4 options or IPv6 extension headers: left to the stack";
    Icmp = "icmp", Forward, Pass, "an ICMP message that reports no error and is no echo request to a VIP, or an error with VLAN tags, IPv4 options or IPv6 extension headers: left to the stack";
    ErrorCutShort = "error_cut_short", Forward, Pass, "an ICMP error that quotes too little of its packet to tell the ports: left to the stack";
    ErrorOfFragment = "error_of_fragment", Forward, Pass, "an ICMP error about a fragment of a packet: left to the stack";
    ErrorOfOptions = "error_of_options", Forward, Pass, "an ICMP error about a packet with IP options or extension headers: left to the stack";
    ErrorNotOurs = "error_not_ours", Forward, Pass, "an ICMP error about a packet that no service sent: left to the stack";
    ErrorOwnerless = "error_ownerless", Forward, Pass, "an ICMP error about a flow whose service has no pod for it on this node: left to the stack";
    ErrorDelivered = "error_delivered", Forward, Forward, "an ICMP error about a flow: forwarded to the flow's pod, about the packet that the pod sent";
    NotOurs = "not_ours", Forward, Pass, "no service has this address, port and protocol: left to the stack";
    UnownedDropped = "unowned_dropped", Forward, Drop, "no service has this port and protocol of the VIP (--vip-unowned): dropped";
    UnownedRejected = "unowned_rejected", Forward, Reply, "no service has this port and protocol of the VIP (--vip-unowned reject): refused";
    VipLooped = "vip_looped", Forward, Drop,
        "it came by an uplink for a VIP, and the host's stack would have sent it out by one again, for its router to send it back: dropped";
    EchoAnswered = "echo_answered", Forward, Reply, "an ICMP echo request to a VIP that has a usable pod on this node: answered";
    EchoUnanswered = "echo_unanswered", Forward, Pass, "an ICMP echo request to a VIP that has no usable pod on this node: left to the stack";
    EchoSuppressed = "echo_suppressed", Forward, Drop, "an ICMP echo request to a VIP: dropped, as too many were answered, or its sender must not be";
    OtherHost = "other_host", Forward, Pass, "the frame is addressed to another host: left to the stack";
    TtlExpired = "ttl_expired", Forward, Pass, "its TTL ends here: left to the stack, which reports it to the sender";
    LeftToTc = "left_to_tc", Forward, Pass, "the pod's link takes no XDP frames, or the frame has VLAN tags, IPv4 options or IPv6 extension headers: left to the tc program";
    LinkNotReady = "link_not_ready", Forward, Drop,
        "generic XDP, and the pod's link takes no frames: dropped; the agent is about to follow";
    EmptyPassed = "empty_passed", Forward, Pass,
        "the service has no usable pod on this node (externalTrafficPolicy Cluster): left to the stack, where kube-proxy may serve it";
    EmptyDropped = "empty_dropped", Forward, Drop,
        "the service has no usable pod on this node (externalTrafficPolicy Local): dropped, so that the client retries elsewhere";
    EmptyRejected = "empty_rejected", Forward, Reply,
        "the service has no usable pod in the whole cluster: answered with ICMP port unreachable, or a TCP reset (--reject-tcp-with)";
    RejectSuppressed = "reject_suppressed", Forward, Drop,
        "to be refused, and dropped, as its sender must not be answered, too many were, or it has IPv4 options or IPv6 extension headers";
    LeftToFormer = "left_to_former", Forward, Pass,
        "the host's stack served this address a while ago, and the connection did not come through xlb: left to the stack, where conntrack may know it";
    SourceNotAllowed = "source_not_allowed", Forward, Drop,
        "the client is in none of the service's source ranges, and has no connection from before: dropped";
    TagsNotMoved = "tags_not_moved", Forward, Drop,
        "its VLAN tags could not be taken off or put back, for want of memory: dropped";
    OtherFrontend = "other_frontend", Forward, Drop,
        "a datagram in fragments whose port has a flow with another VIP of the same pod: dropped";
    PortInUse = "port_in_use", Forward, Drop,
        "the pod has a connection of this client port to another VIP, and could not tell a second one from it: dropped";
    PortsTaken = "ports_taken", Forward, Drop,
        "a datagram whose port has a flow with another VIP of the same pod, and so have all ports in place of it: dropped";
    StaleReference = "stale_reference", Forward, Drop, "the slot names a backend that is gone: dropped; the agent is about to mend it";
    SoleBackend = "sole_backend", Forward, Forward, "forwarded to the service's only pod";
    SlotOwner = "slot_owner", Forward, Forward, "forwarded to the owner of its slot, which nobody owned before";
    ProvenOwner = "proven_owner", Forward, Forward, "forwarded to a present or former owner of its slot whose kernel holds the connection, or gave the SYN cookie that it acknowledges";
    RememberedOwner = "remembered_owner", Forward, Forward, "forwarded to a present or former owner of its slot that has a flow entry for it";
    AffineOwner = "affine_owner", Forward, Forward, "forwarded to the backend that the client's last connection went to";
    PortChanged = "port_changed", Forward, Forward,
        "a datagram whose port has a flow with another VIP of the same pod: forwarded from another port of the client's address";
    FragmentFollowed = "fragment_followed", Forward, Forward, "a later IP fragment: forwarded to the pod that the first one went to";
    ClientAcknowledged = "client_acknowledged", Forward, Forward,
        "acknowledges the SYN-ACK of a pod whose sockets cannot be seen: remembered, and forwarded to it";
    UnprovenOwner = "unproven_owner", Forward, Forward, "forwarded to the owner of its slot; no former owner could prove the connection";
    UnsearchedOwner = "unsearched_owner", Forward, Forward, "forwarded to the owner of its slot; there were too many packets of flows that nobody knows to look for its owner among all members";
    Replied = "replied", Return, Forward, "a reply of an accepted flow: sent out as the VIP";
    RepliedHalfOpen = "replied_half_open", Return, Forward, "a reply of a flow that the pod has not accepted yet, or has closed: sent out as the VIP";
    RepliedAdmitted = "replied_admitted", Return, Forward, "the reply that showed that the pod accepted the flow: remembered, and sent out as the VIP";
    RepliedAlone = "replied_alone", Return, Forward,
        "a reply that no flow entry knows, of a pod port that only one VIP and port lead to (--pod-ips cluster-only): sent out as the VIP";
    ReplyFragment = "reply_fragment", Return, Forward, "a later IP fragment of a reply: sent out as the VIP, as the first one was";
    NotAReply = "not_a_reply", Return, Pass, "the pod's own traffic: left to the stack";
    ReplyUnknown = "reply_unknown", Return, Pass, "it comes from a backend's port, but no flow entry tells which VIP to restore: left to the stack";
    ReplyLeftToStack = "reply_left_to_stack", Return, Pass, "a reply in delivery mode stack: restored at the uplink";
    ReplyTtlExpired = "reply_ttl_expired", Return, Pass, "the reply's TTL ends here: left to the stack";
    ReplyTooBig = "reply_too_big", Return, Pass,
        "the reply is larger than the uplink's MTU: left to the stack, which tells the pod how large packets may be";
    ReplyNotCut = "reply_not_cut", Return, Drop,
        "the reply is larger than the uplink's MTU, and was to be fragmented on its way, which xlb does not do: dropped";
    ReplyUplinkGone = "reply_uplink_gone", Return, Drop,
        "the uplink that the connection came by is down or gone, and no other one leads on: dropped, until one does, or the client comes by another";
    ErrorReplied = "error_replied", Return, Forward, "an ICMP error about a packet of a client: sent out about the packet to the VIP";
    Accepted = "accepted", Socket, Forward, "a pod accepted the connection: the flow is remembered";
    AcceptedUnknown = "accepted_unknown", Socket, Pass, "a backend accepted a connection that came without xlb, or whose half-open entry was evicted";
    Closed = "closed", Socket, Forward, "the pod's socket closed: the flow makes room for others";
    ClosedUnknown = "closed_unknown", Socket, Pass,
        "the pod's socket closed, and its flow had been evicted before (--max-flows)";
    InsideServed = "inside_served", Inside, Forward, "a socket of this node was directed from the VIP to one of its endpoints";
    InsideAffine = "inside_affine", Inside, Forward,
        "a socket of this node was directed from the VIP to the endpoint that its client's last connection went to";
    InsideRemembered = "inside_remembered", Inside, Forward,
        "a further datagram of a socket of this node: directed to the endpoint that its earlier ones went to";
    InsideAnswered = "inside_answered", Inside, Forward, "a datagram for a socket of this node: its sender became the VIP again";
    InsideRejected = "inside_rejected", Inside, Drop,
        "the service has no usable pod in the whole cluster: the socket's call was refused";
    InsideNotLocal = "inside_not_local", Inside, Drop,
        "the service has no usable pod on this node (externalTrafficPolicy Local), and the client is a pod that gets no other: the socket's call was not permitted";
    InsideNotAllowed = "inside_not_allowed", Inside, Drop,
        "the client is in none of the service's source ranges: the socket's call was not permitted";
    InsideSourceUnknown = "inside_source_unknown", Inside, Pass,
        "the service has source ranges, and the address of the client's network namespace is not known yet: left to the stack";
    LinkServed = "link_served", Inside, Forward, "the first packet of a flow from a pod's link to a VIP: directed to one of its endpoints, through the host's stack";
    LinkAffine = "link_affine", Inside, Forward,
        "the first packet of a flow from a pod's link to a VIP: directed to the endpoint that its client's last connection went to";
    LinkFollowed = "link_followed", Inside, Forward, "a further packet of a flow from a pod's link to a VIP: directed to the flow's endpoint";
    LinkReplied = "link_replied", Inside, Forward, "an answer to a client at a pod's link: its sender became the VIP again";
    LinkError = "link_error", Inside, Forward, "an ICMP error about a flow of a client at a pod's link: translated as the flow's packets are";
    LinkRejected = "link_rejected", Inside, Reply,
        "the service has no usable pod in the whole cluster: the client at the pod's link was answered with ICMP port unreachable";
    LinkNotLocal = "link_not_local", Inside, Drop,
        "the service has no usable pod on this node (externalTrafficPolicy Local), and pods get no other: dropped";
    LinkNotAllowed = "link_not_allowed", Inside, Drop, "the client at the pod's link is in none of the service's source ranges: dropped";
    LinkUnknown = "link_unknown", Inside, Pass,
        "a TCP packet from a pod's link to a VIP, of a connection that xlb did not see begin: left to the stack, where conntrack may know it";
    LinkHairpin = "link_hairpin", Inside, Pass,
        "the service's only endpoint is the client itself, whose sockets xlb does not see: left to the stack, where kube-proxy may serve it";
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The reason of this number; of a number that none has, [`Reason::StaleReference`].
    #[inline(always)]
    #[must_use]
    pub fn of_number(number: u16) -> Self {
        try_cast(number).unwrap_or(Self::StaleReference)
    }

    /// Whether the packet is to become a refusal of itself.
    #[inline(always)]
    #[must_use]
    pub const fn refuses(self) -> bool {
        matches!(self, Self::EmptyRejected | Self::UnownedRejected)
    }

    /// Whether a packet, or a socket's call, came to nothing: dropped or refused.
    #[must_use]
    pub fn is_drop(self) -> bool {
        match self.disposition() {
            Disposition::Drop => true,
            Disposition::Reply => self != Self::EchoAnswered,
            Disposition::Forward | Disposition::Pass => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_has_its_own_label_and_number() {
        let labels: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), Reason::COUNT);
        assert!(Reason::ALL.iter().enumerate().all(|(index, &reason)| reason as usize == index));
    }

    #[test]
    fn what_is_passed_on_is_no_drop_and_what_is_refused_is() {
        let drops = [Reason::EmptyDropped, Reason::EmptyRejected, Reason::InsideRejected, Reason::LinkRejected];
        assert!(drops.into_iter().all(Reason::is_drop));
        let others = [Reason::EchoAnswered, Reason::EmptyPassed, Reason::NotOurs, Reason::Replied, Reason::Accepted];
        assert!(!others.into_iter().any(Reason::is_drop));
    }
}
