use std::fs;

use tempfile::TempDir;

use super::*;
use crate::agent::reload::{LIVE, Reading};
use crate::cli::{command, run};

/// A file, an environment and arguments, put together.
struct Case {
    directory: TempDir,
    environment: BTreeMap<String, String>,
    arguments: Vec<String>,
}

impl Case {
    fn of(file: &str, environment: &[(&str, &str)], arguments: &str) -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("config.yaml"), file).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let arguments = ["xlb"].into_iter().chain(arguments.split_whitespace()).map(String::from).collect();
        Self { directory, environment, arguments }
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings {
            arguments: self.arguments.iter().map(OsString::from).collect(),
            environment: self.environment.clone(),
            default_file: self.directory.path().join("config.yaml"),
            file_is_needed: false,
        }
    }

    fn settle(&self) -> Result<Settled> {
        settle(&command(), &self.surroundings(), |_| ())
    }

    /// As a start would be told, or why there is none.
    fn reading(&self) -> Result<Reading> {
        run::read_again(&command(), &self.surroundings())
    }

    fn refusal(&self) -> String {
        format!("{:#}", self.reading().unwrap_err()).replace(&*self.directory.path().to_string_lossy(), "DIR")
    }

    fn setting(&self, name: &str) -> (String, Origin, Option<String>) {
        let settings = self.reading().unwrap().settings;
        let Setting { value, origin, place, .. } = settings.into_iter().find(|it| it.name == name).unwrap();
        let place = place.map(|place| place.replace(&*self.directory.path().to_string_lossy(), "DIR"));
        (value, origin, place)
    }
}

/// All that a start needs, so that each other setting can be looked at by itself.
const BASE: &str = "uplink: eth9\nnode-name: base\nmanifests: /base\ncluster-cidrs: 10.0.0.0/8\n";

fn run_command() -> Command {
    relaxed(command().find_subcommand("run").unwrap().clone())
}

/// A value of this setting that it does not have by itself.
fn other(run: &Command, arg: &Arg) -> String {
    let name = arg.get_long().unwrap();
    let possible = arg.get_possible_values();
    let possible = possible.iter().map(|value| value.get_name().to_owned());
    let more = ["off", "25h", "2048", "300", "203.0.113.0/25", "debug", "/another"].map(String::from);
    let is_taken = |text: &String| run.clone().try_get_matches_from(["run".into(), format!("--{name}={text}")]).is_ok();
    let default: Vec<String> = arg.get_default_values().iter().map(|it| it.to_string_lossy().into_owned()).collect();
    let found = possible.chain(more).find(|text| !default.contains(text) && is_taken(text));
    // `cluster-only` needs the networks, which the base has.
    found.unwrap_or_else(|| if name == "pod-ips" { "cluster-only".into() } else { panic!("no other value of {name}") })
}

#[test]
fn every_flag_of_run_can_be_said_by_file_environment_and_flag_and_the_stronger_one_counts() {
    let run = run_command();
    let names: Vec<&str> = settings_of(&run).filter_map(Arg::get_long).collect();
    assert_eq!(names.len() + 1, run.get_arguments().count(), "each has a long name; --config names the file");
    for arg in settings_of(&run) {
        let name = arg.get_long().unwrap();
        let value = other(&run, arg);
        let excluded = exclusive(&run, arg);
        let excludes_it =
            |line: &&str| excluded.iter().chain([&name]).any(|other| line.starts_with(&format!("{other}:")));
        let base: String = BASE.lines().filter(|line| !excludes_it(line)).map(|line| line.to_owned() + "\n").collect();
        let file = format!("{base}{name}: {value}\n");
        let line = file.lines().count();
        let variable = variable(name);
        let in_file = Case::of(&file, &[], "run").setting(name);
        assert_eq!(in_file, (value.clone(), Origin::File, Some(format!("DIR/config.yaml:{line}"))), "{name}");
        let in_environment = Case::of(&base, &[(&variable, &value)], "run").setting(name);
        assert_eq!(in_environment, (value.clone(), Origin::Environment, Some(variable.clone())), "{name}");
        let typed = Case::of(&base, &[], &format!("run --{name}={value}")).setting(name);
        assert_eq!(typed, (value.clone(), Origin::Flag, None), "{name}");

        // Where others exclude it, another value of it may leave no source at all.
        let again = if excluded.is_empty() { value::example(arg) } else { value.clone() };
        let stronger = Case::of(&file, &[(&variable, &again)], "run").setting(name);
        assert_eq!((&stronger.0, stronger.1), (&again, Origin::Environment), "{name}");
        let strongest = Case::of(&file, &[(&variable, &value)], &format!("run --{name}={again}")).setting(name);
        assert_eq!((strongest.0, strongest.1), (again, Origin::Flag), "{name}");
    }
}

#[test]
fn every_setting_either_changes_while_the_agent_runs_or_is_told_to_need_a_restart() {
    let run = run_command();
    let mut live = Vec::new();
    for arg in settings_of(&run) {
        let name = arg.get_long().unwrap();
        // These networks count with that alone.
        let file = BASE.to_owned() + if name == "cluster-cidrs" { "pod-ips: cluster-only\n" } else { "" };
        let base = Case::of(&file, &[], "run").reading().unwrap();
        let changed = Case::of(&file, &[], &format!("run --{name}={}", other(&run, arg))).reading().unwrap();
        assert_ne!(
            (format!("{:?}", base.options), &base.log),
            (format!("{:?}", changed.options), &changed.log),
            "{name} changes nothing"
        );
        let mut options = base.options.clone();
        options.take_over(changed.options);
        if format!("{options:?}") != format!("{:?}", base.options) || changed.log != base.log {
            live.push(name.to_owned());
        }
    }
    live.sort();
    let mut expected = LIVE.map(String::from).to_vec();
    expected.sort();
    assert_eq!(live, expected);
}

#[test]
fn what_no_flag_would_take_is_refused_with_place_cause_and_example() {
    for (line, parts) in [
        (
            "handover: 90",
            &["handover: \"90\" is refused: found \"90\", expected a time", "for example `handover: 1h`"][..],
        ),
        ("flow-timeout-udp: 5 minutes", &["expected a time such as 90s", "for example `flow-timeout-udp: 30s`"]),
        ("max-flows: 1M", &["\"1M\" is refused: it is no whole number; for example `max-flows: 1048576`"]),
        ("max-flows: 12", &["\"12\" is refused: 12 is not in 1024..", "for example `max-flows: 1048576`"]),
        ("max-backends: 70000", &["70000 is not in 1..", "for example `max-backends: 16384`"]),
        ("max-slots: 99999999999", &["\"99999999999\" is refused", "for example `max-slots: 1048576`"]),
        ("xdp: fast", &["it is one of auto, native, generic, off; for example `xdp: auto`"]),
        ("vip-echo: true", &["\"true\" is refused: it is one of on, off; for example `vip-echo: on`"]),
        ("keep-dataplane: yes", &["\"yes\" is refused: it is one of true, false; for example `keep-dataplane: false`"]),
        (
            "external-ip-cidrs: [203.0.113.0/24, 203.0.113]",
            &["found \"203.0.113\"", "for example `external-ip-cidrs: 203"],
        ),
        ("metrics-address: 10349", &["expected off, or an address and a port", "127.0.0.1:10349"]),
        ("log: loud", &["expected a level such as info or debug"]),
        ("max-flow: 1", &["there is no setting \"max-flow\": did you mean `max-flows`?"]),
    ] {
        let said = Case::of(&format!("{BASE}{line}\n"), &[], "run").refusal();
        assert!(said.starts_with("DIR/config.yaml:5: "), "{line}: {said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{line}: {said}");
    }
    let said = Case::of(BASE, &[("XLB_MAX_FLOWS", "lots")], "run").refusal();
    let expected = "XLB_MAX_FLOWS: \"lots\" is refused: it is no whole number; for example `XLB_MAX_FLOWS=1048576`";
    assert_eq!(said, expected);
}

#[test]
fn every_mistake_is_told_at_once() {
    let said = Case::of(&format!("{BASE}max-flow: 1\nhandover: 90\nxdp: fast\n"), &[], "run").refusal();
    assert_eq!(said.lines().count(), 3, "{said}");
    for part in ["config.yaml:5: there is no", "config.yaml:6: handover", "config.yaml:7: xdp"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn examples_are_taken() {
    let run = run_command();
    for arg in settings_of(&run) {
        let (name, text) = (arg.get_long().unwrap().to_owned(), value::example(arg));
        let given = Given { name, text, origin: Origin::File, place: "f".into() };
        assert_eq!(value::check(&run, &given), Ok(()), "{given:?}");
    }
}

#[test]
fn a_stronger_source_excludes_a_weaker_one_and_equals_exclude_each_other() {
    let manifests = |case: &Case| case.setting("manifests").0;
    let file = "uplink: eth0\nnode-name: n\nmanifests: /m\n";
    assert_eq!(manifests(&Case::of(file, &[], "run")), "/m");
    assert_eq!(manifests(&Case::of(file, &[], "run --kube")), "");
    assert_eq!(manifests(&Case::of(file, &[("XLB_KUBE", "true")], "run")), "");
    assert_eq!(manifests(&Case::of(&format!("{file}kube: false\n"), &[], "run")), "/m");
    let both = Case::of(&format!("{file}kube: true\n"), &[], "run").refusal();
    assert!(both.contains("--manifests") && both.contains("cannot be used with"), "{both}");
    let alone = Case::of(&file.replace("manifests: /m", "pod-ips: cluster-only\nkube: true"), &[], "run").refusal();
    assert!(alone.contains("--cluster-cidrs"), "{alone}");
}

#[test]
fn a_file_is_where_flag_or_environment_say_and_need_not_be_where_nobody_does() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("other.yaml");
    fs::write(&path, BASE.replace("base", "other")).unwrap();
    let path = path.display().to_string();
    let name = |case: &Case| case.setting("node-name").0;
    assert_eq!(name(&Case::of(BASE, &[], "run")), "base");
    assert_eq!(name(&Case::of(BASE, &[("XLB_CONFIG", &path)], "run")), "other");
    assert_eq!(name(&Case::of(BASE, &[("XLB_CONFIG", "/nowhere.yaml")], &format!("run --config {path}"))), "other");
    let said = Case::of(BASE, &[], "run --config /nowhere.yaml").refusal();
    assert!(said.contains("reading the configuration /nowhere.yaml"), "{said}");
    let case = Case::of("", &[], "run --uplink e --node-name typed --kube");
    fs::remove_file(case.directory.path().join("config.yaml")).unwrap();
    assert_eq!(name(&case), "typed");
    let needed = Surroundings { file_is_needed: true, ..case.surroundings() };
    assert!(run::read_again(&command(), &needed).is_err(), "one that was read, and is gone, is a mistake");
}

#[test]
fn other_commands_learn_where_the_dataplane_is_whatever_else_the_file_says() {
    let words = |case: &Case| {
        let settled = case.settle().unwrap();
        settled.arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    };
    let file = "bpffs-dir: /sys/fs/bpf/f\nmax-flows: 2048\n";
    assert_eq!(
        words(&Case::of(file, &[], "services web -o json")),
        "xlb services --bpffs-dir=/sys/fs/bpf/f web -o json"
    );
    let typed = "status --bpffs-dir /sys/fs/bpf/t";
    assert_eq!(words(&Case::of(file, &[("XLB_BPFFS_DIR", "/e")], typed)), format!("xlb {typed}"));
    assert_eq!(words(&Case::of(file, &[("XLB_BPFFS_DIR", "/e")], "status")), "xlb status --bpffs-dir=/e");
    assert_eq!(words(&Case::of("max-flow: 1\n", &[], "status")), "xlb status", "a mistake there is no obstacle");
    assert_eq!(words(&Case::of(file, &[], "completions bash")), "xlb completions bash");
    assert_eq!(words(&Case::of(file, &[], "--version")), "xlb --version");
}

#[test]
fn a_variable_that_is_nearly_a_setting_is_doubted() {
    let variables =
        [("XLB_MAX_FLOW", "1"), ("XLB_SERVICE_HOST", "10.0.0.1"), ("XLB_PORT", "tcp://10.0.0.1"), ("XLB_XDP", "off")];
    let case = Case::of(BASE, &variables, "run");
    let expected = [("XLB_MAX_FLOW".to_owned(), "XLB_MAX_FLOWS".to_owned())];
    assert_eq!(doubtful(&run_command(), &case.surroundings()), expected);
}
