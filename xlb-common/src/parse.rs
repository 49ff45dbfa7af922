//! From bytes to what the path needs to know. Offsets are constants: Ethernet without tags, then the header of a
//! [`Family`], then TCP or UDP.
//!
//! VLAN tags have their place here, options and fragments in the families: each is a `Reason` today.

use crate::abi;
use crate::family::Family;
use crate::packet::Packet;
use crate::reason::Reason;

/// Length of an Ethernet header.
pub const ETHERNET_LENGTH: usize = 14;
const ETHER_TYPE_AT: usize = 12;

const ETHER_TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHER_TYPE_IPV6: [u8; 2] = [0x86, 0xdd];

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

/// A transport protocol that xlb serves: TCP (RFC 9293) or UDP (RFC 768). All of it has a value in either case: the
/// verifier refuses to copy what one case of an enum leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    number: u8,
    tcp: TcpView,
}

/// What the rules of admission look at in a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpView {
    /// [`tcp_flags`].
    pub flags: u8,
    /// Acknowledgement number, host byte order.
    pub acknowledged: u32,
    /// Whether there are bytes after the header.
    pub carries_data: bool,
}

impl TcpView {
    /// A first packet: SYN without ACK.
    #[inline(always)]
    #[must_use]
    pub const fn is_syn(&self) -> bool {
        self.flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN
    }

    /// The answer to a first packet.
    #[inline(always)]
    #[must_use]
    pub const fn is_syn_ack(&self) -> bool {
        self.flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN | tcp_flags::ACK
    }

    /// A reset.
    #[inline(always)]
    #[must_use]
    pub const fn is_reset(&self) -> bool {
        self.flags & tcp_flags::RST != 0
    }

    /// The sender's last segment with data.
    #[inline(always)]
    #[must_use]
    pub const fn is_fin(&self) -> bool {
        self.flags & tcp_flags::FIN != 0
    }
}

impl Transport {
    /// UDP.
    pub const UDP: Self = Self { number: abi::UDP, tcp: TcpView { flags: 0, acknowledged: 0, carries_data: false } };

    /// TCP.
    #[inline(always)]
    #[must_use]
    pub const fn of_tcp(tcp: TcpView) -> Self {
        Self { number: abi::TCP, tcp }
    }

    /// IP protocol number.
    #[inline(always)]
    #[must_use]
    pub const fn number(&self) -> u8 {
        self.number
    }

    /// Whether it is UDP.
    #[inline(always)]
    #[must_use]
    pub const fn is_udp(&self) -> bool {
        self.number == abi::UDP
    }

    /// The segment, if it is TCP.
    #[inline(always)]
    #[must_use]
    pub const fn tcp(&self) -> Option<TcpView> {
        if self.is_udp() { None } else { Some(self.tcp) }
    }

    /// Where the checksum is, from the transport header's start.
    #[inline(always)]
    #[must_use]
    pub const fn checksum_offset(&self) -> usize {
        if self.is_udp() { 6 } else { 16 }
    }
}

/// What a packet says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<F: Family> {
    /// Source address and port, network byte order.
    pub source: (F::Address, [u8; 2]),
    /// Destination address and port, network byte order.
    pub destination: (F::Address, [u8; 2]),
    /// The protocol, with what the rules need of it.
    pub transport: Transport,
    /// TTL or hop limit.
    pub hops: u8,
    /// Source MAC, then destination MAC.
    pub macs: Macs,
}

/// The addresses of an Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What the frame carries.
#[inline(always)]
pub fn ether_type<P: Packet>(packet: &P) -> Result<EtherType, Reason> {
    match packet.load::<2>(ETHER_TYPE_AT).ok_or(Reason::Truncated)? {
        ETHER_TYPE_IPV4 => Ok(EtherType::V4),
        ETHER_TYPE_IPV6 => Ok(EtherType::V6),
        _ => Ok(EtherType::Other),
    }
}

/// The MACs of the frame.
#[inline(always)]
pub fn macs<P: Packet>(packet: &P) -> Result<Macs, Reason> {
    let destination = packet.load::<6>(0).ok_or(Reason::Truncated)?;
    let source = packet.load::<6>(6).ok_or(Reason::Truncated)?;
    Ok(Macs { destination, source })
}

/// The transport, its source port and its destination port.
type Headers = (Transport, [u8; 2], [u8; 2]);

/// The transport header behind `payload` bytes of IP payload, with its source and destination port.
#[inline(always)]
pub fn transport<F: Family, P: Packet>(packet: &P, protocol: u8, payload: u32) -> Result<Headers, Reason> {
    let transport = match protocol {
        abi::TCP => Transport::of_tcp(tcp::<F, P>(packet, payload)?),
        abi::UDP => {
            let sum = packet.load::<2>(F::TRANSPORT_AT + 6).ok_or(Reason::Truncated)?;
            if payload < 8 || (sum == [0, 0] && !F::UDP_SUM_IS_OPTIONAL) {
                return Err(Reason::Malformed);
            }
            Transport::UDP
        }
        _ => return Err(Reason::OtherProtocol),
    };
    let source = packet.load::<2>(F::TRANSPORT_AT).ok_or(Reason::Truncated)?;
    let destination = packet.load::<2>(F::TRANSPORT_AT + 2).ok_or(Reason::Truncated)?;
    Ok((transport, source, destination))
}

#[inline(always)]
fn tcp<F: Family, P: Packet>(packet: &P, payload: u32) -> Result<TcpView, Reason> {
    let [length, flags, ..] = packet.load::<8>(F::TRANSPORT_AT + 12).ok_or(Reason::Truncated)?;
    let acknowledged = packet.load::<4>(F::TRANSPORT_AT + 8).ok_or(Reason::Truncated)?;
    let header = u32::from(length >> 4) * 4;
    if header < 20 || header > payload {
        return Err(Reason::Malformed);
    }
    Ok(TcpView { flags, acknowledged: u32::from_be_bytes(acknowledged), carries_data: payload > header })
}
