//! What a packet that is served has to be, told from its bytes: whatever else its headers say, they name one receiver, and
//! have room for what is rewritten.

use anyhow::{Context as _, Result, ensure};
use xlb_common::abi::{SCTP, TCP};

use super::frame::{AUTHENTICATION, FRAGMENT, ICMP, ICMP_V6, ROUTING};
use super::headers::Layout;
use super::outcome::Hook;
use super::sample::UPLINK_MAC;

/// IPv4's source routes (RFC 791), and the end of options.
const SOURCE_ROUTES: [u8; 2] = [131, 137];
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
/// IPv4's fragment offset.
const OFFSET_V4: u16 = 0x1fff;
/// Bytes of a TCP header's fixed part.
const TCP_HEADER: usize = 20;

/// Fails if a frame without tags should have been left alone.
pub fn check(hook: Hook, frame: &[u8]) -> Result<()> {
    let layout = Layout::of(frame).context("it is no whole IP header")?;
    ensure!(!hook.is_ingress() || frame[..6] == UPLINK_MAC, "it is for another host");
    let version = if layout.is_v4() { 4 } else { 6 };
    ensure!(frame[layout.ip_at] >> 4 == version, "its version is {}", frame[layout.ip_at] >> 4);
    ensure!(layout.transport_at >= layout.ip_at + if layout.is_v4() { 20 } else { 40 }, "its IP header is too short");
    if layout.is_v4() {
        check_options(&frame[layout.ip_at + 20..layout.transport_at])?;
    } else {
        check_extensions(frame, &layout)?;
    }
    check_transport(frame, &layout)
}

/// A packet with a source route is not at its end.
fn check_options(mut options: &[u8]) -> Result<()> {
    while let [kind, rest @ ..] = options {
        ensure!(!SOURCE_ROUTES.contains(kind), "it has a source route");
        options = match *kind {
            END_OF_OPTIONS => return Ok(()),
            NO_OPERATION => rest,
            _ => {
                let length = usize::from(*rest.first().context("an option has no length")?);
                ensure!(length >= 2, "an option has {length} bytes");
                options.get(length..).context("an option is longer than the header")?
            }
        };
    }
    Ok(())
}

/// Nor is one with a routing header that has segments left, or of the type that nobody may follow (RFC 5095).
fn check_extensions(frame: &[u8], layout: &Layout) -> Result<()> {
    let (mut kind, mut at) = (frame[layout.ip_at + 6], layout.ip_at + 40);
    while at < layout.transport_at {
        let [next, units, routing_type, left] = frame[at..].first_chunk().copied().context("it ends in a header")?;
        ensure!(kind != ROUTING || routing_type != 0 && left == 0, "it is to be routed on");
        ensure!(kind != 0 || at == layout.ip_at + 40, "hop-by-hop options are not first");
        at += if kind == AUTHENTICATION { (usize::from(units) + 2) * 4 } else { (usize::from(units) + 1) * 8 };
        kind = next;
    }
    Ok(())
}

/// The packet has room for the header, and so has the frame; a later fragment is behind a TCP header (RFC 1858, RFC 3128).
fn check_transport(frame: &[u8], layout: &Layout) -> Result<()> {
    let number = |at: usize| frame.get(at..at + 2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let (mut at, mut protocol, mut offset) = (layout.transport_at, frame[layout.protocol_at], 0);
    if layout.is_v4() {
        offset = usize::from(number(layout.ip_at + 6) & OFFSET_V4) * 8;
    } else if protocol == FRAGMENT {
        protocol = frame[at];
        offset = usize::from(number(at + 2) & !7);
        at += 8;
    }
    if offset != 0 {
        ensure!(protocol != TCP || offset >= TCP_HEADER, "it would replace a part of a TCP header");
        return Ok(());
    }
    let header = match protocol {
        TCP => usize::from(frame.get(at + 12).copied().unwrap_or(0) >> 4) * 4,
        SCTP => 16,
        ICMP | ICMP_V6 => return Ok(()),
        _ => 8,
    };
    ensure!(protocol != TCP || header >= TCP_HEADER, "its TCP header has {header} bytes");
    // Zero stands for a packet beyond 64 kB.
    let is_known = number(layout.ip_at + if layout.is_v4() { 2 } else { 4 }) != 0;
    let packet = if is_known { layout.ip_length(frame) as usize + layout.ip_at } else { usize::MAX };
    ensure!(at + header <= packet, "its {header} bytes of header end behind the packet, which has {packet}");
    ensure!(at + header.min(TCP_HEADER) <= frame.len(), "its header ends behind the frame");
    Ok(())
}
