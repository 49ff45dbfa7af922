//! The pinned maps as values: what the agent writes, what it reads back at start, what the command line shows.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use ipnet::IpNet;
use xlb_common::abi::{
    Backend, CLUSTER_NETWORKS, Config, EndpointKeyV4, EndpointKeyV6, Member, NetnsAddressKey, SERVICE_NAME_MAX,
    ServiceRecord, ServiceStats, Settings, Uplink, Way, WayKey,
};
use xlb_common::inside::netns_address_key;
use xlb_common::slot::SlotWord;
use xlb_common::tables::FlowTable;
use xlb_common::{Reason, V4, V6};

use crate::maps::family::{FamilyMaps, Flow, Written};
use crate::maps::fill::Fill;
use crate::maps::keys::stored;
use crate::maps::pins::PinDirectory;
use crate::maps::raw::Raw;
use crate::maps::stats::{ServiceNumbers, Stats};
use crate::maps::words::Words;
use crate::node::FamilyAddresses;
use crate::plan::desired::Family;
use crate::plan::endpoints::ObservedInside;
use crate::plan::observed::ObservedService;
use crate::plan::{Endpoint, Limits, Observed, Op};

/// The maps of one pin directory.
pub struct LiveMaps {
    /// IPv4's own.
    pub v4: FamilyMaps<EndpointKeyV4>,
    /// IPv6's own.
    pub v6: FamilyMaps<EndpointKeyV6>,
    services: HashMap<MapData, Raw<u32>, Raw<ServiceRecord>>,
    slots: Words,
    members: Array<MapData, Raw<Member>>,
    backends: Array<MapData, Raw<Backend>>,
    reasons: PerCpuArray<MapData, u64>,
    stats: Stats,
    config: Array<MapData, Raw<Config>>,
    pub(super) uplinks: Array<MapData, Raw<Uplink>>,
    pub(super) ways: HashMap<MapData, Raw<WayKey>, Raw<Way>>,
    netns_addresses: HashMap<MapData, Raw<NetnsAddressKey>, [u8; 16]>,
    limits: Limits,
}

impl LiveMaps {
    /// Opens the maps that are pinned there.
    ///
    /// # Errors
    /// When there are none, or this process may not open them.
    pub fn open(pins: &PinDirectory) -> Result<Self> {
        let open = |name| open_map(pins, name);
        let slots = Words::map(&pinned(pins, "SLOTS")?)?;
        let limits = Limits {
            frontends: entries(pins, "FRONTENDS_V4")?,
            services: entries(pins, "SERVICES")?,
            slots: slots.count(),
            members: entries(pins, "MEMBERS")?,
            backends: entries(pins, "BACKENDS")?,
            source_ranges: entries(pins, "SOURCE_RANGES_V4")?,
            endpoints: entries(pins, "ENDPOINTS_V4")?,
            sole_frontends: 0,
        };
        Ok(Self {
            v4: FamilyMaps::open(pins)?,
            v6: FamilyMaps::open(pins)?,
            services: open("SERVICES")?.try_into()?,
            slots,
            members: open("MEMBERS")?.try_into()?,
            backends: open("BACKENDS")?.try_into()?,
            reasons: open("REASONS")?.try_into()?,
            stats: Stats::open(pins)?,
            config: open("CONFIG")?.try_into()?,
            uplinks: open("UPLINKS")?.try_into()?,
            ways: open("WAYS")?.try_into()?,
            netns_addresses: open("NETNS_ADDRESSES")?.try_into()?,
            limits,
        })
    }

    /// How much the maps hold at most.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Before anything is written: lets packets find frontends as fast as they can, whatever an agent before left.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_over(&mut self) -> Result<()> {
        [Family::V4, Family::V6].into_iter().try_for_each(|family| self.of(family).take_over())
    }

    /// How full `PLACES` are, by which packets find frontends without a hash map. Known to the agent that writes them.
    #[must_use]
    pub fn places(&self) -> [Fill; 2] {
        [("PLACES_V4", self.v4.placed()), ("PLACES_V6", self.v6.placed())].map(|(map, (entries, capacity))| Fill {
            map,
            entries: entries as u64,
            capacity: capacity.into(),
        })
    }

    /// Does one operation of a plan.
    ///
    /// # Errors
    /// When the kernel refuses it; the message names the operation.
    pub fn apply(&mut self, op: &Op) -> Result<()> {
        self.write(op).with_context(|| format!("writing to the kernel's maps: {op}"))
    }

    fn write(&mut self, op: &Op) -> Result<()> {
        match op {
            Op::PutBackend { id, backend } => self.backends.set(*id, Raw(*backend), 0)?,
            Op::PutBackendId { key, id } => self.of(key.family()).put_backend_id(key, *id)?,
            Op::PutSoleFrontend { pod, sole } => self.of(pod.family()).put_sole_frontend(pod, *sole)?,
            Op::RemoveSoleFrontend { pod } => self.of(pod.family()).remove_sole_frontend(pod)?,
            Op::PutMember { index, member } => self.members.set(*index, Raw(*member), 0)?,
            Op::PutSlot { index, word } => ensure!(self.slots.set(*index, word.0), "slot {index} is beyond the end"),
            Op::PutService { id, name, slots_base, slots, members_base, members } => {
                let service = ObservedService {
                    name: name.clone(),
                    slots_base: *slots_base,
                    slots: *slots,
                    members_base: *members_base,
                    members: *members,
                };
                if self.name_of(*id).is_none() {
                    self.stats.begin(*id)?;
                }
                self.services.insert(Raw(*id), Raw(record(&service)), 0)?;
            }
            Op::PutSourceRange { service, range } => {
                self.of(Family::of(range.addr())).put_source_range(*service, range)?;
            }
            Op::RemoveSourceRange { service, range } => {
                self.of(Family::of(range.addr())).remove_source_range(*service, range)?;
            }
            Op::PutFrontend { key, frontend } => self.of(key.family()).put_frontend(key, *frontend)?,
            Op::RemoveFrontend { key } => self.of(key.family()).remove_frontend(key)?,
            Op::PutVip { address, flags } => self.of(Family::of(*address)).put_vip(*address, *flags)?,
            Op::RemoveVip { address } => self.of(Family::of(*address)).remove_vip(*address)?,
            Op::PutEndpoints { base, protocol, endpoints } => {
                for (index, &socket) in (*base..).zip(endpoints) {
                    self.of(Family::of(socket.ip())).put_endpoint(index, &Endpoint { socket, protocol: *protocol })?;
                }
            }
            Op::PutInside { key, inside } => self.of(key.family()).put_inside(key, *inside)?,
            Op::RemoveInside { key } => self.of(key.family()).remove_inside(key)?,
            Op::RemoveService { id } => self.services.remove(&Raw(*id))?,
            Op::RemoveBackendId { key } => self.of(key.family()).remove_backend_id(key)?,
            Op::PutConfig { stack_in_use, generation } => {
                let stack_in_use = u32::from(*stack_in_use);
                let config = Config { stack_in_use, generation: *generation, ..self.config()? };
                self.config.set(0, Raw(config), 0)?;
            }
        }
        Ok(())
    }

    fn of(&mut self, family: Family) -> &mut dyn Written {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    fn endpoint(&self, family: Family, index: u32) -> Result<SocketAddr> {
        let endpoint = match family {
            Family::V4 => self.v4.endpoint(index),
            Family::V6 => self.v6.endpoint(index),
        };
        Ok(endpoint.with_context(|| format!("reading entry {index} of the endpoints"))?.socket)
    }

    /// Tells the programs the addresses of a network namespace, by which source ranges judge its processes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn put_netns_addresses(&mut self, netns: u64, addresses: &FamilyAddresses) -> Result<()> {
        let v4 = addresses.v4.map(|address| (netns_address_key::<V4>(netns), stored(address.into())));
        let v6 = addresses.v6.map(|address| (netns_address_key::<V6>(netns), stored(address.into())));
        for (key, address) in v4.into_iter().chain(v6) {
            self.netns_addresses.insert(Raw(key), address, 0).context("writing NETNS_ADDRESSES")?;
        }
        Ok(())
    }

    /// Tells the programs what the operator chose.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn put_settings(&mut self, settings: Settings) -> Result<()> {
        let config = Config { settings, ..self.config()? };
        self.config.set(0, Raw(config), 0).context("writing CONFIG")
    }

    /// Tells the programs of which networks clients address pods themselves, and the planner whether anybody else does: without
    /// any network (`--pod-ips routed`), everybody may.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn put_cluster_networks(&mut self, networks: &[IpNet]) -> Result<()> {
        self.limits.sole_frontends = if networks.is_empty() { 0 } else { self.limits.backends };
        for &range in networks {
            self.of(Family::of(range.addr())).put_source_range(CLUSTER_NETWORKS, &range)?;
        }
        let known = [self.v4.cluster_networks(), self.v6.cluster_networks()].concat();
        for range in known.iter().filter(|range| !networks.contains(range)) {
            self.of(Family::of(range.addr())).remove_source_range(CLUSTER_NETWORKS, range)?;
        }
        Ok(())
    }

    /// Tells the programs which uplink is the only one; none: there are several.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn put_only_uplink(&mut self, ifindex: Option<u32>) -> Result<()> {
        let config = Config { only_uplink: ifindex.unwrap_or_default(), ..self.config()? };
        self.config.set(0, Raw(config), 0).context("writing CONFIG")
    }

    /// What the maps hold: the state from which the next plan starts, also after a restart.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn observed(&self) -> Result<Observed> {
        let mut observed = Observed { generation: self.config()?.generation, ..Observed::default() };
        observed.stack_in_use = self.config()?.stack_in_use != 0;
        for (Raw(id), Raw(record)) in self.services.iter().flatten() {
            let service = service_of(&record);
            let words = service.slots_base..service.slots_base + service.slots;
            let words: Vec<_> = words.map(|index| self.slot(index).unwrap_or(SlotWord::EMPTY)).collect();
            // A service without a region says base zero, where another's may begin.
            if !words.is_empty() {
                observed.slots.insert(service.slots_base, words);
            }
            for index in service.members_base..service.members_base + service.members {
                observed.members.insert(index, self.members.get(&index, 0)?.0);
            }
            observed.services.insert(id, service);
        }
        self.v4.read_into(&mut observed);
        self.v6.read_into(&mut observed);
        let insides = self.v4.insides().into_iter().chain(self.v6.insides()).collect();
        observed.inside = ObservedInside::read(insides, |family, index| self.endpoint(family, index))?;
        for id in 0..self.limits.backends {
            let Raw(backend) = self.backends.get(&id, 0)?;
            if backend.generation != 0 {
                observed.backends.insert(id, backend);
            }
        }
        Ok(observed)
    }

    /// The backends in use.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn backends(&self) -> Result<Vec<Backend>> {
        let all = (0..self.limits.backends).map(|id| Ok(self.backends.get(&id, 0).context("reading BACKENDS")?.0));
        all.filter(|backend| backend.as_ref().map_or(true, Backend::is_in_use)).collect()
    }

    /// The entry of `CONFIG`.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn config(&self) -> Result<Config> {
        Ok(self.config.get(&0, 0).context("reading CONFIG")?.0)
    }

    /// How many packets and events each reason counted, over all CPUs.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn counters(&self) -> Result<Vec<(Reason, u64)>> {
        let counters = Reason::ALL.iter().map(|&reason| {
            let values = self.reasons.get(&(reason as u32), 0).context("reading REASONS")?;
            Ok((reason, values.iter().sum()))
        });
        counters.collect()
    }

    /// What was counted of the service with this id, if it is among the first `counted` ones.
    #[must_use]
    pub fn service_stats(&self, id: u32, counted: u32) -> Option<ServiceStats> {
        self.stats.of(id, counted)
    }

    /// What was counted of all services, of which the first `counted` ones have numbers of their own.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn service_numbers(&self, counted: u32) -> Result<ServiceNumbers> {
        let numbers = |id| {
            let name = self.name_of(id)?;
            let stats = self.stats.of(id, counted)?;
            // In between the id may have become another service's.
            (self.name_of(id)? == name).then_some((name, stats))
        };
        let own = (0..counted.min(self.limits.services)).filter_map(numbers).collect();
        Ok(ServiceNumbers { own, others: self.stats.of_others()? })
    }

    fn name_of(&self, id: u32) -> Option<String> {
        self.services.get(&Raw(id), 0).ok().map(|Raw(record)| service_of(&record).name)
    }

    /// The entries of a flow map of both families, in no order; entries that vanish meanwhile are left out.
    pub fn flows(&self, table: FlowTable) -> impl Iterator<Item = Flow> + '_ {
        self.v4.flows(table).chain(self.v6.flows(table))
    }

    pub(super) fn slot(&self, index: u32) -> Option<SlotWord> {
        self.slots.get(index).map(SlotWord)
    }

    pub(super) fn member(&self, index: u32) -> Option<Member> {
        self.members.get(&index, 0).ok().map(|Raw(member)| member)
    }

    pub(super) fn backend(&self, id: u32) -> Option<Backend> {
        self.backends.get(&id, 0).ok().map(|Raw(backend)| backend)
    }
}

pub(super) fn open_map(pins: &PinDirectory, name: &str) -> Result<Map> {
    Ok(Map::from_map_data(pinned(pins, name)?)?)
}

fn entries(pins: &PinDirectory, name: &str) -> Result<u32> {
    Ok(pinned(pins, name)?.info().with_context(|| format!("reading the size of {name}"))?.max_entries())
}

pub(super) fn pinned(pins: &PinDirectory, name: &str) -> Result<MapData> {
    let path = pins.map(name);
    let opening = || format!("opening the pinned map {}: has an agent run with this --bpffs-dir?", path.display());
    MapData::from_pin(&path).with_context(opening)
}

fn record(service: &ObservedService) -> ServiceRecord {
    let mut name = [0; SERVICE_NAME_MAX];
    let bytes = service.name.as_bytes();
    let length = bytes.len().min(SERVICE_NAME_MAX);
    name[..length].copy_from_slice(&bytes[..length]);
    ServiceRecord {
        slots_base: service.slots_base,
        slots: service.slots,
        members_base: service.members_base,
        members: service.members,
        name_length: length as u32,
        name,
    }
}

fn service_of(record: &ServiceRecord) -> ObservedService {
    let length = (record.name_length as usize).min(SERVICE_NAME_MAX);
    ObservedService {
        name: String::from_utf8_lossy(&record.name[..length]).into_owned(),
        slots_base: record.slots_base,
        slots: record.slots,
        members_base: record.members_base,
        members: record.members,
    }
}
