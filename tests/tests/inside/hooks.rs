//! The programs of sockets, attached to a cgroup, and the maps that an agent would fill.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray};
use aya::programs::{CgroupAttachMode, Program};
use aya::{Ebpf, EbpfLoader};
use bytemuck::cast;
use xlb_common::abi::{EndpointKeyV4, EndpointKeyV6, Inside, NetnsAddressKey, SourceKeyV4};
use xlb_common::reason::Direction;
use xlb_common::{Family, Reason, V4, V6};
use xlb_tests::kernel::dataplane::object_path;
use xlb_tests::kernel::kernel_maps::{FLOW_MAPS_V4, FLOW_MAPS_V6};
use xlb_tests::lab::{Cgroup, Namespace};
use xlb_userspace::maps::cgroup::{FOLLOWING, SERVING_INSIDE};
use xlb_userspace::node::own_netns_cookie;

/// The Service port of every frontend here.
pub const SERVICE: u32 = 3;
/// Small maps load faster.
const FLOWS_MAX: u32 = 1024;

/// The loaded object.
pub struct Hooks {
    object: Ebpf,
    reasons: PerCpuArray<MapData, u64>,
    /// The next free entry of the endpoints of either family.
    next_endpoint: u32,
}

impl Hooks {
    /// Loads and attaches the programs of a node.
    pub fn attach(cgroup: &Cgroup, node: &Namespace) -> Result<Hooks> {
        let mut loader = EbpfLoader::new();
        let node_netns = node.run(own_netns_cookie)?;
        loader.override_global("NODE_NETNS", &node_netns, true);
        for map in FLOW_MAPS_V4.into_iter().chain(FLOW_MAPS_V6) {
            loader.map_max_entries(map, FLOWS_MAX);
        }
        let mut object = loader.load_file(object_path("xlb-ebpf.o")).context("loading the object")?;
        for name in SERVING_INSIDE.into_iter().chain([FOLLOWING]) {
            let program = object.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
            attach(program, cgroup).with_context(|| format!("attaching {name}"))?;
        }
        let reasons = PerCpuArray::try_from(object.take_map("REASONS").context("no REASONS")?)?;
        Ok(Hooks { object, reasons, next_endpoint: 0 })
    }

    /// Writes a frontend, as the agent does: fresh endpoints first, then what refers to them. The last of `endpoints`
    /// linger, or are for pods, if the service says so.
    pub fn publish(&mut self, vip: SocketAddr, protocol: u8, endpoints: &[SocketAddr], service: Inside) -> Result<()> {
        let base = self.next_endpoint;
        self.next_endpoint += endpoints.len() as u32;
        let usable = endpoints.len() as u32 - service.lingering - service.local;
        let service = Inside { service: SERVICE, endpoints_base: base, endpoints: usable, ..service };
        let value: [u8; 28] = cast(service);
        for (index, &endpoint) in (base..).zip(endpoints) {
            match endpoint.ip() {
                IpAddr::V4(_) => self.array::<[u8; 8]>("ENDPOINTS_V4")?.set(index, key_v4(endpoint, protocol)?, 0)?,
                IpAddr::V6(_) => self.array::<[u8; 20]>("ENDPOINTS_V6")?.set(index, key_v6(endpoint, protocol)?, 0)?,
            }
        }
        match vip.ip() {
            IpAddr::V4(_) => self.hash::<[u8; 8], [u8; 28]>("INSIDE_V4")?.insert(key_v4(vip, protocol)?, value, 0)?,
            IpAddr::V6(_) => self.hash::<[u8; 20], [u8; 28]>("INSIDE_V6")?.insert(key_v6(vip, protocol)?, value, 0)?,
        }
        Ok(())
    }

    /// Lists a source range of the service.
    pub fn allow(&mut self, address: [u8; 4], prefix_length: u32) -> Result<()> {
        let map = self.object.map_mut("SOURCE_RANGES_V4").context("no SOURCE_RANGES_V4")?;
        let mut map = LpmTrie::<_, [u8; 8], u32>::try_from(map)?;
        let key = SourceKeyV4 { service: SERVICE, client: address };
        Ok(map.insert(&Key::new(32 + prefix_length, cast(key)), 0, 0)?)
    }

    /// The IPv4 addresses of network namespaces that are known.
    pub fn addresses(&mut self) -> Result<Vec<[u8; 4]>> {
        let map = self.hash::<[u8; 16], [u8; 16]>("NETNS_ADDRESSES")?;
        let entries: Vec<_> = map.iter().collect::<Result<_, _>>()?;
        let of_v4 = entries.into_iter().filter(|&(key, _)| cast::<_, NetnsAddressKey>(key).family == V4::VERSION);
        Ok(of_v4.map(|(_, address)| V4::from_stored(address)).collect())
    }

    /// How often each reason of a client inside was counted.
    pub fn counts(&self) -> Result<BTreeMap<Reason, u64>> {
        let mut counts = BTreeMap::new();
        for &reason in Reason::ALL.iter().filter(|reason| reason.direction() == Direction::Inside) {
            let count = self.reasons.get(&(reason as u32), 0)?.iter().sum();
            if count != 0 {
                counts.insert(reason, count);
            }
        }
        Ok(counts)
    }

    fn array<V: aya::Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>> {
        Ok(Array::try_from(self.object.map_mut(name).with_context(|| format!("no {name}"))?)?)
    }

    fn hash<K: aya::Pod, V: aya::Pod>(&mut self, name: &str) -> Result<HashMap<&mut MapData, K, V>> {
        Ok(HashMap::try_from(self.object.map_mut(name).with_context(|| format!("no {name}"))?)?)
    }
}

fn attach(program: &mut Program, cgroup: &Cgroup) -> Result<()> {
    match program {
        Program::CgroupSockAddr(program) => {
            program.load()?;
            program.attach(cgroup.open()?, CgroupAttachMode::Single)?;
        }
        Program::SockOps(program) => {
            program.load()?;
            program.attach(cgroup.open()?, CgroupAttachMode::Single)?;
        }
        other => bail!("a program of type {:?}", other.prog_type()),
    }
    Ok(())
}

fn key_v4(socket: SocketAddr, protocol: u8) -> Result<[u8; 8]> {
    let IpAddr::V4(address) = socket.ip() else { bail!("{socket} is not of IPv4") };
    Ok(cast::<EndpointKeyV4, _>(V4::endpoint_key(address.octets(), socket.port().to_be_bytes(), protocol)))
}

fn key_v6(socket: SocketAddr, protocol: u8) -> Result<[u8; 20]> {
    let IpAddr::V6(address) = socket.ip() else { bail!("{socket} is not of IPv6") };
    Ok(cast::<EndpointKeyV6, _>(V6::endpoint_key(address.octets(), socket.port().to_be_bytes(), protocol)))
}
