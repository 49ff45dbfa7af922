//! SYN cookies: the kernel keeps nothing of such a handshake, and knows its cookie.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xlb_common::Reason;
use xlb_common::memory::MemoryTables;
use xlb_common::parse::ETHERNET_LENGTH;
use xlb_tests::kernel::dataplane::Dataplane;
use xlb_tests::kernel::describe::describe;
use xlb_tests::kernel::flows::FlowKey;
use xlb_tests::kernel::frame::Spec;
use xlb_tests::kernel::headers::Layout;
use xlb_tests::kernel::host;
use xlb_tests::kernel::outcome::Hook;
use xlb_tests::kernel::sample::{self, Version, pod_address};
use xlb_tests::lab::{Capture, wait_for};

use crate::sockets::{prepare_loopback, silent};
use crate::{STACK_IN_USE, difference, pod_socket, vip};

/// Cookies without a look at the backlog (Documentation/networking/ip-sysctl.rst); of this network namespace.
const COOKIES_ALWAYS: (&str, &str) = ("/proc/sys/net/ipv4/tcp_syncookies", "2");

/// The lowest bits of a cookie are a number of a segment size: the next ones are cookies as well (net/ipv4/syncookies.c).
const BEYOND_SIZES: u32 = 1 << 16;

const LIMIT: Duration = Duration::from_secs(5);
const ANSWERED_WITHIN: Duration = Duration::from_millis(50);

/// Bytes of headers before what an ICMPv6 error quotes.
const V6_LENGTH: usize = 40;
const ERROR_LENGTH: usize = 8;

#[test]
fn a_former_owner_keeps_what_its_cookie_proves() -> Result<()> {
    for version in Version::ALL {
        let mut tables = sample::tables();
        let dataplane = Dataplane::load(&tables, STACK_IN_USE)?;
        prepare_loopback(version)?;
        std::fs::write(COOKIES_ALWAYS.0, COOKIES_ALWAYS.1).context("asking for cookies")?;
        let _listener = TcpListener::bind(pod_socket(version)).context("listening as the pod")?;
        let (sequence, cookie) = handshake(&dataplane, version)?;
        note_cookie(&mut tables, version, sequence, cookie)?;
        for (flags, sequence, acknowledged, is_proven) in [
            ("A", sequence, cookie, true),
            ("PA", sequence, cookie, true),
            ("A", sequence, cookie.wrapping_add(BEYOND_SIZES), false),
            ("A", sequence.wrapping_add(1), cookie, false),
            ("RA", sequence, cookie, false),
            ("S", sequence, cookie, false),
        ] {
            let mut frame = Spec::parse(&format!("tcp {} {} {flags}", silent(version), vip(version)))?.build();
            set_numbers(&mut frame, sequence, acknowledged)?;
            for hook in [Hook::Xdp, Hook::Tc] {
                let outcome = dataplane.run(hook, &frame)?.context("the kernel refused the packet")?;
                let on_host = host::run(&tables, hook, &frame);
                ensure!(outcome == on_host, "{}", difference(&outcome, &on_host));
                let (reason, owner) = if is_proven { (Reason::ProvenOwner, 1) } else { (Reason::UnprovenOwner, 2) };
                let [_, chosen] =
                    Layout::of(&outcome.frame).context("no IP packet came out")?.addresses(&outcome.frame);
                let expected = (Some(reason), pod_address(version, owner));
                assert_eq!((outcome.reason, chosen), expected, "{}", describe(&frame));
            }
        }
    }
    Ok(())
}

/// The numbers with which the silent client would end the handshake that it never sees.
fn handshake(dataplane: &Dataplane, version: Version) -> Result<(u32, u32)> {
    let syn = Spec::parse(&format!("tcp {} {} S", silent(version), pod_socket(version)))?.build();
    let ask = || answer_to(dataplane, &syn, version).transpose();
    let [given, asked] = wait_for(LIMIT, ask).context("the pod answered nothing")??;
    Ok((asked, given.wrapping_add(1)))
}

fn answer_to(dataplane: &Dataplane, syn: &[u8], version: Version) -> Result<Option<[u32; 2]>> {
    let capture = Capture::here("lo")?;
    dataplane.inject(syn)?;
    std::thread::sleep(ANSWERED_WITHIN);
    let frames = capture.stop()?;
    let ends = [pod_socket(version), silent(version)];
    let is_answer = |bytes: &Vec<u8>| Layout::of(bytes).is_some_and(|layout| layout.ends(bytes) == ends);
    let answers = frames.into_iter().flat_map(|frame| [quoted(&frame.bytes), frame.bytes]);
    answers.into_iter().find(is_answer).map(|answer| numbers(&answer)).transpose()
}

/// What an ICMPv6 error is about, as a frame: over IPv6 a route by loopback leads nowhere, and the pod is told so.
fn quoted(frame: &[u8]) -> Vec<u8> {
    let (link, rest) = frame.split_at_checked(ETHERNET_LENGTH).unwrap_or_default();
    [link, rest.get(V6_LENGTH + ERROR_LENGTH..).unwrap_or_default()].concat()
}

fn note_cookie(tables: &mut MemoryTables, version: Version, sequence: u32, acknowledged: u32) -> Result<()> {
    match FlowKey::between(silent(version), pod_socket(version))? {
        FlowKey::V4(key) => tables.v4.cookies.insert((key, sequence, acknowledged)),
        FlowKey::V6(key) => tables.v6.cookies.insert((key, sequence, acknowledged)),
    };
    Ok(())
}

/// Sequence and acknowledgement number of a TCP segment.
fn numbers(frame: &[u8]) -> Result<[u32; 2]> {
    let at = numbers_at(frame)?;
    let number = |at: usize| frame.get(at..).and_then(|bytes| bytes.first_chunk().copied()).map(u32::from_be_bytes);
    Ok([number(at).context("the segment is cut short")?, number(at + 4).context("the segment is cut short")?])
}

/// The path reads no checksum.
fn set_numbers(frame: &mut [u8], sequence: u32, acknowledged: u32) -> Result<()> {
    let at = numbers_at(frame)?;
    frame[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
    frame[at + 4..at + 8].copy_from_slice(&acknowledged.to_be_bytes());
    Ok(())
}

fn numbers_at(frame: &[u8]) -> Result<usize> {
    Ok(Layout::of(frame).context("it is no IP packet")?.transport_at + 4)
}
