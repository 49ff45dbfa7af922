//! `xlb explain`: the packet path itself, over the live maps, with each step told.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use xlb_common::Reason;
use xlb_common::abi::{Backend, Frontend, Member, frontend_flags as flags};
use xlb_common::checksum::checksum;
use xlb_common::packet::BytePacket;
use xlb_common::parse::tcp_flags;
use xlb_common::path::{Arrival, Delivery, Door, ingress};
use xlb_common::sctp::chunk;
use xlb_common::slot::SlotWord;
use xlb_common::tables::{Proof, Stage};

use crate::cli::inspection::interface;
use crate::cli::output::OutputArgs;
use crate::cli::span::Span;
use crate::cli::{PinArgs, next};
use crate::maps::keys::stored;
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;
use crate::maps::tables::LiveTables;
use crate::plan::Observed;
use crate::plan::desired::Protocol;

/// TTL or hop limit of the packet that is explained.
const TTL: u8 = 64;

const NS_PER_S: u64 = 1_000_000_000;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// Which packet.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Protocol of the packet
    #[arg(long, value_enum, default_value = "tcp")]
    proto: ProtocolArg,
    /// The client's address and port
    #[arg(long, value_name = "A:P", required_unless_present = "next")]
    src: Option<SocketAddr>,
    /// The VIP and port
    #[arg(long, value_name = "VIP:P", required_unless_present = "next")]
    dst: Option<SocketAddr>,
    /// A packet in the middle of a TCP connection or an SCTP association instead of its first one
    #[arg(long)]
    established: bool,
    /// The next N packets instead that come for addresses that are served, and the next replies
    #[arg(long, value_name = "N", conflicts_with_all = ["src", "dst", "established", "proto"],
        value_parser = clap::value_parser!(u64).range(1..))]
    next: Option<u64>,
    /// With --next: how long to wait for them; 0: for ever
    #[arg(long = "for", value_name = "TIME", default_value = "1m", requires = "next")]
    duration: Span,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pins: PinArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolArg {
    Tcp,
    Udp,
    Sctp,
}

/// Explains what the arguments ask for.
///
/// # Errors
/// When there is no dataplane, or the ends of the packet are of two families.
pub fn run(args: ExplainArgs) -> Result<()> {
    let pins = PinDirectory::new(args.pins.bpffs_dir);
    match (args.src, args.dst, args.next) {
        (_, _, Some(count)) => next::explain(&pins, count, args.duration, args.output),
        (Some(source), Some(destination), None) => {
            let protocol = match args.proto {
                ProtocolArg::Tcp => Protocol::Tcp,
                ProtocolArg::Udp => Protocol::Udp,
                ProtocolArg::Sctp => Protocol::Sctp,
            };
            let question = Question { protocol, source, destination, is_established: args.established };
            explain(&pins, &question, args.output)
        }
        _ => bail!("name --src and --dst, or say --next"),
    }
}

/// The packet to explain.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Its protocol.
    pub protocol: Protocol,
    /// The client.
    pub source: SocketAddr,
    /// The VIP.
    pub destination: SocketAddr,
    /// TCP: a packet with ACK instead of a SYN; SCTP: one with DATA instead of INIT.
    pub is_established: bool,
}

/// The packet's way.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The packet.
    pub packet: String,
    /// What was looked at, in this order.
    pub steps: Vec<Step>,
    /// The packet as the pod gets it; absent: it is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub becomes: Option<String>,
    /// Name of the reason: of the counter that such a packet counts in.
    pub reason: &'static str,
    /// The reason as a sentence.
    pub verdict: &'static str,
}

/// Something that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it is.
    pub step: &'static str,
    /// What was found.
    pub found: String,
}

/// Prints the packet's way, stage by stage.
///
/// # Errors
/// When there is no dataplane, or the ends of the packet are of two families.
pub fn explain(pins: &PinDirectory, question: &Question, output: OutputArgs) -> Result<()> {
    let (source, destination) = (question.source.ip(), question.destination.ip());
    ensure!(
        source.is_ipv4() == destination.is_ipv4(),
        "{source} and {destination} are no two ends of one packet: name two addresses of the same IP version"
    );
    let maps = LiveMaps::open(pins)?;
    let tables = LiveTables::new(&maps, pins)?;
    let observed = maps.observed()?;
    let mut bytes = packet(question);
    let verdict = ingress(&mut BytePacket(&mut bytes), &tables, Arrival::at(Door::Tc, 0));
    let stages = tables.stages.borrow();
    // What was told before the packet was handed over is told once more.
    let first = stages.iter().rposition(|stage| *stage == Stage::PortTaken).unwrap_or_default();
    let steps = steps(&stages[first..], &observed);
    output.print(&conclude(describe(question), steps, verdict, &bytes), |explanation, _| text(explanation))
}

fn conclude(packet: String, steps: Vec<Step>, verdict: Result<Delivery, Reason>, bytes: &[u8]) -> Explanation {
    let becomes = verdict.is_ok().then(|| ends(bytes));
    let reason = verdict.map_or_else(|reason| reason, |delivery| delivery.reason);
    Explanation { packet, steps, becomes, reason: reason.label(), verdict: reason.sentence() }
}

/// The packet's way, a line for each step.
pub(super) fn text(explanation: &Explanation) -> String {
    let Explanation { packet, steps, becomes, reason, verdict } = explanation;
    let steps = steps.iter().map(|Step { step, found }| (*step, found.as_str()));
    let verdict = format!("{verdict} ({reason})");
    let all = [("packet", packet.as_str())].into_iter().chain(steps);
    let all = all.chain(becomes.iter().map(|becomes| ("becomes", becomes.as_str()))).chain([("verdict", &*verdict)]);
    all.map(|(name, what)| format!("{name:<10} {what}\n")).collect()
}

/// The steps of the path.
pub(super) fn steps(stages: &[Stage], observed: &Observed) -> Vec<Step> {
    let mut teller = Teller { observed, members_base: 0 };
    stages.iter().map(|stage| teller.tell(stage)).collect()
}

fn describe(question: &Question) -> String {
    let kind = match (question.protocol, question.is_established) {
        (Protocol::Udp, _) => "udp",
        (Protocol::Tcp, false) => "tcp SYN",
        (Protocol::Tcp, true) => "tcp ACK",
        (Protocol::Sctp, false) => "sctp INIT",
        (Protocol::Sctp, true) => "sctp DATA",
    };
    format!("{kind} {} > {}", question.source, question.destination)
}

/// Puts stages into words. Members are known by the frontend that came before them.
struct Teller<'a> {
    observed: &'a Observed,
    members_base: u32,
}

impl Teller<'_> {
    fn tell(&mut self, stage: &Stage) -> Step {
        let (step, found) = match stage {
            Stage::Frontend(frontend) => {
                self.members_base = frontend.members_base;
                let service = self.observed.services.get(&frontend.service);
                let name = service.map_or("a service without a name", |service| &service.name);
                let among = match frontend.slots {
                    0 => "one backend".into(),
                    slots => format!("{slots} slots"),
                };
                ("frontend", format!("{name}: {among}{}", conditions(frontend)))
            }
            Stage::Source { is_allowed: true } => ("source", "in one of the service's source ranges".into()),
            Stage::Source { is_allowed: false } => ("source", "in none of the service's source ranges".into()),
            Stage::Slot { index, word } => ("slot", format!("{index}: {}", self.owners(*word))),
            Stage::Asked { owner, proof, .. } => ("asked", format!("{}: {}", self.member(*owner), proof_words(*proof))),
            Stage::LookedUp { owner, found, .. } => {
                let answer = if *found { "has a flow entry" } else { "has no flow entry" };
                ("looked up", format!("{}: {answer}", self.member(*owner)))
            }
            Stage::OtherFrontend { owner } => {
                ("other VIP", format!("{}: its connection is to that", self.member(*owner)))
            }
            Stage::PortTaken => ("port", "has a flow with another VIP of one of the pods".into()),
            Stage::Seat { port } => ("seen as", format!("port {} of the client", u16::from_be_bytes(*port))),
            Stage::Affinity { backend, age_ns, is_followed } => {
                let verdict = if *is_followed { "followed" } else { "not followed" };
                let age_s = age_ns / NS_PER_S;
                ("affinity", format!("{}, {age_s} s ago: {verdict}", self.backend(*backend)))
            }
            Stage::Chosen(backend) => ("backend", format!("{}, {}", backend.socket(), delivery(backend))),
        };
        Step { step, found }
    }

    fn owners(&self, word: SlotWord) -> String {
        let current = word.current().map_or_else(|| "nobody".into(), |owner| self.member(owner));
        let former: Vec<_> = word.previous().map(|owner| self.member(owner)).collect();
        if former.is_empty() { current } else { format!("{current}, before it {}", former.join(", ")) }
    }

    fn backend(&self, id: u32) -> String {
        let backend = self.observed.backends.get(&id);
        backend.map_or_else(|| format!("backend {id}"), |backend| backend.socket().to_string())
    }

    fn member(&self, owner: u8) -> String {
        let member = self.observed.members.get(&(self.members_base + u32::from(owner)));
        let backend = member.and_then(|member: &Member| self.observed.backends.get(&member.id()));
        backend.map_or_else(|| format!("member {owner}"), |backend| backend.socket().to_string())
    }
}

fn conditions(frontend: &Frontend) -> String {
    let filtered = if frontend.flags & flags::SOURCE_RANGES == 0 { "" } else { ", open to its source ranges only" };
    let affinity = match frontend.affinity_s {
        0 => String::new(),
        seconds => format!(", affinity by client for {seconds} s"),
    };
    let handover =
        if frontend.has(flags::HOST_BEFORE) { ", older connections may be with the host's stack" } else { "" };
    let strays = if frontend.has(flags::STRAYS) { ", lost a pod a short while ago" } else { "" };
    format!("{filtered}{affinity}{handover}{strays}")
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

/// Source and destination of the packet, and its TTL.
fn ends(bytes: &[u8]) -> String {
    let (addresses, header, ttl) = match bytes[ETHERNET] >> 4 {
        6 => (22, 40, bytes[21]),
        _ => (26, 20, bytes[22]),
    };
    let width = if header == 40 { 16 } else { 4 };
    let end = |number: usize| {
        let (address, port) = (addresses + number * width, ETHERNET + header + number * 2);
        let port = u16::from_be_bytes([bytes[port], bytes[port + 1]]);
        SocketAddr::new(address_of(&bytes[address..address + width]), port)
    };
    format!("{} > {}, ttl {ttl}", end(0), end(1))
}

fn address_of(bytes: &[u8]) -> IpAddr {
    match <[u8; 16]>::try_from(bytes) {
        Ok(octets) => octets.into(),
        Err(_) => std::array::from_fn::<u8, 4, _>(|index| bytes[index]).into(),
    }
}

/// The packet as it would arrive.
fn packet(question: &Question) -> Vec<u8> {
    let transport = transport_header(question);
    let (length, protocol) = (transport.len() as u16, question.protocol.number());
    let mut bytes = vec![0; ETHERNET];
    match (question.source.ip(), question.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes[12..].copy_from_slice(&[0x08, 0x00]);
            let [high, low] = (20 + length).to_be_bytes();
            let mut header = vec![0x45, 0, high, low, 0, 0, 0, 0, TTL, protocol, 0, 0];
            header.extend(source.octets().into_iter().chain(destination.octets()));
            let sum = checksum(0, &header);
            header[10..12].copy_from_slice(&sum);
            bytes.extend(header);
        }
        (source, destination) => {
            bytes[12..].copy_from_slice(&[0x86, 0xdd]);
            let [high, low] = length.to_be_bytes();
            bytes.extend([0x60, 0, 0, 0, high, low, protocol, TTL]);
            bytes.extend(stored(source).into_iter().chain(stored(destination)));
        }
    }
    bytes.extend(transport);
    bytes
}

fn transport_header(question: &Question) -> Vec<u8> {
    let ports = [question.source.port().to_be_bytes(), question.destination.port().to_be_bytes()];
    let mut bytes = ports.concat();
    match question.protocol {
        Protocol::Tcp => {
            let flags = if question.is_established { tcp_flags::ACK } else { tcp_flags::SYN };
            bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 5 << 4, flags, 0, 0, 0, 0, 0, 0]);
        }
        // A checksum that is not zero: IPv6 has no other (RFC 8200 chapter 8.1). Nobody verifies it here.
        Protocol::Udp => bytes.extend([0, 8, 0xff, 0xff]),
        // Verification tag, checksum, and a chunk with nothing in it.
        Protocol::Sctp => {
            let kind = if question.is_established { chunk::DATA } else { chunk::INIT };
            bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, kind, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
    }
    bytes
}
