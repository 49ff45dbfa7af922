//! The links, addresses and routes of a lab, as lines for `ip -batch`.

use std::net::Ipv4Addr;

use super::addresses::{
    BRIDGE_LINK_ADDRESS, CLIENT_GATEWAY, CLIENT_GATEWAY_V6, HOST_END_LINK_ADDRESS, POD_NEXT_HOP, POD_NEXT_HOP_V6,
    PodNetwork, PodShape, Uplink, VIP_NETWORK, VIP_NETWORK_V6, client_address, client_address_v6,
};
use super::topology::LabSpec;

/// The router's side: the clients' bridge, one port per client, the links to the node, the way to the VIPs.
pub fn router(clients: &[String], node: &str, uplinks: &[Uplink], dual_stack: bool) -> String {
    let mut lines = vec![
        "link add clients type bridge".to_owned(),
        format!("address add {CLIENT_GATEWAY}/24 dev clients"),
        "link set clients up".to_owned(),
    ];
    for (index, client) in clients.iter().enumerate() {
        let port = client_port(index);
        lines.push(format!("link add {port} type veth peer name eth0 netns {client}"));
        lines.push(format!("link set {port} master clients up"));
    }
    for Uplink { node_device, router_device, router_address, .. } in uplinks {
        lines.push(format!("link add {router_device} type veth peer name {node_device} netns {node}"));
        lines.push(format!("address add {router_address}/29 dev {router_device}"));
        lines.push(format!("link set {router_device} up"));
    }
    lines.push(format!("route add {VIP_NETWORK} via {}", uplinks[0].node_address));
    if dual_stack {
        lines.push(format!("address add {CLIENT_GATEWAY_V6}/64 dev clients nodad"));
        lines.extend(uplinks.iter().map(|Uplink { router_device, router_address_v6, .. }| {
            format!("address add {router_address_v6}/64 dev {router_device} nodad")
        }));
        lines.push(format!("route add {VIP_NETWORK_V6} via {}", uplinks[0].node_address_v6));
    }
    lines.join("\n")
}

/// The client's side of its link.
pub fn client(index: usize, dual_stack: bool) -> String {
    let (address, address_v6) = (client_address(index), client_address_v6(index));
    let lines = format!("address add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {CLIENT_GATEWAY}");
    match dual_stack {
        true => {
            format!("{lines}\naddress add {address_v6}/64 dev eth0 nodad\nroute add default via {CLIENT_GATEWAY_V6}")
        }
        false => lines,
    }
}

/// The node's side: uplinks, the default route over the first, and the pods' bridge where there is one.
pub fn node(uplinks: &[Uplink], spec: &LabSpec, pods: PodNetwork) -> String {
    let mut lines = Vec::new();
    for Uplink { node_device, node_address, .. } in uplinks {
        lines.push(format!("address add {node_address}/29 dev {node_device}"));
        lines.push(format!("link set {node_device} up"));
    }
    lines.push(format!("route add default via {}", uplinks[0].router_address));
    if spec.pods == PodShape::Bridge {
        lines.push(format!("link add cni0 address {BRIDGE_LINK_ADDRESS} type bridge"));
        lines.push(format!("address add {}/24 dev cni0", pods.gateway()));
        lines.push("link set cni0 up".to_owned());
    }
    if spec.dual_stack {
        lines.extend(uplinks.iter().map(|Uplink { node_device, node_address_v6, .. }| {
            format!("address add {node_address_v6}/64 dev {node_device} nodad")
        }));
        lines.push(format!("route add default via {}", uplinks[0].router_address_v6));
        if spec.pods == PodShape::Bridge {
            lines.push(format!("address add {}/64 dev cni0 nodad", pods.gateway_v6()));
        }
    }
    lines.join("\n")
}

/// The node's end of a pod's link.
pub fn pod_host_end(index: usize, pod: &str, spec: &LabSpec, pods: PodNetwork) -> String {
    let device = host_end(index);
    let address = pods.pod(index);
    let lines = match spec.pods {
        PodShape::Routed => {
            format!("link add {device} address {HOST_END_LINK_ADDRESS} type veth peer name eth0 netns {pod}")
        }
        PodShape::Bridge => format!(
            "link add {device} type veth peer name eth0 address {} netns {pod}\n\
             link set {device} master cni0",
            pod_link_address(address)
        ),
    };
    format!("{lines}\n{}", host_end_up(index, spec, pods))
}

/// The node's end is up, and what leads to it.
pub fn host_end_up(index: usize, spec: &LabSpec, pods: PodNetwork) -> String {
    let device = host_end(index);
    let mut lines = vec![format!("link set {device} up")];
    if spec.pods == PodShape::Routed {
        lines.push(format!("route replace {}/32 dev {device}", pods.pod(index)));
        lines.extend(spec.dual_stack.then(|| format!("route replace {}/128 dev {device}", pods.pod_v6(index))));
    }
    lines.join("\n")
}

/// The pod's own end, for the first time or once more.
pub fn pod(index: usize, spec: &LabSpec, pods: PodNetwork) -> String {
    let address = pods.pod(index);
    let lines = match spec.pods {
        PodShape::Routed => format!(
            "address replace {address}/32 dev eth0\n\
             link set eth0 up\n\
             route replace {POD_NEXT_HOP} dev eth0\n\
             route replace default via {POD_NEXT_HOP} dev eth0\n\
             neighbour replace {POD_NEXT_HOP} lladdr {HOST_END_LINK_ADDRESS} dev eth0 nud permanent"
        ),
        PodShape::Bridge => format!(
            "address replace {address}/24 dev eth0\n\
             link set eth0 up\n\
             route replace default via {}",
            pods.gateway()
        ),
    };
    if spec.dual_stack { format!("{lines}\n{}", pod_v6(index, spec.pods, pods)) } else { lines }
}

fn pod_v6(index: usize, shape: PodShape, pods: PodNetwork) -> String {
    let address = pods.pod_v6(index);
    match shape {
        PodShape::Routed => format!(
            "address replace {address}/128 dev eth0 nodad\n\
             neighbour replace {POD_NEXT_HOP_V6} lladdr {HOST_END_LINK_ADDRESS} dev eth0 nud permanent\n\
             route replace default via {POD_NEXT_HOP_V6} dev eth0"
        ),
        PodShape::Bridge => format!(
            "address replace {address}/64 dev eth0 nodad\n\
             route replace default via {}",
            pods.gateway_v6()
        ),
    }
}

/// The link address follows from the address, as CNI plugins did it: a pod that comes again with the address of an
/// earlier one fits the node's neighbour entry without announcing itself.
fn pod_link_address(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("0a:58:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// The name of the node's end of a pod's link.
pub fn host_end(index: usize) -> String {
    format!("veth{index}")
}

/// The name of the router's end of a client's link.
pub fn client_port(index: usize) -> String {
    format!("client{index}")
}
