//! `xlb-bench memory`: what an agent of the default sizes takes, without Services and with many: its maps, its programs, and
//! itself.

#[path = "memory/maps.rs"]
pub mod maps;
#[path = "memory/held.rs"]
mod held;

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::held::Held;
use self::maps::{Group, PinnedMap, pinned};
use super::report::Report;
use super::running::{Running, cluster};
use crate::lab::{Lab, LabSpec};
use crate::scale::{Scale, World};

const MIB: f64 = (1 << 20) as f64;
const KIB: f64 = 1024.0;
/// From when the agent is in sync until it is looked at: what only its start needed is given back then.
const SETTLING: Duration = Duration::from_secs(1);

/// Lines of proc(5)'s status, and what they are called here. Maps that are mapped into memory are among the files.
const RESIDENT: [(&str, &str); 4] = [
    ("VmRSS", "agent's RSS"),
    ("RssAnon", "agent's RSS, its own"),
    ("RssFile", "agent's RSS, of files and of SLOTS"),
    ("VmHWM", "agent's RSS at its highest"),
];

/// Measures whole rounds: an agent that has nothing to serve, then one at this scale.
pub fn measure(scale: Scale, rounds: usize) -> Result<Report> {
    let none = Scale { services: 0, endpoints: 0, local: 0, ..scale };
    let mut report = Report::default();
    for round in 1..=rounds {
        for scale in [none, scale] {
            let services = scale.services;
            measure_once(scale, &mut report).with_context(|| format!("round {round}, {services} Services"))?;
        }
    }
    Ok(report)
}

fn measure_once(scale: Scale, report: &mut Report) -> Result<()> {
    let lab = Lab::new(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let server = cluster(&lab, &World::new(scale))?;
    let running = Running::start(&lab, &server, scale.services)?;
    sleep(SETTLING);
    let (name, empty) = (|what: &str| row(scale.services, what), |what: &str| row(0, what));
    let mut note = |what: &str, bytes: u64| {
        let baseline = (scale.services > 0).then(|| empty(what));
        report.note((&name(what), "MiB"), bytes as f64 / MIB, baseline.as_deref());
    };
    for (line, what) in RESIDENT {
        note(what, running.resident(line)?);
    }
    let (maps, held) = (pinned(&lab.pin_directory())?, Held::by(running.process()?)?);
    for group in Group::ALL {
        note(group.title(), bytes_of(&maps, group));
    }
    note("maps without a pin", held.bytes_of_other_maps(&maps));
    note("programs, machine code", held.machine_code()?);
    note("programs, else", held.bytes_of_programs());
    report.note((&name("programs"), "number"), held.programs() as f64, None);
    if scale.services > 0 {
        note_each(&maps, report);
    }
    Ok(())
}

fn row(services: u32, what: &str) -> String {
    format!("{services} Services: {what}")
}

fn bytes_of(maps: &[PinnedMap], group: Group) -> u64 {
    maps.iter().filter(|map| map.group == group).map(|map| map.bytes).sum()
}

/// A row for each map.
fn note_each(maps: &[PinnedMap], report: &mut Report) {
    for group in Group::ALL {
        for map in maps.iter().filter(|map| map.group == group) {
            report.note((&format!("{}: {}", group.title(), map.name), "KiB"), map.bytes as f64 / KIB, None);
        }
    }
}
