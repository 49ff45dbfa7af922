//! A pin that somebody took away while no agent ran: the next start serves as before, or says which pin it lacks.

use std::fs;

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use xlb_userspace::maps::object::REFERRED_TO;

use super::Faults;
use crate::command::refused_agent;
use crate::upgrade::pins_below;

#[test]
fn a_pin_that_was_taken_away_is_made_anew_by_the_next_start_or_named_by_it_and_flows_go_on() -> Result<()> {
    let mut faults = Faults::up()?;
    let pins = pins_below(&faults.stage.lab.pin_directory())?;
    let names: Vec<&str> = pins.iter().map(String::as_str).collect();
    let is_referred_to = |pin: &&str| REFERRED_TO.iter().any(|name| pin.ends_with(&format!("/maps/{name}")));
    let (named, anew): (Vec<&str>, Vec<&str>) = names.iter().partition(|pin| is_referred_to(pin));
    ensure!(named.len() == REFERRED_TO.len(), "{names:?}");
    for pin in named {
        faults.stays_refused_without(pin).with_context(|| format!("without {pin}"))?;
    }
    let config = names.iter().copied().find(|pin| pin.ends_with("/CONFIG")).context("there is no CONFIG")?;
    for pin in [config].into_iter().chain(faults.chosen(&anew)) {
        faults.serves_without(pin, &pins).with_context(|| format!("without {pin}"))?;
    }
    Ok(())
}

impl Faults {
    fn kill_if_running(&mut self) -> Result<()> {
        if self.stage.agent.process().is_some() { self.kill() } else { Ok(()) }
    }

    /// A start names the pin, changes nothing, and those who speak go on. With the pin the next one serves.
    fn stays_refused_without(&mut self, pin: &str) -> Result<()> {
        let path = self.stage.lab.pin_directory().join(pin);
        self.kill_if_running()?;
        let map = MapData::from_pin(&path)?;
        fs::remove_file(&path)?;
        let left = pins_below(&self.stage.lab.pin_directory())?;
        let ended = refused_agent(&self.stage.lab, &self.stage.manifests, &["--keep-dataplane"])?;
        ended.is_refused_with(&[&path.display().to_string(), "xlb cleanup --bpffs-dir"]);
        ensure!(pins_below(&self.stage.lab.pin_directory())? == left, "a refused start changes nothing");
        self.check_flows()?;
        Ok(map.pin(&path)?)
    }

    /// A start that fails for another reason leaves what there is; one that does not makes what is missing.
    fn serves_without(&mut self, pin: &str, pins: &[String]) -> Result<()> {
        self.kill_if_running()?;
        let root = self.stage.lab.pin_directory();
        fs::remove_file(root.join(pin))?;
        let left = pins_below(&root)?;
        let ended = refused_agent(&self.stage.lab, &self.stage.manifests, &["--max-slots", "4096"])?;
        ended.is_refused_with(&["SLOTS", "4096"]);
        ensure!(pins_below(&root)? == left, "a refused start changes nothing");
        self.stage.agent.start_again()?;
        self.until_in_state(0)?;
        self.check_flows()?;
        self.check_references()?;
        ensure!(pins_below(&root)? == pins, "{:?} is not {pins:?}", pins_below(&root)?);
        Ok(())
    }
}
