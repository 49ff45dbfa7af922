//! The container image, run from its tarball as the DaemonSet runs it: its own read-only root, the capabilities and mounts of the
//! DaemonSet, and nothing else of the machine. And what it says where one of these is missing.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
use xlb_tests::api::{ApiServer, Listening};
use xlb_tests::lab::{Agent, Lab, LabSpec, Manifests, Program, Sandbox, UnpackedImage, wait_for};
use xlb_userspace::maps::kernel::root_cgroup;

use crate::command::{Ended, agent, finish};
use crate::stage::{LATER, Stage, full_name, lab, serves, service, with_sizes};

/// Where the DaemonSet has its things.
const BPFFS: &str = "/sys/fs/bpf";
const CGROUP: &str = "/host/cgroup";
const RUN: &str = "/run/xlb";
const MANIFESTS: &str = "/etc/xlb";
/// What it gives to the agent.
const DAEMONSET: &str = "../deploy/kustomize/base/daemonset.yaml";
/// The same where there is no such file: what docs/OPERATING.md asks for.
const CAPABILITIES: [&str; 3] = ["NET_ADMIN", "BPF", "PERFMON"];

/// A certificate authority that signed nothing: the test's API server speaks plain HTTP.
const CA: &str = include_str!("ca.pem");

/// The name of an API server that only a file, or only a name server, knows.
const API_NAME: &str = "api.cluster.test";

#[test]
fn the_image_serves_with_the_capabilities_of_the_daemonset_alone() -> Result<()> {
    let (image, stage) = served(Ok)?;
    let mut held = stage.hold(0)?;
    let pid = stage.agent.process().context("no agent")?;
    let of_process = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
    let status = of_process("status")?;
    let inside = sandbox(&image, &stage.manifests)?;
    let may = inside.capabilities();
    for line in [format!("CapEff:\t{may}"), format!("CapBnd:\t{may}"), "NoNewPrivs:\t1".to_owned()] {
        assert!(status.contains(&line), "{line} is missing in {status}");
    }
    let mounts = of_process("mounts")?;
    let options = mounts.lines().find_map(|line| line.split(' ').nth(3).filter(|_| line.contains(" / ")));
    assert!(options.is_some_and(|options| options.starts_with("ro")), "{mounts}");
    for library in of_process("maps")?.lines().filter_map(|line| line.split_whitespace().nth(5)) {
        assert!(!library.contains(".so"), "the program is not static: it maps {library}");
    }

    let pins = stage.lab.pin_directory().display().to_string();
    let inspected = run_in(&inside, &stage.lab, &["services", "--bpffs-dir", &pins])?;
    assert_eq!(inspected.code, Some(0), "{}", inspected.text);
    inspected.says(&[&full_name("web"), &stage.vip(0).to_string()]);
    held.answers()?;
    assert!(!stage.agent.log().contains("WARN"), "{}", stage.agent.log());
    Ok(())
}

#[test]
fn the_image_says_what_it_is_made_of() -> Result<()> {
    let image = UnpackedImage::new()?;
    let folder = image.root().join("usr/share/xlb");
    let bill: Value = serde_json::from_slice(&fs::read(folder.join("sbom.cdx.json"))?)?;
    let sum = Command::new("sha256sum").arg(image.root().join("xlb")).output()?;
    let hash = bill["metadata"]["component"]["hashes"][0]["content"].as_str().context("no hash")?;
    assert!(String::from_utf8_lossy(&sum.stdout).starts_with(hash), "the bill is of another binary");
    let labels = &image.config["config"]["Labels"];
    assert_eq!(bill["metadata"]["component"]["properties"][0]["value"], labels["org.opencontainers.image.revision"]);
    assert!(fs::read_to_string(folder.join("licences.txt"))?.contains("\ntokio "));
    Ok(())
}

/// The static binary brings its own resolver, which has no libraries to load.
#[test]
fn the_image_finds_an_api_server_by_its_name() -> Result<()> {
    // Who knows the name: a file, or a name server.
    for of_file in [true, false] {
        let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
        let cluster = Cluster::with(&lab, Some(CA))?;
        let etc = TempDir::new()?;
        let hosts = if of_file { format!("127.0.0.1 {API_NAME}\n") } else { "127.0.0.1 localhost\n".into() };
        fs::write(etc.path().join("hosts"), hosts)?;
        fs::write(etc.path().join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n")?;
        let _names = (!of_file).then(|| name_server(&lab, etc.path())).transpose()?;

        let (image, manifests) = (UnpackedImage::new()?, Manifests::new()?);
        let sandbox = sandbox(&image, &manifests)?
            .with(&etc.path().join("hosts"), "/etc/hosts", true)?
            .with(&etc.path().join("resolv.conf"), "/etc/resolv.conf", true)?
            .with(cluster.directory.path(), "/kube", true)?;
        let cgroup = format!("--cgroup={CGROUP}");
        let arguments = with_sizes(&["--kubeconfig", "/kube/config", &cgroup]);
        let agent = Agent::start_in(&lab, sandbox, image.program()?, &arguments)?;
        let mut stage = Stage { agent, manifests, lab };
        stage.until(|maps| serves(maps, "web"));
        assert_eq!(stage.who(0)?, "pod-0", "the name is in a file: {of_file}");
    }
    Ok(())
}

/// The image has no certificates: clusters have their own.
#[test]
fn a_kubeconfig_without_the_clusters_ca_is_refused_with_where_to_put_it() -> Result<()> {
    let (image, lab, manifests) = prepared()?;
    let cluster = Cluster::with(&lab, None)?;
    let sandbox = sandbox(&image, &manifests)?.with(cluster.directory.path(), "/kube", true)?;
    let cgroup = format!("--cgroup={CGROUP}");
    let pins = lab.pin_directory().display().to_string();
    let arguments =
        ["run", "--uplink=eth0", "--node-name=node", "--kubeconfig=/kube/config", &cgroup, "--bpffs-dir", &pins];
    run_in(&sandbox, &lab, &arguments)?.is_refused_with(&["CA certificates", "certificate-authority-data"]);
    Ok(())
}

/// xlb reads no structure of the kernel by its types.
#[test]
fn a_kernel_without_btf_is_served() -> Result<()> {
    let nothing = TempDir::new()?;
    let (_image, stage) = served(|sandbox| sandbox.with(nothing.path(), "/sys/kernel/btf", true))?;
    assert!(stage.who(0).is_ok());
    Ok(())
}

#[test]
fn without_the_bpffs_mount_the_image_says_what_to_mount() -> Result<()> {
    let (image, lab, manifests) = prepared()?;
    let sandbox = Sandbox::new(&image.root(), &capabilities()?)?.with(&root_cgroup()?, CGROUP, true)?.with(
        manifests.path(),
        MANIFESTS,
        true,
    )?;
    let ended = run_in(&sandbox, &lab, &arguments(&lab, &manifests))?;
    ended.is_refused_with(&["BPF file system", "mount -t bpf bpffs /sys/fs/bpf", "hostPath", BPFFS]);
    Ok(())
}

/// With what the runtime mounts read-only, or not at all, the dataplane is served, and what is lost is said.
#[test]
fn without_a_place_for_its_report_the_image_serves_and_says_so() -> Result<()> {
    let (image, lab, manifests) = prepared()?;
    let sandbox = Sandbox::new(&image.root(), &capabilities()?)?
        .with(Path::new(BPFFS), BPFFS, false)?
        .with(&root_cgroup()?, CGROUP, true)?
        .with(manifests.path(), MANIFESTS, true)?;
    let stage = start(&image, sandbox, lab, manifests)?;
    assert!(stage.who(0).is_ok());
    let said = wait_for(LATER, || Some(stage.agent.log()).filter(|log| log.contains("Read-only file system")));
    let said = said.context("nothing about the read-only root")?;
    assert!(said.contains(RUN), "{said}");
    Ok(())
}

#[test]
fn a_runtime_that_forbids_bpf_is_told_from_missing_capabilities() -> Result<()> {
    let (image, lab, manifests) = prepared()?;
    let sandbox = sandbox(&image, &manifests)?.without_bpf_calls();
    let ended = run_in(&sandbox, &lab, &arguments(&lab, &manifests))?;
    ended.is_refused_with(&["bpf(2)", "seccomp", "seccompProfile"]);
    assert!(!ended.text.contains("CAP_BPF"), "{}", ended.text);
    Ok(())
}

#[test]
fn without_capabilities_the_image_names_them() -> Result<()> {
    let (image, lab, manifests) = prepared()?;
    let sandbox = Sandbox::new(&image.root(), &["NET_ADMIN"])?.with(manifests.path(), MANIFESTS, true)?;
    let ended = run_in(&sandbox, &lab, &arguments(&lab, &manifests))?;
    ended.is_refused_with(&["CAP_BPF", "CAP_PERFMON", "securityContext.capabilities.add"]);
    Ok(())
}

/// The image, and a lab in which it serves `default/web`, in the DaemonSet's sandbox after a change.
fn served(change: impl FnOnce(Sandbox) -> Result<Sandbox>) -> Result<(UnpackedImage, Stage)> {
    let (image, lab, manifests) = prepared()?;
    let sandbox = change(sandbox(&image, &manifests)?)?;
    let stage = start(&image, sandbox, lab, manifests)?;
    Ok((image, stage))
}

fn prepared() -> Result<(UnpackedImage, Lab, Manifests)> {
    let lab = lab(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    let pods: Vec<usize> = lab.pods().collect();
    manifests.write("web.yaml", &service(&lab, "web", 0, &pods))?;
    Ok((UnpackedImage::new()?, lab, manifests))
}

/// As the DaemonSet adds them, after it has dropped all.
fn capabilities() -> Result<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DAEMONSET);
    let Ok(text) = fs::read_to_string(&path) else { return Ok(CAPABILITIES.map(String::from).to_vec()) };
    let daemonset: Value = serde_yaml_ng::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let added = &daemonset["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]["add"];
    let names = added.as_array().context("the DaemonSet adds no capabilities")?.iter();
    names.map(|name| name.as_str().map(String::from).context("a capability that is no text")).collect()
}

/// What the DaemonSet asks for, and a folder of manifests.
fn sandbox(image: &UnpackedImage, manifests: &Manifests) -> Result<Sandbox> {
    fs::create_dir_all(RUN)?;
    Sandbox::new(&image.root(), &capabilities()?)?
        .with(Path::new(BPFFS), BPFFS, false)?
        .with(&root_cgroup()?, CGROUP, true)?
        .with(Path::new(RUN), RUN, false)?
        .with(manifests.path(), MANIFESTS, true)
}

fn start(image: &UnpackedImage, sandbox: Sandbox, lab: Lab, manifests: Manifests) -> Result<Stage> {
    let cgroup = format!("--cgroup={CGROUP}");
    let arguments = with_sizes(&["--manifests", MANIFESTS, &cgroup]);
    let agent = Agent::start_in(&lab, sandbox, image.program()?, &arguments)?;
    let mut stage = Stage { agent, manifests, lab };
    stage.until(|maps| serves(maps, "web"));
    Ok(stage)
}

/// Of an agent that should not come up.
fn arguments(lab: &Lab, manifests: &Manifests) -> Vec<String> {
    let outside = manifests.path().display().to_string();
    let inside = |argument: String| if argument == outside { MANIFESTS.to_owned() } else { argument };
    agent(lab, manifests, &["--cgroup", CGROUP]).into_iter().map(inside).collect()
}

fn run_in(sandbox: &Sandbox, lab: &Lab, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Result<Ended> {
    let mut command = sandbox.command(lab.node(), "/xlb")?;
    command.args(arguments);
    finish(command)
}

/// An API server on the node that has `default/web`, and a kubeconfig that calls it by its name.
struct Cluster {
    _listening: Listening,
    directory: TempDir,
}

impl Cluster {
    fn with(lab: &Lab, ca: Option<&str>) -> Result<Cluster> {
        let server = ApiServer::new();
        server.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node" } }));
        for object in service(lab, "web", 0, &[0]).split("---\n") {
            server.apply(&serde_yaml_ng::from_str::<Value>(object)?);
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listening = server.serve(lab.node().run(|| TcpListener::bind(address))?)?;
        let directory = TempDir::new()?;
        let path = directory.path().join("config");
        listening.write_kubeconfig(&path)?;
        let by_name = fs::read_to_string(&path)?.replace("127.0.0.1", API_NAME);
        assert!(by_name.contains(API_NAME), "{by_name}");
        let mut config: Value = serde_json::from_str(&by_name)?;
        if let Some(ca) = ca {
            fs::write(directory.path().join("ca.pem"), ca)?;
            config["clusters"][0]["cluster"]["certificate-authority"] = json!("ca.pem");
        }
        fs::write(&path, config.to_string())?;
        Ok(Cluster { _listening: listening, directory })
    }
}

/// dnsmasq on the node, which knows the API server and nothing else.
fn name_server(lab: &Lab, directory: &Path) -> Result<Program> {
    let mut command = lab.node().command("dnsmasq");
    command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root"]);
    command.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file="]);
    command.arg(format!("--address=/{API_NAME}/127.0.0.1"));
    let program = Program::start(command, &directory.join("dnsmasq.log"))?;
    let answers = wait_for(LATER, || {
        let mut dig = lab.node().command("dig");
        dig.args(["@127.0.0.1", API_NAME, "+short", "+tries=1", "+time=1"]).stdin(Stdio::null());
        let said = dig.output().ok()?;
        (said.stdout == b"127.0.0.1\n").then_some(())
    });
    answers.with_context(|| format!("dnsmasq does not answer: {}", program.log()))?;
    Ok(program)
}
