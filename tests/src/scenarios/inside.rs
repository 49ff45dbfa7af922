//! Clients inside: processes of this node, and of pods on it, with the sockets by which they send.
//!
//! A datagram names its destination, a connection does so once: of its later packets nobody asks.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use xlb_common::abi::TCP;
use xlb_common::inside::{Call, InsideTables, Request, Socket, netns_address_key, serve, service_of};
use xlb_common::memory::MemoryTables;
use xlb_common::{Family, Reason, V4, V6};
use xlb_userspace::agent::ClientsInside;
use xlb_userspace::maps::keys::unstored;

use super::case::Client;
use super::node::{Flow, Outcome};
use crate::kernel::flows::stored;

/// Multiples of it are spread evenly over all numbers (the golden ratio's part of 2^32).
const EVEN_STEP: u32 = 0x9e37_79b9;

/// Whether a client's sockets are this node's.
pub fn is_inside(client: &Client) -> bool {
    ["host", "local-pod"].contains(&client.kind.as_str())
}

/// How the operator of a cluster that detects pods in this way starts the agent.
pub fn clients_inside(pod_detection: &str) -> ClientsInside {
    if pod_detection == "none" { ClientsInside::ExternalPolicy } else { ClientsInside::On }
}

/// The sockets of clients inside.
#[derive(Default)]
pub struct Sockets {
    /// Where connections went.
    connected: BTreeMap<(SocketAddr, SocketAddr), SocketAddr>,
    drawn: u32,
}

impl Sockets {
    /// A socket connects, or sends a datagram.
    pub fn open(&mut self, tables: &mut MemoryTables, client: &Client, flow: Flow) -> Outcome {
        self.drawn = self.drawn.wrapping_add(EVEN_STEP);
        match flow.destination {
            SocketAddr::V4(_) => ask::<V4>(tables, client, flow, self.drawn),
            SocketAddr::V6(_) => ask::<V6>(tables, client, flow, self.drawn),
        }
    }

    /// The endpoint accepts the connection.
    pub fn establish(&mut self, flow: Flow, endpoint: SocketAddr) {
        self.connected.insert((flow.source, flow.destination), endpoint);
    }

    /// The socket sends again.
    pub fn go_on(&mut self, tables: &mut MemoryTables, client: &Client, flow: Flow) -> Outcome {
        match self.connected.get(&(flow.source, flow.destination)) {
            Some(&endpoint) if flow.protocol == TCP => Outcome::Reached(endpoint),
            _ => self.open(tables, client, flow),
        }
    }
}

/// The client is bound to no address, and its namespace's is known.
fn ask<F: Family>(tables: &mut MemoryTables, client: &Client, flow: Flow, random: u32) -> Outcome
where
    MemoryTables: InsideTables<F>,
{
    let own = stored(flow.source.ip());
    let netns = u128::from_be_bytes(own);
    let netns = (netns >> 64) as u64 ^ netns as u64;
    tables.inside.addresses.insert(netns_address_key::<F>(netns), own);

    let vip = (F::from_stored(stored(flow.destination.ip())), flow.destination.port().to_be_bytes());
    let Some(service) = service_of::<F, _>(tables, vip, flow.protocol) else { return Outcome::Passed };
    let request = Request {
        call: if flow.protocol == TCP { Call::Connect } else { Call::Send },
        vip,
        source: F::from_stored([0; 16]),
        socket: Socket { cookie: netns.wrapping_mul(1 << 16) ^ u64::from(flow.source.port()), protocol: flow.protocol },
        client: netns,
        is_in_pod: client.kind == "local-pod",
        random,
    };
    match serve::<F, _>(tables, &service, &request) {
        Ok((address, port)) => {
            let address = unstored(F::to_stored(address), flow.destination.ip());
            Outcome::Reached(SocketAddr::new(address, u16::from_be_bytes(port)))
        }
        Err(Reason::InsideRejected) => Outcome::Rejected,
        Err(Reason::InsideSourceUnknown) => Outcome::Passed,
        // EPERM, as a call cannot be answered by silence.
        Err(_) => Outcome::Dropped,
    }
}
