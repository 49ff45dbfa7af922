//! `xlb explain`: the packet path itself, over the live maps, with each step told.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use xlb_common::Reason;
use xlb_common::abi::{Backend, Member, TCP, UDP};
use xlb_common::checksum::checksum;
use xlb_common::packet::BytePacket;
use xlb_common::parse::tcp_flags;
use xlb_common::path::{Arrival, Delivery, Door, ingress};
use xlb_common::slot::SlotWord;
use xlb_common::tables::{Proof, Stage};

use crate::cli::inspection::interface;
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
use crate::maps::tables::LiveTables;
use crate::plan::Observed;
use crate::plan::desired::Protocol;

/// TTL of the packet that is explained.
const TTL: u8 = 64;

/// The packet to explain.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Its protocol.
    pub protocol: Protocol,
    /// The client.
    pub source: SocketAddrV4,
    /// The VIP.
    pub destination: SocketAddrV4,
    /// TCP: a packet with ACK instead of a SYN.
    pub is_established: bool,
}

/// Prints the packet's way, stage by stage.
///
/// # Errors
/// When there is no dataplane.
pub fn explain(pins: &PinDirectory, question: &Question) -> Result<()> {
    let maps = LiveMaps::open(pins)?;
    let tables = LiveTables::new(&maps, pins)?;
    let observed = maps.observed()?;
    let mut bytes = packet(question);
    let arrival = Arrival { door: Door::Tc, ifindex: 0 };
    let verdict = ingress(&mut BytePacket(&mut bytes), &tables, arrival);
    let mut text = format!("packet     {}\n", describe(question));
    let mut teller = Teller { observed: &observed, members_base: 0 };
    for stage in tables.stages.borrow().iter() {
        teller.tell(&mut text, stage);
    }
    let _ = writeln!(text, "{}", conclusion(verdict, &bytes));
    print!("{text}");
    Ok(())
}

fn describe(question: &Question) -> String {
    let kind = match (question.protocol, question.is_established) {
        (Protocol::Udp, _) => "udp",
        (Protocol::Tcp, false) => "tcp SYN",
        (Protocol::Tcp, true) => "tcp ACK",
    };
    format!("{kind} {} > {}", question.source, question.destination)
}

/// Puts stages into words. Members are known by the frontend that came before them.
struct Teller<'a> {
    observed: &'a Observed,
    members_base: u32,
}

impl Teller<'_> {
    fn tell(&mut self, text: &mut String, stage: &Stage) {
        let line = match stage {
            Stage::Frontend(frontend) => {
                self.members_base = frontend.members_base;
                let service = self.observed.services.get(&frontend.service);
                let name = service.map_or("a service without a name", |service| &service.name);
                match frontend.slots {
                    0 => format!("frontend   {name}: one backend"),
                    slots => format!("frontend   {name}: {slots} slots"),
                }
            }
            Stage::Slot { index, word } => format!("slot       {index}: {}", self.owners(*word)),
            Stage::Asked { owner, proof, .. } => format!("asked      {}: {}", self.member(*owner), proof_words(*proof)),
            Stage::LookedUp { owner, found, .. } => {
                let answer = if *found { "has a flow entry" } else { "has no flow entry" };
                format!("looked up  {}: {answer}", self.member(*owner))
            }
            Stage::Chosen(backend) => format!("backend    {}, {}", backend.socket_v4(), delivery(backend)),
        };
        let _ = writeln!(text, "{line}");
    }

    fn owners(&self, word: SlotWord) -> String {
        let current = word.current().map_or_else(|| "nobody".into(), |owner| self.member(owner));
        let former: Vec<_> = word.previous().map(|owner| self.member(owner)).collect();
        if former.is_empty() { current } else { format!("{current}, before it {}", former.join(", ")) }
    }

    fn member(&self, owner: u8) -> String {
        let member = self.observed.members.get(&(self.members_base + u32::from(owner)));
        let backend = member.and_then(|member: &Member| self.observed.backends.get(&member.id()));
        backend.map_or_else(|| format!("member {owner}"), |backend| backend.socket_v4().to_string())
    }
}

fn proof_words(proof: Proof) -> &'static str {
    match proof {
        Proof::Absent => "its kernel has no socket for this port",
        Proof::Listening => "its kernel listens, and does not know the connection",
        Proof::HalfOpen => "its kernel has a handshake under way",
        Proof::TimeWait => "its kernel has the connection in TIME_WAIT",
        Proof::Owned => "its kernel holds the connection",
    }
}

fn delivery(backend: &Backend) -> String {
    match (backend.is_direct(), backend.ifindex) {
        (true, ifindex) => format!("direct by {}", interface(ifindex)),
        (false, _) => "through the stack".into(),
    }
}

fn conclusion(verdict: Result<Delivery, Reason>, bytes: &[u8]) -> String {
    let reason = match verdict {
        Ok(delivery) => delivery.reason,
        Err(reason) => reason,
    };
    let becomes = match verdict {
        Ok(_) => format!("becomes    {} > {}, ttl {}\n", socket(bytes, 26, 34), socket(bytes, 30, 36), bytes[22]),
        Err(_) => String::new(),
    };
    format!("{becomes}verdict    {} ({})", reason.sentence(), reason.label())
}

fn socket(bytes: &[u8], address_at: usize, port_at: usize) -> SocketAddrV4 {
    let octets: [u8; 4] = std::array::from_fn(|index| bytes[address_at + index]);
    SocketAddrV4::new(Ipv4Addr::from(octets), u16::from_be_bytes([bytes[port_at], bytes[port_at + 1]]))
}

/// The packet as it would arrive.
fn packet(question: &Question) -> Vec<u8> {
    let (protocol, transport) = match question.protocol {
        Protocol::Tcp => (TCP, 20usize),
        Protocol::Udp => (UDP, 8),
    };
    let mut bytes = vec![0; 14 + 20 + transport];
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    bytes[14] = 0x45;
    bytes[16..18].copy_from_slice(&((20 + transport) as u16).to_be_bytes());
    (bytes[22], bytes[23]) = (TTL, protocol);
    bytes[26..30].copy_from_slice(&question.source.ip().octets());
    bytes[30..34].copy_from_slice(&question.destination.ip().octets());
    let sum = checksum(0, &bytes[14..34]);
    bytes[24..26].copy_from_slice(&sum);
    bytes[34..36].copy_from_slice(&question.source.port().to_be_bytes());
    bytes[36..38].copy_from_slice(&question.destination.port().to_be_bytes());
    match question.protocol {
        Protocol::Tcp => {
            bytes[46] = 5 << 4;
            bytes[47] = if question.is_established { tcp_flags::ACK } else { tcp_flags::SYN };
        }
        Protocol::Udp => bytes[38..40].copy_from_slice(&8u16.to_be_bytes()),
    }
    bytes
}
