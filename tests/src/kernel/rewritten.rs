//! A packet before and after one of its ends got a new address and port: that nothing else changed, and that each sum
//! followed by just that. A wrong sum is as wrong as before; the sums are told by their own arithmetic, from all of the bytes.

use std::net::SocketAddr;
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use xlb_common::abi::{SCTP, TCP, UDP};

use super::flows::socket;
use super::frame::{FRAGMENT, ICMP, ICMP_V6};
use super::headers::Layout;
use super::icmp;
use super::sctp;

/// Bytes of IPv6's fragment header.
const FRAGMENT_HEADER: usize = 8;
/// IPv4's fragment offset; IPv6's, in the field of its own header.
const OFFSET_V4: u16 = 0x1fff;
const OFFSET_V6: u16 = 0xfff8;

/// Who of a packet has a new address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its sender.
    Source,
    /// Its receiver.
    Destination,
}

/// A packet without VLAN tags, before and after.
pub struct Rewritten<'a> {
    before: &'a [u8],
    after: &'a [u8],
    end: End,
    at: Places,
}

/// Where the parts of a packet are.
struct Places {
    layout: Layout,
    transport_at: usize,
    protocol: u8,
    is_later_fragment: bool,
}

impl Places {
    fn of(frame: &[u8]) -> Result<Self> {
        let layout = Layout::of(frame).context("it is no whole IP header")?;
        let number = |at: usize| frame.get(at..at + 2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
        let (transport_at, protocol) = (layout.transport_at, frame[layout.protocol_at]);
        if layout.is_v4() {
            let is_later_fragment = number(layout.ip_at + 6) & OFFSET_V4 != 0;
            return Ok(Self { layout, transport_at, protocol, is_later_fragment });
        }
        if protocol != FRAGMENT {
            return Ok(Self { layout, transport_at, protocol, is_later_fragment: false });
        }
        let protocol = *frame.get(transport_at).context("it ends before its fragment header")?;
        let is_later_fragment = number(transport_at + 2) & OFFSET_V6 != 0;
        Ok(Self { layout, transport_at: transport_at + FRAGMENT_HEADER, protocol, is_later_fragment })
    }

    fn is_message(&self) -> bool {
        self.protocol == if self.layout.is_v4() { ICMP } else { ICMP_V6 }
    }

    fn has_ports(&self) -> bool {
        !self.is_later_fragment && !self.is_message()
    }

    /// Where the transport's sum is.
    fn sum(&self) -> Range<usize> {
        let (offset, length) = match self.protocol {
            TCP => (16, 2),
            UDP => (6, 2),
            SCTP => (sctp::SUM_AT, 4),
            _ => (2, 2),
        };
        self.transport_at + offset..self.transport_at + offset + length
    }

    /// The end's address, and its port if there is one.
    fn end(&self, end: End) -> [Range<usize>; 2] {
        let (address, port) = match end {
            End::Source => (0, 0),
            End::Destination => (self.layout.address_length, 2),
        };
        let (address, port) = (self.layout.addresses_at + address, self.transport_at + port);
        let port = if self.has_ports() { port..port + 2 } else { 0..0 };
        [address..address + self.layout.address_length, port]
    }
}

impl<'a> Rewritten<'a> {
    /// Fails if there is more to it than a new end, a hop that is counted, and sums that follow.
    pub fn of(before: &'a [u8], after: &'a [u8], end: End, counts_hop: bool) -> Result<Self> {
        let packet = Self { before, after, end, at: Places::of(before)? };
        let hops = packet.at.layout.hops_at;
        let follows = packet.has_sum_that_follows();
        packet.check_unchanged(follows.then(|| packet.at.sum()))?;
        ensure!(after[hops] == before[hops] - u8::from(counts_hop), "{} hops became {}", before[hops], after[hops]);
        ensure!(!counts_hop || after[hops] != 0, "it has no hop left");
        packet.check_header_sum()?;
        if follows {
            packet.check_transport_sum()?;
        }
        Ok(packet)
    }

    /// The packet that an error quotes, of which the other end changed; none: it is no error.
    pub fn quote(&self, quotes: &'a [Vec<u8>; 2]) -> Result<Option<Self>> {
        if !self.at.is_message() {
            return Ok(None);
        }
        let [before, after] = quotes;
        let end = if self.end == End::Source { End::Destination } else { End::Source };
        let quote = Self { before, after, end, at: Places::of(before)? };
        let behind_message = self.payload().saturating_sub(icmp::HEADER_LENGTH) + quote.at.layout.ip_at;
        let sum = quote.at.sum();
        // Nobody compares SCTP's; the frame's padding is no sum.
        let follows = quote.at.protocol != SCTP && sum.end <= behind_message.min(before.len());
        quote.check_unchanged(follows.then(|| sum.clone()))?;
        let hops = quote.at.layout.hops_at;
        ensure!(after[hops] == before[hops], "the quoted packet's hops changed");
        quote.check_header_sum()?;
        if follows {
            quote.check_transport_sum()?;
        }
        Ok(Some(quote))
    }

    /// Bytes behind the IP header, as it says.
    fn payload(&self) -> usize {
        let headers = self.at.transport_at - self.at.layout.ip_at;
        (self.at.layout.ip_length(self.before) as usize).saturating_sub(headers)
    }

    /// A later fragment has none.
    fn has_sum_that_follows(&self) -> bool {
        !self.at.is_later_fragment
    }

    /// The frame's MACs, and what [`Rewritten`] is about; of an error what it quotes, which is looked at by itself.
    fn check_unchanged(&self, sum: Option<Range<usize>>) -> Result<()> {
        let layout = &self.at.layout;
        ensure!(self.after.len() == self.before.len(), "{} bytes became {}", self.before.len(), self.after.len());
        let header_sum = if layout.is_v4() { layout.ip_at + 10..layout.ip_at + 12 } else { 0..0 };
        let quote =
            if self.at.is_message() { self.at.transport_at + icmp::HEADER_LENGTH..self.before.len() } else { 0..0 };
        let [address, port] = self.at.end(self.end);
        let mut expected = self.before.to_vec();
        for part in [0..12, layout.hops_at..layout.hops_at + 1, header_sum, address, port, quote, sum.unwrap_or(0..0)] {
            let bytes = self.after.get(part.clone()).context("it ends before what changed")?;
            expected[part].copy_from_slice(bytes);
        }
        ensure!(expected == self.after, "other bytes changed:\n{:02x?}\nnot\n{expected:02x?}", self.after);
        Ok(())
    }

    fn check_header_sum(&self) -> Result<()> {
        let layout = &self.at.layout;
        if layout.is_v4() {
            let header = layout.ip_at..layout.transport_at;
            let [before, after] = [self.before, self.after].map(|frame| total(&[&frame[header.clone()]]));
            ensure!(before == after, "the IPv4 header's sum was wrong by {before:04x}, and is by {after:04x}");
        }
        Ok(())
    }

    fn check_transport_sum(&self) -> Result<()> {
        let [was, is] = [self.before, self.after].map(|frame| frame.get(self.at.sum()).unwrap_or_default());
        let is_none = match self.at.protocol {
            // Over IPv6 only where it is quoted: no such packet is served.
            UDP => was == [0, 0],
            SCTP => was == [0; 4],
            _ => false,
        };
        if is_none {
            ensure!(is == was, "a sum that says that there is none became {is:02x?}");
            return Ok(());
        }
        ensure!(self.at.protocol != UDP || is != [0, 0], "a sum became one that says that there is none");
        let [before, after] = [self.before, self.after].map(|frame| self.wrong_by(frame));
        ensure!(before == after, "the transport's sum was wrong by {before:04x}, and is by {after:04x}");
        Ok(())
    }

    /// Zero: the sum is right.
    fn wrong_by(&self, frame: &[u8]) -> u32 {
        let segment = &frame[self.at.transport_at..];
        if self.at.protocol == SCTP {
            let mut segment = segment.to_vec();
            segment.resize(self.payload(), 0);
            let [right, field] =
                [sctp::sum(&segment), segment[sctp::SUM_AT..].first_chunk().copied().unwrap_or_default()];
            return u32::from_be_bytes(right) ^ u32::from_be_bytes(field);
        }
        let layout = &self.at.layout;
        let addresses = &frame[layout.addresses_at..layout.addresses_at + 2 * layout.address_length];
        let is_icmp = layout.is_v4() && self.at.is_message();
        u32::from(total(&[if is_icmp { &[] } else { addresses }, segment]))
    }

    /// The end that changed, before and after; without a port if it has none.
    #[must_use]
    pub fn changed(&self) -> (SocketAddr, SocketAddr) {
        (self.socket(self.before, self.end), self.socket(self.after, self.end))
    }

    /// The other end.
    #[must_use]
    pub fn unchanged(&self) -> SocketAddr {
        self.socket(self.before, if self.end == End::Source { End::Destination } else { End::Source })
    }

    /// IP protocol number.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.at.protocol
    }

    /// Whether it is a later fragment.
    #[must_use]
    pub fn has_no_ports(&self) -> bool {
        self.at.is_later_fragment
    }

    /// Fails unless the frame has these MACs, destination and source, or those of before.
    pub fn check_macs(&self, new: Option<[[u8; 6]; 2]>) -> Result<()> {
        let expected = new.map_or_else(|| self.before[..12].to_vec(), |macs| macs.concat());
        ensure!(self.after[..12] == expected, "its MACs are {:02x?}, not {expected:02x?}", &self.after[..12]);
        Ok(())
    }

    fn socket(&self, frame: &[u8], end: End) -> SocketAddr {
        let [source, destination] = self.at.layout.addresses(frame);
        let [_, port] = self.at.end(end);
        let port = frame[port].first_chunk().copied().unwrap_or_default();
        socket(if end == End::Source { source } else { destination }, port)
    }
}

/// The packets that an error quotes, before and after; empty ones: it is no error.
#[must_use]
pub fn quotes(before: &[u8], after: &[u8]) -> [Vec<u8>; 2] {
    [before, after].map(|frame| icmp::quoted(frame).unwrap_or_default())
}

/// The sum of 16-bit words in one's complement, with one zero. Each part but the last has an even number of bytes.
fn total(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words.map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0))).sum();
    (sum % 0xffff) as u16
}
