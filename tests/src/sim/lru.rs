//! An LRU hash map that forgets what the kernel's would: `BPF_MAP_TYPE_LRU_HASH` with its common list, as one CPU sees it
//! (Linux 6.18, kernel/bpf/bpf_lru_list.c and hashtab.c).
//!
//! A new entry waits in the CPU's pending list, then goes to the inactive list, or to the active one if it was looked up
//! meanwhile. What is looked up later is found by the rotation, and moves up. What nobody looked up leaves the inactive
//! list at its tail. An entry that is written again is a new one, which counts as looked up.
//!
//! Not here: the lists of other CPUs, of which each keeps up to 128 entries for itself.

use std::hash::Hash;

use bytemuck::Zeroable;

use self::index::Index;
use self::list::{ACTIVE, FREE, INACTIVE, LISTS, LOCAL_FREE, Links, PENDING};

#[path = "lru/index.rs"]
mod index;
#[path = "lru/list.rs"]
mod list;

/// LOCAL_FREE_TARGET and LOCAL_NR_SCANS.
const BATCH: u32 = 128;

/// An entry and whether it was looked up.
#[derive(Clone, Copy)]
struct Node<K, V> {
    key: K,
    value: V,
    is_referenced: bool,
}

/// The map. Its memory grows with what it holds, up to its capacity.
pub struct Lru<K, V> {
    /// Node `n` has the links `n + LISTS`.
    nodes: Vec<Node<K, V>>,
    links: Links,
    index: Index,
    capacity: u32,
    target_free: u32,
    /// The kernel's `next_inactive_rotation`.
    rotation: u32,
    evicted: u64,
}

impl<K: Copy + Eq + Hash + Zeroable, V: Copy + Zeroable> Lru<K, V> {
    /// A map for so many entries, on a machine with so many possible CPUs: they divide what is free.
    #[must_use]
    pub fn new(capacity: u32, cpus: u32) -> Self {
        Self {
            nodes: Vec::new(),
            links: Links::new(),
            index: Index::new(),
            capacity,
            target_free: (capacity / cpus / 2).clamp(1, BATCH),
            rotation: INACTIVE,
            evicted: 0,
        }
    }

    /// What the key has, as a program looks it up: the entry is marked.
    pub fn get(&mut self, key: &K) -> Option<V> {
        let at = self.find(key)?;
        let node = &mut self.nodes[at as usize];
        node.is_referenced = true;
        Some(node.value)
    }

    /// What the key has, without a mark.
    #[must_use]
    pub fn peek(&self, key: &K) -> Option<V> {
        self.find(key).map(|at| self.nodes[at as usize].value)
    }

    /// Changes what the key has where it is, as a program does with what it has looked up. False: it has nothing.
    pub fn change(&mut self, key: &K, change: impl FnOnce(&mut V)) -> bool {
        let Some(at) = self.find(key) else { return false };
        let node = &mut self.nodes[at as usize];
        node.is_referenced = true;
        change(&mut node.value);
        true
    }

    /// Writes an entry. As in the kernel, a new node comes first, for which another one may have to go; then the old node of
    /// the key is freed.
    pub fn insert(&mut self, key: K, value: V) {
        let Some(at) = self.pop_free() else { return };
        let hash = index::hash_of(&key);
        let old = self.find(&key).filter(|&old| old != at);
        self.nodes[at as usize] = Node { key, value, is_referenced: old.is_some() };
        if let Some(old) = old {
            self.unlink_from_index(old);
            self.push_free(old);
        }
        self.index.insert(hash, at);
    }

    /// Removes an entry, if it is there: its node is free then.
    pub fn remove(&mut self, key: &K) {
        if let Some(at) = self.find(key) {
            self.unlink_from_index(at);
            self.push_free(at);
        }
    }

    /// Entries that made room for others so far.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The keys that it holds, in no order.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        self.index.values().map(|at| self.nodes[at as usize].key)
    }

    fn find(&self, key: &K) -> Option<u32> {
        self.index.find(index::hash_of(key), |at| self.nodes[at as usize].key == *key)
    }

    fn unlink_from_index(&mut self, at: u32) {
        let hash = index::hash_of(&self.nodes[at as usize].key);
        self.index.remove(hash, at);
    }

    /// bpf_common_lru_pop_free: a node, which is pending from now on.
    fn pop_free(&mut self) -> Option<u32> {
        if self.links.first(LOCAL_FREE).is_none() {
            self.refill();
        }
        let link = match self.links.first(LOCAL_FREE) {
            Some(link) => link,
            None => self.steal_pending()?,
        };
        self.links.move_to_head(link, PENDING);
        Some(link - LISTS)
    }

    /// __local_list_pop_pending, for a map that is smaller than what a CPU keeps.
    fn steal_pending(&mut self) -> Option<u32> {
        let unmarked = self.links.backward(PENDING).find(|&link| !self.is_referenced(link));
        let link = unmarked.or_else(|| self.links.last(PENDING))?;
        self.evict(link);
        Some(link)
    }

    /// bpf_common_lru_push_free.
    fn push_free(&mut self, at: u32) {
        let link = at + LISTS;
        let to = if self.links.list_of(link) == PENDING { LOCAL_FREE } else { FREE };
        self.leave(link);
        self.nodes[at as usize].is_referenced = false;
        self.links.move_to_head(link, to);
    }

    /// bpf_lru_list_pop_free_to_local.
    fn refill(&mut self) {
        self.flush_pending();
        self.rotate();
        let mut free = 0;
        while free < self.target_free {
            let Some(link) = self.links.first(FREE).or_else(|| self.fresh()) else { break };
            self.links.move_to_head(link, LOCAL_FREE);
            free += 1;
        }
        if free < self.target_free {
            self.shrink(self.target_free - free);
        }
    }

    /// A node that was never used. The kernel has all of them from the start.
    fn fresh(&mut self) -> Option<u32> {
        let link = self.links.len();
        (link - LISTS < self.capacity).then(|| {
            self.links.push();
            self.nodes.push(Node { key: K::zeroed(), value: V::zeroed(), is_referenced: false });
            link
        })
    }

    /// __local_list_flush.
    fn flush_pending(&mut self) {
        while let Some(link) = self.links.last(PENDING) {
            let to = if self.is_referenced(link) { ACTIVE } else { INACTIVE };
            self.move_to(link, to);
        }
    }

    /// __bpf_lru_list_rotate.
    fn rotate(&mut self) {
        if self.links.count(INACTIVE) < self.links.count(ACTIVE) {
            self.rotate_active();
        }
        self.rotate_inactive();
    }

    fn rotate_active(&mut self) {
        let Some(first) = self.links.first(ACTIVE) else { return };
        let mut next = self.links.last(ACTIVE);
        for _ in 0..BATCH {
            let Some(link) = next else { return };
            next = self.links.before(link);
            self.move_to(link, if self.is_referenced(link) { ACTIVE } else { INACTIVE });
            if link == first {
                return;
            }
        }
    }

    fn rotate_inactive(&mut self) {
        if self.links.first(INACTIVE).is_none() {
            return;
        }
        let last = match self.links.next(self.rotation) {
            INACTIVE => self.links.next(INACTIVE),
            last => last,
        };
        let (mut at, mut next, mut scanned) = (self.rotation, INACTIVE, 0);
        while scanned < BATCH {
            if at == INACTIVE {
                at = self.links.previous(INACTIVE);
                continue;
            }
            next = self.links.previous(at);
            if self.is_referenced(at) {
                self.move_to(at, ACTIVE);
            }
            if at == last {
                break;
            }
            (at, scanned) = (next, scanned + 1);
        }
        self.rotation = next;
    }

    /// __bpf_lru_list_shrink: what was not looked up since it was last seen; without any such entry, the last one.
    fn shrink(&mut self, wanted: u32) {
        if self.shrink_inactive(wanted) > 0 {
            return;
        }
        let from = if self.links.first(INACTIVE).is_some() { INACTIVE } else { ACTIVE };
        if let Some(link) = self.links.last(from) {
            self.evict(link);
            self.links.move_to_head(link, LOCAL_FREE);
        }
    }

    fn shrink_inactive(&mut self, wanted: u32) -> u32 {
        let (mut next, mut shrunk) = (self.links.last(INACTIVE), 0);
        for _ in 0..BATCH {
            let Some(link) = next else { break };
            next = self.links.before(link);
            if self.is_referenced(link) {
                self.move_to(link, ACTIVE);
                continue;
            }
            self.evict(link);
            self.links.move_to_head(link, LOCAL_FREE);
            shrunk += 1;
            if shrunk == wanted {
                break;
            }
        }
        shrunk
    }

    fn evict(&mut self, link: u32) {
        self.leave(link);
        self.unlink_from_index(link - LISTS);
        self.evicted += 1;
    }

    /// __bpf_lru_node_move: the mark has had its effect.
    fn move_to(&mut self, link: u32, list: u32) {
        self.leave(link);
        self.nodes[(link - LISTS) as usize].is_referenced = false;
        self.links.move_to_head(link, list);
    }

    /// The rotation goes on before a node that leaves its place.
    fn leave(&mut self, link: u32) {
        if self.rotation == link {
            self.rotation = self.links.previous(link);
        }
    }

    fn is_referenced(&self, link: u32) -> bool {
        self.nodes[(link - LISTS) as usize].is_referenced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_looks_up_lives_for_as_many_inserts_as_there_are_entries() {
        let mut lru = Lru::new(4096, 1);
        for key in 0..20_000u32 {
            lru.insert(key, 0u8);
        }
        let oldest = lru.keys().min().unwrap();
        assert!((4096 - 256..=4096).contains(&(20_000 - oldest)), "{oldest}");
    }

    #[test]
    fn what_is_looked_up_outlives_a_flood() {
        let mut lru = Lru::new(4096, 1);
        lru.insert(u32::MAX, 0u8);
        for key in 0..50_000 {
            lru.insert(key, 0u8);
            if key % 1000 == 0 {
                assert!(lru.get(&u32::MAX).is_some(), "gone after {key}");
            }
        }
    }

    #[test]
    fn what_is_removed_makes_room_before_anything_is_evicted() {
        let mut lru = Lru::new(4096, 1);
        for key in 0..1_000u32 {
            lru.insert(key, 0u8);
        }
        for key in 1_000..50_000 {
            lru.insert(key, 0);
            lru.remove(&key);
        }
        assert_eq!((lru.evicted(), lru.keys().count()), (0, 1_000));
    }

    #[test]
    fn an_entry_that_is_written_again_is_there_once() {
        let mut lru = Lru::new(1024, 1);
        for round in 0..5_000u32 {
            lru.insert(round % 700, round);
        }
        assert_eq!((lru.keys().count(), lru.peek(&0)), (700, Some(4900)));
    }
}
