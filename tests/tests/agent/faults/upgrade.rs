//! The agent killed in the midst of an upgrade: the next one of the new version goes on with what is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use xlb_common::abi::ABI_VERSION;

use super::{Faults, STRACE, kill_at};
use crate::upgrade::pins_below;

const BEFORE: u32 = ABI_VERSION - 1;
/// Calls that change what is pinned, or what is behind a pin: bpf(2) of these kinds, and all that change a directory. Maps and
/// programs that are made and not pinned yet go with the agent.
const CALLS: &str = "bpf,mkdir,rename,unlink,unlinkat,rmdir";
const CHANGES: [&str; 8] = [
    "BPF_MAP_UPDATE_ELEM,",
    "BPF_MAP_DELETE_ELEM,",
    "BPF_MAP_UPDATE_BATCH,",
    "BPF_MAP_DELETE_BATCH,",
    "BPF_OBJ_PIN,",
    "BPF_LINK_CREATE,",
    "BPF_LINK_UPDATE,",
    "BPF_LINK_DETACH,",
];

#[test]
fn an_agent_killed_in_an_upgrade_leaves_a_dataplane_that_the_next_one_carries_over() -> Result<()> {
    let mut faults = Faults::up()?;
    let root = faults.stage.lab.pin_directory();
    let pins = pins_below(&root)?;
    faults.become_older()?;
    let file = faults.file();
    let (trace, output) = (format!("trace={CALLS}"), file.display().to_string());
    faults.stage.agent.start_again_by(&[&STRACE[..], &["-e", &trace, "-o", &output]].concat())?;
    faults.until_in_state(0)?;
    let calls = fs::read_to_string(&file)?;
    let places = places(&calls, &root)?;
    ensure!(
        places.len() > 100,
        "only {} of {} calls change something: {places:?}",
        places.len(),
        calls.lines().count()
    );
    println!("an upgrade has {} places", places.len());
    let mut state = 0;
    for (call, place) in faults.chosen(&places) {
        state = 1 - state;
        let told = || format!("killed at its {call} {place}");
        faults
            .under_traffic(|faults| {
                faults.become_older()?;
                faults.publish(state)?;
                let deadly = kill_at(call, place);
                faults
                    .stage
                    .agent
                    .start_again_by(&[&STRACE[..], &["-e", &trace, "-e", &deadly, "-o", "/dev/null"]].concat())?;
                ensure!(faults.is_killed(state)?, "the agent lives");
                faults.check_references()?;
                faults.stage.agent.start_again()?;
                faults.until_in_state(state)
            })
            .with_context(told)?;
        ensure!(pins_below(&root)? == pins, "{}: {:?} is not {pins:?}", told(), pins_below(&root)?);
    }
    Ok(())
}

impl Faults {
    /// The running agent is killed, and what it leaves is of the version before.
    fn become_older(&mut self) -> Result<()> {
        self.kill()?;
        self.stage.agent.become_version(BEFORE)
    }
}

/// Which calls of an upgrade change something, each by its name and its number among those of this name: from the first
/// directory that it makes to the last one of the older version that it removes. What follows is a usual start.
fn places<'a>(calls: &'a str, root: &Path) -> Result<Vec<(&'a str, usize)>> {
    let own = root.join(format!("v{ABI_VERSION}")).display().to_string();
    let thread = calls.split(' ').next().context("nothing was traced")?;
    let (mut counts, mut places) = (BTreeMap::new(), Vec::new());
    let mut has_begun = false;
    for line in calls.lines().filter(|line| line.starts_with(thread) && !line.contains("resumed>")) {
        let Some((call, arguments)) = line[thread.len()..].trim_start().split_once('(') else { continue };
        let count = counts.entry(call).or_insert(0);
        *count += 1;
        has_begun |= call == "mkdir" && arguments.contains(&own);
        let is_change = call != "bpf" || CHANGES.iter().any(|change| arguments.starts_with(change));
        if has_begun && is_change {
            places.push((call, *count));
        }
    }
    let last =
        places.iter().rposition(|(call, _)| ["rmdir", "unlinkat"].contains(call)).context("nothing is removed")?;
    places.truncate(last + 1);
    Ok(places)
}
