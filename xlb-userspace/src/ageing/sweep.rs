//! One walk through one flow map: what is over is removed.
//!
//! The map changes meanwhile. What is written behind the walk is met by the next one; what is written again after it was read
//! is not removed ([`FlowMap::remove_if`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use xlb_common::abi::{Backend, FlowEntry, FlowKeyV6, SCTP, TCP, UDP, flow_flags};
use xlb_common::tables::{FlowTable, Proof};

use crate::ageing::Why;
use crate::ageing::rules::{Judgement, Pod, Setting, by_other, by_proof, judge};
use crate::ageing::timeouts::has_passed;
use crate::maps::flows::{FlowMap, Part};
use crate::maps::keys::Keys;

/// A flow without a packet for so long may be of an earlier pod with the same address.
const RECENT: Duration = Duration::from_secs(60);

/// What the walk needs of the world around it.
pub trait World {
    /// What the pod's kernel knows of a flow of that IP version.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn ask(&self, netns_id: i32, family: u8, flow: FlowKeyV6) -> Result<Proof>;
    /// Rests after a part. False: the walk is to end.
    fn rest(&self, duration: Duration) -> bool;
}

/// The backends, by protocol and socket.
pub type Backends = HashMap<(u8, SocketAddr), Backend>;

/// By these they are found.
#[must_use]
pub fn backends_by_socket(backends: impl IntoIterator<Item = Backend>) -> Backends {
    backends.into_iter().map(|backend| ((backend.protocol, backend.socket()), backend)).collect()
}

/// The pods of one map's flows that are no backends, and since when.
#[derive(Debug, Default)]
pub struct Gone {
    since: HashMap<SocketAddr, Instant>,
    /// Those that the walk under way met.
    met: HashMap<SocketAddr, Instant>,
}

impl Gone {
    /// A new walk. A pod that came back, or of which no flow was left in the last one, is not gone any more.
    fn begin(&mut self) {
        self.since = std::mem::take(&mut self.met);
    }

    fn meet(&mut self, pod: SocketAddr, now: Instant) -> Duration {
        let since = *self.since.get(&pod).unwrap_or(&now);
        self.met.insert(pod, since);
        now - since
    }
}

/// What a walk did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Entries that it saw.
    pub seen: u64,
    /// Entries that it removed.
    pub removed: BTreeMap<Why, u64>,
    /// Pods' kernels were asked so often.
    pub asked: u64,
    /// How long it was at work.
    pub busy: Duration,
    /// Where the next walk begins to ask pods' kernels.
    pub ask_from: u32,
    /// Pods with a connection that goes on and that their kernels do not know, and the interfaces that lead to them.
    pub hiding: BTreeSet<HidingPod>,
}

/// A pod's address, and the index of the interface that leads to it.
pub type HidingPod = (IpAddr, u32);

impl Swept {
    /// Entries that are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.seen - self.removed.values().sum::<u64>()
    }
}

/// Walks through a map; `other` is the other one of its protocol. Pods' kernels are asked from the bucket `ask_from` on.
///
/// # Errors
/// When the kernel refuses to read or to remove.
pub fn sweep<K: Keys>(
    (table, map, other): (FlowTable, &mut FlowMap<K>, &FlowMap<K>),
    (backends, gone): (&Backends, &mut Gone),
    setting: &Setting,
    ask_from: u32,
    world: &impl World,
) -> Result<Swept> {
    gone.begin();
    let mut walk = Walk { table, backends, gone, setting, world, begun: Instant::now(), swept: Swept::default() };
    let mut from = None;
    loop {
        let begun = Instant::now();
        let Part { flows, next } = map.read(from)?;
        let may_ask = from.unwrap_or(0) >= ask_from && walk.swept.asked < setting.pressure.asks_max();
        for (key, entry) in flows {
            walk.meet(map, other, may_ask, &key, &entry)?;
        }
        if may_ask && walk.swept.asked >= setting.pressure.asks_max() {
            walk.swept.ask_from = next.unwrap_or(0);
        }
        walk.swept.busy += begun.elapsed();
        from = next;
        if from.is_none() || !world.rest(setting.pressure.rest(begun.elapsed())) {
            return Ok(walk.swept);
        }
    }
}

struct Walk<'a, W: World> {
    table: FlowTable,
    backends: &'a Backends,
    gone: &'a mut Gone,
    setting: &'a Setting,
    world: &'a W,
    begun: Instant,
    swept: Swept,
}

impl<W: World> Walk<'_, W> {
    fn meet<K: Keys>(
        &mut self,
        map: &mut FlowMap<K>,
        other: &FlowMap<K>,
        may_ask: bool,
        key: &K::FlowKey,
        entry: &FlowEntry,
    ) -> Result<()> {
        self.swept.seen += 1;
        let (_, socket) = K::ends(key);
        let backend = self.backends.get(&(protocol_of(self.table), socket));
        let pod = match backend {
            None => Pod::Gone(self.gone.meet(socket, self.begun)),
            Some(backend) if backend.is_hidden() => Pod::Hidden,
            Some(_) => Pod::Visible,
        };
        let why = match judge(self.table, entry, pod, self.setting) {
            Judgement::Keep => None,
            Judgement::Over(why) => Some(why),
            Judgement::AskOther => by_other(self.table, entry, other.get(key).as_ref(), self.setting),
            Judgement::AskKernel => match backend {
                Some(backend) if may_ask => {
                    self.swept.asked += 1;
                    by_proof(self.world.ask(backend.netns_id, backend.family, K::widened(*key))?)
                }
                _ => None,
            },
        };
        if let Some(backend) = backend.filter(|backend| self.may_show_hiding(backend, entry) && may_ask) {
            self.swept.asked += 1;
            if by_proof(self.world.ask(backend.netns_id, backend.family, K::widened(*key))?).is_some() {
                self.swept.hiding.insert((socket.ip(), backend.ifindex));
            }
        }
        if let Some(why) = why
            && map.remove_if(key, entry)?
        {
            *self.swept.removed.entry(why).or_default() += 1;
        }
        Ok(())
    }

    /// Whether a flow may show that its pod hides sockets, which is not known yet: it goes on, and its packets alone told of it.
    fn may_show_hiding(&self, backend: &Backend, entry: &FlowEntry) -> bool {
        let is_open =
            entry.flags & (flow_flags::UNSEEN | flow_flags::CLOSED | flow_flags::POD_FIN) == flow_flags::UNSEEN;
        let is_known = backend.is_hidden() || self.swept.hiding.contains(&(backend.socket().ip(), backend.ifindex));
        self.table == FlowTable::Tcp && is_open && !is_known && !has_passed(RECENT, entry.last_seen, self.setting.now)
    }
}

fn protocol_of(table: FlowTable) -> u8 {
    match table {
        FlowTable::Tcp | FlowTable::TcpPending => TCP,
        FlowTable::Udp | FlowTable::UdpPending => UDP,
        FlowTable::Sctp | FlowTable::SctpPending => SCTP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_gone_since_a_walk_first_missed_it() {
        let (mut gone, begun) = (Gone::default(), Instant::now());
        let pods: [SocketAddr; 2] = ["10.1.0.5:80", "10.1.0.6:80"].map(|pod| pod.parse().unwrap());
        let mut walk = |missed: &[usize], seconds: u64| -> Vec<u64> {
            gone.begin();
            let now = begun + Duration::from_secs(seconds);
            // More than one flow of each.
            let twice = missed.iter().chain(missed);
            twice.map(|&pod| gone.meet(pods[pod], now).as_secs()).take(missed.len()).collect()
        };
        assert_eq!(walk(&[0], 30), [0]);
        assert_eq!(walk(&[0, 1], 60), [30, 0]);
        assert_eq!(walk(&[1], 90), [30], "the other one came back");
        assert_eq!(walk(&[0, 1], 120), [0, 60]);
    }
}
