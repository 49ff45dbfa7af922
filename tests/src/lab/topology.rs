//! A lab as one value: built from a [`LabSpec`], changed while it runs, gone when dropped.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::addresses::{self, PodNetwork, PodShape, Uplink};
use super::lease::{self, Lease};
use super::leftovers::{self, Owner};
use super::namespace::Namespace;
use super::pods::Pod;
use super::{kube_proxy, wiring};
use crate::kernel::sample::Version;

/// What a lab should look like.
#[derive(Clone, Debug)]
pub struct LabSpec {
    /// How pods hang on the node.
    pub pods: PodShape,
    /// Pods at the start; more can come with [`Lab::add_pod`].
    pub pod_count: usize,
    /// Whether everything has IPv6 addresses beside those of IPv4.
    pub dual_stack: bool,
    /// Links between router and node, one or two. The default route and the VIPs use the first.
    pub uplinks: usize,
    /// Clients, each a namespace of its own.
    pub clients: usize,
    /// Whether the devices of clients, router and node may leave sums unfinished. A veth never checks such sums,
    /// so wrong ones stay unseen: off is the rule.
    pub tx_offload: bool,
    /// Whether pods' devices have GRO on. Native XDP_REDIRECT into a veth needs it.
    pub pod_gro: bool,
    /// Whether the node has kube-proxy's and a CNI plugin's packet filter rules.
    pub kube_proxy_rules: bool,
}

impl Default for LabSpec {
    fn default() -> LabSpec {
        LabSpec {
            pods: PodShape::Routed,
            pod_count: 3,
            dual_stack: false,
            uplinks: 1,
            clients: 1,
            tx_offload: false,
            pod_gro: false,
            kube_proxy_rules: false,
        }
    }
}

/// A running network of clients, a router, a node and pods. See the module's picture.
pub struct Lab {
    pub(super) spec: LabSpec,
    pub(super) owner: Owner,
    pub(super) network: PodNetwork,
    uplinks: Vec<Uplink>,
    clients: Vec<Namespace>,
    router: Namespace,
    pub(super) node: Namespace,
    pub(super) pods: BTreeMap<usize, Pod>,
    pub(super) next_pod: usize,
    is_kept: bool,
    lease: Lease,
}

impl Lab {
    /// Sweeps what dead labs left, then builds a new one.
    pub fn new(spec: LabSpec) -> Result<Lab> {
        let lease = Lease::take_any()?;
        leftovers::sweep(&lease);
        let owner = Owner::this_process(lease.number());
        Lab::build(spec, owner, lease).inspect_err(|_| leftovers::remove_lab(owner))
    }

    fn build(spec: LabSpec, owner: Owner, lease: Lease) -> Result<Lab> {
        let roles = ["router".to_owned(), "node".to_owned()].into_iter();
        let roles = roles.chain((0..spec.clients).map(|index| format!("client{index}")));
        let names: Vec<String> = roles.map(|role| owner.namespace(&role)).collect();
        let mut namespaces = Namespace::create_all(&names, spec.dual_stack)?.into_iter();
        let mut lab = Lab {
            owner,
            network: PodNetwork::of_lab(lease.number()),
            uplinks: (0..spec.uplinks).map(Uplink::new).collect(),
            router: namespaces.next().context("no router")?,
            node: namespaces.next().context("no node")?,
            clients: namespaces.collect(),
            pods: BTreeMap::new(),
            next_pod: 0,
            is_kept: false,
            lease,
            spec,
        };
        lab.wire()?;
        lab.add_pods(lab.spec.pod_count)?;
        Ok(lab)
    }

    fn wire(&self) -> Result<()> {
        self.set_forwarding()?;
        let clients: Vec<String> = self.clients.iter().map(|client| client.name().to_owned()).collect();
        self.router.ip(&wiring::router(&clients, self.node.name(), &self.uplinks, self.spec.dual_stack))?;
        self.node.ip(&wiring::node(&self.uplinks, &self.spec, self.network))?;
        for (index, client) in self.clients.iter().enumerate() {
            client.ip(&wiring::client(index, self.spec.dual_stack))?;
        }
        self.settle()?;
        if !self.spec.tx_offload {
            self.finish_sums_in_software()?;
        }
        if self.spec.kube_proxy_rules {
            kube_proxy::load(&self.node, &self.network.cidr())?;
        }
        Ok(())
    }

    /// The strict reverse path filter of the node is written before its devices exist, which inherit it.
    fn set_forwarding(&self) -> Result<()> {
        if self.spec.dual_stack {
            for namespace in [&self.router, &self.node] {
                let settings = ["all", "default"].map(|of| format!("net.ipv6.conf.{of}.forwarding"));
                namespace.sysctl(&settings.each_ref().map(|key| (key.as_str(), "1")))?;
            }
        }
        let strict = |value| [("net.ipv4.conf.all.rp_filter", value), ("net.ipv4.conf.default.rp_filter", value)];
        self.router.sysctl(&[("net.ipv4.ip_forward", "1")])?;
        self.router.sysctl(&strict("0"))?;
        self.node.sysctl(&[("net.ipv4.ip_forward", "1")])?;
        self.node.sysctl(&strict("1"))
    }

    fn settle(&self) -> Result<()> {
        for client in &self.clients {
            client.settle(["eth0".to_owned()])?;
        }
        self.router.settle(self.router_devices())?;
        self.node.settle(self.node_devices())
    }

    fn finish_sums_in_software(&self) -> Result<()> {
        for client in &self.clients {
            turn_off_tx_offload(client, ["eth0".to_owned()])?;
        }
        turn_off_tx_offload(&self.router, self.router_devices())?;
        turn_off_tx_offload(&self.node, self.node_devices())
    }

    /// The router's devices; the bridge comes after its ports, as its carrier does.
    fn router_devices(&self) -> impl Iterator<Item = String> {
        let ports = (0..self.clients.len()).map(wiring::client_port);
        let uplinks = self.uplinks.iter().map(|uplink| uplink.router_device.clone());
        ports.chain(uplinks).chain(["clients".to_owned()])
    }

    /// The node's devices, without the ends of pods' links.
    pub(super) fn node_devices(&self) -> impl Iterator<Item = String> {
        let bridge = (self.spec.pods == PodShape::Bridge).then(|| "cni0".to_owned());
        self.uplinks.iter().map(|uplink| uplink.node_device.clone()).chain(bridge)
    }

    /// Teaches the router the pods' network, which it does not know by itself.
    pub fn route_pods_from_router(&self) -> Result<()> {
        self.router.ip(&format!("route add {} via {}", self.network.cidr(), self.uplinks[0].node_address))
    }

    /// How many packets the node's rules dropped as invalid. The lab needs `kube_proxy_rules`.
    pub fn dropped_as_invalid(&self) -> Result<u64> {
        kube_proxy::packets(&self.node, "invalid")
    }

    /// How many connections the node's rules masqueraded. The lab needs `kube_proxy_rules`.
    pub fn masqueraded(&self) -> Result<u64> {
        kube_proxy::packets(&self.node, "masqueraded")
    }

    /// Leaves the network up after this process, for a person to play with, until [`Lab::remove_kept`]. Servers in
    /// threads end; programs started with [`Namespace::command`] go on.
    pub fn keep(mut self) -> Result<()> {
        self.lease.keep()?;
        self.is_kept = true;
        Ok(())
    }

    /// Removes every kept lab.
    pub fn remove_kept() -> Result<()> {
        lease::forget_kept();
        leftovers::sweep(&Lease::take_any()?);
        Ok(())
    }

    /// The lab's number, unique among the labs alive on this machine.
    pub fn id(&self) -> u8 {
        self.lease.number()
    }

    /// What the lab was built from.
    pub fn spec(&self) -> &LabSpec {
        &self.spec
    }

    /// The node.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// The router between clients and node.
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// A client.
    pub fn client(&self, index: usize) -> &Namespace {
        &self.clients[index]
    }

    /// A living pod.
    pub fn pod(&self, index: usize) -> &Namespace {
        &self.pods.get(&index).unwrap_or_else(|| panic!("pod {index} does not live")).namespace
    }

    /// The numbers of the living pods.
    pub fn pods(&self) -> impl Iterator<Item = usize> + use<> {
        let numbers: Vec<usize> = self.pods.keys().copied().collect();
        numbers.into_iter()
    }

    /// The VIP with this number, in the range that the router sends to the node.
    pub fn vip(&self, index: usize) -> Ipv4Addr {
        addresses::vip(index)
    }

    /// A client's address.
    pub fn client_address(&self, index: usize) -> Ipv4Addr {
        addresses::client_address(index)
    }

    /// A pod's address, living or not.
    pub fn pod_address(&self, index: usize) -> Ipv4Addr {
        self.network.pod(index)
    }

    /// The VIP with this number in an IP version.
    pub fn vip_in(&self, version: Version, index: usize) -> IpAddr {
        match version {
            Version::V4 => addresses::vip(index).into(),
            Version::V6 => addresses::vip_v6(index).into(),
        }
    }

    /// A client's address in an IP version.
    pub fn client_address_in(&self, version: Version, index: usize) -> IpAddr {
        match version {
            Version::V4 => addresses::client_address(index).into(),
            Version::V6 => addresses::client_address_v6(index).into(),
        }
    }

    /// A pod's address in an IP version.
    pub fn pod_address_in(&self, version: Version, index: usize) -> IpAddr {
        match version {
            Version::V4 => self.network.pod(index).into(),
            Version::V6 => self.network.pod_v6(index).into(),
        }
    }

    /// The IP versions that the lab has.
    pub fn versions(&self) -> &'static [Version] {
        if self.spec.dual_stack { &Version::ALL } else { &[Version::V4] }
    }

    /// The pods' network in CIDR notation.
    pub fn pod_network(&self) -> String {
        self.network.cidr()
    }

    /// The node's end of a pod's link.
    pub fn pod_host_end(&self, index: usize) -> String {
        wiring::host_end(index)
    }

    /// A link between router and node.
    pub fn uplink(&self, index: usize) -> &Uplink {
        &self.uplinks[index]
    }

    /// All links between router and node.
    pub fn uplinks(&self) -> &[Uplink] {
        &self.uplinks
    }

    /// Where this lab's agents pin their maps. Removed with the lab.
    pub fn pin_directory(&self) -> PathBuf {
        self.owner.pin_directory()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for pod in self.pods.values() {
            pod.stop_servers();
        }
        if !self.is_kept {
            leftovers::remove_lab(self.owner);
        }
    }
}

pub(super) fn turn_off_tx_offload(namespace: &Namespace, devices: impl IntoIterator<Item = String>) -> Result<()> {
    for device in devices {
        namespace.output("ethtool", &["-K", &device, "tx", "off"])?;
    }
    Ok(())
}
