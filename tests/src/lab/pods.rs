//! Pods of a running lab: they come, serve and go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::namespace::Namespace;
use super::server::{Greeting, TcpServer, UdpServer};
use super::topology::{Lab, turn_off_tx_offload};
use super::{leftovers, wiring};

/// A living pod.
pub(super) struct Pod {
    pub(super) namespace: Namespace,
    tcp: Vec<Arc<TcpServer>>,
    udp: Vec<Arc<UdpServer>>,
}

impl Lab {
    /// Adds a pod and returns its number, which no earlier pod had.
    pub fn add_pod(&mut self) -> Result<usize> {
        let index = self.next_pod;
        self.add_pods(1)?;
        Ok(index)
    }

    /// Adds a pod under the number, and so with the address, of one that was removed.
    pub fn add_pod_again(&mut self, index: usize) -> Result<()> {
        assert!(!self.pods.contains_key(&index), "pod {index} lives");
        self.wire_pods(index..index + 1)
    }

    pub(super) fn add_pods(&mut self, count: usize) -> Result<()> {
        let first = self.next_pod;
        self.next_pod += count;
        self.wire_pods(first..first + count)
    }

    fn wire_pods(&mut self, indices: Range<usize>) -> Result<()> {
        let names: Vec<String> = indices.clone().map(|index| self.owner.namespace(&format!("pod{index}"))).collect();
        let namespaces = Namespace::create_all(&names, self.spec.dual_stack)?;
        let host_ends: Vec<String> = indices
            .clone()
            .zip(&names)
            .map(|(index, name)| wiring::pod_host_end(index, name, &self.spec, self.network))
            .collect();
        self.node.ip(&host_ends.join("\n"))?;
        if !self.spec.tx_offload {
            turn_off_tx_offload(&self.node, indices.clone().map(wiring::host_end))?;
        }
        for (index, namespace) in indices.clone().zip(namespaces) {
            namespace.ip(&wiring::pod(index, &self.spec, self.network))?;
            if self.spec.pod_gro {
                namespace.output("ethtool", &["-K", "eth0", "gro", "on"])?;
            }
            namespace.settle(["eth0".to_owned()])?;
            self.pods.insert(index, Pod { namespace, tcp: Vec::new(), udp: Vec::new() });
        }
        self.node.settle(indices.map(wiring::host_end).chain(self.node_devices()))
    }

    /// Removes a pod as a container runtime does: its servers and programs die, which the network still hears of,
    /// then its link and its namespace go.
    pub fn remove_pod(&mut self, index: usize) -> Result<()> {
        let pod = self.pods.remove(&index).with_context(|| format!("removing pod {index}, which does not live"))?;
        let names = [pod.namespace.name().to_owned()];
        pod.stop_servers();
        leftovers::end_processes(&names);
        self.node.ip(&format!("link del {}", wiring::host_end(index)))?;
        leftovers::remove_namespaces(&names);
        Ok(())
    }

    /// Brings a pod's link, whose ends an operator or the pod has set down, up again, as a CNI plugin does: the kernel took
    /// addresses and routes away.
    pub fn reconnect_pod(&self, index: usize) -> Result<()> {
        self.node.ip(&wiring::host_end_up(index, &self.spec, self.network))?;
        self.pod(index).ip(&wiring::pod(index, &self.spec, self.network))?;
        self.node.settle([wiring::host_end(index)])
    }

    /// Starts a TCP server on a pod's port. It ends with the pod.
    pub fn serve_tcp(&mut self, pod: usize, port: u16, greeting: Greeting) -> Result<Arc<TcpServer>> {
        let address = (self.any_address(), port);
        let server = Arc::new(TcpServer::start(self.pod(pod), address, &format!("pod-{pod}"), greeting)?);
        self.living_pod(pod).tcp.push(Arc::clone(&server));
        Ok(server)
    }

    /// Starts a UDP server on a pod's port. It ends with the pod.
    pub fn serve_udp(&mut self, pod: usize, port: u16) -> Result<Arc<UdpServer>> {
        let address = (self.any_address(), port);
        let server = Arc::new(UdpServer::start(self.pod(pod), address, &format!("pod-{pod}"))?);
        self.living_pod(pod).udp.push(Arc::clone(&server));
        Ok(server)
    }

    /// Where pods listen. In a dual-stack lab one socket serves both versions, as most programs do it.
    fn any_address(&self) -> IpAddr {
        if self.spec.dual_stack { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
    }

    fn living_pod(&mut self, index: usize) -> &mut Pod {
        self.pods.get_mut(&index).unwrap_or_else(|| panic!("pod {index} does not live"))
    }
}

impl Pod {
    pub(super) fn stop_servers(&self) {
        self.tcp.iter().for_each(|server| server.stop());
        self.udp.iter().for_each(|server| server.stop());
    }
}
