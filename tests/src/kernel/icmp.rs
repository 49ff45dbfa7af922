//! ICMP errors from text: `icmp ROUTER:0 VIP:0 too-big quotes tcp VIP:80 CLIENT:40000 A`. What follows `quotes` is the packet
//! that the error is about, in the words of [`super::frame`]; a `cut` there is of its IP packet.
//!
//! | word | message (IPv4, IPv6) |
//! |---|---|
//! | `unreachable` | port unreachable (3/3, 1/4) |
//! | `too-big` | fragmentation needed, packet too big (3/4, 2/0) |
//! | `expired` | time to live exceeded in transit (11/0, 3/0) |
//! | `problem` | parameter problem (12/0, 4/0) |
//! | `quench` | source quench, which is an error no more; in IPv6 a number that is not assigned (4/0, 5/0) |
//! | `redirect` | redirect (5/1, 137/0) |

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use xlb_common::abi::SCTP;
use xlb_common::checksum::checksum;

use super::describe::{Sums, length_of_packet, sums};
use super::frame::{Echo, ICMP, ICMP_V6, Spec};
use super::headers::{Layout, transport_sum};

/// Length of an ICMP header.
pub const HEADER_LENGTH: usize = 8;
/// MTU of the next link, as an error may name it.
const MTU: [u8; 4] = [0, 0, 0x05, 0x00];

/// Words, and the messages' types and codes by family.
pub const KINDS: [(&str, [[u8; 2]; 2]); 6] = [
    ("unreachable", [[3, 3], [1, 4]]),
    ("too-big", [[3, 4], [2, 0]]),
    ("expired", [[11, 0], [3, 0]]),
    ("problem", [[12, 0], [4, 0]]),
    ("quench", [[4, 0], [5, 0]]),
    ("redirect", [[5, 1], [137, 0]]),
];

/// A message that quotes a packet.
#[derive(Clone, Debug)]
pub struct Message {
    /// Index into [`KINDS`].
    pub kind: usize,
    /// The packet.
    pub quote: Box<Spec>,
    /// How many bytes of the packet are quoted, if not all.
    pub keep: Option<usize>,
}

impl Message {
    /// Of a word of [`KINDS`] about the packet that the text describes.
    pub fn parse(kind: &str, quote: &str) -> Result<Self> {
        let kind = KINDS.iter().position(|(word, _)| *word == kind).with_context(|| format!("{kind} is no message"))?;
        let mut quote = Spec::parse(quote)?;
        let keep = quote.frame_length.take();
        Ok(Self { kind, quote: Box::new(quote), keep })
    }

    /// The ICMP message, its sum from scratch.
    pub(super) fn build(&self, spec: &Spec) -> Vec<u8> {
        let (ends, is_v4) = ([spec.source.ip(), spec.destination.ip()], spec.destination.is_ipv4());
        let kind = KINDS[self.kind].1[usize::from(!is_v4)];
        let mut message = [&kind[..], &[0, 0], &MTU, &self.quoted()].concat();
        let sum = if is_v4 { checksum(0, &message) } else { transport_sum(ends, ICMP_V6, &message) };
        message[2..4].copy_from_slice(&sum);
        message
    }

    fn quoted(&self) -> Vec<u8> {
        let mut quoted = self.quote.build().split_off(14);
        quoted.truncate(self.keep.unwrap_or(quoted.len()));
        quoted
    }
}

/// An echo message with the packet's data, its sum from scratch.
pub(super) fn echo(spec: &Spec, echo: Echo) -> Vec<u8> {
    let (ends, is_v4) = ([spec.source.ip(), spec.destination.ip()], spec.destination.is_ipv4());
    let kind = match (echo, is_v4) {
        (Echo::Request, true) => 8,
        (Echo::Request, false) => 128,
        (Echo::Reply, true) => 0,
        (Echo::Reply, false) => 129,
    };
    let mut message = vec![kind, 0, 0, 0, 0, 7, 0, 1];
    message.extend((0..spec.data).map(|index| index as u8));
    let sum = if is_v4 { checksum(0, &message) } else { transport_sum(ends, ICMP_V6, &message) };
    message[2..4].copy_from_slice(&sum);
    message
}

/// Whether the sum of an ICMP message is right; none: it is no ICMP, or none of its family.
#[must_use]
pub fn is_sum_right(protocol: u8, ends: [IpAddr; 2], message: &[u8]) -> Option<bool> {
    match (protocol, ends[0].is_ipv4()) {
        _ if message.len() < HEADER_LENGTH => None,
        (ICMP, true) => Some(checksum(0, message) == [0, 0]),
        (ICMP_V6, false) => Some(transport_sum(ends, ICMP_V6, message) == [0, 0]),
        _ => None,
    }
}

/// The packet that the frame's message quotes, as a frame; none if the message is no error.
#[must_use]
pub fn quoted(frame: &[u8]) -> Option<Vec<u8>> {
    let layout = Layout::of(frame)?;
    let kinds = match (frame[layout.protocol_at], layout.is_v4()) {
        (ICMP, true) => [3, 3, 11, 12],
        (ICMP_V6, false) => [1, 2, 3, 4],
        _ => return None,
    };
    let end = layout.ip_at + length_of_packet(&frame[layout.ip_at..layout.transport_at])?;
    // What follows the packet in the frame is none of the quote.
    let message = frame.get(layout.transport_at..end.min(frame.len()))?;
    let is_error = kinds.contains(message.first()?) && message.len() > HEADER_LENGTH;
    is_error.then(|| [&frame[..12], &frame[layout.ip_at - 2..layout.ip_at], &message[HEADER_LENGTH..]].concat())
}

/// The sums of a frame, and those of the packet that its error quotes; a quoted SCTP sum stays as it was.
#[must_use]
pub fn all_sums(frame: &[u8]) -> [Option<Sums>; 2] {
    let quoted = quoted(frame);
    let is_sctp =
        quoted.as_deref().is_some_and(|frame| Layout::of(frame).is_some_and(|at| frame[at.protocol_at] == SCTP));
    let of_quoted = quoted.as_deref().and_then(sums).map(|sums| Sums { transport: sums.transport || is_sctp, ..sums });
    [sums(frame), of_quoted]
}
