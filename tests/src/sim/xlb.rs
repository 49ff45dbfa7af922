//! xlb itself: the packet path over frames, the planner over the simulated maps, and what `accepted` hears.

use std::net::SocketAddr;

use xlb_common::Reason;
use xlb_common::abi::{FLOWS_MAX, FlowKeyV4, Settings, TCP};
use xlb_common::family::{Family as _, V4};
use xlb_common::hash::{FlowParts, flow_hash, slot_of};
use xlb_common::packet::BytePacket;
use xlb_common::path::{Arrival, Door, egress, ingress};
use xlb_common::tables::{FlowTable, Tables};
use xlb_common::{admit, ageing};

use super::agent::Agent;
use super::cluster::Cluster;
use super::design::{Cause, Design};
use super::packet::{Holders, Packet, Pod, Segment, Socket, State};
use super::tables::SimTables;

/// The uplink's index.
pub(super) const UPLINK: u32 = 2;
/// Index of the link of pod 0; the others follow.
pub const FIRST_LINK: u32 = 100;
const TCP_FRAME: usize = 14 + 20 + 20;
const UDP_FRAME: usize = 14 + 20 + 8;

/// The maps, the agent, and room for a frame.
pub struct Xlb {
    tables: SimTables,
    agent: Agent,
    frame: Vec<u8>,
    why: Reason,
}

impl Xlb {
    /// With empty maps, as large as an agent with `--max-flows` makes them.
    #[must_use]
    pub fn new(max_flows: u32) -> Self {
        Self { tables: SimTables::new(max_flows), agent: Agent::default(), frame: Vec::new(), why: Reason::NotOurs }
    }

    /// Nobody outside addresses pods.
    #[must_use]
    pub fn with_pods_of_cluster(max_flows: u32) -> Self {
        let mut xlb = Self::new(max_flows);
        xlb.tables.settings = Settings::NONE.with_pods_of_cluster();
        xlb
    }

    /// Slots forget their former owners: to see that the simulator finds it.
    #[must_use]
    pub fn forgetting_owners() -> Self {
        let mut xlb = Self::new(FLOWS_MAX);
        xlb.tables.forgets_owners = true;
        xlb
    }

    fn key(client: Socket, pod: Socket) -> FlowKeyV4 {
        V4::flow_key(client, pod)
    }

    /// Whether the slot of the packet's flow names the pod.
    fn is_named(&self, packet: &Packet, own: Pod) -> bool {
        let (vip, port) = packet.destination;
        let key = V4::endpoint_key(vip, port, packet.segment.protocol());
        let Some(frontend) = Tables::<V4>::frontend(&self.tables, key) else { return false };
        let member_is_own = |member: xlb_common::abi::Member| {
            Tables::<V4>::backend(&self.tables, member.id())
                .is_some_and(|backend| backend.generation == member.generation && backend.ifindex == FIRST_LINK + own)
        };
        if frontend.slots == 0 {
            return member_is_own(frontend.sole);
        }
        let parts = FlowParts {
            client: V4::to_hash(packet.source.0),
            vip: V4::to_hash(vip),
            client_port: u16::from_be_bytes(packet.source.1),
            vip_port: u16::from_be_bytes(port),
            protocol: packet.segment.protocol(),
        };
        let index = frontend.slots_base + slot_of(flow_hash(parts), frontend.slots);
        let Some(word) = Tables::<V4>::slot(&self.tables, index) else { return false };
        let mut owners = word.current().into_iter().chain(word.previous());
        owners.any(|owner| {
            Tables::<V4>::member(&self.tables, frontend.members_base + u32::from(owner)).is_some_and(member_is_own)
        })
    }
}

impl Design for Xlb {
    fn forward(&mut self, packet: &Packet, holders: &Holders) -> Option<Pod> {
        self.tables.holders.set(*holders);
        write_frame(&mut self.frame, packet);
        let arrival = Arrival::at(Door::Tc, UPLINK);
        match ingress(&mut BytePacket(&mut self.frame), &self.tables, arrival) {
            Ok(delivery) => {
                self.why = delivery.reason;
                delivery.to.map(|link| link.get() - FIRST_LINK)
            }
            Err(reason) => {
                self.why = reason;
                None
            }
        }
    }

    fn back(&mut self, reply: &Packet, _was_to: Socket, holders: &Holders) -> Option<Socket> {
        self.tables.holders.set(*holders);
        write_frame(&mut self.frame, reply);
        match egress::<_, _, true>(&mut BytePacket(&mut self.frame), &self.tables) {
            Ok(delivery) => {
                self.why = delivery.reason;
                let bytes = &self.frame;
                let source = ([bytes[26], bytes[27], bytes[28], bytes[29]], [bytes[34], bytes[35]]);
                delivery.to.filter(|link| link.get() == UPLINK).map(|_| source)
            }
            Err(reason) => {
                self.why = reason;
                None
            }
        }
    }

    fn accepted(&mut self, client: Socket, pod: Socket) {
        let endpoint = V4::endpoint_key(pod.0, pod.1, TCP);
        admit::accepted::<V4, _>(&self.tables, &Self::key(client, pod), &endpoint);
    }

    fn closed(&mut self, client: Socket, pod: Socket) {
        let endpoint = V4::endpoint_key(pod.0, pod.1, TCP);
        ageing::closed::<V4, _>(&self.tables, &Self::key(client, pod), &endpoint);
    }

    fn cause(&self, packet: &Packet, own: Pod, cluster: &Cluster, holders: &Holders) -> Cause {
        if !self.is_named(packet, own) {
            return Cause::ForgottenOwner;
        }
        let (key, pod) = (Self::key(packet.source, cluster.pod(own).socket()), cluster.pod(own));
        if packet.segment == Segment::Datagram {
            let is_known = self.tables.knows([FlowTable::Udp, FlowTable::UdpPending], &key);
            return if is_known { Cause::UdpOlderEntry } else { Cause::UdpUnknown };
        }
        if pod.is_hidden {
            let is_known = self.tables.knows([FlowTable::Tcp, FlowTable::TcpPending], &key);
            return if is_known { Cause::HalfOpenUnproven } else { Cause::Hidden };
        }
        match holders.state(own, self.tables.now.get() as u32) {
            State::Cookie => Cause::CookieUnproven,
            State::HalfOpen | State::Open => Cause::HalfOpenUnproven,
            State::Nothing | State::TimeWait => Cause::Other,
        }
    }

    fn say(&self) -> String {
        format!("{:?}", self.why)
    }

    fn at(&mut self, tick: u64) {
        self.tables.now.set(tick);
    }

    fn learn(&mut self, cluster: &Cluster) -> Option<u64> {
        self.agent.look(cluster, &self.tables)
    }

    fn work(&mut self, operations: usize) -> bool {
        self.agent.work(&mut self.tables, operations)
    }

    fn left(&self) -> usize {
        self.agent.left()
    }

    fn restart(&mut self) {
        self.agent = Agent::reading(&self.tables);
    }
}

/// The pod's number, which its link has.
#[must_use]
pub fn link_of(pod: Pod) -> u32 {
    FIRST_LINK + pod
}

/// Address and port, for the planner.
#[must_use]
pub fn socket_of((address, port): Socket) -> SocketAddr {
    (address, u16::from_be_bytes(port)).into()
}

/// A frame whose checksums are nobody's: the path lets them follow, and reads none.
fn write_frame(frame: &mut Vec<u8>, packet: &Packet) {
    let segment = packet.segment;
    let is_udp = segment == Segment::Datagram;
    frame.clear();
    frame.resize(if is_udp { UDP_FRAME } else { TCP_FRAME } + 1, 0);
    let [.., length] = frame.len().to_be_bytes();
    frame[12] = 0x08;
    frame[14] = 0x45;
    frame[17] = length - 14 - u8::from(segment.payload() == 0);
    frame[22] = 64;
    frame[23] = segment.protocol();
    frame[26..30].copy_from_slice(&packet.source.0);
    frame[30..34].copy_from_slice(&packet.destination.0);
    frame[34..36].copy_from_slice(&packet.source.1);
    frame[36..38].copy_from_slice(&packet.destination.1);
    if is_udp {
        frame[39] = 9;
    } else {
        frame[41] = packet.sequence;
        frame[45] = packet.acknowledged;
        frame[46] = 0x50;
        frame[47] = segment.flags();
    }
}
