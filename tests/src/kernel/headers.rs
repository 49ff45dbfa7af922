//! The headers of test packets, and where their fields are, by family.

use std::net::IpAddr;

use xlb_common::abi::{SCTP, TCP, UDP};
use xlb_common::checksum::checksum;

use super::flows::socket;
use super::frame::{AUTHENTICATION, Extension, FRAGMENT, ICMP, ICMP_V6, ROUTING, Spec};
use super::icmp;
use super::sctp;

/// Where the fields of a packet are, behind its tags, options and extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of an address.
    pub address_length: usize,
    /// The source address; the destination follows.
    pub addresses_at: usize,
    /// TTL or hop limit.
    pub hops_at: usize,
    /// The IP header.
    pub ip_at: usize,
    /// IP protocol number, or the next header that names the transport's.
    pub protocol_at: usize,
    /// The transport header, which begins with the ports.
    pub transport_at: usize,
}

impl Layout {
    /// IPv4.
    pub const V4: Self =
        Self { address_length: 4, ip_at: 14, addresses_at: 26, hops_at: 22, protocol_at: 23, transport_at: 34 };
    /// IPv6.
    pub const V6: Self =
        Self { address_length: 16, ip_at: 14, addresses_at: 22, hops_at: 21, protocol_at: 20, transport_at: 54 };

    /// By what the frame says of itself; none if it has neither family's type, or ends before the transport header.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let tags = (0..2).take_while(|number| is_tag(frame, 12 + 4 * number)).count() * 4;
        let layout = match frame.get(12 + tags..14 + tags)? {
            [0x08, 0x00] => Self::V4.behind(tags).with_options(frame)?,
            [0x86, 0xdd] => Self::V6.behind(tags).with_extensions(frame)?,
            _ => return None,
        };
        (frame.len() >= layout.transport_at).then_some(layout)
    }

    /// Whether it is an IPv4 packet's.
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.address_length == 4
    }

    /// The same, so many bytes later.
    #[must_use]
    pub const fn behind(self, bytes: usize) -> Self {
        Self {
            address_length: self.address_length,
            ip_at: self.ip_at + bytes,
            addresses_at: self.addresses_at + bytes,
            hops_at: self.hops_at + bytes,
            protocol_at: self.protocol_at + bytes,
            transport_at: self.transport_at + bytes,
        }
    }

    fn with_options(self, frame: &[u8]) -> Option<Self> {
        let words = usize::from(frame.get(self.ip_at)? & 0xf);
        Some(Self { transport_at: self.transport_at + 4 * words.saturating_sub(5), ..self })
    }

    fn with_extensions(mut self, frame: &[u8]) -> Option<Self> {
        while let kind @ (0 | ROUTING | AUTHENTICATION | 60) = *frame.get(self.protocol_at)? {
            let units = usize::from(*frame.get(self.transport_at + 1)?);
            let length = if kind == AUTHENTICATION { (units + 2) * 4 } else { (units + 1) * 8 };
            self = Self { protocol_at: self.transport_at, transport_at: self.transport_at + length, ..self };
        }
        Some(self)
    }

    /// Source and destination address.
    #[must_use]
    pub fn addresses(&self, frame: &[u8]) -> [IpAddr; 2] {
        [0, self.address_length].map(|offset| {
            let at = self.addresses_at + offset;
            match self.address_length {
                4 => IpAddr::from(bytemuck::pod_read_unaligned::<[u8; 4]>(&frame[at..at + 4])),
                _ => IpAddr::from(bytemuck::pod_read_unaligned::<[u8; 16]>(&frame[at..at + 16])),
            }
        })
    }

    /// Source and destination, with their ports.
    #[must_use]
    pub fn ends(&self, frame: &[u8]) -> [std::net::SocketAddr; 2] {
        let [source, destination] = self.addresses(frame);
        let port = |at: usize| [frame[at], frame[at + 1]];
        [socket(source, port(self.transport_at)), socket(destination, port(self.transport_at + 2))]
    }

    /// Bytes from the IP header on, as it says; of a packet beyond 64 kB, which says zero, those that there are.
    #[must_use]
    pub fn ip_length(&self, frame: &[u8]) -> u64 {
        let number = |at: usize| u64::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
        match (self.address_length, number(self.ip_at + 2), number(self.ip_at + 4)) {
            (4, 0, _) | (16, _, 0) => (frame.len() - self.ip_at) as u64,
            (4, total, _) => total,
            (_, _, payload) => payload + 40,
        }
    }

    /// The packet with its addresses and ports exchanged.
    #[must_use]
    pub fn swapped(&self, frame: &[u8]) -> Vec<u8> {
        let [a, b, c] = [0, 1, 2].map(|number| self.addresses_at + number * self.address_length);
        let [d, e, f] = [0, 2, 4].map(|offset| self.transport_at + offset);
        [&frame[..a], &frame[b..c], &frame[a..b], &frame[c..d], &frame[e..f], &frame[d..e], &frame[f..]].concat()
    }
}

fn is_tag(frame: &[u8], at: usize) -> bool {
    matches!(frame.get(at..at + 2), Some([0x81, 0x00] | [0x88, 0xa8]))
}

/// The checksum over pseudo-header (RFC 9293 chapter 3.1, RFC 8200 chapter 8.1) and segment. Zero if the segment
/// contains a right one.
#[must_use]
pub fn transport_sum([source, destination]: [IpAddr; 2], protocol: u8, segment: &[u8]) -> [u8; 2] {
    let of = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    // Both families' sums are the same: zeros do not count, nor does the width of the length.
    let length = (segment.len() as u32).to_be_bytes();
    checksum(0, &[&of(source)[..], &of(destination), &length, &[0, protocol], segment].concat())
}

/// IPv4's header (RFC 791).
pub(super) fn ipv4(spec: &Spec, addresses: [[u8; 4]; 2], payload: usize) -> Vec<u8> {
    let words = 5 + spec.ip_options.len().div_ceil(4) + spec.options.0;
    let total = spec.lies.length.unwrap_or((words * 4 + payload) as u16);
    let first = spec.lies.version.unwrap_or(4) << 4 | spec.lies.ip_words.unwrap_or(words as u8);
    let mut header = vec![first, 0];
    header.extend(total.to_be_bytes());
    header.extend([0x1c, 0x46]);
    header.extend(spec.fragment.to_be_bytes());
    header.extend([spec.ttl, spec.protocol, 0, 0]);
    header.extend(addresses.concat());
    header.extend(&spec.ip_options);
    // No-operation options (RFC 791).
    header.resize(words * 4, 1);
    let sum = checksum(0, &header);
    header[10..12].copy_from_slice(&if spec.lies.ip_sum { wrong(sum) } else { sum });
    header
}

/// A sum that is wrong by one, in its own arithmetic.
fn wrong(sum: [u8; 2]) -> [u8; 2] {
    let (more, carried) = u16::from_be_bytes(sum).overflowing_add(1);
    (more + u16::from(carried)).to_be_bytes()
}

/// IPv6's header (RFC 8200), and its extension headers.
pub(super) fn ipv6(spec: &Spec, addresses: [[u8; 16]; 2], payload: usize) -> Vec<u8> {
    let all = with_fragment_header(spec);
    let kind = |number: usize| all.get(number).map_or(spec.protocol, |extension: &Extension| extension.kind);
    let bytes = |(number, of): (usize, &Extension)| extension(of, kind(number + 1), spec.fragment);
    let extensions: Vec<u8> = all.iter().enumerate().flat_map(bytes).collect();
    let length = spec.lies.length.unwrap_or((extensions.len() + payload) as u16);
    // Traffic class and flow label.
    let mut header = vec![spec.lies.version.unwrap_or(6) << 4 | 0x2, 0x01, 0x23, 0x45];
    header.extend(length.to_be_bytes());
    header.extend([kind(0), spec.ttl]);
    header.extend(addresses.concat());
    header.extend(extensions);
    header
}

/// The extension headers, and behind them the one that fragment bits need.
fn with_fragment_header(spec: &Spec) -> Vec<Extension> {
    let mut extensions = spec.extensions.clone();
    let has_one = extensions.iter().any(|extension| extension.kind == FRAGMENT);
    if spec.fragment & 0x3fff != 0 && !has_one {
        extensions.push(Extension::new(FRAGMENT));
    }
    extensions
}

/// Options of padding (RFC 8200 chapter 4.2); or a fragment's place and identification (chapter 4.5).
fn extension(&Extension { kind, units, route, says, names }: &Extension, next: u8, fragment: u16) -> Vec<u8> {
    let next = names.unwrap_or(next);
    if kind == FRAGMENT {
        let [p0, p1] = (fragment << 3 | fragment >> 13 & 1).to_be_bytes();
        return vec![next, 0, p0, p1, 0, 0, 0, 0x1c];
    }
    let mut header = vec![next, says.unwrap_or(units), route[0], route[1]];
    let length = if kind == AUTHENTICATION { (usize::from(units) + 2) * 4 } else { (usize::from(units) + 1) * 8 };
    header.resize(length, 0);
    header
}

/// The transport header and its payload, with the sum that the text asks for.
pub(super) fn transport(spec: &Spec) -> Vec<u8> {
    let mut bytes = with_right_sum(spec);
    let sum_at = match spec.protocol {
        TCP => 16,
        UDP => 6,
        SCTP => sctp::SUM_AT,
        _ => 2,
    };
    if let Some(field) = bytes[sum_at..].first_chunk_mut().filter(|_| spec.lies.transport_sum) {
        *field = wrong(*field);
    }
    bytes
}

fn with_right_sum(spec: &Spec) -> Vec<u8> {
    if let (Some(echo), ICMP | ICMP_V6) = (spec.echo, spec.protocol) {
        return icmp::echo(spec, echo);
    }
    if let Some(message) = &spec.message {
        return message.build(spec);
    }
    let mut bytes = [spec.source.port().to_be_bytes(), spec.destination.port().to_be_bytes()].concat();
    let sum_at = match spec.protocol {
        TCP => {
            let words = 5 + spec.options.1;
            bytes.extend(1_000_u32.to_be_bytes());
            bytes.extend(spec.acknowledged.to_be_bytes());
            bytes.extend([spec.lies.tcp_words.unwrap_or(words as u8) << 4, spec.flags, 0x20, 0, 0, 0, 0, 0]);
            bytes.resize(words * 4, 1);
            16
        }
        UDP => {
            bytes.extend(spec.lies.udp_length.unwrap_or((8 + spec.data) as u16).to_be_bytes());
            bytes.extend([0, 0]);
            6
        }
        SCTP => return sctp::packet(spec),
        // A neighbour solicitation (RFC 4861 chapter 4.3) and an echo request (RFC 792), without their bodies.
        ICMP_V6 => return vec![135, 0, 0, 0, 0, 0, 0, 0],
        _ => return vec![8, 0, 0xf7, 0xff, 0, 0, 0, 0],
    };
    let data_at = bytes.len();
    bytes.extend((0..spec.data).map(|index| index as u8));
    complete(spec, &mut bytes, sum_at, data_at);
    bytes
}

fn complete(spec: &Spec, bytes: &mut [u8], sum_at: usize, data_at: usize) {
    if spec.no_sum {
        return;
    }
    let sum = |bytes: &[u8]| transport_sum([spec.source.ip(), spec.destination.ip()], spec.protocol, bytes);
    if let Some(wanted) = spec.wanted_sum {
        // The sum is linear: the first word of payload takes up what is missing.
        bytes[data_at..data_at + 2].fill(0);
        let plain = !u16::from_be_bytes(sum(bytes));
        let missing = u32::from(!wanted) + u32::from(!plain);
        let word = (missing & 0xffff) + (missing >> 16);
        bytes[data_at..data_at + 2].copy_from_slice(&(word as u16).to_be_bytes());
        bytes[sum_at..sum_at + 2].copy_from_slice(&wanted.to_be_bytes());
        return;
    }
    let sum = match sum(bytes) {
        [0, 0] if spec.protocol == UDP => [0xff, 0xff],
        sum => sum,
    };
    bytes[sum_at..sum_at + 2].copy_from_slice(&sum);
}
