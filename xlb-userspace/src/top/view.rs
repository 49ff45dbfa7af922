//! A round as lines.

use clap::ValueEnum;

use super::rates::{Drops, MapFill, Rates, Round, ServiceRates, Share};

/// Which services come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Most packets.
    Packets,
    /// Most bytes.
    Bytes,
    /// Most new flows.
    Flows,
    /// By name.
    Name,
}

impl Sort {
    /// The order that a key asks for.
    #[must_use]
    pub const fn of_key(key: char) -> Option<Self> {
        Some(match key {
            'p' => Self::Packets,
            'b' => Self::Bytes,
            'f' => Self::Flows,
            'n' => Self::Name,
            _ => return None,
        })
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Flows => "new flows",
            Self::Name => "name",
        }
    }
}

/// Columns of a bar.
const BAR: usize = 10;

/// A line, and whether it is a title.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The words.
    pub text: String,
    /// Whether they head what follows.
    pub is_title: bool,
}

/// All of it. What does not fit is cut off by whoever shows it.
#[must_use]
pub fn lines(round: &Round, sort: Sort) -> Vec<Line> {
    let mut lines = vec![
        title(format!(
            "{:<34}{:>10}{:>9}{:>10}{:>9}{:>8}{:>9}",
            format!("SERVICE, by {}", sort.word()),
            "pkt/s in",
            "B/s in",
            "pkt/s out",
            "B/s out",
            "new/s",
            "inside/s"
        )),
        plain(row("all together", Some(&round.total))),
    ];
    for service in sorted(&round.services, sort) {
        lines.push(plain(row(&service.name, service.rates.as_ref())));
        lines.extend(service.backends.iter().map(|share| plain(backend(share, service.slots))));
        if service.backends.is_empty() {
            lines.push(plain("  no backend on this node".into()));
        }
    }
    lines.extend(round.others.iter().map(|rates| plain(row("those not counted by themselves", Some(rates)))));
    if !round.drops.is_empty() {
        lines.push(title(format!("{:<34}{:>10}{:>9}", "DROPPED OR REFUSED", "pkt/s", "so far")));
        lines.extend(round.drops.iter().map(|it| plain(drops(it))));
    }
    if !round.maps.is_empty() {
        lines.push(title(format!("{:<34}{:>10}{:>9}", "MAPS", "entries", "of")));
        lines.extend(round.maps.iter().map(|it| plain(map(it))));
    }
    lines
}

/// Those that a screen has room for, from a line on: the title stays, and so much of each line as fits.
#[must_use]
pub fn window(lines: &[Line], from: usize, (width, height): (usize, usize)) -> Vec<Line> {
    let Some((first, rest)) = lines.split_first() else { return Vec::new() };
    let from = from.min(rest.len().saturating_sub(height.saturating_sub(1)));
    let shown = std::iter::once(first).chain(&rest[from..]).take(height);
    shown.map(|line| Line { text: line.text.chars().take(width).collect(), is_title: line.is_title }).collect()
}

fn title(text: String) -> Line {
    Line { text, is_title: true }
}

fn plain(text: String) -> Line {
    Line { text, is_title: false }
}

fn sorted(services: &[ServiceRates], sort: Sort) -> Vec<&ServiceRates> {
    let of = |service: &ServiceRates| {
        let rates = service.rates.unwrap_or_default();
        match sort {
            Sort::Packets => rates.packets_to_pods + rates.packets_to_clients,
            Sort::Bytes => rates.bytes_to_pods + rates.bytes_to_clients,
            Sort::Flows => rates.new_flows,
            Sort::Name => 0.0,
        }
    };
    let mut sorted: Vec<&ServiceRates> = services.iter().collect();
    sorted.sort_by(|a, b| of(b).total_cmp(&of(a)).then_with(|| a.name.cmp(&b.name)));
    sorted
}

fn row(name: &str, rates: Option<&Rates>) -> String {
    let Some(rates) = rates else { return format!("{name:<34} (not counted by itself)") };
    format!(
        "{name:<34}{:>10}{:>9}{:>10}{:>9}{:>8}{:>9}",
        short(rates.packets_to_pods),
        short(rates.bytes_to_pods),
        short(rates.packets_to_clients),
        short(rates.bytes_to_clients),
        short(rates.new_flows),
        short(rates.inside_flows)
    )
}

fn backend(share: &Share, slots: u32) -> String {
    let part = match slots {
        0 => "the only one".into(),
        slots => format!("{:>5.1} % ({} of {slots} slots)", share.share * 100.0, share.slots),
    };
    let former = match share.former_slots {
        0 => String::new(),
        former => format!(", {former} before"),
    };
    let flows = share.flows.map_or_else(String::new, |flows| format!(", {flows} flows"));
    format!("  {:<22}{} {part}{former}{flows}", share.address.to_string(), bar(share.share))
}

fn bar(share: f64) -> String {
    let full = (share * BAR as f64).round().clamp(0.0, BAR as f64) as usize;
    "#".repeat(full) + &".".repeat(BAR - full)
}

fn drops(Drops { reason, rate, count }: &Drops) -> String {
    format!("{reason:<34}{:>10}{count:>9}", short(*rate))
}

fn map(MapFill { map, entries, capacity }: &MapFill) -> String {
    let share = *entries as f64 / (*capacity).max(1) as f64;
    format!("{map:<34}{entries:>10}{capacity:>9} {} {:>5.1} %", bar(share), share * 100.0)
}

/// Three digits and a unit.
fn short(number: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let mut number = number;
    let mut unit = 0;
    while number >= 999.5 && unit + 1 < UNITS.len() {
        number /= 1000.0;
        unit += 1;
    }
    match number {
        0.0 => "0".into(),
        _ if number < 9.95 => format!("{number:.1}{}", UNITS[unit]),
        _ => format!("{number:.0}{}", UNITS[unit]),
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
