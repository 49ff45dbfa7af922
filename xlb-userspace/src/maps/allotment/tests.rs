use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use xlb_common::abi::Frontend;
use xlb_common::directory::{Found, find};

use super::*;

/// A key whose word is one of three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u8);

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    key: Key,
    frontend: Frontend,
}

impl Placed for Key {
    type Place = Place;

    fn word(self) -> u32 {
        u32::from(self.0 % 3)
    }

    fn placed(self, frontend: Frontend) -> Place {
        Place { key: self, frontend }
    }

    fn lying(place: &Place) -> (&Key, &Frontend) {
        (&place.key, &place.frontend)
    }

    fn is(&self, other: &Key) -> bool {
        self == other
    }
}

/// The maps, and what programs may have read.
#[derive(Clone, Debug)]
struct Maps {
    frontends: BTreeMap<Key, Frontend>,
    words: [Word; 3],
    places: Vec<Place>,
    /// Places that a word has led to since the last wait.
    read: BTreeSet<u32>,
}

impl Maps {
    fn say(&mut self, index: u32, word: Word) {
        self.words[index as usize] = word;
        self.read.extend([word.place(0), word.place(1)].into_iter().flatten());
    }

    fn wait(&mut self) {
        let words = self.words.iter();
        self.read = words.flat_map(|word| [word.place(0), word.place(1)]).flatten().collect();
    }

    /// Whether every key is found as `FRONTENDS` has it.
    fn check(&self) -> Result<(), TestCaseError> {
        for key in (0..=u8::MAX).map(Key) {
            let word = |index: u32| Some(self.words[index as usize].0);
            let expected = self.frontends.get(&key);
            match find(&key, word, |index| self.places.get(index as usize)) {
                Found::Here(frontend) => prop_assert_eq!(Some(frontend), expected),
                Found::Nowhere => prop_assert_eq!(None, expected),
                Found::Ask => (),
            }
        }
        Ok(())
    }
}

/// A change, as the maps are written one after another; all of it, or so many steps of it.
fn change(
    maps: &mut Maps,
    allotment: &mut Allotment<Key>,
    (key, service): (u8, Option<u32>),
    steps: usize,
) -> Result<(), TestCaseError> {
    let key = Key(key);
    let mut left = steps;
    let mut is_alive = || {
        left = left.saturating_sub(1);
        left > 0
    };
    maps.say(key.word(), Word::ASK);
    maps.check()?;
    if !is_alive() {
        return Ok(());
    }
    let settlement = match service {
        Some(service) => {
            maps.frontends.insert(key, Frontend { service, ..Frontend::default() });
            allotment.put(key)
        }
        None => {
            maps.frontends.remove(&key);
            allotment.remove(key)
        }
    };
    maps.check()?;
    if settlement.waits {
        maps.wait();
    }
    for (place, key) in settlement.places {
        if !is_alive() {
            return Ok(());
        }
        prop_assert!(!maps.read.contains(&place), "place {place} may be read by a program");
        maps.places[place as usize] = key.placed(maps.frontends[&key]);
        maps.check()?;
    }
    if is_alive() {
        maps.say(key.word(), settlement.word);
    }
    maps.check()
}

fn empty(places: u32) -> (Maps, Allotment<Key>) {
    let places_v = vec![Place::default(); places as usize];
    let maps = Maps { frontends: BTreeMap::new(), words: [Word::ASK; 3], places: places_v, read: BTreeSet::new() };
    (maps, Allotment::new(places, [], []))
}

proptest! {
    #[test]
    fn at_every_step_of_every_change_each_key_is_found_as_it_is_or_asked_for(
        places in 0_u32..8,
        changes in prop::collection::vec((0_u8..12, prop::option::of(0_u32..1_000), prop_oneof![3 => Just(99), 1 => 1_usize..5]), 0..60),
    ) {
        let (mut maps, mut allotment) = empty(places);
        for (key, service, steps) in changes {
            change(&mut maps, &mut allotment, (key, service), steps)?;
            if steps < 99 {
                // The agent died: the next one begins with what the maps hold.
                allotment = taken_over(&mut maps);
                maps.check()?;
            }
        }
    }

    #[test]
    fn a_word_is_known_as_soon_as_its_frontends_fit(keys in prop::collection::btree_set(0_u8..12, 0..6)) {
        let (mut maps, mut allotment) = empty(32);
        for &key in &keys {
            change(&mut maps, &mut allotment, (key, Some(1)), 99)?;
        }
        for word in 0..3_u32 {
            let frontends = keys.iter().filter(|&&key| Key(key).word() == word).count();
            let is_untouched = frontends == 0;
            prop_assert_eq!(maps.words[word as usize].is_known(), !is_untouched && frontends <= PLACES_PER_WORD);
        }
    }
}

/// An allotment of what the maps hold, as the edge makes it.
fn taken_over(maps: &mut Maps) -> Allotment<Key> {
    let (mut placed, mut askers) = (Vec::new(), Vec::new());
    for index in 0..3_u32 {
        let word = maps.words[index as usize];
        let frontends = maps.frontends.keys().filter(|key| key.word() == index).copied();
        if word.is_known() {
            let places = [word.place(0), word.place(1)].into_iter().flatten();
            placed.extend(places.map(|place| (maps.places[place as usize].key, place)));
        } else {
            askers.extend(frontends);
        }
    }
    maps.wait();
    let mut allotment = Allotment::new(maps.places.len() as u32, placed, askers);
    for word in allotment.unsettled() {
        let settlement = allotment.settle(word);
        if settlement.waits {
            maps.wait();
        }
        for (place, key) in settlement.places {
            maps.places[place as usize] = key.placed(maps.frontends[&key]);
        }
        maps.say(word, settlement.word);
    }
    allotment
}
