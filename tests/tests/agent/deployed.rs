//! The agent as the DaemonSet of `deploy/` runs it: its arguments, its capabilities, no new privileges, a read-only root file
//! system with its mounts alone. And what is lost, or said, when one of these is missing.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;
use xlb_tests::api::{ApiServer, Listening};
use xlb_tests::deploy::{Container, Unit, build, documents, folder, granted, needed, only, read, with_component};
use xlb_tests::lab::{Agent, Cgroup, Lab, LabSpec, LineClient, Manifests, Watch, xlb_binary};
use xlb_userspace::maps::kernel::root_cgroup;

use crate::ask::{soon, status};
use crate::command::{Ended, agent, run};
use crate::stage::{Stage, lab, serves, service, socket, takers};

/// What the DaemonSet does not say: small maps, no programs that meet the sockets of the whole machine, and no kube-proxy that
/// was here before.
const OF_A_TEST: [&str; 6] = [
    "--max-flows=16384",
    "--max-backends=512",
    "--max-slots=8192",
    "--max-frontends=64",
    "--clients-inside=off",
    "--handover=0",
];
/// CAP_NET_ADMIN is 12, CAP_PERFMON 38, CAP_BPF 39 (include/uapi/linux/capability.h).
const CAPABILITIES: u64 = 1 << 12 | 1 << 38 | 1 << 39;
const CAP_SYS_ADMIN: u64 = 1 << 21;

#[test]
fn the_daemonset_serves_with_its_capabilities_mounts_and_rights_alone() -> Result<()> {
    let (lab, cluster) = up(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    // An older API server tells of everything by lists, a newer one by watches.
    cluster.server.set_streaming_lists(false);
    let container = cluster.container("base")?;
    let mut stage = cluster.start(lab, &container)?;
    assert_eq!(capabilities(&stage.agent)?, (CAPABILITIES, true));
    let mut held = stage.hold_at(0, "pod-0")?;
    soon("ready", || (status(stage.lab.node(), "/readyz") == Some(200)).then_some(()))?;
    assert!(!stage.agent.log().contains("WARN"), "{}", stage.agent.log());

    // A command in the pod, which asks a pod's kernel whose the connection is.
    cluster.server.apply_all(documents(&service(&stage.lab, "web", 0, &[1]))?);
    let other = socket(&stage.lab, 1);
    stage.until(|maps| takers(maps, "web") == [other.as_str()]);
    let client = held.connection.local_address()?.to_string();
    let question = ["explain", "--established", "--src", &client, "--dst", &stage.vip(0).to_string()].map(String::from);
    let explained = run_in(&stage.lab, &container, &question)?;
    assert_eq!(explained.code, Some(0), "{}", explained.text);
    explained.says(&["asked", "its kernel holds the connection"]);

    // As a rolling update: the pod ends, and the next one begins.
    assert!(stage.agent.stop()?.success());
    held.answers()?;
    assert_eq!(stage.who(0)?, "pod-1");
    cluster.server.set_streaming_lists(true);
    stage.agent.start_again_by(&words(&container.runner()))?;
    stage.agent.wait_until_it_reports();
    held.answers()?;

    let role = only(&build(&folder().join("kustomize/base"))?, "ClusterRole")?.clone();
    soon("its first event", || (!cluster.server.objects("events").is_empty()).then_some(()))?;
    assert_eq!(granted(&role), needed(&cluster.server.requests()), "what is granted, and what is asked for");
    Ok(())
}

#[test]
fn a_capability_that_is_missing_is_named() -> Result<()> {
    let (lab, cluster) = up(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    for (capability, name) in [("net_admin", "CAP_NET_ADMIN"), ("perfmon", "CAP_PERFMON"), ("bpf", "CAP_BPF")] {
        let container = cluster.container("base")?.without_capability(capability);
        let advice = "securityContext.capabilities.add";
        run_in(&lab, &container, &container.args)?.is_refused_with(&["this process lacks", name, advice]);
    }
    Ok(())
}

/// As by a container's profile that does not know the capability.
#[test]
fn a_bpf_call_that_a_profile_refuses_is_told_from_a_capability_that_is_missing() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    let mut words = ["-f", "-qq", "-o", "/dev/null", "-e", "inject=bpf:error=EPERM"].map(String::from).to_vec();
    words.push(xlb_binary().display().to_string());
    words.extend(agent(&lab, &manifests, &[]));
    run(&lab, "strace", &words)?.is_refused_with(&["refuses bpf(2)", "docs/INSTALL.md"]);
    Ok(())
}

#[test]
fn a_mount_that_is_missing_is_named() -> Result<()> {
    let (lab, cluster) = up(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    for (volume, parts) in [
        ("bpffs", &["BPF file system", "mount -t bpf bpffs /sys/fs/bpf", "hostPath"][..]),
        ("cgroup", &["opening the cgroup /host/cgroup"]),
    ] {
        let container = cluster.container("base")?.without(volume);
        run_in(&lab, &container, &container.args)?.is_refused_with(parts);
    }
    Ok(())
}

/// As the privileged variant does it: with `Bidirectional` the container's mounts are the node's, with `HostToContainer` they end
/// with the container.
#[test]
fn a_bpffs_that_the_agent_mounts_is_the_nodes_where_mounts_go_both_ways() -> Result<()> {
    /// The node's mounts, of which bpffs is none; the container's, which are copies of them; what the node has afterwards.
    const NODE: &str = "mount --make-rshared / && while umount /sys/fs/bpf 2>/dev/null; do :; done
                        unshare --mount --propagation \"$0\" \"$@\"; stat --file-system --format=%T /sys/fs/bpf";
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    for (propagation, file_system) in [("unchanged", "bpf_fs"), ("slave", "sysfs")] {
        let mut words = ["--mount", "sh", "-c", NODE, propagation].map(String::from).to_vec();
        words.push(xlb_binary().display().to_string());
        // It ends by itself, after it has made its pin directory.
        words.extend(agent(&lab, &manifests, &["--cgroup", "/nowhere"]));
        let ended = run(&lab, "unshare", &words)?;
        ended.says(&["opening the cgroup /nowhere"]);
        assert!(ended.text.lines().any(|line| line == file_system), "{propagation}: {}", ended.text);
    }
    Ok(())
}

/// What is written to /run/xlb is for the next agent and for `xlb inspect`: no packet depends on it.
#[test]
fn without_its_folder_the_agent_serves_and_says_what_is_lost() -> Result<()> {
    let (lab, cluster) = up(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let stage = cluster.start(lab, &cluster.container("base")?.without("run"))?;
    assert_eq!(stage.who(0)?, "pod-0");
    soon("it is told", || stage.agent.log().contains("/run/xlb").then_some(()))?;
    assert!(stage.agent.log().contains("Read-only file system"), "{}", stage.agent.log());
    Ok(())
}

/// Entering a pod's network namespace takes CAP_SYS_ADMIN and the namespaces' names.
#[test]
fn native_xdp_hands_packets_to_pods_with_the_component_for_it_and_leaves_them_to_tc_without() -> Result<()> {
    for (overlay, set, is_privileged, takes_xdp) in
        [("base", CAPABILITIES, false, false), ("components/xdp", CAPABILITIES | CAP_SYS_ADMIN, true, true)]
    {
        let (lab, cluster) = up(LabSpec { pod_count: 1, pod_gro: true, ..LabSpec::default() })?;
        let container = cluster.container(overlay)?.with_argument("--xdp=native");
        let mut stage = cluster.start(lab, &container)?;
        assert_eq!(capabilities(&stage.agent)?, (set, !is_privileged));
        stage.until(|maps| maps["backends"][0]["takes_xdp"] == takes_xdp);
        assert_eq!(stage.who(0)?, "pod-0");
        let maps = stage.agent.inspect()?;
        assert_eq!(maps["counters"]["left_to_tc"].as_u64() > Some(0), !takes_xdp, "{overlay}: {:#}", maps["counters"]);
    }
    Ok(())
}

/// As `kubectl exec` starts it: whoever may serve may watch, at tc and before XDP.
#[test]
fn packets_are_watched_with_the_capabilities_of_the_daemonset() -> Result<()> {
    for xdp in ["--xdp=off", "--xdp=generic"] {
        let (lab, cluster) = up(LabSpec { pod_count: 1, ..LabSpec::default() })?;
        let container = cluster.container("base")?.with_argument(xdp);
        let stage = cluster.start(lab, &container)?;
        stage.hold_at(0, "pod-0")?;
        let mut command = stage.lab.node().command("env");
        command.args(container.runner()).arg(xlb_binary()).args(["watch", "-o", "json", "--bpffs-dir"]);
        command.arg(stage.lab.pin_directory());
        let mut watch = Watch::of(command)?;
        watch.until_listening()?;
        assert_eq!(watch.said.lines().count(), 1, "nothing is unseen: {}", watch.said);
        stage.who(0)?;
        let both = ["in", "out"];
        watch.until(|events| both.iter().all(|way| events.iter().any(|event| event["direction"] == *way)))?;
        watch.end()?;
    }
    Ok(())
}

/// An open cgroup is enough to attach to it: the mount is read-only.
#[test]
fn clients_inside_are_served_from_a_container() -> Result<()> {
    let cgroup = Cgroup::enter()?;
    let (lab, cluster) = up(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let mut container = cluster.container("base")?.with_host_path("cgroup", cgroup.path());
    container.args.retain(|argument| argument != "--clients-inside=off");
    let stage = cluster.start(lab, &container)?;
    let identity = || LineClient::connect(stage.lab.node(), stage.vip(0)).ok()?.identity().ok();
    assert_eq!(soon("a client on the node is served", identity)?.server, "pod-0");
    Ok(())
}

/// Of a container the cgroup hierarchy is only its own part, unless it is given the node's.
#[test]
fn a_cgroup_namespace_is_not_taken_for_the_nodes_hierarchy() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 1, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    manifests.write("web.yaml", &service(&lab, "web", 0, &[0]))?;
    let _cgroup = Cgroup::enter()?;
    let root = root_cgroup()?.display().to_string();
    let mut words: Vec<String> =
        ["--mount", "--cgroup", "sh", "-c", "umount \"$0\" && mount -t cgroup2 cgroup2 \"$0\" && exec \"$@\""]
            .map(String::from)
            .into();
    words.extend([root.clone(), xlb_binary().display().to_string()]);
    words.extend(agent(&lab, &manifests, &[]));
    let parts = ["begins at this container's own cgroup", &root, "hostPath of /sys/fs/cgroup", "--cgroup"];
    run(&lab, "unshare", &words)?.is_refused_with(&parts);
    Ok(())
}

#[test]
fn the_units_filter_allows_every_system_call_of_the_agent() -> Result<()> {
    let lab = lab(LabSpec { pod_count: 2, ..LabSpec::default() })?;
    let manifests = Manifests::new()?;
    manifests.write("web.yaml", &service(&lab, "web", 0, &[0]))?;
    let directory = TempDir::new()?;
    let calls = directory.path().join("calls");
    let tracer =
        ["strace", "-D", "-f", "-qq", "-c", "-U", "name", "-o", calls.to_str().context("a path that is no text")?];
    let folder_of_manifests = format!("--manifests={}", manifests.path().display());
    let arguments = ["run", "--uplink=eth0", "--node-name=node", "--keep-dataplane", &folder_of_manifests];
    let running = Agent::start_by(&lab, &tracer, &[&arguments[..], &OF_A_TEST].concat())?;
    let mut stage = Stage { agent: running, manifests, lab };
    stage.until(|maps| serves(maps, "web"));
    stage.serve_pods(&[0, 1])?;
    stage.until(|maps| takers(maps, "web").len() == 2);
    soon("healthy", || (status(stage.lab.node(), "/readyz") == Some(200)).then_some(()))?;
    assert!(stage.agent.stop()?.success());

    let made = soon("what strace counted", || fs::read_to_string(&calls).ok().filter(|text| text.contains("total")))?;
    let made: BTreeSet<&str> =
        made.lines().map(str::trim).filter(|line| line.starts_with(char::is_alphabetic)).collect();
    let made: BTreeSet<&str> = made.into_iter().filter(|name| !["syscall", "total"].contains(name)).collect();
    let allowed = Unit::new(read(&folder().join("systemd/xlb.service"))?).system_calls()?;
    assert!(made.contains("bpf") && made.contains("epoll_wait"), "{made:?}");
    let refused: Vec<&&str> = made.iter().filter(|name| !allowed.contains(**name)).collect();
    assert!(refused.is_empty(), "{refused:?}");
    Ok(())
}

/// A lab with pods behind `default/web`, and the API server that tells of them.
fn up(spec: LabSpec) -> Result<(Lab, Cluster)> {
    let lab = lab(spec)?;
    let server = ApiServer::new();
    server.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node" } }));
    server.apply_all(documents(&service(&lab, "web", 0, &lab.pods().collect::<Vec<_>>()))?);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listening = server.serve(lab.node().run(|| TcpListener::bind(address)).context("listening on the node")?)?;
    let directory = TempDir::new()?;
    write_kubeconfig(&listening, &directory)?;
    Ok((lab, Cluster { _listening: listening, server, directory }))
}

/// One with a certificate of the cluster, as a service account has it: an image without files has no others.
fn write_kubeconfig(listening: &Listening, directory: &TempDir) -> Result<()> {
    let path = directory.path().join("config");
    listening.write_kubeconfig(&path)?;
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
    config["clusters"][0]["cluster"]["certificate-authority"] = json!("/kube/ca.crt");
    fs::write(&path, config.to_string())?;
    fs::write(directory.path().join("ca.crt"), include_str!("ca.crt"))?;
    Ok(())
}

struct Cluster {
    _listening: Listening,
    server: ApiServer,
    directory: TempDir,
}

impl Cluster {
    /// The container of a kustomization or component. A kubeconfig stands for the service account, and the cgroups are where this
    /// machine has them.
    fn container(&self, overlay: &str) -> Result<Container> {
        let base = folder().join("kustomize/base");
        let objects = match overlay.starts_with("components/") {
            true => with_component(&base, &folder().join("kustomize").join(overlay))?,
            false => build(&folder().join("kustomize").join(overlay))?,
        };
        let mut container = Container::of(only(&objects, "DaemonSet")?)?;
        for argument in &mut container.args {
            if argument == "--kube" {
                *argument = "--kubeconfig=/kube/config".into();
            }
        }
        OF_A_TEST.iter().for_each(|argument| container.args.push((*argument).into()));
        Ok(container
            .with_variable("NODE_NAME", "node")
            .with_host_path("cgroup", &root_cgroup()?)
            .with_mount(self.directory.path(), "/kube"))
    }

    /// Starts an agent, and waits until it serves `default/web`.
    fn start(&self, lab: Lab, container: &Container) -> Result<Stage> {
        let agent = Agent::start_by(&lab, &words(&container.runner()), &words(&container.args))?;
        let mut stage = Stage { agent, manifests: Manifests::new()?, lab };
        stage.until(|maps| serves(maps, "web"));
        Ok(stage)
    }
}

/// Runs a command of xlb in a container to its end, on the usual pin directory.
fn run_in(lab: &Lab, container: &Container, arguments: &[String]) -> Result<Ended> {
    let mut words = container.runner();
    let program = words.remove(0);
    words.push(xlb_binary().display().to_string());
    words.extend(arguments.iter().cloned());
    words.extend(["--bpffs-dir".into(), lab.pin_directory().display().to_string()]);
    run(lab, program, &words)
}

/// The effective capabilities of a running agent, if they are also all that it may ever have, and whether it gains none by exec.
fn capabilities(agent: &Agent) -> Result<(u64, bool)> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.process().context("no agent")?))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim).with_context(|| format!("no {name} in {status}"))
    };
    let set = |name: &str| anyhow::Ok(u64::from_str_radix(field(name)?, 16)?);
    assert_eq!(set("CapEff:")?, set("CapBnd:")?);
    Ok((set("CapEff:")?, field("NoNewPrivs:")? == "1"))
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}
