//! The designs that others have: Maglev's table alone, or beside a table of connections that the first packet fills.

use xlb_common::family::{Family as _, V4};
use xlb_common::hash::{FlowParts, flow_hash, slot_of};
use xlb_userspace::plan::maglev::maglev;

use super::clock::TICKS_PER_S;
use super::cluster::{Cluster, SERVICES};
use super::design::{Cause, Design};
use super::lru::Lru;
use super::packet::{Holders, Packet, Pod, Segment, Socket};

/// Slots of a service.
const SLOTS: u32 = 4093;
/// New connections in a second above which Katran notes none (`MAX_CONN_RATE` of its balancer_consts.h).
const KATRAN_RATE_MAX: u64 = 125_000;

/// Client, VIP and both ports, with the protocol.
type Tuple = [u8; 16];

/// A table of connections in front of Maglev's.
struct Connections {
    lru: Lru<Tuple, Pod>,
    /// With the guard: how many connections were new in this second.
    guard: Option<(u64, u64)>,
}

/// Maglev, with or without a table of connections. Replies are no matter to it: its pods answer clients directly.
pub struct Peer {
    /// For each service, owner of each slot.
    tables: Vec<Vec<Pod>>,
    connections: Option<Connections>,
    tick: u64,
}

impl Peer {
    /// Maglev's table alone.
    #[must_use]
    pub fn stateless() -> Self {
        Self { tables: vec![Vec::new(); SERVICES.len()], connections: None, tick: 0 }
    }

    /// With so many connections remembered, whatever their number.
    #[must_use]
    pub fn lru(entries: u32) -> Self {
        Self { connections: Some(Connections { lru: Lru::new(entries, 1), guard: None }), ..Self::stateless() }
    }

    /// With so many connections remembered, and none while too many are new.
    #[must_use]
    pub fn guarded(entries: u32) -> Self {
        Self { connections: Some(Connections { lru: Lru::new(entries, 1), guard: Some((0, 0)) }), ..Self::stateless() }
    }

    fn by_table(&self, packet: &Packet) -> Option<Pod> {
        let (vip, port) = packet.destination;
        let of_packet = |one: &super::cluster::Service| one.vips.contains(&vip) && one.port.to_be_bytes() == port;
        let table = &self.tables[SERVICES.iter().position(of_packet)?];
        let parts = FlowParts {
            client: V4::to_hash(packet.source.0),
            vip: V4::to_hash(vip),
            client_port: u16::from_be_bytes(packet.source.1),
            vip_port: u16::from_be_bytes(port),
            protocol: packet.segment.protocol(),
        };
        table.get(slot_of(flow_hash(parts), table.len() as u32) as usize).copied()
    }
}

impl Design for Peer {
    fn forward(&mut self, packet: &Packet, _holders: &Holders) -> Option<Pod> {
        let picked = self.by_table(packet);
        let Some(connections) = &mut self.connections else { return picked };
        let tuple = tuple_of(packet);
        let known = if packet.segment == Segment::Syn { None } else { connections.lru.get(&tuple) };
        if known.is_some() {
            return known;
        }
        if let Some(pod) = picked
            && connections.may_note(self.tick)
        {
            connections.lru.insert(tuple, pod);
        }
        picked
    }

    fn back(&mut self, _reply: &Packet, was_to: Socket, _holders: &Holders) -> Option<Socket> {
        Some(was_to)
    }

    fn accepted(&mut self, _client: Socket, _pod: Socket) {}

    fn closed(&mut self, _client: Socket, _pod: Socket) {}

    fn cause(&self, _packet: &Packet, _own: Pod, _cluster: &Cluster, _holders: &Holders) -> Cause {
        if self.connections.is_some() { Cause::NoEntry } else { Cause::Stateless }
    }

    fn say(&self) -> String {
        String::new()
    }

    fn at(&mut self, tick: u64) {
        self.tick = tick;
    }

    fn learn(&mut self, cluster: &Cluster) -> Option<u64> {
        for (service, table) in self.tables.iter_mut().enumerate() {
            // Maglev orders by name, and gives places in that order.
            let mut takers: Vec<(String, Pod)> =
                cluster.takers(service).into_iter().map(|pod| (format!("pod-{pod:06}"), pod)).collect();
            takers.sort_unstable();
            let names: Vec<(String, u16)> = takers.iter().map(|(name, _)| (name.clone(), 1)).collect();
            let owner = |place: u8| takers.get(usize::from(place)).map(|(_, pod)| *pod);
            *table = maglev(SLOTS, &names).into_iter().filter_map(owner).collect();
        }
        None
    }

    fn work(&mut self, _operations: usize) -> bool {
        false
    }

    fn left(&self) -> usize {
        0
    }

    fn restart(&mut self) {}
}

impl Connections {
    fn may_note(&mut self, tick: u64) -> bool {
        let Some((second, new)) = &mut self.guard else { return true };
        if tick / TICKS_PER_S != *second {
            (*second, *new) = (tick / TICKS_PER_S, 0);
        }
        *new += 1;
        *new <= KATRAN_RATE_MAX
    }
}

fn tuple_of(packet: &Packet) -> Tuple {
    let mut tuple = [0; 16];
    tuple[..4].copy_from_slice(&packet.source.0);
    tuple[4..6].copy_from_slice(&packet.source.1);
    tuple[6] = packet.segment.protocol();
    tuple[8..12].copy_from_slice(&packet.destination.0);
    tuple[12..14].copy_from_slice(&packet.destination.1);
    tuple
}
