//! `FRONTENDS`, and `DIRECTORY` and `PLACES`, by which packets find most of them ([`xlb_common::directory`]).
//!
//! Whenever the agent dies, each word leads to what `FRONTENDS` says, or says to look there: it says so before
//! `FRONTENDS` changes, and until the places are written.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, Map, MapData};
use xlb_common::abi::Frontend;
use xlb_common::directory::{Placed, Word};

use crate::maps::allotment::{Allotment, Settlement};
use crate::maps::keys::Keys;
use crate::maps::raw::Raw;
use crate::maps::words::Words;

/// `MEMBARRIER_CMD_GLOBAL` (include/uapi/linux/membarrier.h): it returns after an RCU grace period, and a program of a packet's
/// is inside one.
const MEMBARRIER_GLOBAL: libc::c_long = 1;
/// Where the kernel has no such call (`nohz_full`): a program runs for microseconds.
const LONGER_THAN_A_PROGRAM: Duration = Duration::from_millis(100);

/// A frontend where a word leads.
struct Lying<K> {
    place: u32,
    key: K,
    frontend: Frontend,
}

/// A family's frontends.
pub struct Frontends<K: Keys> {
    map: HashMap<MapData, Raw<K>, Raw<Frontend>>,
    directory: Words,
    places: Array<MapData, Raw<<K as Placed>::Place>>,
    /// Once [`Frontends::take_over`] has looked at what the maps hold.
    allotment: Option<Allotment<K>>,
}

impl<K: Keys> Frontends<K> {
    /// Over the maps `FRONTENDS`, `DIRECTORY` and `PLACES`.
    ///
    /// # Errors
    /// When one has another type, or the second cannot be mapped.
    pub fn over(map: Map, directory: &MapData, places: Map) -> Result<Self> {
        let (map, places) = (map.try_into()?, places.try_into()?);
        Ok(Self { map, directory: Words::map(directory)?, places, allotment: None })
    }

    /// A frontend.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<Frontend> {
        self.map.get(&Raw(*key), 0).ok().map(|Raw(frontend)| frontend)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (K, Frontend)> + '_ {
        self.map.iter().flatten().map(|(Raw(key), Raw(frontend))| (key, frontend))
    }

    /// How many of them are found without the hash map, of how many at most.
    #[must_use]
    pub fn placed(&self) -> (usize, u32) {
        (self.allotment.as_ref().map_or(0, Allotment::placed), self.places.len())
    }

    /// Lets every word lead to its frontends, as far as there are places. Those that do, stay: packets go on by them.
    ///
    /// # Errors
    /// When the kernel refuses to read or write.
    pub fn take_over(&mut self) -> Result<()> {
        let mut by_word: BTreeMap<u32, Vec<(K, Frontend)>> = BTreeMap::new();
        self.iter().for_each(|(key, frontend)| by_word.entry(key.word()).or_default().push((key, frontend)));
        by_word.values_mut().for_each(|frontends| frontends.sort_by_key(|(key, _)| *key));
        let (mut placed, mut askers, mut was_taken_over) = (Vec::new(), Vec::new(), false);
        for index in 0..self.directory.count() {
            let frontends = by_word.remove(&index).unwrap_or_default();
            let word = Word(self.directory.get(index).unwrap_or_default());
            was_taken_over |= word.is_known();
            match self.lying(word)? {
                Some(lying) if lying.iter().map(|it| (it.key, it.frontend)).eq(frontends.iter().copied()) => {
                    placed.extend(lying.into_iter().map(|it| (it.key, it.place)));
                }
                _ if frontends.is_empty() => self.say(index, Word::of([None, None])),
                _ => {
                    self.say(index, Word::ASK);
                    askers.extend(frontends.into_iter().map(|(key, _)| key));
                }
            }
        }
        // What lies beyond the end of a small directory is asked for.
        askers.extend(by_word.into_values().flatten().map(|(key, _)| key));
        if was_taken_over {
            wait_for_programs();
        }
        let mut allotment = Allotment::new(self.places.len(), placed, askers);
        let words = allotment.unsettled();
        words.into_iter().try_for_each(|word| self.follow(word, allotment.settle(word)))?;
        self.allotment = Some(allotment);
        Ok(())
    }

    /// Writes a frontend.
    ///
    /// # Errors
    /// When the kernel refuses, for example because the map is full.
    pub fn put(&mut self, key: K, frontend: Frontend) -> Result<()> {
        self.change(key, |map| map.insert(Raw(key), Raw(frontend), 0), Allotment::put)
    }

    /// Removes a frontend.
    ///
    /// # Errors
    /// When the kernel refuses, or there is none.
    pub fn remove(&mut self, key: K) -> Result<()> {
        self.change(key, |map| map.remove(&Raw(key)), Allotment::remove)
    }

    fn change<E: Into<anyhow::Error>>(
        &mut self,
        key: K,
        write: impl FnOnce(&mut HashMap<MapData, Raw<K>, Raw<Frontend>>) -> Result<(), E>,
        settle: impl FnOnce(&mut Allotment<K>, K) -> Settlement<K>,
    ) -> Result<()> {
        if self.allotment.is_none() {
            self.take_over()?;
        }
        let mut allotment = self.allotment.take().context("no allotment of places")?;
        self.say(key.word(), Word::ASK);
        let written = write(&mut self.map).map_err(Into::into);
        let settlement = if written.is_ok() { settle(&mut allotment, key) } else { allotment.settle(key.word()) };
        self.follow(key.word(), settlement)?;
        // Without one, because of an error, the next change begins with what the maps hold.
        self.allotment = Some(allotment);
        written
    }

    fn follow(&mut self, word: u32, settlement: Settlement<K>) -> Result<()> {
        if settlement.waits {
            wait_for_programs();
        }
        for (place, key) in settlement.places {
            let frontend = self.get(&key).context("reading a frontend that has no place yet")?;
            self.places.set(place, Raw(key.placed(frontend)), 0).context("writing PLACES")?;
        }
        self.say(word, settlement.word);
        Ok(())
    }

    /// The frontends to which a word leads, each with its place; none if it says to ask, or leads beyond the end.
    fn lying(&self, word: Word) -> Result<Option<Vec<Lying<K>>>> {
        if !word.is_known() {
            return Ok(None);
        }
        let mut lying = Vec::new();
        for place in (0..).map_while(|number| word.place(number)) {
            if place >= self.places.len() {
                return Ok(None);
            }
            let Raw(found) = self.places.get(&place, 0).context("reading PLACES")?;
            let (&key, &frontend) = K::lying(&found);
            lying.push(Lying { place, key, frontend });
        }
        lying.sort_by_key(|it| it.key);
        Ok(Some(lying))
    }

    /// A word that is not there says to ask.
    fn say(&self, index: u32, word: Word) {
        let _ = self.directory.set(index, word.0);
    }
}

/// Until every program that runs now has ended.
fn wait_for_programs() {
    // SAFETY: membarrier(2) takes no pointer.
    let failed = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_GLOBAL, 0, 0) } != 0;
    if failed {
        sleep(LONGER_THAN_A_PROGRAM);
    }
}
