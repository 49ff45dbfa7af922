//! Where a key's node is: open addressing, each place with a part of the hash beside the number of the node.

use std::hash::{Hash, Hasher};

const EMPTY: u64 = u64::MAX;
/// Places at the start; a power of two.
const PLACES_MIN: usize = 1024;

/// The places. The upper half of each is the hash, the lower half the node.
pub struct Index {
    places: Vec<u64>,
    used: usize,
}

impl Index {
    pub fn new() -> Self {
        Self { places: vec![EMPTY; PLACES_MIN], used: 0 }
    }

    pub fn find(&self, hash: u32, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash);
        loop {
            let place = self.places[at];
            if place == EMPTY {
                return None;
            }
            if (place >> 32) as u32 == hash && is_it(place as u32) {
                return Some(place as u32);
            }
            at = (at + 1) & self.mask();
        }
    }

    pub fn insert(&mut self, hash: u32, node: u32) {
        if self.used * 2 >= self.places.len() {
            self.grow();
        }
        self.put(u64::from(hash) << 32 | u64::from(node));
        self.used += 1;
    }

    /// Takes a node out, and moves those behind it up, so that none is cut off from its home.
    pub fn remove(&mut self, hash: u32, node: u32) {
        let entry = u64::from(hash) << 32 | u64::from(node);
        let mut hole = self.home(hash);
        while self.places[hole] != entry {
            if self.places[hole] == EMPTY {
                return;
            }
            hole = (hole + 1) & self.mask();
        }
        self.used -= 1;
        let mut at = hole;
        loop {
            at = (at + 1) & self.mask();
            let place = self.places[at];
            if place == EMPTY {
                break;
            }
            let from_home = at.wrapping_sub(self.home((place >> 32) as u32)) & self.mask();
            let from_hole = at.wrapping_sub(hole) & self.mask();
            if from_home >= from_hole {
                self.places[hole] = place;
                hole = at;
            }
        }
        self.places[hole] = EMPTY;
    }

    pub fn values(&self) -> impl Iterator<Item = u32> {
        self.places.iter().filter(|&&place| place != EMPTY).map(|&place| place as u32)
    }

    fn put(&mut self, entry: u64) {
        let mut at = self.home((entry >> 32) as u32);
        while self.places[at] != EMPTY {
            at = (at + 1) & self.mask();
        }
        self.places[at] = entry;
    }

    fn grow(&mut self) {
        let doubled = vec![EMPTY; self.places.len() * 2];
        for entry in std::mem::replace(&mut self.places, doubled).into_iter().filter(|&place| place != EMPTY) {
            self.put(entry);
        }
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & self.mask()
    }

    fn mask(&self) -> usize {
        self.places.len() - 1
    }
}

/// The same on every machine, as a run has to be.
pub fn hash_of<K: Hash>(key: &K) -> u32 {
    let mut hasher = Words(0);
    key.hash(&mut hasher);
    (hasher.finish() >> 32) as u32
}

/// Multiply and shift, eight bytes at a time.
struct Words(u64);

impl Hasher for Words {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let word = chunk.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
            self.write_u64(word);
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0xd6e8_feb8_6659_fd93)
    }
}
