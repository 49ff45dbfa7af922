//! Which address every part of a lab has.

use std::net::{Ipv4Addr, Ipv6Addr};

/// How pods hang on the node, in the two shapes that CNI plugins commonly make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodShape {
    /// A /32 per pod behind its own veth, as Calico and cloud CNIs do.
    #[default]
    Routed,
    /// One /24 behind the bridge `cni0`, as flannel and kindnet do.
    Bridge,
}

impl PodShape {
    /// Both shapes, for tests that must hold in each.
    pub const ALL: [PodShape; 2] = [PodShape::Routed, PodShape::Bridge];
}

/// One link between router and node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The device in the node: `eth0`, `eth1`.
    pub node_device: String,
    /// The device in the router: `uplink0`, `uplink1`.
    pub router_device: String,
    /// The node's address on this link, a /29.
    pub node_address: Ipv4Addr,
    /// The router's address on this link, the node's gateway.
    pub router_address: Ipv4Addr,
    /// The node's IPv6 address on this link, a /64, in a dual-stack lab.
    pub node_address_v6: Ipv6Addr,
    /// The router's.
    pub router_address_v6: Ipv6Addr,
}

impl Uplink {
    pub(super) fn new(index: usize) -> Uplink {
        let base = u8::try_from(index * 8).expect("a lab has at most two uplinks");
        Uplink {
            node_device: format!("eth{index}"),
            router_device: format!("uplink{index}"),
            node_address: Ipv4Addr::new(192, 0, 2, base + 2),
            router_address: Ipv4Addr::new(192, 0, 2, base + 1),
            node_address_v6: documentation(0x200 + u16::from(base), 2),
            router_address_v6: documentation(0x200 + u16::from(base), 1),
        }
    }
}

/// The network that the router sends to the node.
pub(super) const VIP_NETWORK: &str = "203.0.113.0/24";
/// The same in IPv6.
pub(super) const VIP_NETWORK_V6: &str = "2001:db8:113::/64";
/// The clients' gateway.
pub(super) const CLIENT_GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The next hop of routed pods. Nobody owns it; the pod has a permanent neighbour entry for it.
pub(super) const POD_NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The clients' gateway in IPv6.
pub(super) const CLIENT_GATEWAY_V6: Ipv6Addr = documentation(0x100, 1);
/// The next hop of routed pods in IPv6: the host end's link-local address, which follows from its link address.
pub(super) const POD_NEXT_HOP_V6: &str = "fe80::ecee:eeff:feee:eeee";
/// The link address of every routed host end, the one Calico uses.
pub(super) const HOST_END_LINK_ADDRESS: &str = "ee:ee:ee:ee:ee:ee";

/// The link address of the pods' bridge. Without one of its own it would take the lowest of its ports', and change
/// when pods come.
pub(super) const BRIDGE_LINK_ADDRESS: &str = "0a:58:00:00:00:01";

/// The VIP with this number.
pub fn vip(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, last_byte(index, 10))
}

/// The address of the client with this number.
pub fn client_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, last_byte(index, 10))
}

/// The VIP with this number in IPv6.
pub fn vip_v6(index: usize) -> Ipv6Addr {
    documentation(0x113, last_byte(index, 10).into())
}

/// The IPv6 address of the client with this number.
pub fn client_address_v6(index: usize) -> Ipv6Addr {
    documentation(0x100, last_byte(index, 10).into())
}

/// The pods' network of one lab. `lab` is below 99: all are as long to write, which outputs for people show, and 10.200 is
/// of pods elsewhere (`scale`).
#[derive(Clone, Copy, Debug)]
pub(super) struct PodNetwork {
    second: u8,
}

impl PodNetwork {
    pub fn of_lab(lab: u8) -> PodNetwork {
        PodNetwork { second: 100 + lab }
    }

    pub fn cidr(self) -> String {
        format!("10.{}.0.0/24", self.second)
    }

    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.second, 0, 1)
    }

    pub fn pod(self, index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, self.second, 0, last_byte(index, 2))
    }

    pub fn gateway_v6(self) -> Ipv6Addr {
        documentation(self.third(), 1)
    }

    pub fn pod_v6(self, index: usize) -> Ipv6Addr {
        documentation(self.third(), last_byte(index, 2).into())
    }

    fn third(self) -> u16 {
        0x4000 + u16::from(self.second)
    }
}

/// An address of 2001:db8::/32 (RFC 3849).
const fn documentation(network: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host)
}

fn last_byte(index: usize, first: usize) -> u8 {
    u8::try_from(first + index).ok().filter(|byte| *byte < 255).expect("a lab's networks are /24")
}
