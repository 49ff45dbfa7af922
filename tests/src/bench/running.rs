//! `xlb run` on the node of a lab, which follows a cluster behind an API server in the node's namespace.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tempfile::TempDir;
use xlb_userspace::agent::report::Report;

use crate::api::{ApiServer, Listening};
use crate::lab::{Agent, Cgroup, Lab};
use crate::scale::{NODE, World};

/// Within this time the agent has to be in sync, or a change in the maps.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at the agent's log.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// USER_HZ, the unit of proc(5).
const TICKS_PER_S: u64 = 100;

/// The API server of a cluster, whose local pods are behind the lab's first.
pub fn cluster(lab: &Lab, world: &World) -> Result<ApiServer> {
    let device = lab.pod_host_end(0);
    let mut lines = String::new();
    for pod in world.local_pods() {
        writeln!(lines, "route add {pod}/32 dev {device}")?;
    }
    lab.node().ip(&lines)?;
    let server = ApiServer::new();
    server.apply(&json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } }));
    server.apply_all(world.objects());
    Ok(server)
}

/// An agent that serves clients inside, too, in a cgroup of its own.
pub struct Running {
    agent: Agent,
    /// How long after its start it said that it is in sync.
    pub in_sync_after: Duration,
    _listening: Listening,
    _directory: TempDir,
    _cgroup: Cgroup,
}

impl Running {
    /// Starts it, and waits until it has so many services in its maps.
    pub fn start(lab: &Lab, server: &ApiServer, services: u32) -> Result<Running> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listening = server.serve(lab.node().run(|| TcpListener::bind(address))?)?;
        let directory = tempfile::tempdir()?;
        let kubeconfig = directory.path().join("kubeconfig");
        listening.write_kubeconfig(&kubeconfig)?;

        let cgroup = Cgroup::enter()?;
        let started = Instant::now();
        let [kubeconfig, path] = [&kubeconfig, cgroup.path()].map(|path| path.display().to_string());
        let inside = ["--clients-inside", "on", "--cgroup", &path];
        let agent = Agent::start_with(lab, &[&["--kubeconfig", &kubeconfig], &inside[..]].concat())?;
        wait_in_sync(&agent, services, &lab.pin_directory())?;
        let in_sync_after = started.elapsed();
        Ok(Running { agent, in_sync_after, _listening: listening, _directory: directory, _cgroup: cgroup })
    }

    /// Bytes of the agent that are in memory: `VmRSS`, or another line of proc(5)'s status.
    pub fn resident(&self, line: &str) -> Result<u64> {
        let status = self.process_file("status")?;
        let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let found = found.with_context(|| format!("no {line} in the status of the agent"))?;
        let kib: u64 = found.trim().trim_end_matches(" kB").parse().with_context(|| format!("reading {line}"))?;
        Ok(kib * 1024)
    }

    /// CPU time that the agent has used, in user and kernel mode.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = self.process_file("stat")?;
        let (_, fields) = stat.rsplit_once(") ").context("no name in stat")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        // utime and stime are the fields 14 and 15 of proc(5); the name is the second.
        let ticks: u64 =
            fields.get(11..13).context("a short stat")?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_S))
    }

    /// Its process id.
    pub fn process(&self) -> Result<u32> {
        self.agent.process().context("the agent does not run")
    }

    fn process_file(&self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/{name}", self.process()?);
        fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    }
}

fn wait_in_sync(agent: &Agent, services: u32, pin_directory: &Path) -> Result<()> {
    let sentence = format!("in sync: {services} services");
    // One with nothing to do logs nothing.
    let reports = || {
        let report = Report::read(pin_directory).filter(|report| report.in_sync_at_s > 0);
        services == 0 && report.map(|report| report.pid) == agent.process()
    };
    let give_up = Instant::now() + PATIENCE;
    while !agent.log().contains(&sentence) && !reports() {
        ensure!(Instant::now() < give_up, "not in sync within {PATIENCE:?}; its log:\n{}", agent.log());
        sleep(LOOK_INTERVAL);
    }
    Ok(())
}
