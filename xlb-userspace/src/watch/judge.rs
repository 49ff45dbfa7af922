//! The packet path on a copy of a packet.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::SystemTime;

use xlb_common::packet::BytePacket;
use xlb_common::path::{Arrival, Door, egress, ingress};
use xlb_common::reason::Direction as Way;
use xlb_common::tables::{Stage, Tables};
use xlb_common::{Reason, V4, V6};

use super::event::{Direction, Event, verdict};
use super::frame::Ends;
use crate::maps::attach::FrontDoor;
use crate::maps::tables::LiveTables;
use crate::maps::watching::Arrived;
use crate::plan::Endpoint;
use crate::plan::Observed;
use crate::plan::desired::Protocol;

/// Behind the MACs, where a tag was.
const TAG_AT: usize = 12;

/// Where a packet was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the link.
    pub link: String,
    /// Its index.
    pub ifindex: u32,
    /// Of an uplink, before which program packets are heard; none: a pod's packets arrive there.
    pub door: Option<FrontDoor>,
}

/// Tables that remember the path's steps.
pub trait Told: Tables<V4> + Tables<V6> {
    /// The steps since the last time.
    fn take_stages(&self) -> Vec<Stage>;
}

impl Told for LiveTables<'_> {
    fn take_stages(&self) -> Vec<Stage> {
        self.stages.take()
    }
}

/// What the path says of a packet; none: it is about no address that is served.
pub fn judge<T: Told>(arrived: Arrived, place: &Place, tables: &T, observed: &Observed) -> Option<Event> {
    if arrived.is_for_other_host {
        return None;
    }
    let Arrived { at, tag, length, bytes: mut packet, .. } = arrived;
    let missing = length.saturating_sub(packet.len());
    // The path asks how long a packet is, and looks at its headers alone.
    packet.resize(packet.len() + missing, 0);
    if let Some(tag) = tag {
        // A frame that is shorter than its MACs is none.
        packet.get(..TAG_AT)?;
        packet.splice(TAG_AT..TAG_AT, tag);
    }
    let ends = Ends::of(&packet)?;
    if place.door.is_some() && !observed.vips.contains_key(&ends.destination.ip()) {
        return None;
    }
    let (reason, after) = walk(&packet, place, tables);
    let stages = last_of(tables.take_stages());
    if place.door.is_none() && !is_reply(reason) {
        return None;
    }
    Some(told((packet, missing), (reason, after), (ends, stages), at, place, observed))
}

/// The path's word, and the packet after it, if that is another one.
fn walk<T: Told>(packet: &[u8], place: &Place, tables: &T) -> (Reason, Option<Vec<u8>>) {
    let run = |path: &dyn Fn(&mut BytePacket) -> Result<xlb_common::path::Delivery, Reason>| {
        let mut bytes = packet.to_vec();
        let verdict = path(&mut BytePacket(&mut bytes));
        let reason = verdict.map_or_else(|reason| reason, |delivery| delivery.reason);
        (reason, (bytes != packet).then_some(bytes))
    };
    if let Some(front) = place.door {
        let enter = |door| run(&|packet| ingress(packet, tables, Arrival::at(door, place.ifindex)));
        let door = match front {
            FrontDoor::Tc => Door::Tc,
            FrontDoor::XdpNative => Door::Xdp,
            FrontDoor::XdpGeneric => Door::XdpAlone,
        };
        return match enter(door) {
            (Reason::LeftToTc, _) => {
                tables.take_stages();
                enter(Door::Tc)
            }
            known => known,
        };
    }
    match run(&|packet| egress::<_, _, true>(packet, tables)) {
        // What the program at the uplink does once the host's stack has routed it.
        (Reason::ReplyLeftToStack, _) => run(&|packet| egress::<_, _, false>(packet, tables)),
        known => known,
    }
}

/// What was told before the packet was handed over is told once more.
fn last_of(stages: Vec<Stage>) -> Vec<Stage> {
    let first = stages.iter().rposition(|stage| *stage == Stage::PortTaken).unwrap_or_default();
    stages.into_iter().skip(first).collect()
}

/// A pod's own traffic is nobody's here.
fn is_reply(reason: Reason) -> bool {
    reason.direction() == Way::Return && reason != Reason::NotAReply
}

fn told(
    (mut packet, missing): (Vec<u8>, usize),
    (reason, mut after): (Reason, Option<Vec<u8>>),
    (ends, stages): (Ends, Vec<Stage>),
    time: SystemTime,
    place: &Place,
    observed: &Observed,
) -> Event {
    let becomes = after.as_deref().and_then(Ends::of).map(|ends| (ends.source, ends.destination));
    let (service, backend) = match place.door.is_some() {
        true => of_stages(&stages, observed),
        false => (becomes.and_then(|(vip, _)| service_at(vip, ends.protocol, observed)), Some(ends.source)),
    };
    let length = packet.len();
    for bytes in [Some(&mut packet), after.as_mut()].into_iter().flatten() {
        bytes.truncate(bytes.len() - missing);
    }
    Event {
        time,
        link: place.link.clone(),
        direction: if place.door.is_some() { Direction::In } else { Direction::Out },
        protocol: ends.protocol_name(),
        flags: ends.flags(),
        source: ends.source,
        destination: ends.destination,
        length,
        verdict: verdict(reason.disposition()),
        reason,
        service,
        backend,
        becomes,
        before: packet,
        missing,
        after,
        stages,
    }
}

fn of_stages(stages: &[Stage], observed: &Observed) -> (Option<String>, Option<SocketAddr>) {
    let service = stages.iter().find_map(|stage| match stage {
        Stage::Frontend(frontend) => observed.services.get(&frontend.service).map(|service| service.name.clone()),
        _ => None,
    });
    let backend = stages.iter().rev().find_map(|stage| match stage {
        Stage::Chosen(backend) => Some(backend.socket()),
        _ => None,
    });
    (service, backend)
}

fn service_at(vip: SocketAddr, protocol: u8, observed: &Observed) -> Option<String> {
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|it| it.number() == protocol)?;
    let frontend = observed.frontends.get(&Endpoint { socket: vip, protocol })?;
    observed.services.get(&frontend.service).map(|service| service.name.clone())
}

/// The links of backends that are in use, with those that cannot be watched left out: a backend may have no link of its own.
#[must_use]
pub fn pod_links(observed: &Observed, is_wanted: impl Fn(&str) -> bool) -> BTreeSet<u32> {
    let services = observed.services.iter().filter(|(_, service)| is_wanted(&service.name));
    let ids = services.flat_map(|(id, service)| {
        let members = service.members_base..service.members_base + service.members;
        let of_slots = members.filter_map(|index| observed.members.get(&index));
        let soles =
            observed.frontends.iter().filter(move |(_, frontend)| frontend.service == *id && frontend.slots == 0);
        of_slots.map(xlb_common::abi::Member::id).chain(soles.map(|(_, frontend)| frontend.sole.id()))
    });
    let backends = ids.filter_map(|id| observed.backends.get(&id));
    backends.filter(|backend| backend.is_in_use() && backend.ifindex != 0).map(|backend| backend.ifindex).collect()
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
