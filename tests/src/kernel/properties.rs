//! What holds for every packet at every hook, whatever its bytes are; told from the bytes before and after, and by the tables.
//!
//! - What is passed on is unchanged to the last byte, and what is answered becomes the right answer.
//! - Of what is served change one address, one port, the hop where xlb counts it, the sums, the MACs where a link needs them,
//!   and nothing else ([`rewritten`]).
//! - It names one receiver, and has room for its headers ([`sound`]).
//! - It goes to a pod that its service names as an owner, or leaves as the VIP of one of its flows.
//! - What was answered by the pod comes from where the client sent to ([`check_answer`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use xlb_common::abi::{Backend, FlowEntry, Frontend, Member, SCTP, SoleFrontend, TCP, UDP};
use xlb_common::memory::{InMemory, MemoryTables};
use xlb_common::parse::tcp_flags;
use xlb_common::sctp::chunk;
use xlb_common::slot::{OWNERS, SlotWord};
use xlb_common::way::way_of;
use xlb_common::{Disposition, Family as _, Reason, V4, V6};

use super::describe::describe;
use super::flows::{self, socket, stored};
use super::frame::FRAGMENT;
use super::headers::Layout;
use super::host;
use super::icmp;
use super::outcome::{Hook, Outcome, Verdict};
use super::pieces::is_fragment;
use super::refusal;
use super::rewritten::{self, End, Rewritten};
use super::sample::PORTS;
use super::sctp::CHUNK_AT;
use super::sound;

/// An address, a port and a protocol.
type Place = (SocketAddr, u8);

/// The services and pods of tables that do not change, as the properties need them.
pub struct Properties {
    /// The present and former owners of each frontend's slots.
    owners: BTreeMap<Place, BTreeSet<SocketAddr>>,
    /// The pods.
    backends: BTreeMap<Place, Backend>,
}

impl Properties {
    /// Of these services and pods.
    #[must_use]
    pub fn of(tables: &MemoryTables) -> Self {
        let v4 = owners::<V4>(tables, |key| (socket(key.address, key.port), key.protocol));
        let v6 = owners::<V6>(tables, |key| (socket(key.address, key.port), key.protocol));
        let owners = v4.into_iter().chain(v6).collect();
        let backends = tables.backends.values().map(|backend| ((address_of(backend), backend.protocol), *backend));
        Self { owners, backends: backends.collect() }
    }

    /// Fails if a hook made of `frame` what it must not.
    pub fn check(&self, tables: &MemoryTables, hook: Hook, frame: &[u8], outcome: &Outcome) -> Result<()> {
        let reason = outcome.reason.context("nothing was counted")?;
        let verdicts = match reason.disposition() {
            Disposition::Forward => &[Verdict::Redirect, Verdict::Pass][..],
            Disposition::Pass => &[Verdict::Pass],
            Disposition::Drop => &[Verdict::Drop],
            Disposition::Reply => &[Verdict::Redirect],
        };
        ensure!(verdicts.contains(&outcome.verdict), "{reason:?} came out as {:?}", outcome.verdict);
        match reason.disposition() {
            Disposition::Forward => self.check_served(tables, hook, frame, outcome),
            Disposition::Reply if reason == Reason::EchoAnswered => check_echo(frame, &outcome.frame),
            Disposition::Reply => refusal::check_either(frame, &outcome.frame).map(drop),
            // Nobody sees its bytes: one that was to be answered may have lost its tags.
            Disposition::Drop => Ok(()),
            Disposition::Pass => {
                ensure!(outcome.frame == frame, "{reason:?}, and was changed:\n{:02x?}", outcome.frame);
                Ok(())
            }
        }
    }

    fn check_served(&self, tables: &MemoryTables, hook: Hook, frame: &[u8], outcome: &Outcome) -> Result<()> {
        let end = if hook.is_ingress() { End::Destination } else { End::Source };
        let counts_hop = outcome.verdict == Verdict::Redirect && hook != Hook::Egress;
        let ((before, tags), (after, tags_after)) = (untagged(frame), untagged(&outcome.frame));
        match (hook, outcome.verdict) {
            (Hook::Tc, Verdict::Redirect) => ensure!(tags_after.is_empty(), "a pod gets tags"),
            (Hook::Pod, _) => ensure!(tags.is_empty(), "a pod chose tags"),
            _ => ensure!(tags == tags_after, "its tags changed"),
        }
        sound::check(hook, &before)?;
        if has_twin_port(&before, &after, end) {
            return check_sums(&before, &after);
        }
        let packet = Rewritten::of(&before, &after, end, counts_hop)?;
        let quotes = rewritten::quotes(&before, &after);
        let quote = packet.quote(&quotes).context("what it quotes")?;
        let served =
            Served { hook, verdict: outcome.verdict, packet: &packet, told: quote.as_ref().unwrap_or(&packet) };
        if hook.is_ingress() { self.check_pod(&served) } else { check_vip(tables, &served) }
    }

    /// The new destination is an owner of the frontend that the packet was sent to; of an error, so is what it quotes as source.
    fn check_pod(&self, served: &Served) -> Result<()> {
        let Served { hook, verdict, packet, told } = *served;
        let (vip, pod) = told.changed();
        let outer = packet.changed();
        ensure!([outer.0.ip(), outer.1.ip()] == [vip.ip(), pod.ip()], "the error goes elsewhere than what it quotes");
        // A later fragment has no ports.
        let is_at = |address: &SocketAddr, place: SocketAddr| {
            address.ip() == place.ip() && (told.has_no_ports() || address.port() == place.port())
        };
        let mut frontends =
            self.owners.iter().filter(|((at, protocol), _)| *protocol == told.protocol() && is_at(at, vip));
        ensure!(
            frontends.any(|(_, owners)| owners.iter().any(|owner| is_at(owner, pod))),
            "{pod} owns nothing of {vip}"
        );
        let mut backends =
            self.backends.iter().filter(|((at, protocol), _)| *protocol == told.protocol() && is_at(at, pod));
        let (_, backend) = backends.next().with_context(|| format!("{pod} is no backend"))?;
        ensure!(backend.is_direct() == (verdict == Verdict::Redirect), "{verdict:?} to {pod}");
        let has_new_macs = hook.is_xdp() && backend.is_direct();
        packet.check_macs(has_new_macs.then_some([backend.pod_mac, backend.host_mac]))
    }
}

/// What became of a packet.
struct Served<'a> {
    hook: Hook,
    verdict: Verdict,
    packet: &'a Rewritten<'a>,
    /// The packet that has the ports: itself, or the one that it quotes.
    told: &'a Rewritten<'a>,
}

/// The new source is the VIP by which one of the pod's flows came; an error of the node itself keeps the node's address.
fn check_vip(tables: &MemoryTables, served: &Served) -> Result<()> {
    let Served { hook, packet, told, .. } = *served;
    let ((pod, vip), client, outer) = (told.changed(), told.unchanged(), packet.changed());
    let is_of_node = hook == Hook::Egress && outer.0 == outer.1 && outer.0.ip() != pod.ip();
    ensure!(is_of_node || outer.1.ip() == vip.ip(), "it is from {}, and about {vip}", outer.1);
    let flows = flows::of(tables).into_iter().filter(|((table, key), _)| {
        let [of_client, of_pod] = key.ends();
        let is_it = [of_client, of_pod] == [client, pod];
        let is_of_addresses = [of_client.ip(), of_pod.ip()] == [client.ip(), pod.ip()];
        PORTS[usize::from(table / 2)].0 == told.protocol() && (is_it || told.has_no_ports() && is_of_addresses)
    });
    let entries = flows.map(|(_, entry)| entry);
    let came_by = |entry: &FlowEntry| {
        entry.vip == stored(vip.ip()) && (told.has_no_ports() || entry.vip_port == vip.port().to_be_bytes())
    };
    let entries: Vec<FlowEntry> = entries.filter(came_by).collect();
    if entries.is_empty() && is_sole(tables, (pod, vip)) {
        return packet.check_macs(None);
    }
    ensure!(!entries.is_empty(), "no flow of {pod} and {client} came by {vip}");
    if hook != Hook::Pod && served.verdict != Verdict::Redirect {
        return packet.check_macs(None);
    }
    // What is pending and what is accepted may have come by different ways.
    let ways = entries.iter().filter_map(|entry| way_of::<V4, _>(tables, entry).ok());
    let mut checks = ways.map(|way| packet.check_macs(Some([way.next_hop_mac, way.uplink_mac])));
    ensure!(checks.any(|check| check.is_ok()), "its MACs are of none of the ways of {entries:?}");
    Ok(())
}

/// Whether that VIP and port alone lead to the pod, so that no flow has to be known.
fn is_sole(tables: &MemoryTables, (pod, vip): (SocketAddr, SocketAddr)) -> bool {
    let port = pod.port().to_be_bytes();
    let sole = match pod.ip() {
        IpAddr::V4(ip) => tables.v4.sole_frontends.get(&V4::endpoint_key(ip.octets(), port, TCP)),
        IpAddr::V6(ip) => tables.v6.sole_frontends.get(&V6::endpoint_key(ip.octets(), port, TCP)),
    };
    let is_it = |sole: &SoleFrontend| (sole.vip, sole.vip_port) == (stored(vip.ip()), vip.port().to_be_bytes());
    tables.settings.get().pods_are_clusters() && sole.is_some_and(is_it)
}

/// Whether the end that keeps its address has another port, in the packet or in what it quotes: one flow of two that a pod
/// could not tell apart. What becomes of those is said by rows (`twins.txt`).
fn has_twin_port(before: &[u8], after: &[u8], end: End) -> bool {
    let port = |frame: &[u8], end: End| {
        let layout = Layout::of(frame)?;
        let fragment_header = if frame[layout.protocol_at] == FRAGMENT { 8 } else { 0 };
        let at = layout.transport_at + fragment_header + if end == End::Source { 2 } else { 0 };
        frame.get(at..at + 2).map(<[u8]>::to_vec)
    };
    match [before, after].map(icmp::quoted) {
        [Some(before), Some(after)] => {
            let end = if end == End::Source { End::Destination } else { End::Source };
            port(&before, end) != port(&after, end)
        }
        _ => {
            Layout::of(before).is_some_and(|at| [UDP, FRAGMENT].contains(&before[at.protocol_at]))
                && port(before, end) != port(after, end)
        }
    }
}

fn check_sums(before: &[u8], after: &[u8]) -> Result<()> {
    let [before, after] = [before, after].map(icmp::all_sums);
    ensure!(before == after, "its sums were {before:?} and are {after:?}");
    Ok(())
}

/// An echo request becomes its reply: ends exchanged, with all of its hops, and otherwise as it was.
fn check_echo(request: &[u8], reply: &[u8]) -> Result<()> {
    let at = Layout::of(request).context("the request is no IP packet")?;
    let mut expected = at.swapped(request);
    expected[..6].copy_from_slice(&request[6..12]);
    expected[6..12].copy_from_slice(&request[..6]);
    expected[at.hops_at] = 64;
    expected[at.transport_at..at.transport_at + 4].copy_from_slice(&request[at.transport_at..at.transport_at + 4]);
    expected[at.transport_at] = if at.is_v4() { 0 } else { 129 };
    let without_sums = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        if at.is_v4() {
            frame[at.ip_at + 10..at.ip_at + 12].fill(0);
        }
        frame[at.transport_at + 2..at.transport_at + 4].fill(0);
        frame
    };
    ensure!(without_sums(&expected) == without_sums(reply), "it became {reply:02x?}, not {expected:02x?}");
    check_sums(request, reply)
}

/// The frame without its tags in line, and these.
fn untagged(frame: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut plain = frame.to_vec();
    let ip_at = Layout::of(frame).map_or(14, |layout| layout.ip_at);
    let tags = plain.drain(12..ip_at - 2).collect();
    (plain, tags)
}

/// The pod answers what it got by swapping the ends: fails unless that leaves as the answer of whom the client sent to. False
/// if the packet asks for no answer: it was not served, is inside a connection, a fragment or an error.
pub fn check_answer(tables: &MemoryTables, hook: Hook, frame: &[u8], got: &Outcome) -> Result<bool> {
    let is_served = got.reason.is_some_and(|reason| reason.disposition() == Disposition::Forward);
    let is_whole = hook.is_ingress() && is_served && !is_fragment(frame) && got.reason != Some(Reason::ErrorDelivered);
    let Some(layout) = Layout::of(frame).filter(|layout| is_whole && leaves_a_flow(layout, frame)) else {
        return Ok(false);
    };
    let of_pod = Layout::of(&got.frame).context("the pod got no IP packet")?;
    let back_at = if got.verdict == Verdict::Redirect { Hook::Pod } else { Hook::Egress };
    let back = host::run(tables, back_at, &answer_to(&of_pod, &got.frame));
    if matches!(back.reason, Some(Reason::ReplyTooBig | Reason::ReplyNotCut)) {
        return Ok(false);
    }
    let of_back = Layout::of(&back.frame).context("the client gets no IP packet")?;
    let [source, destination] = layout.ends(frame);
    let texts = || format!("{}\nanswered by {:?}\n{}", describe(frame), back.reason, describe(&back.frame));
    ensure!(of_back.ends(&back.frame) == [destination, source], "{}", texts());
    Ok(true)
}

/// A SYN, a datagram, or what asks for an association.
fn leaves_a_flow(layout: &Layout, frame: &[u8]) -> bool {
    match frame[layout.protocol_at] {
        UDP => true,
        SCTP => [chunk::INIT, chunk::COOKIE_ECHO].contains(&frame[layout.transport_at + CHUNK_AT]),
        _ => frame[layout.transport_at + 13] & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN,
    }
}

/// What a pod answers: a SYN-ACK, an INIT ACK or a datagram, with a fresh TTL.
fn answer_to(layout: &Layout, frame: &[u8]) -> Vec<u8> {
    let mut answer = layout.swapped(frame);
    answer[layout.hops_at] = 64;
    match answer[layout.protocol_at] {
        TCP => answer[layout.transport_at + 13] = tcp_flags::SYN | tcp_flags::ACK,
        SCTP => answer[layout.transport_at + CHUNK_AT] = chunk::INIT_ACK,
        _ => {}
    }
    answer
}

/// Who owns or owned a slot of each frontend, whether its word still has room for them or not.
fn owners<F: InMemory>(
    tables: &MemoryTables,
    key: impl Fn(&F::EndpointKey) -> Place,
) -> Vec<(Place, BTreeSet<SocketAddr>)> {
    let owners = |frontend: &Frontend| {
        let words = (0..frontend.slots).filter_map(|slot| tables.slots.get(&(frontend.slots_base + slot)));
        let locals: BTreeSet<u8> =
            words.flat_map(|word| (0..OWNERS).filter_map(|index| SlotWord(*word).owner(index))).collect();
        let all = frontend.members_base..frontend.members_base + u32::from(frontend.members);
        let is_owner = |index: &u32, member: &Member| {
            member.is_forgotten() || locals.contains(&((index - frontend.members_base) as u8))
        };
        let members =
            tables.members.range(all).filter(|(index, member)| is_owner(index, member)).map(|(_, member)| member);
        let backends = members.chain([&frontend.sole]).filter_map(|member| live(tables, member));
        backends.map(|backend| address_of(&backend)).collect()
    };
    F::of(tables).frontends.iter().map(|(at, frontend)| (key(at), owners(frontend))).collect()
}

fn live(tables: &MemoryTables, member: &Member) -> Option<Backend> {
    tables.backends.get(&u32::from(member.backend)).filter(|backend| backend.generation == member.generation).copied()
}

fn address_of(backend: &Backend) -> SocketAddr {
    if backend.family == V4::VERSION {
        socket(V4::from_stored(backend.address), backend.port)
    } else {
        socket(V6::from_stored(backend.address), backend.port)
    }
}
