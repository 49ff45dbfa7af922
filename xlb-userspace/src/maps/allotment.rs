//! Which frontends lie in which of `PLACES`, and what the words of `DIRECTORY` say of them: values to values.
//!
//! A place that lost its frontend may still be read by a program that runs. So a frontend that changes gets another place, and
//! the old one is used again when every program that ran has ended.

use std::collections::BTreeMap;

use xlb_common::directory::{PLACES_PER_WORD, Placed, Word};

/// The frontends of one family and their places.
#[derive(Clone, Debug)]
pub struct Allotment<K> {
    /// Every frontend by its word; none: it has no place, and its word says to ask.
    frontends: BTreeMap<(u32, K), Option<u32>>,
    free: Vec<u32>,
    /// Free as soon as no program runs that ran when they came here.
    left: Vec<u32>,
}

/// What is to be done, in this order, with the frontends that share a word, which says to ask meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement<K> {
    /// To wait until every program that runs now has ended.
    pub waits: bool,
    /// To write these places.
    pub places: Vec<(u32, K)>,
    /// To let the word say this.
    pub word: Word,
}

impl<K: Placed> Allotment<K> {
    /// Of so many places, of which these are taken by frontends to which words lead; `askers` are the frontends that have none.
    /// No program that runs reads any other place.
    pub fn new(places: u32, placed: impl IntoIterator<Item = (K, u32)>, askers: impl IntoIterator<Item = K>) -> Self {
        let placed = placed.into_iter().map(|(key, place)| ((key.word(), key), Some(place)));
        let askers = askers.into_iter().map(|key| ((key.word(), key), None));
        let frontends: BTreeMap<_, _> = placed.chain(askers).collect();
        let mut taken = vec![false; places as usize];
        frontends.values().flatten().for_each(|&place| taken[place as usize] = true);
        let free = (0..places).rev().filter(|&place| !taken[place as usize]).collect();
        Self { frontends, free, left: Vec::new() }
    }

    /// The words whose frontends lie where no word leads, though there may be room.
    #[must_use]
    pub fn unsettled(&self) -> Vec<u32> {
        let mut words: Vec<u32> =
            self.frontends.iter().filter(|(_, place)| place.is_none()).map(|(&(word, _), _)| word).collect();
        words.dedup();
        words
    }

    /// How many frontends have places.
    #[must_use]
    pub fn placed(&self) -> usize {
        self.frontends.values().flatten().count()
    }

    /// A frontend is there, or has changed.
    pub fn put(&mut self, key: K) -> Settlement<K> {
        let place = self.frontends.insert((key.word(), key), None).flatten();
        self.left.extend(place);
        self.settle(key.word())
    }

    /// A frontend is gone.
    pub fn remove(&mut self, key: K) -> Settlement<K> {
        let place = self.frontends.remove(&(key.word(), key)).flatten();
        self.left.extend(place);
        self.settle(key.word())
    }

    /// The frontends of a word get places, if there is room for all of them.
    pub fn settle(&mut self, word: u32) -> Settlement<K> {
        let keys: Vec<(K, Option<u32>)> = self.of(word).collect();
        let missing = keys.iter().filter(|(_, place)| place.is_none()).count();
        if keys.len() > PLACES_PER_WORD || missing > self.free.len() + self.left.len() {
            let left = keys.iter().filter_map(|(_, place)| *place);
            self.left.extend(left);
            keys.iter().for_each(|&(key, _)| _ = self.frontends.insert((word, key), None));
            return Settlement { waits: false, places: Vec::new(), word: Word::ASK };
        }
        let waits = missing > self.free.len();
        if waits {
            self.free.append(&mut self.left);
        }
        let mut places = Vec::new();
        for (key, _) in keys.iter().filter(|(_, place)| place.is_none()) {
            let Some(place) = self.free.pop() else { break };
            self.frontends.insert((word, *key), Some(place));
            places.push((place, *key));
        }
        let mut all = self.of(word).map(|(_, place)| place);
        let word = Word::of([all.next().flatten(), all.next().flatten()]);
        Settlement { waits, places, word }
    }

    fn of(&self, word: u32) -> impl Iterator<Item = (K, Option<u32>)> + '_ {
        let keys = self.frontends.range((word, K::default())..);
        keys.take_while(move |((of, _), _)| *of == word).map(|(&(_, key), &place)| (key, place))
    }
}

#[cfg(test)]
mod tests;
