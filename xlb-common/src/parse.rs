//! From bytes to what the path needs to know. Offsets are constants: Ethernet without tags, IPv4 without options.
//!
//! VLAN tags, options, IPv6 and fragments have their place here: each is a `Reason` today.

use crate::abi;
use crate::family::{Family, V4};
use crate::packet::Packet;
use crate::reason::Reason;

/// Length of an Ethernet header.
pub const ETHERNET_LENGTH: usize = 14;
const IPV4_AT: usize = ETHERNET_LENGTH;
const IPV4_LENGTH: usize = 20;
/// Where the TTL is; the protocol follows it in the same checksum word.
pub const IPV4_TTL_AT: usize = IPV4_AT + 8;
/// Where the header checksum is.
pub const IPV4_CHECKSUM_AT: usize = IPV4_AT + 10;
/// Where the source address is.
pub const IPV4_SOURCE_AT: usize = IPV4_AT + 12;
/// Where the destination address is.
pub const IPV4_DESTINATION_AT: usize = IPV4_AT + 16;
const TRANSPORT_AT: usize = IPV4_AT + IPV4_LENGTH;

const ETHER_TYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// More-fragments flag and fragment offset (RFC 791).
const FRAGMENT_MASK: u16 = 0x3fff;

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

/// A transport protocol that xlb serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp(TcpView),
    /// UDP (RFC 768).
    Udp,
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
    /// IP protocol number.
    #[inline(always)]
    #[must_use]
    pub const fn number(&self) -> u8 {
        match self {
            Self::Tcp(_) => abi::TCP,
            Self::Udp => abi::UDP,
        }
    }

    /// Where the checksum is.
    #[inline(always)]
    #[must_use]
    pub const fn checksum_at(&self) -> usize {
        match self {
            Self::Tcp(_) => TRANSPORT_AT + 16,
            Self::Udp => TRANSPORT_AT + 6,
        }
    }
}

/// Where the source port is; the destination port follows.
pub const SOURCE_PORT_AT: usize = TRANSPORT_AT;
/// Where the destination port is.
pub const DESTINATION_PORT_AT: usize = TRANSPORT_AT + 2;

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
    /// Anything else: not served.
    Other,
}

/// What the frame carries.
#[inline(always)]
pub fn ether_type<P: Packet>(packet: &P) -> Result<EtherType, Reason> {
    match packet.load::<2>(12).ok_or(Reason::Truncated)? {
        ETHER_TYPE_IPV4 => Ok(EtherType::V4),
        _ => Ok(EtherType::Other),
    }
}

/// The headers of an IPv4 packet.
#[inline(always)]
pub fn ipv4<P: Packet>(packet: &P) -> Result<Parsed<V4>, Reason> {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] =
        packet.load::<ETHERNET_LENGTH>(0).ok_or(Reason::Truncated)?;
    let header = packet.load::<IPV4_LENGTH>(IPV4_AT).ok_or(Reason::Truncated)?;
    if header[0] >> 4 != 4 {
        return Err(Reason::Malformed);
    }
    if header[0] != 0x45 {
        return Err(Reason::IpOptions);
    }
    if u16::from_be_bytes([header[6], header[7]]) & FRAGMENT_MASK != 0 {
        return Err(Reason::Fragment);
    }
    let payload = payload_length(u16::from_be_bytes([header[2], header[3]]))?;
    let (transport, ports) = transport(packet, header[9], payload)?;
    Ok(Parsed {
        source: ([header[12], header[13], header[14], header[15]], [ports[0], ports[1]]),
        destination: ([header[16], header[17], header[18], header[19]], [ports[2], ports[3]]),
        transport,
        hops: header[8],
        macs: Macs { destination: [d0, d1, d2, d3, d4, d5], source: [s0, s1, s2, s3, s4, s5] },
    })
}

/// Bytes after the IPv4 header. A total length of zero is a GSO packet beyond 64 kB (Linux, "BIG TCP").
#[inline(always)]
fn payload_length(total: u16) -> Result<u32, Reason> {
    match total {
        0 => Ok(u32::MAX),
        total if (total as usize) < IPV4_LENGTH => Err(Reason::Malformed),
        total => Ok(u32::from(total) - IPV4_LENGTH as u32),
    }
}

/// The transport header behind `payload` bytes of IP payload, and its four bytes of ports.
#[inline(always)]
fn transport<P: Packet>(packet: &P, protocol: u8, payload: u32) -> Result<(Transport, [u8; 4]), Reason> {
    match protocol {
        abi::TCP => {
            let tcp = packet.load::<20>(TRANSPORT_AT).ok_or(Reason::Truncated)?;
            let header = u32::from(tcp[12] >> 4) * 4;
            if header < 20 || header > payload {
                return Err(Reason::Malformed);
            }
            let view = TcpView {
                flags: tcp[13],
                acknowledged: u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]),
                carries_data: payload > header,
            };
            Ok((Transport::Tcp(view), [tcp[0], tcp[1], tcp[2], tcp[3]]))
        }
        abi::UDP => {
            let [a, b, c, d, ..] = packet.load::<8>(TRANSPORT_AT).ok_or(Reason::Truncated)?;
            if payload < 8 {
                return Err(Reason::Malformed);
            }
            Ok((Transport::Udp, [a, b, c, d]))
        }
        _ => Err(Reason::OtherProtocol),
    }
}
