//! Settings that change while the agent runs: when the configuration file does, and at SIGHUP.
//!
//! What can change without a restart does, and no packet notices. For the rest the agent says that a restart is needed. A file
//! with a mistake changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::agent::options::Options;
use crate::agent::outside::Outside;
use crate::agent::settings::Setting;
use crate::agent::sync::Agent;
use crate::plan::desired::Refusal;
use crate::source::watch::Watch;

/// The settings that take effect without a restart: see [`Options::take_over`].
pub const LIVE: [&str; 18] = [
    "delivery",
    "external-ip-cidrs",
    "load-balancer-class",
    "ip-mode-proxy",
    "source-ranges-fail-closed",
    "vip-echo",
    "vip-unowned",
    "reject-tcp-with",
    "keep-dataplane",
    "handover",
    "flow-timeout-tcp-established",
    "flow-timeout-tcp-close-wait",
    "flow-timeout-closed",
    "flow-timeout-udp",
    "flow-timeout-udp-stream",
    "flow-timeout-sctp",
    "health-check-node-ports",
    "log",
];

/// What a start would be told.
#[derive(Debug)]
pub struct Reading {
    /// As the agent takes it.
    pub options: Options,
    /// What to log.
    pub log: String,
    /// As it was said, and where.
    pub settings: Vec<Setting>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// Reads all that a start of now would be told; whether the file has to be there.
type Read = Box<dyn Fn(bool) -> Result<Reading>>;

/// From now on logs what this filter lets through.
pub type SetLog = Box<dyn Fn(&str)>;

/// Where settings come from while the agent runs.
pub struct Configuration {
    file: PathBuf,
    read: Read,
    set_log: SetLog,
    /// What the file held when it was read last; none: it was not there.
    held: Option<Vec<u8>>,
    watched: Option<(Watch, Signal)>,
    is_told: bool,
}

impl Configuration {
    /// Of this file, which need not be there, and of what else `read` takes into account.
    pub fn new(file: PathBuf, read: Read, set_log: SetLog) -> Self {
        Self { held: fs::read(&file).ok(), file, read, set_log, watched: None, is_told: false }
    }

    /// From now on no change is missed, and SIGHUP ends nobody.
    ///
    /// # Errors
    /// When the signal cannot be followed.
    pub fn watch(&mut self) -> Result<()> {
        let directory = self.file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let hangup = signal(SignalKind::hangup()).context("following SIGHUP")?;
        self.watched = Some((Watch::new(directory), hangup));
        Ok(())
    }

    /// Waits until it is worth looking at the file. May be dropped and called again without losing anything.
    pub async fn asked(&mut self) {
        let Some((watch, hangup)) = &mut self.watched else { return std::future::pending().await };
        tokio::select! {
            () = watch.settled() => {}
            _ = hangup.recv() => self.is_told = true,
        }
    }

    /// Looks at the file, and does what it says, if that is something else than before, or somebody sent SIGHUP.
    pub fn look(&mut self, agent: &mut Agent, outside: &mut Outside) {
        let holds = fs::read(&self.file).ok();
        if !std::mem::take(&mut self.is_told) && holds == self.held {
            return;
        }
        let was_there = self.held.is_some() || agent.report.config_file.is_some();
        self.held = holds;
        let reloaded = (self.read)(was_there).and_then(|reading| self.apply(reading, agent, outside));
        outside.count_reload(reloaded.is_ok());
        match reloaded {
            Ok(refusals) => agent.configuration = refusals,
            Err(error) => {
                let why = format!("{error:#}; the settings of before stay until it is mended");
                agent.configuration = vec![Refusal { object: format!("configuration {}", self.file.display()), why }];
            }
        }
    }

    /// Makes a reading the agent's, as far as it goes without a restart. Answers what does not.
    fn apply(&self, reading: Reading, agent: &mut Agent, outside: &mut Outside) -> Result<Vec<Refusal>> {
        let changes = Changes::between(&agent.report.settings, &reading.settings);
        agent.take_over(reading.options)?;
        outside.take_over(&agent.options);
        (self.set_log)(&reading.log);
        for Setting { name, value, place, .. } in &changes.live {
            let place = place.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
            info!("{name} is {} from now on{place}", if value.is_empty() { "unset" } else { value });
        }
        agent.report.config_file = reading.file.map(|file| file.display().to_string());
        agent.report.settings = changes.settings;
        Ok(changes.waiting)
    }
}

/// What becomes of settings.
#[derive(Debug, PartialEq, Eq)]
struct Changes {
    /// The settings from now on.
    settings: Vec<Setting>,
    /// Those that take effect now.
    live: Vec<Setting>,
    /// Those that need a restart.
    waiting: Vec<Refusal>,
}

impl Changes {
    fn between(running: &[Setting], wanted: &[Setting]) -> Self {
        let wanted: BTreeMap<&str, &Setting> = wanted.iter().map(|setting| (setting.name.as_str(), setting)).collect();
        let mut changes = Self { settings: Vec::new(), live: Vec::new(), waiting: Vec::new() };
        for setting in running {
            let name = setting.name.as_str();
            let new = wanted.get(name).copied().unwrap_or(setting);
            let (is_other, is_live) = (new.value != setting.value, LIVE.contains(&name));
            if is_other && is_live {
                changes.live.push(new.clone());
            }
            if is_other && !is_live {
                changes.waiting.push(waiting(setting, new));
            }
            changes.settings.push(if is_other && !is_live { setting } else { new }.clone());
        }
        changes
    }
}

fn waiting(setting: &Setting, new: &Setting) -> Refusal {
    let shown = |value: &str| if value.is_empty() { "nothing".to_owned() } else { value.to_owned() };
    let (now, then) = (shown(&setting.value), shown(&new.value));
    let place = new.place.as_ref().map_or_else(|| new.origin.to_string(), Clone::clone);
    Refusal {
        object: format!("configuration {}", setting.name),
        why: format!("{then} ({place}) takes effect when the agent is restarted; until then it is {now}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::settings::Origin;

    fn setting(name: &str, value: &str, line: Option<u32>) -> Setting {
        let place = line.map(|line| format!("f.yaml:{line}"));
        let origin = if line.is_some() { Origin::File } else { Origin::Default };
        Setting { name: name.into(), value: value.into(), origin, place }
    }

    #[test]
    fn what_can_change_does_and_what_cannot_is_told() {
        let running =
            [setting("vip-echo", "on", None), setting("max-flows", "1024", Some(1)), setting("xdp", "auto", None)];
        let wanted = [
            setting("vip-echo", "off", Some(1)),
            setting("max-flows", "2048", Some(2)),
            setting("xdp", "auto", Some(3)),
        ];
        let changes = Changes::between(&running, &wanted);
        assert_eq!(changes.live, [setting("vip-echo", "off", Some(1))]);
        let told: Vec<String> = changes.waiting.iter().map(|it| format!("{}: {}", it.object, it.why)).collect();
        let expected =
            "configuration max-flows: 2048 (f.yaml:2) takes effect when the agent is restarted; until then it is 1024";
        assert_eq!(told, [expected]);
        let settings = [
            setting("vip-echo", "off", Some(1)),
            setting("max-flows", "1024", Some(1)),
            setting("xdp", "auto", Some(3)),
        ];
        assert_eq!(changes.settings, settings, "what runs, and where it is said now");

        let back = Changes::between(&changes.settings, &running);
        assert_eq!((back.live, back.waiting), (vec![setting("vip-echo", "on", None)], vec![]));
    }
}
