//! Which address every part of a lab has.

use std::net::Ipv4Addr;

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
}

impl Uplink {
    pub(super) fn new(index: usize) -> Uplink {
        let base = u8::try_from(index * 8).expect("a lab has at most two uplinks");
        Uplink {
            node_device: format!("eth{index}"),
            router_device: format!("uplink{index}"),
            node_address: Ipv4Addr::new(192, 0, 2, base + 2),
            router_address: Ipv4Addr::new(192, 0, 2, base + 1),
        }
    }
}

/// The network that the router sends to the node.
pub(super) const VIP_NETWORK: &str = "203.0.113.0/24";
/// The clients' gateway, with its prefix length.
pub(super) const CLIENT_GATEWAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The next hop of routed pods. Nobody owns it; the pod has a permanent neighbour entry for it.
pub(super) const POD_NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The link address of every routed host end, the one Calico uses.
pub(super) const HOST_END_LINK_ADDRESS: &str = "ee:ee:ee:ee:ee:ee";

/// The VIP with this number.
pub fn vip(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, last_byte(index, 10))
}

/// The address of the client with this number.
pub fn client_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, last_byte(index, 10))
}

/// The pods' network of one lab. `lab` is below 200, so the second byte fits.
#[derive(Clone, Copy, Debug)]
pub(super) struct PodNetwork {
    second: u8,
}

impl PodNetwork {
    pub fn of_lab(lab: u8) -> PodNetwork {
        PodNetwork { second: 40 + lab }
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
}

fn last_byte(index: usize, first: usize) -> u8 {
    u8::try_from(first + index).ok().filter(|byte| *byte < 255).expect("a lab's networks are /24")
}
