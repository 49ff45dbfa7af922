//! Keys of the maps, and what they stand for: the only place where the families' keys differ.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytemuck::Pod;
use xlb_common::abi::{EndpointKeyV4, EndpointKeyV6, FlowKeyV4, FlowKeyV6, SourceKeyV4, SourceKeyV6};
use xlb_common::directory::Placed;

use crate::plan::Endpoint;
use crate::plan::desired::Protocol;

/// The keys of one family's maps, named after its endpoints' key.
pub trait Keys: Pod + Placed<Place: Pod> {
    /// Key of the flow maps.
    type FlowKey: Pod;
    /// Key of the source ranges, behind the prefix length, and of the clients' affinity.
    type SourceKey: Pod;
    /// Key of the VIPs: an address.
    type Address: Pod;
    /// What the names of its maps end with.
    const SUFFIX: &str;

    /// The address as a key; none if it is of the other family.
    fn of_address(address: IpAddr) -> Option<Self::Address>;
    /// The address.
    fn address(key: Self::Address) -> IpAddr;
    /// The endpoint's key; none if it is of the other family.
    fn of_endpoint(endpoint: &Endpoint) -> Option<Self>;
    /// The endpoint.
    fn endpoint(&self) -> Endpoint;
    /// The client and the pod of a flow.
    fn ends(flow: &Self::FlowKey) -> (SocketAddr, SocketAddr);
    /// A flow where there is room for either family's.
    fn widened(flow: Self::FlowKey) -> FlowKeyV6;
    /// The key of a client; none if it is of the other family.
    fn of_client(service: u32, client: IpAddr) -> Option<Self::SourceKey>;
    /// The service and the client.
    fn client(key: Self::SourceKey) -> (u32, IpAddr);
}

impl Keys for EndpointKeyV4 {
    type FlowKey = FlowKeyV4;
    type SourceKey = SourceKeyV4;
    type Address = [u8; 4];
    const SUFFIX: &str = "V4";

    fn of_address(address: IpAddr) -> Option<[u8; 4]> {
        let IpAddr::V4(address) = address else { return None };
        Some(address.octets())
    }

    fn address(key: [u8; 4]) -> IpAddr {
        key.into()
    }

    fn of_endpoint(endpoint: &Endpoint) -> Option<Self> {
        let SocketAddr::V4(socket) = endpoint.socket else { return None };
        let (address, port) = (socket.ip().octets(), socket.port().to_be_bytes());
        Some(Self { address, port, protocol: endpoint.protocol.number(), zero: 0 })
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint { socket: socket(self.address, self.port), protocol: Protocol::of_number(self.protocol) }
    }

    fn ends(flow: &FlowKeyV4) -> (SocketAddr, SocketAddr) {
        (socket(flow.client, flow.client_port), socket(flow.pod, flow.pod_port))
    }

    fn widened(flow: FlowKeyV4) -> FlowKeyV6 {
        let FlowKeyV4 { client, pod, client_port, pod_port } = flow;
        FlowKeyV6 { client: stored(client.into()), pod: stored(pod.into()), client_port, pod_port }
    }

    fn of_client(service: u32, client: IpAddr) -> Option<SourceKeyV4> {
        let IpAddr::V4(client) = client else { return None };
        Some(SourceKeyV4 { service, client: client.octets() })
    }

    fn client(key: SourceKeyV4) -> (u32, IpAddr) {
        (key.service, key.client.into())
    }
}

impl Keys for EndpointKeyV6 {
    type FlowKey = FlowKeyV6;
    type SourceKey = SourceKeyV6;
    type Address = [u8; 16];
    const SUFFIX: &str = "V6";

    fn of_address(address: IpAddr) -> Option<[u8; 16]> {
        let IpAddr::V6(address) = address else { return None };
        Some(address.octets())
    }

    fn address(key: [u8; 16]) -> IpAddr {
        key.into()
    }

    fn of_endpoint(endpoint: &Endpoint) -> Option<Self> {
        let SocketAddr::V6(socket) = endpoint.socket else { return None };
        let (address, port) = (socket.ip().octets(), socket.port().to_be_bytes());
        Some(Self { address, port, protocol: endpoint.protocol.number(), zero: 0 })
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint { socket: socket(self.address, self.port), protocol: Protocol::of_number(self.protocol) }
    }

    fn ends(flow: &FlowKeyV6) -> (SocketAddr, SocketAddr) {
        (socket(flow.client, flow.client_port), socket(flow.pod, flow.pod_port))
    }

    fn widened(flow: FlowKeyV6) -> FlowKeyV6 {
        flow
    }

    fn of_client(service: u32, client: IpAddr) -> Option<SourceKeyV6> {
        let IpAddr::V6(client) = client else { return None };
        Some(SourceKeyV6 { service, client: client.octets() })
    }

    fn client(key: SourceKeyV6) -> (u32, IpAddr) {
        (key.service, key.client.into())
    }
}

fn socket(address: impl Into<IpAddr>, port: [u8; 2]) -> SocketAddr {
    SocketAddr::new(address.into(), u16::from_be_bytes(port))
}

/// An address as the maps' values keep it: an IPv4 address is in the first four bytes.
#[must_use]
pub fn stored(address: IpAddr) -> [u8; 16] {
    let mut stored = [0; 16];
    match address {
        IpAddr::V4(address) => stored[..4].copy_from_slice(&address.octets()),
        IpAddr::V6(address) => stored = address.octets(),
    }
    stored
}

/// The address that a value keeps, of the same family as another one.
#[must_use]
pub fn unstored(stored: [u8; 16], like: IpAddr) -> IpAddr {
    let [a, b, c, d, ..] = stored;
    match like {
        IpAddr::V4(_) => Ipv4Addr::new(a, b, c, d).into(),
        IpAddr::V6(_) => Ipv6Addr::from(stored).into(),
    }
}
