//! A node with Services of every state, clients that speak to them, and a browser that looks.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use xlb_tests::browser::Browser;
use xlb_tests::lab::{
    Agent, EndpointSpec, Greeting, Lab, LabSpec, LineClient, Manifests, ServiceSpec, SliceSpec, service_yaml,
    slice_yaml, wait_for,
};

/// Where the page is, unless the agent is told otherwise.
pub const PAGE: &str = "http://127.0.0.1:10349/";
/// The port of every Service.
pub const PORT: u16 = 80;
const TARGET_PORT: u16 = 8080;
/// Longer than samples and rounds take.
pub const SOON: Duration = Duration::from_secs(60);

/// A name that would be an element of a page, if somebody let it. Kubernetes refuses it, files do not.
pub const EVIL: &str = "<img src=x onerror=document.title='hacked'>";

/// The fields go in this order.
pub struct Stage {
    /// Who looks.
    pub browser: Browser,
    /// What serves.
    pub agent: Agent,
    /// What it reads.
    pub manifests: Manifests,
    /// Where.
    pub lab: Lab,
}

/// A Service: its namespace, its name, the number of its VIP, its pods, and whether its policy is Local.
pub struct Asked<'a>(pub &'a str, pub &'a str, pub usize, pub &'a [usize], pub bool);

impl Stage {
    /// Pods, an agent that serves these Services, and a browser at its page.
    pub fn with(pods: usize, services: &[Asked], width: u32) -> Result<Stage> {
        let mut lab = Lab::new(LabSpec { pod_count: pods, uplinks: 2, ..LabSpec::default() })?;
        for pod in lab.pods() {
            lab.serve_tcp(pod, TARGET_PORT, Greeting::OnRequest)?;
        }
        let manifests = Manifests::new()?;
        for Asked(namespace, name, vip, pods, is_local) in services {
            let file = format!("{namespace}-{vip}-{}.yaml", name.len());
            manifests.write(&file, &yaml(&lab, namespace, name, *vip, pods, *is_local))?;
        }
        let sizes = ["--max-flows", "16384", "--max-backends", "512", "--clients-inside", "off"];
        let agent = Agent::start(&lab, manifests.path(), &sizes)?;
        let browser = Browser::start(lab.node(), width, 1400)?;
        let mut stage = Stage { browser, agent, manifests, lab };
        stage.agent.wait_until(|maps| maps["services"].as_array().is_some_and(|services| !services.is_empty()));
        stage.browser.open(PAGE)?;
        stage.browser.wait_until("document.body && document.body.dataset.drawn > 0")?;
        Ok(stage)
    }

    /// Services of every state: three pods, one, none here, refused as another has its address, with a name that is none.
    pub fn up() -> Result<Stage> {
        let services = [
            Asked("shop", "web", 0, &[0, 1, 2], false),
            Asked("shop", "api", 1, &[2], false),
            Asked("shop", "far", 2, &[], true),
            Asked("team", "zweb", 0, &[0], false),
            Asked("team", EVIL, 3, &[1], false),
        ];
        Stage::with(3, &services, 1280)
    }

    /// Opens a connection that stays.
    pub fn hold(&self, vip: usize) -> Result<LineClient> {
        let mut connection = LineClient::connect(self.lab.client(0), SocketAddrV4::new(self.lab.vip(vip), PORT))?;
        connection.identity()?;
        Ok(connection)
    }

    /// Waits until maps and page fulfil a condition at the same time.
    pub fn until<T>(&mut self, what: &str, mut condition: impl FnMut(&mut Browser, &Value) -> Option<T>) -> Result<T> {
        let (agent, browser) = (&self.agent, &mut self.browser);
        let found = wait_for(SOON, || condition(browser, &agent.inspect().ok()?));
        found.with_context(|| {
            let page = browser.evaluate("document.body.innerText").unwrap_or_default();
            format!("not within {SOON:?}: {what}; the page says\n{}", page.as_str().unwrap_or_default())
        })
    }
}

/// A Service with a slice of its pods; one of policy Local without pods has some elsewhere.
pub fn yaml(lab: &Lab, namespace: &str, name: &str, vip: usize, pods: &[usize], is_local: bool) -> String {
    let mut endpoints: Vec<EndpointSpec> = pods.iter().map(|&pod| EndpointSpec::ready(lab.pod_address(pod))).collect();
    if is_local && pods.is_empty() {
        endpoints.push(EndpointSpec { node: "other".into(), ..EndpointSpec::ready(Ipv4Addr::new(10, 9, 0, 1)) });
    }
    let (vips, quoted) = ([lab.vip(vip).into()], format!("\"{name}\""));
    let (ports, target_ports) = ([("http", "TCP", PORT)], [("http", "TCP", TARGET_PORT)]);
    let service = ServiceSpec {
        namespace,
        name: &quoted,
        vips: &vips,
        ports: &ports,
        local_policy: is_local,
        ..ServiceSpec::default()
    };
    // The slice's own name begins with the Service's, and so cannot be quoted: it only has to differ.
    let slice = SliceSpec { namespace, service: "of-the-service", ports: &target_ports, endpoints: &endpoints };
    let slice = slice_yaml(&slice)
        .replace("kubernetes.io/service-name: of-the-service", &format!("kubernetes.io/service-name: {quoted}"))
        .replace("name: of-the-service", &format!("name: slice-{vip}-{}", name.len()));
    format!("{}---\n{slice}", service_yaml(&service))
}
