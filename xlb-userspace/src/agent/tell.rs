//! What the agent says of its rounds: the log, and the report for the command line.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::agent::forwarding;
use crate::agent::history::Counted;
use crate::agent::report::now_s;
use crate::agent::sync::Agent;
use crate::maps::wanted::Refused;
use crate::node::FamilyAddresses;
use crate::plan::desired::{Family, Refusal};

/// Shortest pause between two lines of the log that say what was changed.
const LOG_PAUSE: Duration = Duration::from_secs(1);

impl Agent {
    /// Tells what is waited for before anything is changed.
    pub fn wait(&mut self, refusals: Vec<Refusal>, waiting: Vec<Refusal>) {
        self.tell([self.refused_programs(), self.configuration.clone(), refusals].concat(), waiting);
    }

    /// Why the programs of before serve, or tc in the place of XDP, if they do.
    pub(super) fn refused_programs(&self) -> Vec<Refusal> {
        let kept = self.hooks.refused().map(Refused::refusal);
        kept.into_iter().chain(self.xdp_refused.as_ref().map(Refused::refusal_of_xdp)).collect()
    }

    /// The families that this node has an address of, or a Service: a node with neither serves both, as far as it goes.
    #[must_use]
    pub fn families(&self) -> &BTreeSet<Family> {
        &self.families
    }

    /// What is asked for and not done, after the last round.
    #[must_use]
    pub fn refusals(&self) -> &[Refusal] {
        &self.report.refusals
    }

    /// Tells of what came up, or was settled, after the maps were in sync.
    pub fn replace_refusals(&mut self, before: &[Refusal], now: Vec<Refusal>) {
        if before != now {
            let others = self.report.refusals.iter().filter(|refusal| !before.contains(refusal)).cloned();
            self.tell(others.chain(now).collect(), self.report.waiting.clone());
        }
    }

    /// Tells of a completed round.
    pub(super) fn tell_in_sync(&mut self, source_refusals: &[Refusal]) {
        let FamilyAddresses { v4, v6 } = self.view.primary;
        let own = [v4.map(|_| Family::V4), v6.map(|_| Family::V6)].into_iter().flatten();
        self.families = own.chain(self.kept.families()).collect();
        if self.families.is_empty() {
            self.families = Family::ALL.into();
        }
        if self.is_log_due() {
            let backends = self.observed.backends.values().filter(|backend| backend.is_in_use()).count();
            let (changes, services) = (self.unlogged.0, self.kept.services().len());
            info!("in sync: {services} services, {backends} backends, {changes} changes");
            self.unlogged = (0, Some(Instant::now()));
        }
        let refusals = [
            &self.refused_programs(),
            &self.configuration,
            &self.missing,
            source_refusals,
            &self.kept.refusals(),
            &self.undone,
            &self.unforwarded(),
        ];
        let refusals: Vec<Refusal> = refusals.into_iter().flatten().cloned().collect();
        self.report.in_sync_at_s = now_s();
        self.look_back();
        self.tell(refusals, self.waiting.clone());
    }

    /// Keeps what was counted a minute ago. Counters that cannot be read are nobody's trouble but the reader's.
    fn look_back(&mut self) {
        if self.history.is_due(self.report.in_sync_at_s)
            && let Ok(counters) = self.maps.counters()
        {
            self.history.add(Counted::of(self.report.in_sync_at_s, counters));
        }
        self.report.counted_before = self.history.before().cloned();
    }

    /// Kernel settings that stand in the way of backends in mode stack. Nobody tells of their changes: they are read anew.
    fn unforwarded(&self) -> Vec<Refusal> {
        let stacked = forwarding::stacked(&self.observed);
        if stacked.is_empty() {
            return Vec::new();
        }
        forwarding::refusals(&stacked, &forwarding::ports(&self.uplinks), &self.snapshot)
    }

    /// Whether a line of the log is due.
    fn is_log_due(&self) -> bool {
        let (changes, logged_at) = self.unlogged;
        changes > 0 && logged_at.is_none_or(|at| at.elapsed() >= LOG_PAUSE)
    }

    /// Logs what is new, and leaves all of it for the command line.
    fn tell(&mut self, refusals: Vec<Refusal>, waiting: Vec<Refusal>) {
        if refusals != self.report.refusals {
            let told: BTreeSet<&Refusal> = self.report.refusals.iter().collect();
            for refusal in refusals.iter().filter(|refusal| !told.contains(refusal)) {
                warn!("{}: {}", refusal.object, refusal.why);
            }
        }
        for later in waiting.iter().filter(|later| !self.report.waiting.contains(later)) {
            info!("{}: {}", later.object, later.why);
        }
        let uplinks = self.uplinks.iter();
        self.report.uplinks =
            uplinks.map(|served| format!("{} ({}): {}", served.name, served.uplink.driver, served.door)).collect();
        (self.report.refusals, self.report.waiting) = (refusals, waiting);
        if self.written.as_ref() == Some(&self.report) {
            return;
        }
        self.written = Some(self.report.clone());
        let error = self.report.write(&self.options.bpffs_dir).err().map(|error| format!("{error:#}"));
        // Told once: it is written every few seconds.
        if let Some(error) = error.iter().find(|error| self.unwritten.as_ref() != Some(error)) {
            warn!("{error}");
        }
        self.unwritten = error;
    }
}
