//! `xlb top`: rates that real traffic has, as rounds and on a terminal.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use xlb_tests::lab::{LineClient, wait_for, xlb_binary};

use crate::command::xlb;
use crate::stage::{LATER, Stage, full_name};

/// New connections while `top` looks.
const CONNECTIONS: usize = 20;
const BULK_BYTES: u64 = 2_000_000;
/// Rounds of 0.2 s that are looked at.
const ROUNDS_MAX: usize = 200;
/// What is told of a Service as rates, and by `xlb inspect` as numbers.
const NUMBERS: [&str; 6] =
    ["packets_to_pods", "bytes_to_pods", "packets_to_clients", "bytes_to_clients", "new_flows", "inside_flows"];

/// Rounds are added up until they make what was counted in all: rates that are wrong never do.
#[test]
fn the_rates_are_those_of_the_traffic() -> Result<()> {
    let stage = Stage::up()?;
    stage.who(0)?;
    let before = traffic(&stage)?;
    let mut command = stage.lab.node().command(xlb_binary());
    command.args(["top", "-o", "json", "--interval", "0.2", "--bpffs-dir"]).arg(stage.lab.pin_directory());
    let mut top = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting xlb top")?;
    let mut rounds = BufReader::new(top.stdout.take().context("its output")?).lines();
    let mut next = || -> Result<Value> { Ok(serde_json::from_str(&rounds.next().context("it has ended")??)?) };
    // It has looked once when it prints, and nothing was going on.
    let quiet = next()?;
    assert_eq!(service(&quiet)["rates"]["packets_to_pods"], 0.0, "{quiet:#}");
    for _ in 0..CONNECTIONS {
        stage.who(0)?;
    }
    LineClient::connect(stage.lab.client(0), stage.vip(0))?.download(BULK_BYTES)?;
    let now = traffic(&stage)?;
    let counted = NUMBERS.map(|name| number_of(&now, name) - number_of(&before, name));
    assert_eq!(counted[4], CONNECTIONS as u64 + 1, "new flows of {now:#}");
    let mut told = NUMBERS.map(|_| 0.0);
    for _ in 0..ROUNDS_MAX {
        let round = next()?;
        let (service, interval_s) = (service(&round), round["interval_s"].as_f64().context("an interval")?);
        for (sum, name) in told.iter_mut().zip(NUMBERS) {
            *sum += service["rates"][name].as_f64().context(name)? * interval_s;
        }
        let shares: f64 =
            service["backends"].as_array().into_iter().flatten().filter_map(|it| it["share"].as_f64()).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{service:#}");
        if told.iter().zip(counted).all(|(told, counted)| (told - counted as f64).abs() < 0.5) {
            top.kill()?;
            top.wait()?;
            return Ok(());
        }
    }
    top.kill()?;
    top.wait()?;
    bail!("rounds make {told:?} of {NUMBERS:?}, and not {counted:?}")
}

#[test]
fn into_a_pipe_it_prints_rounds_and_ends_when_nobody_reads() -> Result<()> {
    let stage = Stage::up()?;
    stage.who(0)?;
    let once = xlb(&stage.lab, &["top", "--once", "--interval", "0.1"])?;
    assert_eq!(once.code, Some(0), "{}", once.text);
    once.says(&["SERVICE, by packets", "all together", &full_name("web"), "of 251 slots", "MAPS", "PENDING_V4"]);
    assert!(!once.text.contains('\u{1b}'), "no colours or moves: {:?}", once.text);
    let rounds = xlb(&stage.lab, &["top", "-n", "3", "--interval", "0.1", "--sort", "name"])?;
    assert_eq!(rounds.text.matches("SERVICE, by name").count(), 3, "{}", rounds.text);
    let command = format!(
        "TERM=dumb {} top --interval 0.1 --bpffs-dir {} | head -n 1",
        xlb_binary().display(),
        stage.lab.pin_directory().display()
    );
    let said = stage.lab.node().output("sh", &["-c", &command])?;
    assert!(said.starts_with("SERVICE, by packets"), "{said}");
    Ok(())
}

#[test]
fn without_a_dataplane_or_with_a_wrong_interval_it_says_so() -> Result<()> {
    let stage = Stage::up()?;
    let nowhere = "/sys/fs/bpf/xlb-none";
    xlb(&stage.lab, &["top", "--once", "--bpffs-dir", nowhere])?.is_refused_with(&["opening the pinned map", nowhere]);
    let ended = xlb(&stage.lab, &["top", "--interval", "0"])?;
    assert_eq!(ended.code, Some(2), "{}", ended.text);
    ended.says(&["0.1 to 3600 seconds"]);
    Ok(())
}

/// `script` gives it a terminal, and writes down what it draws.
#[test]
fn on_a_terminal_it_draws_follows_keys_and_gives_the_terminal_back() -> Result<()> {
    let stage = Stage::up()?;
    let folder = tempfile::tempdir()?;
    let drawn = folder.path().join("drawn");
    let top = format!(
        "stty rows 30 cols 100; {} top --interval 0.2 --bpffs-dir {}; echo ended with $?; stty -a",
        xlb_binary().display(),
        stage.lab.pin_directory().display()
    );
    let mut command = stage.lab.node().command("script");
    command.args(["--quiet", "--flush", "--command", &top]).arg(&drawn).env("TERM", "xterm-256color");
    let mut script =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("starting script (bsdutils)")?;
    let mut keys = script.stdin.take().context("its input")?;
    let so_far = || String::from_utf8_lossy(&fs::read(&drawn).unwrap_or_default()).into_owned();
    let until = |part: &str| {
        wait_for(LATER, || so_far().contains(part).then_some(()))
            .with_context(|| format!("no {part:?} in {:?}", so_far()))
    };
    until("SERVICE, by packets")?;
    until(&full_name("web"))?;
    until("q quit")?;
    keys.write_all(b"n")?;
    until("SERVICE, by name")?;
    keys.write_all(b"q")?;
    until("ended with 0")?;
    // What stty says comes last.
    let ended = wait_for(LATER, || script.try_wait().ok().flatten());
    drop(keys);
    let ended = ended.map_or_else(|| script.wait(), Ok)?;
    assert!(ended.success());
    let all = so_far();
    let (drawing, after) = all.split_once("ended with 0").context("it ended")?;
    assert!(
        drawing.contains("\u{1b}[?1049h") && drawing.contains("\u{1b}[?1049l"),
        "the screen is another one: {drawing:?}"
    );
    assert!(drawing.contains("\u{1b}[?25h"), "the cursor is back");
    assert!(after.contains(" icanon") && after.contains(" echo "), "the terminal is as before: {after}");
    Ok(())
}

fn service(round: &Value) -> Value {
    let services = round["services"].as_array().into_iter().flatten();
    services.into_iter().find(|service| service["name"] == full_name("web")).cloned().unwrap_or_default()
}

/// What `xlb inspect` counts of `default/web`, once it stands still: the last segments of a connection come a moment later.
fn traffic(stage: &Stage) -> Result<Value> {
    let look = || -> Option<Value> {
        let maps = stage.agent.inspect().ok()?;
        Some(crate::stage::find(&maps, "web")?["traffic"].clone())
    };
    let still = wait_for(LATER, || {
        let before = look()?;
        std::thread::sleep(Duration::from_millis(100));
        look().filter(|now| *now == before)
    });
    still.context("there is traffic all the time")
}

fn number_of(traffic: &Value, name: &str) -> u64 {
    traffic[name].as_u64().unwrap_or_default()
}
