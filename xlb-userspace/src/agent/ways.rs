//! Where replies go when next hops and uplinks change. A flow's entry names the uplink and the next hop that its client
//! came by; what becomes of these is known from netlink, and told to the programs as `WAYS` and the uplinks' flags.
//!
//! | what is seen | replies by entries of before | clients |
//! |---|---|---|
//! | a next hop's address has another MAC | to the new MAC | are followed for [`FOLLOW_MS`] |
//! | an uplink is down, or gone | by another uplink, to its next hop; without one they are dropped and counted | are followed while it lasts, and [`FOLLOW_MS`] longer |
//! | an uplink is made anew | by the new one, to the same MAC, or, if it is not there, to its next hop | the same |
//! | an uplink is up again | as before | the same |
//! | a neighbour that nobody knew | as before | the same: it may be another router |
//! | `FLOWS` is nearly full: entries of connections that live may go | as before | bring their entries back for [`RELEARN_MS`] |
//!
//! To follow clients is to look a flow's entry up for each of their packets: it costs time, and so it ends. So does bringing entries
//! back, which is what programs do by themselves in hot times ([`xlb_common::hot`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use xlb_common::abi::{Way, WayKey, uplink_flags};

use crate::agent::uplinks::ServedUplink;
use crate::node::Snapshot;

/// For how long clients are followed after a change: as long as a connection may be silent and then be correct at once.
pub const FOLLOW_MS: u64 = 600_000;
/// For how long entries are brought back after a table was nearly full: as long as a connection may be silent, by the kernel's own
/// choice (net.ipv4.tcp_keepalive_time).
pub const RELEARN_MS: u64 = 7_200_000;
/// Addresses behind an uplink whose MACs are remembered after the kernel forgot them.
const NEIGHBOURS_MAX: usize = 4_096;
/// Next hops that have been replaced; further ones are left to the clients' packets.
const REPLACED_MAX: usize = 512;
/// Uplinks that are gone; the oldest are forgotten.
const GONE_MAX: usize = 256;

type Mac = [u8; 6];

/// An uplink at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Its MAC.
    pub mac: Mac,
    /// Whether it is there, up, and has a carrier.
    pub carries: bool,
    /// MACs of the addresses behind it.
    pub neighbours: BTreeMap<IpAddr, Mac>,
    /// The gateways that routes lead to by it, IPv4 first.
    pub gateways: Vec<IpAddr>,
}

/// What the programs are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// `WAYS`.
    pub ways: BTreeMap<WayKey, Way>,
    /// Flags of uplinks, also of those that are gone.
    pub flags: BTreeMap<u32, u16>,
}

/// What was seen of the uplinks so far.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// In the order in which the operator names them.
    uplinks: Vec<Seen>,
    /// By the index that it had.
    gone: BTreeMap<u32, Gone>,
    /// Who has taken a next hop's place, by index of the uplink and MAC.
    replaced: BTreeMap<(u32, Mac), Mac>,
    changed_ms: Option<u64>,
    crowded_ms: Option<u64>,
}

/// An uplink that is no more.
#[derive(Clone, Debug, Default)]
struct Gone {
    /// Name of the one that it was, or that has its place.
    name: Option<String>,
    /// Who was behind it; none: nobody knows any more.
    neighbours: Option<BTreeSet<Mac>>,
}

/// What netlink says of an uplink.
#[must_use]
pub fn see(snapshot: &Snapshot, served: &ServedUplink) -> Seen {
    let (name, ifindex) = (served.name.clone(), served.uplink.ifindex);
    let link = snapshot.links.get(&ifindex).filter(|link| link.name == name);
    let neighbours = snapshot.neighbours.iter().chain(&snapshot.routers);
    let mut gateways: Vec<(u8, IpAddr)> = snapshot.gateways_by(ifindex);
    gateways.sort_unstable();
    gateways.dedup();
    Seen {
        name,
        ifindex,
        mac: served.uplink.mac,
        carries: link.is_some_and(|link| link.is_up && link.has_carrier),
        neighbours: neighbours.filter(|((of, _), _)| *of == ifindex).map(|((_, ip), mac)| (*ip, *mac)).collect(),
        gateways: gateways.into_iter().map(|(_, gateway)| gateway).collect(),
    }
}

impl Ways {
    /// Goes on where an earlier agent stopped: with what it told, and the indexes of its uplinks that are no more. Nobody
    /// knows what changed in between, so clients are followed.
    #[must_use]
    pub fn inherit(told: &BTreeMap<WayKey, Way>, gone: &[u32], now_ms: u64) -> Self {
        let mut ways = Self { changed_ms: Some(now_ms), ..Self::default() };
        ways.gone.extend(gone.iter().map(|&ifindex| (ifindex, Gone::default())));
        for (key, way) in told {
            if !gone.contains(&key.ifindex) && key.next_hop_mac != [0; 6] && way.ifindex == key.ifindex {
                ways.replaced.insert((key.ifindex, key.next_hop_mac), way.next_hop_mac);
            }
        }
        ways
    }

    /// Takes in what is seen now.
    pub fn take_in(&mut self, seen: Vec<Seen>, now_ms: u64) {
        for now in seen {
            let is_changed = match self.uplinks.iter().position(|known| known.name == now.name) {
                Some(at) => self.compare(at, now),
                None => {
                    self.uplinks.push(now);
                    false
                }
            };
            if is_changed {
                self.changed_ms = Some(now_ms);
            }
        }
        while self.gone.len() > GONE_MAX {
            self.gone.pop_first();
        }
    }

    /// Connections may have lost their entries until now.
    pub fn crowd(&mut self, now_ms: u64) {
        self.crowded_ms = Some(now_ms);
    }

    /// Whether it has changed.
    fn compare(&mut self, at: usize, now: Seen) -> bool {
        let known = &self.uplinks[at];
        if known.ifindex != now.ifindex {
            let (before, neighbours) = (known.ifindex, known.neighbours.values().copied().collect());
            self.gone.insert(before, Gone { name: Some(now.name.clone()), neighbours: Some(neighbours) });
            self.replaced.retain(|(ifindex, _), _| *ifindex != before);
            self.uplinks[at] = now;
            return true;
        }
        let mut is_changed = (known.carries, known.mac) != (now.carries, now.mac);
        for (&address, &mac) in &now.neighbours {
            let neighbours = &mut self.uplinks[at].neighbours;
            let is_new_mac = !neighbours.values().any(|known| *known == mac);
            match neighbours.insert(address, mac) {
                Some(old) if old != mac => {
                    let is_left = !neighbours.values().any(|known| *known == old);
                    if is_left || now.gateways.contains(&address) {
                        self.replace(now.ifindex, old, mac);
                    }
                    is_changed = true;
                }
                Some(_) => {}
                None => is_changed |= is_new_mac,
            }
        }
        let mut neighbours = std::mem::take(&mut self.uplinks[at].neighbours);
        if neighbours.len() > NEIGHBOURS_MAX {
            neighbours.retain(|address, _| now.neighbours.contains_key(address));
        }
        self.uplinks[at] = Seen { neighbours, ..now };
        is_changed
    }

    /// Another router has the place of one, and of all whose place that one had.
    fn replace(&mut self, ifindex: u32, old: Mac, new: Mac) {
        for ((of, _), by) in &mut self.replaced {
            if *of == ifindex && *by == old {
                *by = new;
            }
        }
        self.replaced.remove(&(ifindex, new));
        if self.replaced.len() < REPLACED_MAX {
            self.replaced.insert((ifindex, old), new);
        }
    }

    /// What the programs are to be told now.
    #[must_use]
    pub fn told(&self, now_ms: u64) -> Told {
        let mut told = Told::default();
        for uplink in &self.uplinks {
            if uplink.carries {
                let of_uplink = self.replaced.iter().filter(|((ifindex, _), _)| *ifindex == uplink.ifindex);
                let way = |mac: &Mac| Way { ifindex: uplink.ifindex, next_hop_mac: *mac, uplink_mac: uplink.mac };
                told.ways.extend(of_uplink.map(|((ifindex, old), new)| (WayKey::of(*ifindex, *old), way(new))));
            } else {
                told.ways.insert(WayKey::any(uplink.ifindex), self.substitute(&uplink.name));
            }
        }
        told.ways.extend(self.gone.iter().map(|(&ifindex, gone)| (WayKey::any(ifindex), self.instead_of(gone))));
        let follow = if self.follows(now_ms) { uplink_flags::FOLLOW } else { 0 };
        let relearn = if self.relearns(now_ms) { uplink_flags::HOT } else { 0 };
        told.flags.extend(self.uplinks.iter().map(|uplink| (uplink.ifindex, follow | relearn)));
        for key in told.ways.keys() {
            *told.flags.entry(key.ifindex).or_default() |= uplink_flags::MOVED;
        }
        told
    }

    /// Whether clients are to be followed.
    #[must_use]
    pub fn follows(&self, now_ms: u64) -> bool {
        self.uplinks.iter().any(|uplink| !uplink.carries)
            || self.changed_ms.is_some_and(|changed_ms| now_ms < changed_ms + FOLLOW_MS)
    }

    /// Whether clients' packets are to bring entries back.
    #[must_use]
    pub fn relearns(&self, now_ms: u64) -> bool {
        self.crowded_ms.is_some_and(|crowded_ms| now_ms < crowded_ms + RELEARN_MS)
    }

    fn instead_of(&self, gone: &Gone) -> Way {
        let successor = self.uplinks.iter().find(|uplink| Some(&uplink.name) == gone.name.as_ref());
        let Some(successor) = successor.filter(|uplink| uplink.carries) else {
            return self.substitute(gone.name.as_deref().unwrap_or_default());
        };
        let is_among = |macs: &BTreeSet<Mac>| successor.neighbours.values().any(|mac| macs.contains(mac));
        let is_same_network = gone.neighbours.as_ref().is_some_and(is_among);
        let next_hop = if is_same_network { None } else { successor.next_hop() };
        Way { ifindex: successor.ifindex, next_hop_mac: next_hop.unwrap_or_default(), uplink_mac: successor.mac }
    }

    /// Another uplink that leads on; nowhere if there is none.
    fn substitute(&self, name: &str) -> Way {
        let others = self.uplinks.iter().filter(|uplink| uplink.carries && uplink.name != name);
        let mut ways = others.filter_map(|uplink| {
            let next_hop_mac = uplink.next_hop()?;
            Some(Way { ifindex: uplink.ifindex, next_hop_mac, uplink_mac: uplink.mac })
        });
        ways.next().unwrap_or_default()
    }
}

/// What a way means, for the log.
#[must_use]
pub fn sentence(key: &WayKey, way: &Way) -> String {
    let behind = |mac: Mac| if mac == [0; 6] { String::new() } else { format!(" behind {}", text(mac)) };
    let of = format!("replies to clients by interface {}{}", key.ifindex, behind(key.next_hop_mac));
    match way.ifindex {
        0 => format!("{of} have no way: no other uplink leads on"),
        ifindex => format!("{of} go by interface {ifindex}{}", behind(way.next_hop_mac)),
    }
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl Seen {
    /// Who leads on: a gateway, else the only neighbour.
    fn next_hop(&self) -> Option<Mac> {
        let gateway = self.gateways.iter().find_map(|gateway| self.neighbours.get(gateway));
        let mut macs = self.neighbours.values();
        let first = macs.next();
        gateway.or_else(|| first.filter(|first| macs.all(|mac| mac == *first))).copied()
    }
}

#[cfg(test)]
#[path = "ways_tests.rs"]
mod tests;
