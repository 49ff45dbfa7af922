//! What an agent refuses to start with: nothing is attached then, and what serves goes on.

use anyhow::Result;
use xlb_tests::lab::{Lab, LabSpec, Manifests, xlb_binary};

use crate::command::{Ended, agent, refused_agent, run};
use crate::stage::{Stage, lab, service};

/// Texts that stand in a file behind a good document, and what the agent says of them.
const MISTAKES: &[(&str, &[&str])] = &[
    ("kind: [Service\n", &["document 2", "line "]),
    ("apiVersion: v1\nkind: Service\nmetadata:\n\tname: web\n", &["document 2", "line 6"]),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n  - port: eighty\n",
        &["document 2", "line 8", "port", "eighty"],
    ),
    (
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 70000}]}\n",
        &["document 2", "line 3", "spec.ports[0].port", "70000", "65535"],
    ),
    ("apiVersion: v2\nkind: Service\nmetadata: {name: web}\n", &["document 2", "line 3", "Service", "v2", "v1"]),
    ("name: web\n", &["document 2", "line 3", "apiVersion", "kind"]),
];

const GOOD: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: default}}\n---\n";

#[test]
fn a_mistake_in_a_manifest_is_refused_with_file_document_and_line() -> Result<()> {
    let lab = Lab::new(LabSpec { pod_count: 0, ..LabSpec::default() })?;
    for (text, parts) in MISTAKES {
        let manifests = Manifests::new()?;
        manifests.write("fine.yaml", GOOD)?;
        manifests.write("broken.yaml", &format!("{GOOD}{text}"))?;
        let ended = refused_agent(&lab, &manifests, &[])?;
        ended.is_refused_with(&["reading manifests from", "broken.yaml"]);
        ended.is_refused_with(parts);
        assert!(!ended.text.contains("fine.yaml"), "{}", ended.text);
        assert_untouched(&lab)?;
    }
    Ok(())
}

#[test]
fn every_mistake_of_every_file_is_told_at_once() -> Result<()> {
    let lab = Lab::new(LabSpec { pod_count: 0, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    manifests.write("one.yaml", &format!("{GOOD}kind: [\n---\nname: web\n"))?;
    manifests.write("two.yaml", "apiVersion: v1\nkind: Service\nspec: 5\n")?;
    let parts = ["one.yaml, document 2", "one.yaml, document 3, line 5", "two.yaml, document 1, line 3"];
    refused_agent(&lab, &manifests, &[])?.is_refused_with(&parts);
    Ok(())
}

#[test]
fn manifests_that_do_not_exist_are_refused_by_their_path() -> Result<()> {
    let lab = Lab::new(LabSpec { pod_count: 0, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    let mut arguments = agent(&lab, &manifests, &[]);
    let path = arguments.iter().position(|argument| argument == "--manifests").expect("it is there") + 1;
    arguments[path].push_str("/nowhere");
    run(&lab, xlb_binary(), &arguments)?.is_refused_with(&["reading manifests from", &arguments[path], "No such file"]);
    assert_untouched(&lab)
}

#[test]
fn unknown_fields_and_kinds_are_fine() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    let yaml = service(&lab, "web", 0, &[0])
        .replace("spec:\n", "spec:\n  aFieldOfTheFuture: {of: [any, shape]}\n")
        .replace("metadata:\n", "metadata:\n  managedFields: [{manager: kubectl}]\n");
    manifests.write("web.yaml", &format!("{yaml}---\napiVersion: example.org/v7\nkind: Widget\nspec: 5\n"))?;
    let stage = Stage::start(lab, manifests, &[])?;
    assert_eq!(stage.who(0)?, "pod-0");
    Ok(())
}

#[test]
fn an_uplink_that_is_not_there_is_refused_with_those_that_are() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, uplinks: 2, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    manifests.write("web.yaml", &service(&lab, "web", 0, &[0]))?;
    let there = ["eth0", "eth1", "veth0", "lo"];

    let beside_one_that_is = refused_agent(&lab, &manifests, &["--uplink", "eht1"])?;
    beside_one_that_is.is_refused_with(&["eht1", "--uplink"]);
    beside_one_that_is.is_refused_with(&there);
    assert_untouched(&lab)?;

    let alone = agent(&lab, &manifests, &[]).into_iter().map(|argument| argument.replace("eth0", "wan0"));
    let alone = run(&lab, xlb_binary(), &alone.collect::<Vec<_>>())?;
    alone.is_refused_with(&["wan0", "--uplink"]);
    alone.is_refused_with(&there);
    assert_untouched(&lab)
}

#[test]
fn missing_capabilities_are_named() -> Result<()> {
    let stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    let alone =
        [("-net_admin", "CAP_NET_ADMIN"), ("-bpf,-sys_admin", "CAP_BPF"), ("-perfmon,-sys_admin", "CAP_PERFMON")];
    for (lost, named) in alone {
        let ended = without(&stage, lost)?;
        ended.is_refused_with(&["this process lacks", named, "root"]);
        assert_eq!(ended.text.matches("CAP_").count(), 1, "{}", ended.text);
    }
    without(&stage, "-all")?.is_refused_with(&["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"]);
    held.answers()?;
    assert!(stage.who(0).is_ok());
    Ok(())
}

/// Starts an agent with fewer capabilities: for root they follow from the bounding set at execve(2).
fn without(stage: &Stage, capabilities: &str) -> Result<Ended> {
    let [bounding, inheritable] = ["--bounding-set", "--inh-caps"].map(|set| format!("{set}={capabilities}"));
    let binary = xlb_binary().display().to_string();
    let mut arguments = vec![bounding, inheritable, binary];
    arguments.extend(agent(&stage.lab, &stage.manifests, &[]));
    run(&stage.lab, "setpriv", &arguments)
}

/// No agent has left anything.
fn assert_untouched(lab: &Lab) -> Result<()> {
    assert!(!lab.pin_directory().exists());
    assert!(!lab.node().output("ip", &["-j", "link", "show", "dev", "eth0"])?.contains("\"xdp\""));
    Ok(())
}

/// A dataplane that lost its agent, and a next agent that cannot start.
#[test]
fn a_start_that_fails_leaves_what_an_earlier_agent_left() -> Result<()> {
    let mut stage = Stage::up()?;
    let mut held = stage.hold(0)?;
    stage.agent.kill()?;
    stage.manifests.write("broken.yaml", "kind: [Service\n")?;
    let said: [(&[&str], &[&str]); 3] = [
        (&[], &["broken.yaml", "document 1"]),
        (&["--uplink", "eht1"], &["broken.yaml"]),
        (&["--cgroup", "/nowhere"], &["broken.yaml"]),
    ];
    for (arguments, parts) in said {
        refused_agent(&stage.lab, &stage.manifests, arguments)?.is_refused_with(parts);
        held.answers()?;
    }
    stage.manifests.remove("broken.yaml")?;
    for arguments in [["--uplink", "eht1"], ["--cgroup", "/nowhere"]] {
        refused_agent(&stage.lab, &stage.manifests, &arguments)?.is_refused_with(&arguments[1..]);
        held.answers()?;
        assert!(stage.who(0).is_ok());
    }
    stage.agent.start_again()?;
    stage.until(|maps| maps["agent"]["is_running"] == true);
    held.answers()
}

/// Another XDP program is on the uplink: that of the first agent, which has another pin directory.
#[test]
fn a_start_that_fails_late_takes_back_what_it_attached() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    manifests.write("web.yaml", &service(&lab, "web", 0, &[0]))?;
    let stage = Stage::start(lab, manifests, &["--xdp", "generic"])?;
    let mut held = stage.hold(0)?;
    let second = format!("{}-second", stage.lab.pin_directory().display());
    // The first agent has the usual addresses of the second, too.
    let apart = ["--bpffs-dir", &second, "--health-address", "off", "--metrics-address", "off"];
    for arguments in [["--xdp", "generic"], ["--cgroup", "/nowhere"]] {
        let ended = refused_agent(&stage.lab, &stage.manifests, &[&arguments[..], &apart].concat())?;
        let is_left = std::path::Path::new(&second).exists();
        std::fs::remove_dir_all(&second).ok();
        ended.is_refused_with(if arguments[0] == "--xdp" {
            &["eth0", "XDP", "ip link show eth0"]
        } else {
            &["/nowhere"]
        });
        assert!(!is_left, "{arguments:?} left pins");
        held.answers()?;
    }
    Ok(())
}
