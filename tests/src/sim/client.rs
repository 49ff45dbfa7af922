//! Clients: what they want of a connection, and how long they take.

use super::clock::{TICKS_PER_MS, TICKS_PER_S};
use super::cluster::SERVICES;
use super::packet::{Holders, Pod, Socket};
use crate::kernel::random::Random;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Requests, one after the other.
    Http,
    /// The pod speaks first, and the client not before.
    ServerFirst,
    /// A request every minute.
    Idle,
    /// One request, a long time after the handshake.
    Silent,
    /// The pod speaks every now and then, the client never.
    Push,
    /// Datagrams with answers.
    Datagrams,
    /// Datagrams without.
    OneWay,
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No connection.
    Idle,
    /// A SYN is under way.
    Asking,
    /// The client has the pod's SYN-ACK, or a datagram was sent.
    Open,
    /// FINs are under way.
    Closing,
}

/// A client's connection, and what earlier ones of the same tuple left with pods.
#[derive(Clone, Copy)]
pub struct Connection {
    /// The client's end.
    pub client: Socket,
    /// The other end, as the client sees it.
    pub vip: Socket,
    /// Index of the service.
    pub service: u8,
    /// Events of before are not of this connection.
    pub step: u16,
    /// What it is for.
    pub kind: Kind,
    /// Where it is.
    pub stage: Stage,
    /// The pod whose answer the client took.
    pub own: Pod,
    /// [`PodState::departures`](super::cluster::PodState::departures) of that pod when a UDP flow came to it.
    pub departures: u32,
    /// Whether that pod accepted it.
    pub is_accepted: bool,
    /// Exchanges that are left.
    pub exchanges: u16,
    /// SYNs that were sent.
    pub asked: u8,
    /// Replies that were lost, one after the other.
    pub lost: u8,
    /// Whether a reply was ever lost.
    pub was_late: bool,
    /// From the client to the node, in ticks.
    pub one_way: u32,
    /// What the pods' kernels have.
    pub holders: Holders,
}

impl Connection {
    /// A connection of a new client.
    pub fn new(random: &mut Random) -> Self {
        let share = random.below(100);
        let mut sum = 0;
        let reaches = |service: &super::cluster::Service| {
            sum += service.share;
            share < sum
        };
        let service = SERVICES.iter().position(reaches).unwrap_or(0);
        let bits = random.bits();
        let client = ((0x0b00_0000 + (bits as u32 & 0x3ff_ffff)).to_be_bytes(), port(bits >> 32));
        let mut connection = Self {
            client,
            vip: SERVICES[service].frontend(random.below(2)),
            service: service as u8,
            step: 0,
            kind: Kind::Http,
            stage: Stage::Idle,
            own: Pod::MAX,
            departures: 0,
            is_accepted: false,
            exchanges: 0,
            asked: 0,
            lost: 0,
            was_late: false,
            one_way: one_way(random),
            holders: Holders::NONE,
        };
        connection.begin(random);
        connection
    }

    /// Another connection of the same tuple begins.
    pub fn begin(&mut self, random: &mut Random) {
        self.kind = kind(self.service as usize, random);
        self.stage = Stage::Asking;
        (self.own, self.is_accepted, self.asked, self.lost, self.was_late) = (Pod::MAX, false, 0, 0, false);
        self.step = self.step.wrapping_add(1);
        self.exchanges = match self.kind {
            Kind::Http => heavy_tailed(random, 40),
            Kind::ServerFirst | Kind::Idle => 1 + random.below(4) as u16,
            Kind::Silent => 1,
            Kind::Push => 1 + random.below(5) as u16,
            Kind::Datagrams => heavy_tailed(random, 30),
            Kind::OneWay => 20,
        };
    }

    /// Ticks until the connection's next exchange.
    pub fn pause(&self, random: &mut Random) -> u64 {
        match self.kind {
            Kind::Http => TICKS_PER_MS * (1 + random.below(200) as u64),
            Kind::ServerFirst => TICKS_PER_MS * (100 + random.below(5_000) as u64),
            Kind::Idle => TICKS_PER_S * (30 + random.below(60) as u64),
            Kind::Silent => exponential(random, 30 * TICKS_PER_S),
            Kind::Push => exponential(random, 40 * TICKS_PER_S),
            Kind::Datagrams if random.one_in(4) => TICKS_PER_S * (1 + random.below(20) as u64),
            Kind::Datagrams => TICKS_PER_MS * (1 + random.below(50) as u64),
            Kind::OneWay => TICKS_PER_S,
        }
    }

    /// Whether it is of TCP.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        !matches!(self.kind, Kind::Datagrams | Kind::OneWay)
    }
}

fn port(bits: u64) -> [u8; 2] {
    (32_768 + (bits % 28_232) as u16).to_be_bytes()
}

fn kind(service: usize, random: &mut Random) -> Kind {
    if SERVICES[service].protocol == xlb_common::abi::UDP {
        return if random.below(14) < 12 { Kind::Datagrams } else { Kind::OneWay };
    }
    match random.below(86) {
        0..50 => Kind::Http,
        50..62 => Kind::ServerFirst,
        62..70 => Kind::Idle,
        70..78 => Kind::Silent,
        _ => Kind::Push,
    }
}

/// Half of a round trip: lognormal, with a median of 40 ms and a 99th percentile of 300 ms.
fn one_way(random: &mut Random) -> u32 {
    let normal: f64 = (0..12).map(|_| uniform(random)).sum::<f64>() - 6.0;
    let round_trip_ms = 40.0 * (normal * 0.866).exp();
    (round_trip_ms.min(3000.0) / 2.0 * TICKS_PER_MS as f64) as u32 + 1
}

/// Few, and sometimes many: Pareto's with exponent 1.5.
fn heavy_tailed(random: &mut Random, most: u16) -> u16 {
    let draw = uniform(random).max(1e-6).powf(-1.0 / 1.5);
    (draw as u16).clamp(1, most)
}

fn exponential(random: &mut Random, mean: u64) -> u64 {
    (-uniform(random).max(1e-9).ln() * mean as f64) as u64 + 1
}

fn uniform(random: &mut Random) -> f64 {
    (random.bits() >> 11) as f64 / (1u64 << 53) as f64
}
