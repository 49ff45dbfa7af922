//! What can be said of a packet without any table: from where it comes, and where to.

use std::net::{IpAddr, SocketAddr};

use xlb_common::parse::tcp_flags;

/// Bytes of the two MACs, behind which the type or a tag is.
const MACS: usize = 12;
/// VLAN tags at most, and their types (IEEE 802.1Q, 802.1ad).
const TAGS_MAX: usize = 2;
const TAG_TYPES: [[u8; 2]; 2] = [[0x81, 0], [0x88, 0xa8]];
/// IPv6 extension headers that are stepped over: hop-by-hop, routing, destination options (RFC 8200).
const EXTENSIONS: [u8; 3] = [0, 43, 60];
const EXTENSIONS_MAX: usize = 8;
const V6_FRAGMENT: u8 = 44;

/// A packet's ends. Ports are zero where there are none: ICMP, later fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Number of the transport protocol.
    pub protocol: u8,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// Flags of a TCP segment.
    pub tcp_flags: Option<u8>,
}

impl Ends {
    /// Those of a frame; none: it is no IP packet, or too short.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let mut at = MACS;
        for _ in 0..TAGS_MAX {
            at += if TAG_TYPES.contains(&two(frame, at)?) { 4 } else { 0 };
        }
        match two(frame, at)? {
            [0x08, 0x00] => v4(frame.get(at + 2..)?),
            [0x86, 0xdd] => v6(frame.get(at + 2..)?),
            _ => None,
        }
    }

    /// The protocol's name, or its number.
    #[must_use]
    pub fn protocol_name(&self) -> String {
        match self.protocol {
            6 => "tcp".into(),
            17 => "udp".into(),
            132 => "sctp".into(),
            1 | 58 => "icmp".into(),
            other => format!("protocol {other}"),
        }
    }

    /// The flags as tcpdump writes them: `S`, `S.`, `.`, `P.`, `F.`, `R`.
    #[must_use]
    pub fn flags(&self) -> Option<String> {
        let flags = self.tcp_flags?;
        let letters =
            [(tcp_flags::FIN, 'F'), (tcp_flags::SYN, 'S'), (tcp_flags::RST, 'R'), (PSH, 'P'), (tcp_flags::ACK, '.')];
        Some(letters.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, letter)| letter).collect())
    }
}

const PSH: u8 = 1 << 3;

fn two(bytes: &[u8], at: usize) -> Option<[u8; 2]> {
    bytes.get(at..at + 2)?.try_into().ok()
}

fn v4(packet: &[u8]) -> Option<Ends> {
    let header = usize::from(packet.first()? & 0xf) * 4;
    let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let is_later = u16::from_be_bytes(two(packet, 6)?) & 0x1fff != 0;
    let transport = if is_later { &[] } else { packet.get(header..)? };
    Some(with_ports(*packet.get(9)?, address(12)?, address(16)?, transport))
}

fn v6(packet: &[u8]) -> Option<Ends> {
    let address = |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
    let (mut protocol, mut at, mut is_later) = (*packet.get(6)?, 40, false);
    for _ in 0..EXTENSIONS_MAX {
        let Some([next, length]) = two(packet, at) else { break };
        if EXTENSIONS.contains(&protocol) {
            at += (usize::from(length) + 1) * 8;
        } else if protocol == V6_FRAGMENT {
            is_later |= u16::from_be_bytes(two(packet, at + 2)?) & 0xfff8 != 0;
            at += 8;
        } else {
            break;
        }
        protocol = next;
    }
    let transport = if is_later { &[] } else { packet.get(at..).unwrap_or_default() };
    Some(with_ports(protocol, address(8)?, address(24)?, transport))
}

fn with_ports(protocol: u8, source: IpAddr, destination: IpAddr, transport: &[u8]) -> Ends {
    let has_ports = matches!(protocol, 6 | 17 | 132);
    let port = |at| two(transport, at).filter(|_| has_ports).map_or(0, u16::from_be_bytes);
    Ends {
        protocol,
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
        tcp_flags: transport.get(13).copied().filter(|_| protocol == 6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 198.51.100.10 to 203.0.113.10.
    const V4: [u8; 8] = [198, 51, 100, 10, 203, 0, 113, 10];

    #[test]
    fn the_ends_of_frames_are_found_behind_tags_options_and_extension_headers() {
        let tcp = [0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 5 << 4, 0x12];
        let plain = ipv4(5, [0, 0], 6, &tcp);
        let (source, destination) = ("198.51.100.10:40000", "203.0.113.10:80");
        for (name, packet) in [
            ("plain", framed(&[], [8, 0], &plain)),
            ("one tag", framed(&[0x81, 0, 0, 5], [8, 0], &plain)),
            ("two tags", framed(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6], [8, 0], &plain)),
            ("options", framed(&[], [8, 0], &ipv4(6, [0, 0], 6, &tcp))),
        ] {
            let ends = Ends::of(&packet).unwrap();
            assert_eq!(
                (ends.source.to_string(), ends.destination.to_string()),
                (source.into(), destination.into()),
                "{name}"
            );
            assert_eq!((ends.protocol_name().as_str(), ends.flags().as_deref()), ("tcp", Some("S.")), "{name}");
        }
        let mut v6 = vec![0x60, 0, 0, 0, 0, 0, 60, 64];
        v6.extend([0xfd; 16].into_iter().chain([0xfe; 16]).chain([17, 0, 1, 4, 0, 0, 0, 0]).chain(tcp));
        let ends = Ends::of(&framed(&[], [0x86, 0xdd], &v6)).unwrap();
        assert_eq!((ends.protocol_name().as_str(), ends.destination.port(), ends.flags()), ("udp", 80, None));
    }

    #[test]
    fn what_has_no_ports_has_none_and_what_is_cut_has_no_ends() {
        let ports = |packet: &[u8]| Ends::of(packet).map(|ends| ends.source.port());
        let later = framed(&[], [8, 0], &ipv4(5, [0, 1], 17, &[1, 2, 3, 4]));
        assert_eq!(ports(&later), Some(0), "a later fragment begins with the datagram's middle");
        assert_eq!(ports(&framed(&[], [8, 0], &ipv4(5, [0, 0], 1, &[8, 0, 1, 2]))), Some(0), "ICMP");
        assert_eq!(ports(&framed(&[], [8, 6], &[0; 28])), None, "ARP");
        let whole = framed(&[], [8, 0], &ipv4(5, [0, 0], 6, &[]));
        assert!((0..whole.len()).all(|length| Ends::of(&whole[..length]).is_none()));
    }

    fn framed(tags: &[u8], kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[2; MACS][..], tags, &kind, packet].concat()
    }

    fn ipv4(words: u8, fragment: [u8; 2], protocol: u8, transport: &[u8]) -> Vec<u8> {
        let fixed = [0x40 | words, 0, 0, 0, 0, 0, fragment[0], fragment[1], 64, protocol, 0, 0];
        let options = vec![1; usize::from(words - 5) * 4];
        [&fixed[..], &V4, &options, transport].concat()
    }
}
