//! The ICMP error that refuses a packet, read and checked by hand: what `out refusal` of a row stands for.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use xlb_common::abi::SCTP;
use xlb_common::checksum::checksum;

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

/// The frame without its tags, and these. The outermost one that an error regains is kept beside it.
fn untagged(frame: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut plain = frame.to_vec();
    let ip_at = Layout::of(frame).context("it is no IP packet")?.ip_at;
    let tags = plain.drain(12..ip_at - 2).collect();
    Ok((plain, tags))
}
