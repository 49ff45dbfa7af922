//! Who addresses pods by their own addresses (`--pod-ips`): a mistake here would send a client inside replies of a VIP.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use ipnet::IpNet;

use crate::node::FamilyAddresses;

/// Refuses networks of the cluster that lack this node, whose processes address pods themselves. None: nothing is said of them.
///
/// # Errors
/// When an address of the node is in none of the networks.
pub fn require_node_inside(networks: &[IpNet], node: &FamilyAddresses) -> Result<()> {
    let addresses = node.v4.map(IpAddr::V4).into_iter().chain(node.v6.map(IpAddr::V6));
    for address in addresses.filter(|_| !networks.is_empty()) {
        let is_inside = networks.iter().any(|network| network.contains(&address));
        ensure!(
            is_inside,
            "--cluster-cidrs does not hold this node's own address {address}: name the networks of all nodes and pods"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_without_the_nodes_own_addresses_are_refused() {
        let node = |v4: &str, v6: Option<&str>| FamilyAddresses {
            v4: Some(v4.parse().unwrap()),
            v6: v6.map(|address| address.parse().unwrap()),
        };
        let networks: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        assert!(require_node_inside(&networks, &node("10.1.2.3", None)).is_ok());
        assert!(require_node_inside(&networks, &node("192.0.2.1", None)).is_err());
        assert!(require_node_inside(&networks, &node("10.1.2.3", Some("fd00::1"))).is_err());
        assert!(require_node_inside(&[], &node("192.0.2.1", None)).is_ok());
    }
}
