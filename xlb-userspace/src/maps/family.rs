//! The maps that each family has for itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData};
use ipnet::IpNet;
use xlb_common::abi::{AffinityEntry, CLUSTER_NETWORKS, FlowEntry, Frontend, Inside, Member, SoleFrontend};
use xlb_common::tables::FlowTable;

use crate::maps::frontends::Frontends;
use crate::maps::keys::{Keys, unstored};
use crate::maps::live::{open_map, pinned};
use crate::maps::pins::PinDirectory;
use crate::maps::raw::Raw;
use crate::plan::{Endpoint, Observed};

type Hash<K, V> = HashMap<MapData, Raw<K>, Raw<V>>;
type Ranges<K> = LpmTrie<MapData, Raw<K>, Raw<u32>>;

/// Bits of the service's id, which counts in full, before a range's own.
const SERVICE_BITS: u32 = u32::BITS;
/// What an entry of the source ranges says: nothing beyond that it is there.
const LISTED: u32 = 1;

/// One family's maps, with the keys that `K` stands for.
pub struct FamilyMaps<K: Keys> {
    frontends: Frontends<K>,
    backend_ids: Hash<K, u32>,
    sole_frontends: Hash<K, SoleFrontend>,
    vips: HashMap<MapData, Raw<K::Address>, u32>,
    /// In the order of `FlowTable`.
    flows: [Hash<K::FlowKey, FlowEntry>; 6],
    source_ranges: Ranges<K::SourceKey>,
    pins: Hash<K::FlowKey, Member>,
    affinity: Hash<K::SourceKey, AffinityEntry>,
    inside: Hash<K, Inside>,
    endpoints: Array<MapData, Raw<K>>,
}

/// What the agent does with a family's maps, whichever it is. A key of the other family is an error.
pub(super) trait Written {
    /// Before anything is written: packets find frontends as fast as they can, whatever an agent before left.
    fn take_over(&mut self) -> Result<()>;
    fn put_frontend(&mut self, key: &Endpoint, frontend: Frontend) -> Result<()>;
    fn remove_frontend(&mut self, key: &Endpoint) -> Result<()>;
    fn put_vip(&mut self, address: IpAddr, flags: u32) -> Result<()>;
    fn remove_vip(&mut self, address: IpAddr) -> Result<()>;
    fn put_backend_id(&mut self, key: &Endpoint, id: u32) -> Result<()>;
    fn remove_backend_id(&mut self, key: &Endpoint) -> Result<()>;
    fn put_sole_frontend(&mut self, pod: &Endpoint, sole: SoleFrontend) -> Result<()>;
    fn remove_sole_frontend(&mut self, pod: &Endpoint) -> Result<()>;
    /// The networks of the cluster.
    fn cluster_networks(&self) -> Vec<IpNet>;
    fn put_source_range(&mut self, service: u32, range: &IpNet) -> Result<()>;
    fn remove_source_range(&mut self, service: u32, range: &IpNet) -> Result<()>;
    fn put_endpoint(&mut self, index: u32, endpoint: &Endpoint) -> Result<()>;
    fn put_inside(&mut self, key: &Endpoint, inside: Inside) -> Result<()>;
    fn remove_inside(&mut self, key: &Endpoint) -> Result<()>;
    /// The entries for clients inside.
    fn insides(&self) -> Vec<(Endpoint, Inside)>;
    /// What they lead to.
    fn endpoint(&self, index: u32) -> Result<Endpoint>;
    /// Adds what they hold.
    fn read_into(&self, observed: &mut Observed);
}

/// A flow of either family.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// The client, with its own port.
    pub client: SocketAddr,
    /// The port that the pod sees, if that is another one.
    pub port_at_pod: Option<u16>,
    /// The VIP and port that it speaks to.
    pub vip: SocketAddr,
    /// The pod that answers.
    pub pod: SocketAddr,
    /// The rest.
    pub entry: FlowEntry,
}

impl<K: Keys> FamilyMaps<K> {
    pub(super) fn open(pins: &PinDirectory) -> Result<Self> {
        let open = |name: &str| open_map(pins, &format!("{name}_{}", K::SUFFIX));
        Ok(Self {
            frontends: Frontends::over(
                open("FRONTENDS")?,
                &pinned(pins, &format!("DIRECTORY_{}", K::SUFFIX))?,
                open("PLACES")?,
            )?,
            backend_ids: open("BACKEND_IDS")?.try_into()?,
            sole_frontends: open("SOLE_FRONTENDS")?.try_into()?,
            vips: open("VIPS")?.try_into()?,
            flows: [
                open("FLOWS")?.try_into()?,
                open("PENDING")?.try_into()?,
                open("UDP_FLOWS")?.try_into()?,
                open("UDP_PENDING")?.try_into()?,
                open("SCTP_FLOWS")?.try_into()?,
                open("SCTP_PENDING")?.try_into()?,
            ],
            source_ranges: open("SOURCE_RANGES")?.try_into()?,
            pins: open("PINS")?.try_into()?,
            affinity: open("AFFINITY")?.try_into()?,
            inside: open("INSIDE")?.try_into()?,
            endpoints: open("ENDPOINTS")?.try_into()?,
        })
    }

    /// A frontend.
    #[must_use]
    pub fn frontend(&self, key: &K) -> Option<Frontend> {
        self.frontends.get(key)
    }

    /// How many frontends packets find without the hash map, of how many at most.
    #[must_use]
    pub fn placed(&self) -> (usize, u32) {
        self.frontends.placed()
    }

    /// The only frontend that ever led to a backend.
    #[must_use]
    pub fn sole_frontend(&self, pod: &K) -> Option<SoleFrontend> {
        self.sole_frontends.get(&Raw(*pod), 0).ok().map(|Raw(sole)| sole)
    }

    /// Source ranges with the services that they are of.
    fn ranges(&self) -> impl Iterator<Item = (u32, IpNet)> + '_ {
        self.source_ranges.iter().flatten().filter_map(|(key, _)| {
            let (service, address) = K::client(key.data().0);
            let bits = key.prefix_len().saturating_sub(SERVICE_BITS);
            Some((service, IpNet::new(address, u8::try_from(bits).ok()?).ok()?))
        })
    }

    /// Whether there is a backend with this address, port and protocol.
    #[must_use]
    pub fn is_backend(&self, key: &K) -> bool {
        self.backend_ids.get(&Raw(*key), 0).is_ok()
    }

    /// [`vip_flags`](xlb_common::abi::vip_flags) of an address, if it is a VIP.
    #[must_use]
    pub fn vip(&self, address: K::Address) -> Option<u32> {
        self.vips.get(&Raw(address), 0).ok()
    }

    /// A flow's entry.
    #[must_use]
    pub fn flow(&self, table: FlowTable, key: &K::FlowKey) -> Option<FlowEntry> {
        self.flows[table as usize].get(&Raw(*key), 0).ok().map(|Raw(entry)| entry)
    }

    /// Where the owner of a flow, by its client and VIP, was found.
    #[must_use]
    pub fn pin(&self, key: &K::FlowKey) -> Option<Member> {
        self.pins.get(&Raw(*key), 0).ok().map(|Raw(member)| member)
    }

    /// Whether a service's source ranges contain a client.
    #[must_use]
    pub fn is_allowed_source(&self, client: K::SourceKey) -> bool {
        let all_bits = size_of::<K::SourceKey>() as u32 * u8::BITS;
        self.source_ranges.get(&Key::new(all_bits, Raw(client)), 0).is_ok()
    }

    /// Where a client's last new connection to a service went.
    #[must_use]
    pub fn affinity(&self, client: K::SourceKey) -> Option<AffinityEntry> {
        self.affinity.get(&Raw(client), 0).ok().map(|Raw(entry)| entry)
    }

    /// The entries of a flow map, in no order; entries that vanish meanwhile are left out.
    pub fn flows(&self, table: FlowTable) -> impl Iterator<Item = Flow> + '_ {
        self.flows[table as usize].iter().flatten().map(|(Raw(key), Raw(entry))| {
            let (mut client, pod) = K::ends(&key);
            let port_at_pod = (entry.client_port != [0; 2]).then_some(client.port());
            if port_at_pod.is_some() {
                client.set_port(u16::from_be_bytes(entry.client_port));
            }
            let vip = unstored(entry.vip, client.ip());
            Flow { client, port_at_pod, vip: (vip, u16::from_be_bytes(entry.vip_port)).into(), pod, entry }
        })
    }
}

impl<K: Keys> Written for FamilyMaps<K> {
    fn take_over(&mut self) -> Result<()> {
        self.frontends.take_over()
    }

    fn put_frontend(&mut self, key: &Endpoint, frontend: Frontend) -> Result<()> {
        self.frontends.put(endpoint_key::<K>(key)?.0, frontend)
    }

    fn remove_frontend(&mut self, key: &Endpoint) -> Result<()> {
        self.frontends.remove(endpoint_key::<K>(key)?.0)
    }

    fn put_vip(&mut self, address: IpAddr, flags: u32) -> Result<()> {
        Ok(self.vips.insert(vip_key::<K>(address)?, flags, 0)?)
    }

    fn remove_vip(&mut self, address: IpAddr) -> Result<()> {
        Ok(self.vips.remove(&vip_key::<K>(address)?)?)
    }

    fn put_backend_id(&mut self, key: &Endpoint, id: u32) -> Result<()> {
        Ok(self.backend_ids.insert(endpoint_key::<K>(key)?, Raw(id), 0)?)
    }

    fn remove_backend_id(&mut self, key: &Endpoint) -> Result<()> {
        Ok(self.backend_ids.remove(&endpoint_key(key)?)?)
    }

    fn put_sole_frontend(&mut self, pod: &Endpoint, sole: SoleFrontend) -> Result<()> {
        Ok(self.sole_frontends.insert(endpoint_key::<K>(pod)?, Raw(sole), 0)?)
    }

    fn remove_sole_frontend(&mut self, pod: &Endpoint) -> Result<()> {
        Ok(self.sole_frontends.remove(&endpoint_key(pod)?)?)
    }

    fn cluster_networks(&self) -> Vec<IpNet> {
        self.ranges().filter(|(service, _)| *service == CLUSTER_NETWORKS).map(|(_, range)| range).collect()
    }

    fn put_source_range(&mut self, service: u32, range: &IpNet) -> Result<()> {
        Ok(self.source_ranges.insert(&range_key::<K>(service, range)?, Raw(LISTED), 0)?)
    }

    fn remove_source_range(&mut self, service: u32, range: &IpNet) -> Result<()> {
        Ok(self.source_ranges.remove(&range_key::<K>(service, range)?)?)
    }

    fn put_endpoint(&mut self, index: u32, endpoint: &Endpoint) -> Result<()> {
        Ok(self.endpoints.set(index, endpoint_key::<K>(endpoint)?, 0)?)
    }

    fn put_inside(&mut self, key: &Endpoint, inside: Inside) -> Result<()> {
        Ok(self.inside.insert(endpoint_key::<K>(key)?, Raw(inside), 0)?)
    }

    fn remove_inside(&mut self, key: &Endpoint) -> Result<()> {
        Ok(self.inside.remove(&endpoint_key(key)?)?)
    }

    fn insides(&self) -> Vec<(Endpoint, Inside)> {
        self.inside.iter().flatten().map(|(Raw(key), Raw(inside))| (key.endpoint(), inside)).collect()
    }

    fn endpoint(&self, index: u32) -> Result<Endpoint> {
        Ok(self.endpoints.get(&index, 0)?.0.endpoint())
    }

    fn read_into(&self, observed: &mut Observed) {
        observed.frontends.extend(self.frontends.iter().map(|(key, frontend)| (key.endpoint(), frontend)));
        observed.vips.extend(self.vips.iter().flatten().map(|(Raw(key), flags)| (K::address(key), flags)));
        let backend_ids = self.backend_ids.iter().flatten();
        observed.backend_ids.extend(backend_ids.map(|(Raw(key), Raw(id))| (key.endpoint(), id)));
        let soles = self.sole_frontends.iter().flatten();
        observed.sole_frontends.extend(soles.map(|(Raw(key), Raw(sole))| (key.endpoint(), sole)));
        for (service, range) in self.ranges().filter(|(service, _)| *service != CLUSTER_NETWORKS) {
            let ranges: &mut BTreeSet<IpNet> = observed.source_ranges.entry(service).or_default();
            ranges.insert(range);
        }
    }
}

fn endpoint_key<K: Keys>(endpoint: &Endpoint) -> Result<Raw<K>> {
    let other_family = || format!("{endpoint} is no endpoint of the maps {}", K::SUFFIX);
    K::of_endpoint(endpoint).map(Raw).with_context(other_family)
}

fn vip_key<K: Keys>(address: IpAddr) -> Result<Raw<K::Address>> {
    let other_family = || format!("{address} is no address of the maps {}", K::SUFFIX);
    K::of_address(address).map(Raw).with_context(other_family)
}

fn range_key<K: Keys>(service: u32, range: &IpNet) -> Result<Key<Raw<K::SourceKey>>> {
    let other_family = || format!("{range} is no range of the maps {}", K::SUFFIX);
    let key = K::of_client(service, range.addr()).with_context(other_family)?;
    Ok(Key::new(SERVICE_BITS + u32::from(range.prefix_len()), Raw(key)))
}
