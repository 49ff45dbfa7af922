//! Watching an uplink with XDP: who watches is in the way of nobody, whatever becomes of it.

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use xlb_common::watched;
use xlb_tests::lab::{LabSpec, Watch, programs_of_links};

use crate::ask::soon;
use crate::stage::Stage;
use crate::watch::flags;

/// Both ways in which XDP meets packets; native, with pods that take them.
const DOORS: [(&str, &str); 2] = [("native", "ingress_xdp"), ("generic", "ingress_xdp_alone")];

fn up(door: &str) -> Result<Stage> {
    let spec = LabSpec { pod_count: 1, pod_gro: true, ..LabSpec::default() };
    Stage::with(spec, &["--xdp", door, "--keep-dataplane"])
}

/// The id of the program that meets the uplink's packets first.
fn first(stage: &Stage, program: &str) -> Result<u32> {
    let links = programs_of_links(&stage.lab.pin_directory())?;
    let of_uplink = |(name, _): &(&String, &u32)| name.rsplit_once('-').is_some_and(|(of, _)| of == program);
    links.iter().find(of_uplink).map(|(_, id)| *id).with_context(|| format!("no {program} in {links:?}"))
}

/// Whether it is one that copies.
fn is_watched(stage: &Stage, program: &str) -> Result<bool> {
    let id = first(stage, program)?;
    let info = loaded_programs().flatten().find(|info| info.id() == id).context("the link has no program")?;
    Ok(info.name_as_str().is_some_and(|name| watched::BEFORE_XDP.contains(&name)))
}

/// A connection comes and goes, and is heard of from its first packet on.
fn hears(stage: &Stage, watch: &mut Watch) -> Result<()> {
    stage.who(0)?;
    let events = watch.until(|events| events.iter().any(|event| event["direction"] == "in"))?;
    let event = events.last().context("no event")?;
    ensure!(event["verdict"] == "forward" && flags(event) == "S", "{event:#}");
    Ok(())
}

#[test]
fn while_somebody_watches_a_program_is_before_the_serving_one_and_not_after() -> Result<()> {
    for (door, program) in DOORS {
        let mut stage = up(door)?;
        let serving = first(&stage, program)?;
        let mut held = stage.hold(0)?;
        let mut watch = Watch::start(&stage.lab, &["watch", "-o", "json"])?;
        assert!(is_watched(&stage, program)?, "{door}");
        hears(&stage, &mut watch)?;
        held.answers()?;

        println!("{door}: a second one is told, and sees the replies");
        let mut second = Watch::start(&stage.lab, &["watch", "-o", "json"])?;
        assert!(second.said.contains("another `xlb watch`"), "{}", second.said);
        stage.who(0)?;
        assert_eq!(second.event()?.context("it ended")?["direction"], "out");
        second.end()?;

        watch.end()?;
        assert_eq!(first(&stage, program)?, serving, "{door}: it has its place back");
        held.answers()?;
        stage.agent.stop()?;
        assert!(stage.who(0).is_ok(), "the dataplane is kept");
    }
    Ok(())
}

#[test]
fn a_watcher_that_is_killed_ends_nothing_and_the_agent_puts_its_program_back() -> Result<()> {
    for (door, program) in DOORS {
        let mut stage = up(door)?;
        let serving = first(&stage, program)?;
        let mut held = stage.hold(0)?;
        let mut watch = Watch::start(&stage.lab, &["watch", "-o", "json"])?;
        stage.agent.kill()?;
        watch.kill()?;
        assert!(is_watched(&stage, program)?, "nobody was there to put it back");
        held.answers()?;
        stage.who(0)?;

        println!("{door}: the next watcher has it all to itself, and puts it back");
        let mut next = Watch::start(&stage.lab, &["watch", "-o", "json"])?;
        hears(&stage, &mut next)?;
        next.end()?;
        assert_eq!(first(&stage, program)?, serving);

        println!("{door}: an agent does so by itself");
        stage.agent.start_again()?;
        stage.agent.wait_until_it_reports();
        let serving = first(&stage, program)?;
        Watch::start(&stage.lab, &["watch", "-o", "json"])?.kill()?;
        soon("the agent's program is back", || first(&stage, program).ok().filter(|id| *id == serving))?;
        held.answers()?;
    }
    Ok(())
}

#[test]
fn a_watch_goes_on_when_the_next_agent_brings_its_own_program() -> Result<()> {
    for (door, program) in DOORS {
        let mut stage = up(door)?;
        let before = first(&stage, program)?;
        let mut watch = Watch::start(&stage.lab, &["watch", "-o", "json"])?;
        stage.agent.kill()?;
        stage.agent.start_again()?;
        stage.agent.wait_until_it_reports();
        soon("the watcher is there again", || is_watched(&stage, program).ok().filter(|is_so| *is_so))?;
        hears(&stage, &mut watch)?;
        watch.end()?;
        let after = first(&stage, program)?;
        assert_ne!(after, before, "the next agent's program has the place");
        assert!(stage.who(0).is_ok());
    }
    Ok(())
}
