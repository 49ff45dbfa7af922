//! `xlb-bench lab`: what real sockets get out of each way from a client to a pod, beside plain routing.

#[path = "lab/servers.rs"]
mod servers;
#[path = "lab/clients.rs"]
mod clients;

use std::time::Duration;

use anyhow::{Context as _, Result};

use self::clients::Figure;
use self::servers::Servers;
use super::report::{Report, Row};
use super::ways::{Mode, SERVICES, Site, Way};
use crate::lab::{Version, allow_open_files};

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How long each kind of traffic lasts.
    pub time: Duration,
    /// Interleaved rounds.
    pub rounds: usize,
    /// Services of kube-proxy and of xlb, where there are many.
    pub services: u32,
}

impl Terms {
    /// What the bench does, unless told otherwise.
    pub const TARGET: Terms = Terms { time: Duration::from_secs(1), rounds: 5, services: SERVICES };
}

const AGAIN: &str = "plain routing again";

/// A way with servers behind it. They go in the order of the fields.
struct Seat {
    name: String,
    servers: Servers,
    site: Site,
    figures: Vec<(Figure, Vec<f64>)>,
}

/// Measures in interleaved rounds, so that noise hits all alike: each kind of traffic takes each way before the next kind comes.
pub fn measure(terms: Terms) -> Result<Report> {
    allow_open_files()?;
    let mut seats = seats(terms.services)?;
    for round in 0..terms.rounds {
        for kind in clients::KINDS {
            // Nobody is always first, or always behind the same other.
            let first = round % seats.len();
            let (before, after) = seats.split_at_mut(first);
            for seat in after.iter_mut().chain(before) {
                let figures = kind(&seat.site, &seat.servers, terms.time);
                seat.note(figures.with_context(|| format!("measuring {}", seat.name))?);
            }
        }
    }
    Ok(report(&seats, terms.services))
}

fn seats(services: u32) -> Result<Vec<Seat>> {
    let ways = [
        Way::Routing,
        Way::Routing,
        Way::Nftables(1),
        Way::Nftables(services),
        Way::Iptables(1),
        Way::Iptables(services),
        Way::Xlb(Mode::Direct, services),
        Way::Xlb(Mode::Stack, services),
        Way::Xlb(Mode::DirectByXdp, services),
    ];
    let name = |number: usize, way: Way| if number == 1 { AGAIN.to_owned() } else { way.name() };
    ways.into_iter().enumerate().map(|(number, way)| Seat::new(name(number, way), way)).collect()
}

impl Seat {
    fn new(name: String, way: Way) -> Result<Seat> {
        let site = Site::new(way, true)?;
        clients::prepare(&site.lab)?;
        let servers = Servers::start(&site)?;
        for version in Version::ALL {
            clients::check(&site, version).with_context(|| format!("trying {name}"))?;
        }
        Ok(Seat { name, servers, site, figures: Vec::new() })
    }

    fn note(&mut self, figures: Vec<(Figure, f64)>) {
        for (figure, value) in figures {
            match self.figures.iter_mut().find(|(known, _)| *known == figure) {
                Some((_, rounds)) => rounds.push(value),
                None => self.figures.push((figure, vec![value])),
            }
        }
    }
}

/// The rows of each figure are together.
fn report(seats: &[Seat], services: u32) -> Report {
    let figures = seats.first().into_iter().flat_map(|seat| seat.figures.iter().map(|(figure, _)| *figure));
    let rows = figures.flat_map(|figure| {
        let rounds =
            move |seat: &Seat| seat.figures.iter().find(|(other, _)| *other == figure).map(|(_, it)| it.clone());
        seats.iter().filter_map(move |seat| {
            let baseline = (seat.name != Way::Routing.name()).then(|| named(figure, &Way::Routing.name()));
            let name = named(figure, &seat.name);
            Some(Row { name, unit: figure.unit, rounds: rounds(seat)?, baseline })
        })
    });
    let rows: Vec<Row> = rows.collect();
    let ratios: Vec<Row> = targets(&rows, services).collect();
    Report { rows: rows.into_iter().chain(ratios).collect() }
}

fn named(figure: Figure, way: &str) -> String {
    format!("{}: {way}", figure.name)
}

/// The ratios that the target P5c is about.
fn targets(rows: &[Row], services: u32) -> impl Iterator<Item = Row> {
    let (direct, plain) = (Way::Xlb(Mode::Direct, services).name(), Way::Routing.name());
    let over_plain = [clients::TO_POD, clients::TO_CLIENT, clients::REQUESTS, clients::REQUESTS_V6, clients::DATAGRAMS];
    let pairs = over_plain.into_iter().map(move |figure| (figure, plain.clone()));
    let pairs = pairs.chain([(clients::REQUESTS, Way::Iptables(services).name())]);
    pairs.filter_map(move |(figure, below)| {
        let find = |way: &str| rows.iter().find(|row| row.name == named(figure, way));
        let name = format!("P5c: {}, {direct} over {below}", figure.name);
        Some(Row::ratio_of(name, find(&direct)?, find(&below)?))
    })
}
