//! The kernel's maps in memory, and what must be true of them after every single operation.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use xlb_common::abi::{Backend, Frontend, Inside, Member, SoleFrontend, frontend_flags, inside_flags};
use xlb_common::slot::{MEMBERS_PER_SERVICE_MAX, SlotWord};

use super::inside_maps::InsideMaps;

use crate::plan::desired::Family;
use crate::plan::observed::{Observed, ObservedService, QUARANTINE_MS};
use crate::plan::{Endpoint, Limits, Op, Plan};

/// A pod as a flow sees it: its address and its link.
pub type Owner = (IpAddr, u32);

/// Who owns and owned each slot: the current owner (or none) and the previous ones.
pub type Owners = Vec<Vec<Option<Owner>>>;

/// The maps that the kernel reads.
#[derive(Clone, Default)]
pub struct Tables {
    pub frontends: BTreeMap<Endpoint, Frontend>,
    pub slots: BTreeMap<u32, u64>,
    pub members: BTreeMap<u32, Member>,
    pub backends: BTreeMap<u32, Backend>,
    pub backend_ids: BTreeMap<Endpoint, u32>,
    pub source_ranges: BTreeMap<u32, BTreeSet<IpNet>>,
    pub inside: InsideMaps,
    pub vips: BTreeMap<IpAddr, u32>,
    pub sole_frontends: BTreeMap<Endpoint, SoleFrontend>,
}

/// The maps, and what the agent believes they hold.
#[derive(Clone, Default)]
pub struct Maps {
    pub tables: Tables,
    pub services: BTreeMap<u32, ObservedService>,
    pub stack_in_use: bool,
    pub generation: u64,
    freed_ms: BTreeMap<u32, u64>,
    /// Every frontend that has ever led to a backend, by its id and generation: how its connections may have come.
    led: BTreeMap<(u16, u32), BTreeSet<Endpoint>>,
}

/// An agent with its maps.
#[derive(Clone, Default)]
pub struct Node {
    pub maps: Maps,
    pub observed: Observed,
    pub limits: Limits,
    pub now_ms: u64,
}

impl Node {
    pub fn plan(&self, desired: &crate::plan::Desired) -> Plan {
        crate::plan::plan(desired, &self.observed, &self.limits, self.now_ms)
    }

    /// Plans and does it all, checking the maps after each operation.
    pub fn reach(&mut self, desired: &crate::plan::Desired) -> Plan {
        let plan = self.plan(desired);
        self.apply(&plan.ops).unwrap();
        plan
    }

    pub fn apply(&mut self, ops: &[Op]) -> Result<(), String> {
        for op in ops {
            self.follow(op);
            self.maps.note_led(op);
            self.maps.check_after(op, &self.limits).map_err(|wrong| format!("after `{op}`: {wrong}"))?;
        }
        Ok(())
    }

    /// Does one operation without a check.
    pub fn follow(&mut self, op: &Op) {
        self.maps.apply(op, self.now_ms);
        self.observed.apply(op, self.now_ms);
    }

    /// The agent dies and another one reads the maps.
    pub fn restart(&mut self) {
        self.maps.freed_ms.clear();
        self.maps.tables.inside.forget_what_rests();
        self.observed = self.maps.read_back();
    }
}

impl Maps {
    /// What a new agent learns from the maps.
    pub fn read_back(&self) -> Observed {
        let tables = &self.tables;
        let word = |index| SlotWord(tables.slots.get(&index).copied().unwrap_or(0));
        let regions = self.services.values().filter(|service| service.slots > 0);
        let words =
            regions.map(|one| (one.slots_base, (one.slots_base..one.slots_base + one.slots).map(word).collect()));
        let indexes = self.services.values().flat_map(|one| one.members_base..one.members_base + one.members);
        Observed {
            services: self.services.clone(),
            frontends: tables.frontends.clone(),
            slots: words.collect(),
            members: indexes.map(|index| (index, tables.members.get(&index).copied().unwrap_or_default())).collect(),
            backends: tables.backends.iter().map(|(&id, &backend)| (id, backend)).collect(),
            backend_ids: tables.backend_ids.clone(),
            source_ranges: tables.source_ranges.clone(),
            inside: tables.inside.read_back(),
            vips: tables.vips.clone(),
            sole_frontends: tables.sole_frontends.clone(),
            stack_in_use: self.stack_in_use,
            generation: self.generation,
            ..Observed::default()
        }
    }

    /// Who owns and owned each slot of a frontend, newest first after the current one, then those who were forgotten. One slot
    /// if it has a sole backend.
    pub fn owners(&self, frontend: &Frontend) -> Owners {
        if frontend.slots == 0 {
            return vec![vec![self.owner(frontend.sole)]];
        }
        let words = (frontend.slots_base..frontend.slots_base + frontend.slots).map(|index| self.word(index));
        let member = |local: u8| self.tables.members.get(&(frontend.members_base + u32::from(local)));
        let owner = |local: u8| member(local).and_then(|member| self.owner(*member));
        let is_forgotten = |local: &u8| member(*local).is_some_and(Member::is_forgotten);
        // Behind them are those of another service.
        let locals = (0..MEMBERS_PER_SERVICE_MAX as u8).take(frontend.members.into());
        let forgotten: Vec<_> = locals.filter(is_forgotten).map(owner).collect();
        let named = |word: SlotWord| {
            let previous = word.previous().map(owner);
            let others = if word.has_forgotten() { forgotten.as_slice() } else { &[] };
            [word.current().and_then(owner)].into_iter().chain(previous).chain(others.iter().copied()).collect()
        };
        words.map(named).collect()
    }

    /// Whom a frontend is open to; none: everybody.
    pub fn open_to(&self, frontend: &Frontend) -> Option<BTreeSet<IpNet>> {
        let is_filtered = frontend.flags & frontend_flags::SOURCE_RANGES != 0;
        is_filtered.then(|| self.ranges_of(frontend.service))
    }

    /// The same of an entry for clients inside.
    pub fn open_to_inside(&self, inside: &Inside) -> Option<BTreeSet<IpNet>> {
        let is_filtered = inside.flags & inside_flags::SOURCE_RANGES != 0;
        is_filtered.then(|| self.ranges_of(inside.service))
    }

    fn ranges_of(&self, service: u32) -> BTreeSet<IpNet> {
        self.tables.source_ranges.get(&service).cloned().unwrap_or_default()
    }

    /// Each owner that a frontend's slots name, and whether its entry says that it takes new connections.
    pub fn members(&self, frontend: &Frontend) -> BTreeMap<Owner, bool> {
        let words = (frontend.slots_base..frontend.slots_base + frontend.slots).map(|index| self.word(index));
        let locals: BTreeSet<u8> = words.flat_map(|word| word.current().into_iter().chain(word.previous())).collect();
        let members = locals.iter().map(|&local| self.tables.members[&(frontend.members_base + u32::from(local))]);
        members.filter_map(|member| Some((self.owner(member)?, member.takes_new()))).collect()
    }

    fn owner(&self, member: Member) -> Option<Owner> {
        let backend = self.tables.backends.get(&member.id()).filter(|backend| is_live(backend, member))?;
        Some((backend.socket().ip(), backend.ifindex))
    }

    fn word(&self, index: u32) -> SlotWord {
        SlotWord(self.tables.slots.get(&index).copied().unwrap_or(0))
    }

    fn apply(&mut self, op: &Op, now_ms: u64) {
        let tables = &mut self.tables;
        match op.clone() {
            Op::PutBackend { id, backend } => {
                let was = tables.backends.insert(id, backend);
                if !backend.is_in_use() {
                    self.freed_ms.insert(id, now_ms);
                } else if was.is_none_or(|was| !was.is_in_use()) {
                    let freed_ms = self.freed_ms.remove(&id);
                    assert!(freed_ms.is_none_or(|freed_ms| freed_ms + QUARANTINE_MS <= now_ms), "{id} did not rest");
                    assert!(was.is_none_or(|was| was.generation < backend.generation), "{id} has an old generation");
                }
            }
            Op::PutBackendId { key, id } => drop(tables.backend_ids.insert(key, id)),
            Op::PutSoleFrontend { pod, sole } => drop(tables.sole_frontends.insert(pod, sole)),
            Op::RemoveSoleFrontend { pod } => assert!(tables.sole_frontends.remove(&pod).is_some()),
            Op::PutMember { index, member } => drop(tables.members.insert(index, member)),
            Op::PutSlot { index, word } => drop(tables.slots.insert(index, word.0)),
            Op::PutService { id, name, slots_base, slots, members_base, members } => {
                drop(self.services.insert(id, ObservedService { name, slots_base, slots, members_base, members }));
            }
            Op::PutFrontend { key, frontend } => drop(tables.frontends.insert(key, frontend)),
            Op::RemoveFrontend { key } => assert!(tables.frontends.remove(&key).is_some()),
            Op::PutSourceRange { service, range } => {
                assert!(tables.source_ranges.entry(service).or_default().insert(range));
            }
            Op::RemoveSourceRange { service, range } => {
                let ranges = tables.source_ranges.get_mut(&service).unwrap();
                assert!(ranges.remove(&range));
                if ranges.is_empty() {
                    tables.source_ranges.remove(&service);
                }
            }
            Op::PutVip { address, flags } => drop(tables.vips.insert(address, flags)),
            Op::RemoveVip { address } => assert!(tables.vips.remove(&address).is_some()),
            Op::PutEndpoints { base, endpoints, .. } => tables.inside.put_endpoints(base, &endpoints, now_ms),
            Op::PutInside { key, inside } => tables.inside.put(key, Some(inside), now_ms),
            Op::RemoveInside { key } => tables.inside.put(key, None, now_ms),
            Op::RemoveService { id } => assert!(self.services.remove(&id).is_some()),
            Op::RemoveBackendId { key } => assert!(tables.backend_ids.remove(&key).is_some()),
            Op::PutConfig { stack_in_use, generation } => {
                (self.stack_in_use, self.generation) = (stack_in_use, generation);
            }
        }
    }

    /// Whom packets may reach from now on, and by which frontend.
    fn note_led(&mut self, op: &Op) {
        let is_reached = |base: u32, length: u32, index: u32| (base..base + length).contains(&index);
        for (&key, frontend) in &self.tables.frontends {
            let all = frontend.slots_base..frontend.slots_base + frontend.slots;
            let words = match *op {
                Op::PutSlot { index, .. } if is_reached(frontend.slots_base, frontend.slots, index) => index..index + 1,
                Op::PutMember { index, .. } if is_reached(frontend.members_base, 256, index) => all,
                Op::PutFrontend { key: put, .. } if put == key => all,
                _ => continue,
            };
            let words = words.map(|index| self.word(index));
            let locals: BTreeSet<u8> =
                words.flat_map(|word| word.current().into_iter().chain(word.previous())).collect();
            let member = |local: u8| self.tables.members.get(&(frontend.members_base + u32::from(local))).copied();
            let sole = (frontend.slots == 0).then_some(frontend.sole);
            let members = locals.into_iter().filter_map(member).chain(sole);
            let live: Vec<Member> = members.filter(|member| self.owner(*member).is_some()).collect();
            for member in live {
                self.led.entry((member.backend, member.generation)).or_default().insert(key);
            }
        }
    }

    /// A reply that no entry knows leaves as the VIP by which each connection of its pod came.
    fn check_sole_frontends(&self) -> Result<(), String> {
        for (pod, sole) in &self.tables.sole_frontends {
            let Some(backend) = self.tables.backends.get(&sole.backend.id()).filter(|one| is_live(one, sole.backend))
            else {
                continue;
            };
            let led = self.led.get(&(sole.backend.backend, sole.backend.generation));
            let is_it = |key: &&Endpoint| {
                let vip = crate::plan::backends::stored(key.socket.ip()).0;
                (vip, key.socket.port().to_be_bytes()) == (sole.vip, sole.vip_port)
            };
            if let Some(other) = led.into_iter().flatten().find(|key| !is_it(key)) {
                return Err(format!("{pod} has connections by {other}, and its replies leave as {sole:?}"));
            }
            if Endpoint::of(backend) != *pod {
                return Err(format!("the sole frontend of {pod} is of another backend"));
            }
        }
        Ok(())
    }

    /// The check that fits the operation: filling a region that nobody uses yet is cheap to check.
    fn check_after(&self, op: &Op, limits: &Limits) -> Result<(), String> {
        self.check_limits(op, limits)?;
        self.check_sole_frontends()?;
        for (key, frontend) in &self.tables.frontends {
            let reaches = |base: u32, length: u32, index: u32| (base..base + length).contains(&index);
            let wrong = match *op {
                Op::PutSlot { index, .. } if !reaches(frontend.slots_base, frontend.slots, index) => Ok(()),
                Op::PutSlot { index, .. } => self.check_word(frontend, index),
                Op::PutMember { index, .. } if !reaches(frontend.members_base, 256, index) => Ok(()),
                _ => self.check_frontend(frontend),
            };
            wrong.map_err(|wrong| format!("{key:?}: {wrong}"))?;
        }
        for (key, inside) in &self.tables.inside.entries {
            let is_known = self.services.contains_key(&inside.service) && self.tables.frontends.contains_key(key);
            let consistent = is_known && self.tables.inside.leads_somewhere(key, inside);
            consistent.then_some(()).ok_or(format!("clients inside of {key} are led to {inside:?}"))?;
        }
        let strays = self.tables.backend_ids.iter().find(|(key, id)| !self.is_backend(key, **id));
        strays.map_or(Ok(()), |stray| Err(format!("{stray:?} leads to another backend")))
    }

    fn check_frontend(&self, frontend: &Frontend) -> Result<(), String> {
        let record = self.services.get(&frontend.service).ok_or("its service has no record")?;
        if frontend.slots == 0 {
            return self.owner(frontend.sole).map(drop).ok_or(format!("{:?} is stale, {record:?}", frontend.sole));
        }
        (frontend.slots_base..frontend.slots_base + frontend.slots)
            .try_for_each(|index| self.check_word(frontend, index))
    }

    fn check_word(&self, frontend: &Frontend, index: u32) -> Result<(), String> {
        let word =
            self.tables.slots.get(&index).map(|&word| SlotWord(word)).ok_or(format!("slot {index} is not filled"))?;
        for local in word.current().into_iter().chain(word.previous()) {
            let member = self.tables.members.get(&(frontend.members_base + u32::from(local)));
            let owner = member.and_then(|member| self.owner(*member));
            owner.ok_or(format!("slot {index} names {local}, which is {member:?}"))?;
        }
        Ok(())
    }

    fn is_backend(&self, key: &Endpoint, id: u32) -> bool {
        let backend = self.tables.backends.get(&id).filter(|backend| backend.is_in_use());
        backend.is_some_and(|backend| Endpoint::of(backend) == *key)
    }

    fn check_limits(&self, op: &Op, limits: &Limits) -> Result<(), String> {
        let fits = match *op {
            Op::PutBackend { id, .. } | Op::PutBackendId { id, .. } => id < limits.backends,
            Op::PutMember { index, .. } => index < limits.members,
            Op::PutSlot { index, .. } => index < limits.slots,
            Op::PutService { id, slots_base, slots, members_base, members, .. } => {
                id < limits.services && slots_base + slots <= limits.slots && members_base + members <= limits.members
            }
            Op::PutEndpoints { base, ref endpoints, .. } => base + endpoints.len() as u32 <= limits.endpoints,
            Op::PutSourceRange { .. } => Family::ALL.iter().all(|family| {
                let ranges = self.tables.source_ranges.values().flatten();
                ranges.filter(|range| Family::of(range.addr()) == *family).count() <= limits.source_ranges as usize
            }),
            Op::PutVip { .. } => Family::ALL.iter().all(|family| {
                let vips = self.tables.vips.keys().filter(|address| Family::of(**address) == *family);
                vips.count() <= limits.frontends as usize
            }),
            _ => Family::ALL.iter().all(|family| {
                let frontends = self.tables.frontends.keys();
                frontends.filter(|key| key.family() == *family).count() <= limits.frontends as usize
            }),
        };
        fits.then_some(()).ok_or("beyond a limit".into())
    }
}

fn is_live(backend: &Backend, member: Member) -> bool {
    backend.is_in_use() && backend.generation == member.generation
}
