//! The ICMP error that refuses a packet, read and checked by hand: what `out refusal` of a row stands for.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use xlb_common::abi::{SCTP, TCP};
use xlb_common::checksum::checksum;

use super::describe::{Sums, sums};
use super::flows::socket;
use super::frame::{ICMP, ICMP_V6};
use super::headers::{Layout, transport_sum};
use super::pieces::as_whole;
use super::sample::NODE;

/// Bytes behind the quoted IP header; of SCTP as many as have the tag of an INIT (RFC 9260 chapter 10).
const QUOTED: usize = 8;
const QUOTED_OF_SCTP: usize = 20;

/// Bytes of a VLAN tag.
const TAG: usize = 4;

/// The destination that an error says to be unreachable; fails if the error is not right in every byte. A first fragment
/// is quoted as the whole packet that it stands for.
pub fn check(refused: &[u8], error: &[u8]) -> Result<SocketAddr> {
    let (refused, tags) = untagged(refused)?;
    let (error, tags_of_error) = untagged(error)?;
    ensure!(tags_of_error == tags.get(TAG..).unwrap_or_default(), "it has the tags {tags_of_error:02x?}");
    let (refused, error) = (&as_whole(&refused)[..], &error[..]);
    let layout = Layout::of(refused).context("what was refused is no IP packet")?;
    let (ip, at) = (&error[14..layout.transport_at], layout.transport_at);
    ensure!(Layout::of(error) == Some(layout), "the error is of another family");
    ensure!(error[..6] == refused[6..12] && error[6..12] == refused[..6], "the MACs are not exchanged");
    let [source, destination] = layout.addresses(error);
    let [client, vip] = layout.addresses(refused);
    let node: IpAddr = if client.is_ipv4() { NODE.0.into() } else { NODE.1.into() };
    ensure!([source, destination] == [node, client], "it goes from {source} to {destination}");
    ensure!(error[layout.hops_at] == 64, "its TTL is {}", error[layout.hops_at]);
    let quoted = if refused[layout.protocol_at] == SCTP { QUOTED_OF_SCTP } else { QUOTED };
    let quote = &refused[14..at + quoted];
    ensure!(error.len() == at + 8 + quote.len(), "it has {} bytes", error.len());
    ensure!(&error[at + 8..] == quote, "it does not quote what was refused");
    let message = &error[at..];
    let length = |at: usize| usize::from(u16::from_be_bytes([error[at], error[at + 1]]));
    if client.is_ipv4() {
        ensure!(checksum(0, ip) == [0, 0], "the IP header's sum is wrong");
        ensure!(error[14] == 0x45 && length(16) == error.len() - 14, "the IP header's lengths are wrong");
        ensure!(error[23] == ICMP && message[..2] == [3, 3], "it is not `port unreachable`");
        ensure!(checksum(0, message) == [0, 0], "the ICMP sum is wrong");
    } else {
        ensure!(length(18) == message.len(), "the payload's length is wrong");
        ensure!(error[20] == ICMP_V6 && message[..2] == [1, 4], "it is not `port unreachable`");
        let sum = transport_sum([source, destination], ICMP_V6, message);
        ensure!(sum == [0, 0], "the ICMPv6 sum is wrong");
    }
    ensure!(message[4..8] == [0; 4], "the unused bytes are used");
    Ok(socket(vip, [refused[at + 2], refused[at + 3]]))
}

/// Whichever of both it is.
pub fn check_either(refused: &[u8], answer: &[u8]) -> Result<SocketAddr> {
    let layout = Layout::of(answer).context("the answer is no IP packet")?;
    if answer[layout.protocol_at] == TCP { check_reset(refused, answer) } else { check(refused, answer) }
}

/// The frame without its tags, and these. The outermost one that an error regains is kept beside it.
fn untagged(frame: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut plain = frame.to_vec();
    let ip_at = Layout::of(frame).context("it is no IP packet")?.ip_at;
    let tags = plain.drain(12..ip_at - 2).collect();
    Ok((plain, tags))
}

/// The destination that a TCP reset refuses; fails if the reset is not right in every byte (RFC 9293 chapter 3.10.7.1).
pub fn check_reset(refused: &[u8], reset: &[u8]) -> Result<SocketAddr> {
    let (refused, tags) = untagged(refused)?;
    let (reset, tags_of_reset) = untagged(reset)?;
    ensure!(tags_of_reset == tags.get(TAG..).unwrap_or_default(), "it has the tags {tags_of_reset:02x?}");
    let refused = as_whole(&refused);
    let layout = Layout::of(&refused).context("what was refused is no IP packet")?;
    let at = layout.transport_at;
    ensure!(Layout::of(&reset) == Some(layout), "the reset is of another family");
    ensure!(reset[..6] == refused[6..12] && reset[6..12] == refused[..6], "the MACs are not exchanged");
    let ([client, vip], [from, to]) = (layout.ends(&refused), layout.ends(&reset));
    ensure!([from, to] == [vip, client], "it goes from {from} to {to}");
    ensure!(reset.len() == at + 20, "it has {} bytes", reset.len());
    ensure!(sums(&reset) == Some(Sums { ip: true, transport: true }), "its sums are wrong");
    ensure!(reset[layout.hops_at] == 64 && reset[layout.protocol_at] == TCP, "its IP header is wrong");
    let number = |frame: &[u8], at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let header = usize::from(refused[at + 12] >> 4) * 4;
    let data = layout.ip_length(&refused) as usize - (at - layout.ip_at) - header;
    let expected = number(&refused, at + 4).wrapping_add(data as u32 + 1);
    ensure!(number(&reset, at + 4) == 0 && number(&reset, at + 8) == expected, "it does not acknowledge the SYN");
    ensure!(reset[at + 12..at + 14] == [0x50, 0x14] && reset[at + 14..at + 16] == [0; 2], "it is no plain RST and ACK");
    Ok(vip)
}
