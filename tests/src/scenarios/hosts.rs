//! Flows to pods of other nodes: kube-proxy led them there, and the host's stack has them.

use anyhow::Result;

use super::case::{Client, Expect, Packet, Slice, Step};
use super::inside::is_inside;
use super::missing;
use super::run::Run;

impl Run {
    /// Whether a flow began with an endpoint of another node: kube-proxy led it there.
    pub(super) fn has_hosts_flow(&self, steps: &[Step]) -> bool {
        let slices: Vec<Slice> =
            steps.iter().filter_map(|step| step.slices.as_ref()).chain([&self.slices]).flatten().cloned().collect();
        let packets = steps.iter().filter_map(|step| Some((step.client.as_ref()?, step.packet.as_ref()?)));
        let mut flows = packets.filter(|(client, _)| !is_inside(client)).filter_map(|(_, packet)| packet.flow.as_ref());
        flows.any(|flow| missing::is_remote(&flow.established_to, &slices, &self.node.view.node_name))
    }

    /// Whether the packet's flow is with an endpoint that only kube-proxy can have led it to.
    pub(super) fn is_hosts(&self, client: &Client, packet: &Packet) -> bool {
        let flow = packet.flow.as_ref().filter(|_| !is_inside(client));
        flow.is_some_and(|flow| missing::is_remote(&flow.established_to, &self.slices, &self.node.view.node_name))
    }

    /// Clients inside reach the endpoints of all nodes; others those of this one, and those that kube-proxy led them to.
    pub(super) fn expected(&self, client: &Client, step: &Step) -> Result<Expect> {
        let expect = Expect::parse(step.expect.as_ref())?;
        if is_inside(client) {
            return Ok(expect);
        }
        let packet = step.packet.as_ref().filter(|packet| self.is_hosts(client, packet));
        let flow = packet.and_then(|packet| packet.flow.as_ref());
        let goes_on = flow.is_some_and(|flow| expect.endpoints == [flow.established_to.clone()]);
        let mut here = expect.on_this_node();
        if goes_on && expect.local_only.is_none() {
            here.outcome = "pass".into();
        }
        Ok(here)
    }
}
