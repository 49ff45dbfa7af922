//! From bytes to what the path needs to know. Offsets are constants: Ethernet without tags, then the header of a
//! [`Family`], then TCP, UDP or SCTP.
//!
//! VLAN tags have their place here, options in the families: each is a `Reason` today. So is a fragment, which
//! [`fragments`](crate::fragments) takes on.

use bytemuck::{Pod, Zeroable};

use crate::abi;
use crate::family::Family;
use crate::packet::Packet;
use crate::reason::Reason;
use crate::sctp::{self, SctpView};

/// Length of an Ethernet header.
pub const ETHERNET_LENGTH: usize = 14;
/// Where the type of what a frame carries is.
pub const ETHER_TYPE_AT: usize = 12;

/// The type of IPv4.
pub const ETHER_TYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// The type of IPv6.
pub const ETHER_TYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Bits of TCP's flag byte (RFC 9293 chapter 3.1).
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// A transport protocol that xlb serves: TCP (RFC 9293), UDP (RFC 768) or SCTP (RFC 9260). All of it has a value in each
/// case: the verifier refuses to copy what one case of an enum leaves open. SCTP's view is kept in the words of TCP's; what
/// asks for an association has the flag of a SYN, so that the common path asks once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    tcp: TcpView,
    number: u32,
}

/// What the rules of admission look at in a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpView {
    /// Those of [`tcp_flags`], and beside them nothing.
    pub flags: u16,
    /// Sequence number, host byte order.
    pub sequence: u32,
    /// Acknowledgement number, host byte order.
    pub acknowledged: u32,
    /// Bytes after the header; [`DATA_UNKNOWN`] of a packet whose IP header says nothing of its length.
    pub data_length: u16,
}

/// More than any packet has after its TCP header.
pub const DATA_UNKNOWN: u16 = u16::MAX;
const UNKNOWN: u32 = DATA_UNKNOWN as u32;

const SYN_AND_ACK: u16 = (tcp_flags::SYN | tcp_flags::ACK) as u16;

impl TcpView {
    /// What no segment says.
    pub const NOTHING: Self = Self { flags: 0, sequence: 0, acknowledged: 0, data_length: 0 };

    /// What may end a handshake, or come soon after: a segment inside a connection that does not end it by force.
    #[inline(always)]
    #[must_use]
    pub const fn acknowledges(&self) -> bool {
        self.flags & (SYN_AND_ACK | tcp_flags::RST as u16) == tcp_flags::ACK as u16
    }

    /// A first packet: SYN without ACK.
    #[inline(always)]
    #[must_use]
    pub const fn is_syn(&self) -> bool {
        self.flags & SYN_AND_ACK == tcp_flags::SYN as u16
    }

    /// The answer to a first packet.
    #[inline(always)]
    #[must_use]
    pub const fn is_syn_ack(&self) -> bool {
        self.flags & SYN_AND_ACK == SYN_AND_ACK
    }

    /// A reset.
    #[inline(always)]
    #[must_use]
    pub const fn is_reset(&self) -> bool {
        self.flags & tcp_flags::RST as u16 != 0
    }

    /// The sender's last segment with data.
    #[inline(always)]
    #[must_use]
    pub const fn is_fin(&self) -> bool {
        self.flags & tcp_flags::FIN as u16 != 0
    }
}

impl Transport {
    /// UDP.
    pub const UDP: Self = Self { number: abi::UDP as u32, tcp: TcpView::NOTHING };

    /// TCP.
    #[inline(always)]
    #[must_use]
    pub const fn of_tcp(tcp: TcpView) -> Self {
        Self { number: abi::TCP as u32, tcp }
    }

    /// SCTP.
    #[inline(always)]
    #[must_use]
    pub const fn of_sctp(view: SctpView) -> Self {
        let flags = if view.asks() { tcp_flags::SYN as u16 } else { 0 };
        let tcp = TcpView { flags, acknowledged: view.chunk, ..TcpView::NOTHING };
        Self { number: abi::SCTP as u32, tcp }
    }

    /// IP protocol number.
    #[inline(always)]
    #[must_use]
    pub const fn number(&self) -> u8 {
        self.number as u8
    }

    /// Whether it is UDP.
    #[inline(always)]
    #[must_use]
    pub const fn is_udp(&self) -> bool {
        self.number == abi::UDP as u32
    }

    /// Whether it asks for a connection: TCP's SYN, and what does the same in SCTP ([`SctpView::asks`]).
    #[inline(always)]
    #[must_use]
    pub const fn is_syn(&self) -> bool {
        self.tcp.is_syn()
    }

    /// The segment, if it is TCP.
    #[inline(always)]
    #[must_use]
    pub const fn tcp(&self) -> Option<TcpView> {
        if self.number == abi::TCP as u32 { Some(self.tcp) } else { None }
    }

    /// Whether it is TCP, and may end a handshake.
    #[inline(always)]
    #[must_use]
    pub const fn acknowledges(&self) -> bool {
        self.number == abi::TCP as u32 && self.tcp.acknowledges()
    }

    /// Whether it is TCP, and acknowledges, and nothing else.
    #[inline(always)]
    #[must_use]
    pub const fn only_acknowledges(&self) -> bool {
        self.acknowledges() && !self.tcp.is_fin() && self.tcp.data_length == 0
    }

    /// The segment where it is known to be TCP: in place, for there is little room on the stack.
    #[inline(always)]
    #[must_use]
    pub const fn segment(&self) -> &TcpView {
        &self.tcp
    }

    /// What the rules look at, if it is SCTP.
    #[inline(always)]
    #[must_use]
    pub const fn sctp(&self) -> Option<SctpView> {
        if self.is_sctp() { Some(SctpView { chunk: self.tcp.acknowledged }) } else { None }
    }

    /// Whether it is SCTP.
    #[inline(always)]
    #[must_use]
    pub const fn is_sctp(&self) -> bool {
        self.number == abi::SCTP as u32
    }

    /// Whether it is SCTP, and does not ask for an association.
    #[inline(always)]
    #[must_use]
    pub const fn is_inside_association(&self) -> bool {
        self.is_sctp() && !self.is_syn()
    }

    /// Where the checksum of TCP or UDP is, from the transport header's start.
    #[inline(always)]
    #[must_use]
    pub const fn checksum_offset(&self) -> usize {
        if self.is_udp() { 6 } else { 16 }
    }
}

/// What a packet says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<F: Family> {
    /// Source address and port.
    pub source: Endpoint<F>,
    /// Destination address and port.
    pub destination: Endpoint<F>,
    /// The protocol, with what the rules need of it.
    pub transport: Transport,
    /// TTL or hop limit.
    pub hops: u8,
    /// Source MAC, then destination MAC.
    pub macs: Macs,
}

impl<F: Family> Parsed<F> {
    /// Zeros, to be written over.
    #[inline(always)]
    #[must_use]
    pub fn nothing() -> Self {
        let nobody = Endpoint(F::from_stored([0; 16]), [0; 2]);
        Self { source: nobody, destination: nobody, transport: Transport::UDP, hops: 0, macs: Macs::zeroed() }
    }

    /// Both ports, as they are in the packet.
    #[inline(always)]
    #[must_use]
    pub const fn ports(&self) -> [u8; 4] {
        let ([s0, s1], [d0, d1]) = (self.source.1, self.destination.1);
        [s0, s1, d0, d1]
    }
}

/// An address and a port, network byte order. Aligned, so that the compiler moves them in words.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4))]
pub struct Endpoint<F: Family>(pub F::Address, pub [u8; 2]);

impl<F: Family> Endpoint<F> {
    /// Both.
    #[inline(always)]
    #[must_use]
    pub const fn pair(self) -> (F::Address, [u8; 2]) {
        (self.0, self.1)
    }
}

/// The addresses of an Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct Macs {
    /// To whom.
    pub destination: [u8; 6],
    /// From whom.
    pub source: [u8; 6],
}

/// The IP version inside an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtherType {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// Anything else: not served.
    Other,
}

/// What the frame carries; one with VLAN tags, in line or beside it, carries those.
#[inline(always)]
pub fn ether_type<P: Packet>(packet: &P) -> Result<EtherType, Reason> {
    if packet.has_tag_beside() {
        return Ok(EtherType::Other);
    }
    match packet.load::<2>(ETHER_TYPE_AT).ok_or(Reason::Truncated)? {
        ETHER_TYPE_IPV4 => Ok(EtherType::V4),
        ETHER_TYPE_IPV6 => Ok(EtherType::V6),
        _ => Ok(EtherType::Other),
    }
}

/// The MACs of the frame.
#[inline(always)]
pub fn macs<P: Packet>(packet: &P) -> Result<Macs, Reason> {
    packet.load::<12>(0).map(bytemuck::cast).ok_or(Reason::Truncated)
}

/// Which transports a caller wants: what it does for others is not compiled into it.
pub mod wanted {
    use crate::abi;

    /// What most packets are.
    pub const TCP_AND_UDP: u8 = 0;
    /// SCTP alone.
    pub const SCTP: u8 = 1;
    /// TCP and UDP, and of TCP the flags alone.
    pub const FLAGS: u8 = 2;

    /// Whether the protocol is among them.
    #[inline(always)]
    #[must_use]
    pub const fn has<const WANTED: u8>(protocol: u8) -> bool {
        if WANTED == SCTP { protocol == abi::SCTP } else { protocol == abi::TCP || protocol == abi::UDP }
    }
}

/// The transport header behind `payload` bytes of IP payload.
#[inline(always)]
pub fn transport<F: Family, P: Packet, const WANTED: u8>(
    packet: &P,
    protocol: u8,
    payload: u32,
) -> Result<Transport, Reason> {
    match protocol {
        abi::SCTP if WANTED == wanted::SCTP => Ok(Transport::of_sctp(sctp::read::<F, P>(packet, payload)?)),
        _ if WANTED == wanted::SCTP => Err(Reason::OtherProtocol),
        abi::TCP if WANTED == wanted::FLAGS => {
            let TcpView { flags, .. } = tcp::<F, P>(packet, payload)?;
            Ok(Transport::of_tcp(TcpView { flags, ..TcpView::NOTHING }))
        }
        abi::TCP => Ok(Transport::of_tcp(tcp::<F, P>(packet, payload)?)),
        abi::UDP => {
            let sum = packet.load::<2>(F::TRANSPORT_AT + 6).ok_or(Reason::Truncated)?;
            if payload < 8 || (sum == [0, 0] && !F::UDP_SUM_IS_OPTIONAL) {
                return Err(Reason::Malformed);
            }
            Ok(Transport::UDP)
        }
        abi::SCTP => Err(Reason::Sctp),
        protocol if protocol == F::ICMP => Err(Reason::Icmp),
        _ => Err(Reason::OtherProtocol),
    }
}

#[inline(always)]
fn tcp<F: Family, P: Packet>(packet: &P, payload: u32) -> Result<TcpView, Reason> {
    let sequence = packet.load::<4>(F::TRANSPORT_AT + 4).ok_or(Reason::Truncated)?;
    let acknowledged = packet.load::<4>(F::TRANSPORT_AT + 8).ok_or(Reason::Truncated)?;
    let [length, flags, ..] = packet.load::<4>(F::TRANSPORT_AT + 12).ok_or(Reason::Truncated)?;
    // Checksum and urgent pointer: only that they are there.
    packet.load::<4>(F::TRANSPORT_AT + 16).ok_or(Reason::Truncated)?;
    let header = u32::from(length >> 4) * 4;
    if header < 20 || header > payload {
        return Err(Reason::Malformed);
    }
    Ok(TcpView {
        flags: u16::from(flags),
        sequence: u32::from_be_bytes(sequence),
        acknowledged: u32::from_be_bytes(acknowledged),
        data_length: if payload - header < UNKNOWN { (payload - header) as u16 } else { DATA_UNKNOWN },
    })
}
