//! What an agent does with a dataplane of another version of the map ABI. What traffic meets meanwhile: `lab` upgrade.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{Array, MapData};
use tempfile::TempDir;
use xlb_common::abi::{ABI_VERSION, Config};
use xlb_tests::lab::{Bend, bent_binary, xlb_binary};

use crate::ask::{metrics, soon, status};
use crate::command::{refused_agent, xlb};
use crate::stage::{Stage, refusal};

const BEFORE: u32 = ABI_VERSION - 1;

#[test]
fn a_dataplane_of_a_newer_version_is_refused_and_serves_on() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    for version in [ABI_VERSION + 1, 0] {
        stage.agent.kill()?;
        stage.agent.become_version(version)?;
        let pins = pins_below(&stage.lab.pin_directory())?;
        let ended = refused_agent(&stage.lab, &stage.manifests, &[])?;
        ended.is_refused_with(&[
            &format!("v{version}"),
            "start an xlb of that version again",
            "xlb cleanup --bpffs-dir",
        ]);
        assert_eq!(pins_below(&stage.lab.pin_directory())?, pins, "nothing is touched");
        held.answers()?;
        assert!(stage.who(0).is_ok());

        let own = stage.lab.pin_directory().join(format!("v{ABI_VERSION}"));
        fs::rename(stage.lab.pin_directory().join(format!("v{version}")), own)?;
        stage.agent.start_again()?;
        stage.until(|maps| maps["agent"]["is_running"] == true);
        held.answers()?;
    }
    Ok(())
}

#[test]
fn a_map_that_cannot_be_carried_over_is_refused_before_anything_is_touched() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    stage.agent.kill()?;
    stage.agent.become_version(BEFORE)?;
    let maps = stage.lab.pin_directory().join(format!("v{BEFORE}/maps"));
    // Where WAYS was is a map with other keys and values.
    fs::rename(maps.join("VIPS_V6"), maps.join("WAYS"))?;
    let pins = pins_below(&stage.lab.pin_directory())?;

    let ended = refused_agent(&stage.lab, &stage.manifests, &[])?;
    ended.is_refused_with(&[
        "the map WAYS of the older dataplane",
        "16+4 bytes",
        "12+16 bytes",
        "xlb cleanup --bpffs-dir",
    ]);
    let ended = refused_agent(&stage.lab, &stage.manifests, &["--max-flows", "8192"])?;
    ended.is_refused_with(&["FLOWS_V4", "room for 16384 entries", "wants 8192", "sizes it had"]);
    assert_eq!(pins_below(&stage.lab.pin_directory())?, pins);
    held.answers()?;
    assert!(stage.who(0).is_ok());

    assert_eq!(xlb(&stage.lab, &["cleanup"])?.code, Some(0));
    assert!(!stage.lab.pin_directory().exists());
    stage.until_silent(0)
}

/// The maps cannot be kept up to date by an agent whose programs do not serve; it does not end in silence, either.
#[test]
fn programs_that_are_refused_leave_an_older_dataplane_as_it_is_and_say_so() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    stage.agent.kill()?;
    stage.agent.become_version(BEFORE)?;
    let pins = pins_below(&stage.lab.pin_directory())?;
    let directory = TempDir::new()?;
    stage.agent.become_binary(bent_binary(directory.path(), "ingress_tc", Bend::DropsAll)?);
    stage.agent.start_again()?;
    soon("told", || stage.agent.log().contains("nothing follows the cluster").then_some(()))?;
    soon("counted", || {
        let numbers = metrics(stage.lab.node()).ok()?;
        (numbers.value("xlb_programs_refused", &[("program", "ingress_tc")]) == Some(1.0)).then_some(())
    })?;
    assert_eq!(["/readyz", "/livez"].map(|path| status(stage.lab.node(), path)), [Some(503), Some(200)]);
    assert_eq!(pins_below(&stage.lab.pin_directory())?, pins);
    held.answers()?;
    assert!(stage.agent.stop()?.success());
    assert_eq!(pins_below(&stage.lab.pin_directory())?, pins);
    assert!(stage.who(0).is_ok());

    stage.agent.become_binary(xlb_binary());
    stage.agent.start_again()?;
    let maps = stage.until(|maps| maps["agent"]["is_running"] == true && maps["generation"].as_u64() > Some(0));
    assert_eq!(refusal(&maps, &["program"]), None);
    held.answers()
}

/// Each state that an agent may leave that is killed while it carries a dataplane over.
#[test]
fn an_upgrade_that_was_cut_short_goes_on_with_the_next_start() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = [stage.hold_at(0, "pod-0")?, stage.hold_at(0, "pod-1")?];
    for (maps, links) in [(0, 0), (7, 0), (usize::MAX, 0), (usize::MAX, 2), (usize::MAX, usize::MAX)] {
        stage.agent.kill()?;
        stage.agent.become_version(BEFORE)?;
        let cut = Cut { root: &stage.lab.pin_directory(), maps, links };
        cut.make()?;
        held.iter_mut().try_for_each(|held| held.answers())?;

        stage.agent.start_again()?;
        stage.agent.wait_until_it_reports();
        soon("finished", || (!stage.lab.pin_directory().join(format!("v{BEFORE}")).exists()).then_some(()))?;
        held.iter_mut().try_for_each(|held| held.answers()).with_context(|| format!("{maps} maps, {links} links"))?;
        assert!(stage.who(0).is_ok());
        assert_eq!(refusal(&stage.agent.inspect()?, &[""]), None);
    }
    Ok(())
}

/// What the older version had is converted once more when the last program is replaced.
#[test]
fn what_the_operator_says_now_outlasts_an_upgrade_that_converts_the_settings() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    stage.agent.kill()?;
    stage.agent.become_version(BEFORE)?;
    let [old, new] = [BEFORE, ABI_VERSION].map(|version| stage.lab.pin_directory().join(format!("v{version}/maps")));
    shorten_config(&old.join("CONFIG"))?;
    stage.agent.set_argument("--vip-unowned", "drop");
    stage.agent.start_again()?;

    stage.agent.wait_until_it_reports();
    assert!(!old.exists(), "carried over");
    let settings = config(&new.join("CONFIG"))?.settings;
    assert!(settings.stops_unowned() && !settings.rejects_unowned(), "{settings:?}");
    held.answers()
}

/// Pins a map in the place of CONFIG whose value ends where an earlier version's did.
fn shorten_config(pin: &Path) -> Result<()> {
    let config = config(pin)?;
    let value: [u8; 16] = *bytemuck::bytes_of(&config).first_chunk().context("a short CONFIG")?;
    let mut older = Array::<MapData, [u8; 16]>::create(1, 0).context("making the older CONFIG")?;
    older.set(0, value, 0)?;
    fs::remove_file(pin)?;
    older.pin(pin).with_context(|| format!("pinning {}", pin.display()))
}

fn config(pin: &Path) -> Result<Config> {
    let map = MapData::from_pin(pin).with_context(|| format!("opening {}", pin.display()))?;
    let map: Array<MapData, [u8; size_of::<Config>()]> = aya::maps::Map::Array(map).try_into()?;
    Ok(bytemuck::pod_read_unaligned(&map.get(&0, 0)?))
}

/// How far an upgrade came: so many maps are pinned a second time, and so many links are taken over.
struct Cut<'a> {
    root: &'a Path,
    maps: usize,
    links: usize,
}

impl Cut<'_> {
    fn make(&self) -> Result<()> {
        let [old, new] = [BEFORE, ABI_VERSION].map(|version| self.root.join(format!("v{version}")));
        for directory in ["maps", "links", "programs"] {
            fs::create_dir_all(new.join(directory))?;
        }
        // Each version has those of its own.
        let is_shared = |name: &&String| !name.starts_with("JUMPS") && *name != "REASONS";
        for name in names_in(&old.join("maps"))?.iter().filter(is_shared).take(self.maps) {
            MapData::from_pin(old.join("maps").join(name))?.pin(new.join("maps").join(name))?;
        }
        for name in names_in(&old.join("links"))?.iter().take(self.links) {
            fs::rename(old.join("links").join(name), new.join("links").join(name))?;
        }
        Ok(())
    }
}

fn names_in(directory: &Path) -> Result<Vec<String>> {
    let names = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut names: Vec<String> =
        names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Version, kind and name of each pin.
pub fn pins_below(root: &Path) -> Result<Vec<String>> {
    let mut pins = Vec::new();
    for version in names_in(root)? {
        for kind in names_in(&root.join(&version))? {
            let names = names_in(&root.join(&version).join(&kind))?;
            pins.extend(names.iter().map(|name| format!("{version}/{kind}/{name}")));
        }
    }
    Ok(pins)
}
