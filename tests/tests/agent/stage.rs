//! What most tests stand on: a lab, its manifests, an agent that serves them, and connections that must not break.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xlb_tests::lab::{
    Agent, EndpointSpec, Greeting, Lab, LabSpec, LineClient, Manifests, ServiceSpec, SliceSpec, service_yaml,
    slice_yaml, wait_for,
};

/// The port of every Service.
pub const PORT: u16 = 80;
/// The port of every pod.
pub const TARGET_PORT: u16 = 8080;
/// Longer than anything that the agent does later takes: its quarantine of 10 s and a round after it.
pub const LATER: Duration = Duration::from_secs(40);

const PORTS: &[(&str, &str, u16)] = &[("http", "TCP", PORT)];
const TARGET_PORTS: &[(&str, &str, u16)] = &[("http", "TCP", TARGET_PORT)];
/// Sizes for a test: maps of the usual ones would take long to make and to read. And no programs that meet the sockets of
/// the whole machine.
const SMALL: &[(&str, &str)] = &[("--max-flows", "16384"), ("--max-backends", "512"), ("--clients-inside", "off")];

/// A lab with an agent. The fields go in this order.
pub struct Stage {
    /// The agent.
    pub agent: Agent,
    /// What it reads.
    pub manifests: Manifests,
    /// Where it runs.
    pub lab: Lab,
}

impl Stage {
    /// Two pods behind the first VIP, as `default/web` in the file `web.yaml`, and an agent that serves them.
    pub fn up() -> Result<Stage> {
        Stage::with(LabSpec { pod_count: 2, ..LabSpec::default() }, &[])
    }

    /// The same with all pods of another lab, and with more arguments.
    pub fn with(spec: LabSpec, extra_arguments: &[&str]) -> Result<Stage> {
        let lab = lab(spec)?;
        let manifests = Manifests::new()?;
        let pods: Vec<usize> = lab.pods().collect();
        manifests.write("web.yaml", &service(&lab, "web", 0, &pods))?;
        Stage::start(lab, manifests, extra_arguments)
    }

    /// An agent over what is there, as soon as it serves `default/web`.
    pub fn start(lab: Lab, manifests: Manifests, extra_arguments: &[&str]) -> Result<Stage> {
        let agent = Agent::start(&lab, manifests.path(), &with_sizes(extra_arguments))?;
        let mut stage = Stage { agent, manifests, lab };
        stage.until(|maps| serves(maps, "web"));
        Ok(stage)
    }

    /// Waits until the maps fulfil a condition.
    pub fn until(&mut self, condition: impl Fn(&Value) -> bool) -> Value {
        self.agent.wait_until(condition)
    }

    /// The same for what the agent does only after its quarantine.
    pub fn later(&self, condition: impl Fn(&Value) -> bool) -> Result<Value> {
        let seen = wait_for(LATER, || self.agent.inspect().ok().filter(|maps| condition(maps)));
        seen.with_context(|| {
            format!("not within {LATER:?}; the maps are {:#}", self.agent.inspect().unwrap_or_default())
        })
    }

    /// Waits until each of these texts is in the same refusal, and returns that.
    pub fn until_refused(&mut self, parts: &[&str]) -> String {
        let maps = self.until(|maps| refusal(maps, parts).is_some());
        refusal(&maps, parts).expect("it was there")
    }

    /// A VIP with the port of every Service.
    pub fn vip(&self, index: usize) -> SocketAddrV4 {
        SocketAddrV4::new(self.lab.vip(index), PORT)
    }

    /// Who answers a new connection to a VIP.
    pub fn who(&self, vip: usize) -> Result<String> {
        Ok(LineClient::connect(self.lab.client(0), self.vip(vip))?.identity()?.server)
    }

    /// Waits until this server answers new connections to a VIP.
    pub fn until_answers(&self, vip: usize, server: &str) -> Result<()> {
        let answer = wait_for(LATER, || self.who(vip).ok().filter(|name| name == server));
        answer.map(drop).with_context(|| format!("{server} never answered at {}", self.vip(vip)))
    }

    /// Waits until nobody answers at a VIP. The kernel detaches a program a moment after its pin is gone.
    pub fn until_silent(&self, vip: usize) -> Result<()> {
        let silence = wait_for(LATER, || self.who(vip).is_err().then_some(()));
        silence.with_context(|| format!("{} is still served", self.vip(vip)))
    }

    /// Opens a connection to a VIP that is to last.
    pub fn hold(&self, vip: usize) -> Result<Held> {
        let mut connection = LineClient::connect(self.lab.client(0), self.vip(vip))?;
        let server = connection.identity()?.server;
        Ok(Held { connection, server })
    }

    /// Opens a connection to a VIP that is to last, to this server.
    pub fn hold_at(&self, vip: usize, server: &str) -> Result<Held> {
        let held = wait_for(LATER, || self.hold(vip).ok().filter(|held| held.server == server));
        held.with_context(|| format!("{server} never answered at {}", self.vip(vip)))
    }

    /// Replaces `web.yaml` by the first VIP with these pods.
    pub fn serve_pods(&self, pods: &[usize]) -> Result<()> {
        self.manifests.write("web.yaml", &service(&self.lab, "web", 0, pods))
    }
}

/// A connection that was opened before something happened.
pub struct Held {
    /// The connection.
    pub connection: LineClient,
    /// Who accepted it.
    pub server: String,
}

impl Held {
    /// The same server answers on it as before.
    pub fn answers(&mut self) -> Result<()> {
        let server =
            self.connection.identity().with_context(|| format!("the connection to {} is lost", self.server))?.server;
        ensure!(server == self.server, "{} answers on the connection of {}", server, self.server);
        Ok(())
    }
}

/// The arguments, and the sizes that they do not name.
pub fn with_sizes<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let sizes = SMALL.iter().filter(|(name, _)| !arguments.contains(name));
    arguments.iter().copied().chain(sizes.flat_map(|&(name, value)| [name, value])).collect()
}

/// A lab whose pods all listen.
pub fn lab(spec: LabSpec) -> Result<Lab> {
    let mut lab = Lab::new(spec)?;
    for pod in lab.pods() {
        lab.serve_tcp(pod, TARGET_PORT, Greeting::OnRequest)?;
    }
    Ok(lab)
}

/// A Service of the namespace `default` at a VIP, with its pods.
pub fn service(lab: &Lab, name: &str, vip: usize, pods: &[usize]) -> String {
    let endpoints: Vec<EndpointSpec> = pods.iter().map(|&pod| EndpointSpec::ready(lab.pod_address(pod))).collect();
    service_with(lab, name, vip, &endpoints)
}

/// The same with endpoints of any kind.
pub fn service_with(lab: &Lab, name: &str, vip: usize, endpoints: &[EndpointSpec]) -> String {
    let vips = [lab.vip(vip).into()];
    let service = ServiceSpec { namespace: "default", name, vips: &vips, ports: PORTS, ..ServiceSpec::default() };
    let slice = SliceSpec { namespace: "default", service: name, ports: TARGET_PORTS, endpoints };
    format!("{}---\n{}", service_yaml(&service), slice_yaml(&slice))
}

/// The name of a Service as `xlb inspect` shows it.
pub fn full_name(name: &str) -> String {
    format!("default/{name}:http")
}

/// A Service in the maps.
pub fn find<'a>(maps: &'a Value, name: &str) -> Option<&'a Value> {
    maps["services"].as_array()?.iter().find(|service| service["name"] == *full_name(name))
}

/// Whether a Service is in the maps, with a VIP and a backend.
pub fn serves(maps: &Value, name: &str) -> bool {
    find(maps, name).is_some_and(|service| service["frontends"][0].is_string() && service["backends"][0].is_object())
}

/// The addresses of a Service's backends that get new connections.
pub fn takers(maps: &Value, name: &str) -> Vec<String> {
    let Some(service) = find(maps, name) else { return Vec::new() };
    let shares = service["backends"].as_array().into_iter().flatten();
    let takes_new = |share: &&Value| service["slots"] == 0 || share["slots"].as_u64() > Some(0);
    shares.filter(takes_new).filter_map(|share| share["address"].as_str()).map(String::from).collect()
}

/// The backend in the maps with the address of a pod.
pub fn backend<'a>(maps: &'a Value, lab: &Lab, pod: usize) -> Option<&'a Value> {
    let address = socket(lab, pod);
    maps["backends"].as_array()?.iter().find(|backend| backend["address"] == *address)
}

/// A pod's address and port.
pub fn socket(lab: &Lab, pod: usize) -> String {
    SocketAddrV4::new(lab.pod_address(pod), TARGET_PORT).to_string()
}

/// What is refused, if some refusal holds each of these texts.
pub fn refusal(maps: &Value, parts: &[&str]) -> Option<String> {
    message(maps, "refusals", parts)
}

/// What is not served now, whether for good or for a while.
pub fn unserved(maps: &Value, parts: &[&str]) -> Option<String> {
    refusal(maps, parts).or_else(|| waiting(maps, parts))
}

/// What waits, if something does that holds each of these texts.
pub fn waiting(maps: &Value, parts: &[&str]) -> Option<String> {
    message(maps, "waiting", parts)
}

fn message(maps: &Value, list: &str, parts: &[&str]) -> Option<String> {
    let text = |item: &Value| Some(format!("{}: {}", item["object"].as_str()?, item["why"].as_str()?));
    let mut messages = maps[list].as_array()?.iter().filter_map(text);
    messages.find(|message| parts.iter().all(|part| message.contains(part)))
}
