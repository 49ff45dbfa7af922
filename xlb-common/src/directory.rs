//! Where a packet finds its frontend without a hash map: a word of `DIRECTORY`, chosen by the key, says in which of `PLACES` the
//! frontends are that share it. `FRONTENDS` is what counts; a word that is zero says to look there, and so a directory
//! that nobody fills is right, and slow.
//!
//! The agent writes a place before a word leads there, and never while a program may read it.

use crate::abi::{DIRECTORY_WORDS, EndpointKeyV4, EndpointKeyV6, Frontend, PlaceV4, PlaceV6};
use crate::hash::fold_address;

/// Frontends that a word has room for.
pub const PLACES_PER_WORD: usize = 2;

/// What a word says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Word(pub u64);

impl Word {
    /// To look into `FRONTENDS`.
    pub const ASK: Self = Self(0);
    const IS_KNOWN: u64 = 1 << 63;
    const BITS: u32 = 31;
    const MASK: u64 = (1 << Self::BITS) - 1;

    /// That the frontends which share the word are in these places, and there are no others.
    #[must_use]
    pub const fn of(places: [Option<u32>; PLACES_PER_WORD]) -> Self {
        let [first, second] = places;
        Self(Self::IS_KNOWN | Self::one(first) | Self::one(second) << Self::BITS)
    }

    const fn one(place: Option<u32>) -> u64 {
        match place {
            Some(place) => (place as u64 + 1) & Self::MASK,
            None => 0,
        }
    }

    /// Whether it says anything.
    #[inline(always)]
    #[must_use]
    pub const fn is_known(self) -> bool {
        self.0 & Self::IS_KNOWN != 0
    }

    /// The place by its number in the word, from zero.
    #[inline(always)]
    #[must_use]
    pub const fn place(self, number: u32) -> Option<u32> {
        ((self.0 >> (number * Self::BITS) & Self::MASK) as u32).checked_sub(1)
    }
}

/// A key of frontends.
pub trait Placed: Copy + Ord + Default + 'static {
    /// Where a frontend lies with its key.
    type Place: 'static;

    /// The word of `DIRECTORY` that says where its frontend is.
    fn word(self) -> u32;
    /// The place of a frontend with this key.
    fn placed(self, frontend: Frontend) -> Self::Place;
    /// What lies in a place.
    fn lying(place: &Self::Place) -> (&Self, &Frontend);
    /// Whether both are the same, in one comparison: that of arrays is a call, byte by byte.
    fn is(&self, other: &Self) -> bool;
}

impl Placed for EndpointKeyV4 {
    type Place = PlaceV4;

    #[inline(always)]
    fn word(self) -> u32 {
        let [port, protocol] = [u16::from_ne_bytes(self.port) as u64, self.protocol as u64];
        spread((u32::from_ne_bytes(self.address) as u64) << 24 ^ port << 8 ^ protocol)
    }

    #[inline(always)]
    fn placed(self, frontend: Frontend) -> PlaceV4 {
        PlaceV4 { frontend, key: self }
    }

    #[inline(always)]
    fn lying(place: &PlaceV4) -> (&Self, &Frontend) {
        (&place.key, &place.frontend)
    }

    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        let ([a, b], [p, q]): ([u32; 2], [u32; 2]) = (bytemuck::cast(*self), bytemuck::cast(*other));
        (a ^ p) | (b ^ q) == 0
    }
}

impl Placed for EndpointKeyV6 {
    type Place = PlaceV6;

    #[inline(always)]
    fn word(self) -> u32 {
        let [port, protocol] = [u16::from_ne_bytes(self.port) as u64, self.protocol as u64];
        spread(fold_address(self.address) ^ port << 40 ^ protocol << 32)
    }

    #[inline(always)]
    fn placed(self, frontend: Frontend) -> PlaceV6 {
        PlaceV6 { frontend, key: self, zero: 0 }
    }

    #[inline(always)]
    fn lying(place: &PlaceV6) -> (&Self, &Frontend) {
        (&place.key, &place.frontend)
    }

    #[inline(always)]
    fn is(&self, other: &Self) -> bool {
        let ([a, b, c, d, e], [p, q, r, s, t]): ([u32; 5], [u32; 5]) = (bytemuck::cast(*self), bytemuck::cast(*other));
        (a ^ p) | (b ^ q) | (c ^ r) | (d ^ s) | (e ^ t) == 0
    }
}

/// A number below [`DIRECTORY_WORDS`]: two rounds of multiply and shift, and the upper bits.
#[inline(always)]
const fn spread(key: u64) -> u32 {
    let product = (key ^ key >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((product ^ product >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 48) as u32
}
const _: () = assert!(DIRECTORY_WORDS == 1 << 16);

/// What the directory says of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// There is a frontend, here.
    Here(&'a Frontend),
    /// There is none.
    Nowhere,
    /// To look into `FRONTENDS`.
    Ask,
}

/// Looks a key up, by the words of a directory and its places. A word or a place that is not there is nothing to go by.
#[inline(always)]
pub fn find<'a, K: Placed>(
    key: &K,
    word: impl Fn(u32) -> Option<u64>,
    place: impl Fn(u32) -> Option<&'a K::Place>,
) -> Found<'a> {
    let word = Word(word(key.word()).unwrap_or_default());
    if !word.is_known() {
        return Found::Ask;
    }
    for number in 0..PLACES_PER_WORD as u32 {
        let Some(index) = word.place(number) else { return Found::Nowhere };
        let Some(place) = place(index) else { return Found::Ask };
        let (found, frontend) = K::lying(place);
        if found.is(key) {
            return Found::Here(frontend);
        }
    }
    Found::Nowhere
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: u32, port: u16, protocol: u8) -> EndpointKeyV4 {
        EndpointKeyV4 { address: address.to_be_bytes(), port: port.to_be_bytes(), protocol, zero: 0 }
    }

    fn key_v6(interface: u64, port: u16) -> EndpointKeyV6 {
        let address = (0x2001_0db8_u128 << 96 | u128::from(interface)).to_be_bytes();
        EndpointKeyV6 { address, port: port.to_be_bytes(), protocol: 6, zero: 0 }
    }

    /// Of 30 000 keys, how many share their word with two others or more. Evenly spread it would be some 2 300.
    fn crowded<K: Placed>(keys: impl Iterator<Item = K>) -> usize {
        let mut counts = vec![0; DIRECTORY_WORDS as usize];
        keys.for_each(|key| counts[key.word() as usize] += 1);
        counts.iter().filter(|&&count| count > PLACES_PER_WORD).sum()
    }

    #[test]
    fn neighbouring_vips_and_ports_spread_evenly_over_the_words() {
        assert!(crowded((0..30_000).map(|number| key(0x6440_0000 + number, 80, 6))) < 2_800);
        assert!(crowded((0..30_000).map(|port| key(0xcb00_7101, port, 6))) < 2_800);
        assert!(crowded((0..15_000).flat_map(|number| [6, 17].map(|to| key(0xcb00_7100 + number, 53, to)))) < 2_800);
        assert!(crowded((0..30_000).map(|interface| key_v6(interface, 443))) < 2_800);
        assert!(crowded((0..30_000).map(|port| key_v6(1, port))) < 2_800);
    }

    #[test]
    fn a_word_says_what_it_was_given() {
        assert!(!Word::ASK.is_known());
        for places in [[None, None], [Some(0), None], [Some(7), Some(0)], [Some((1 << 31) - 2), Some(32_767)]] {
            let word = Word::of(places);
            assert!(word.is_known());
            assert_eq!([word.place(0), word.place(1)], places);
        }
    }

    #[test]
    fn a_key_is_found_by_its_word_and_another_one_of_that_word_is_not() {
        let (ours, other) = (key(0xcb00_7101, 80, 6), key(0xcb00_7101, 81, 6));
        let frontend = Frontend { service: 7, ..Frontend::default() };
        let places = [other.placed(Frontend::default()), ours.placed(frontend)];
        let look = |word: Word| find(&ours, |_| Some(word.0), |index| places.get(index as usize));
        assert_eq!(look(Word::of([Some(0), Some(1)])), Found::Here(&frontend));
        assert_eq!(look(Word::of([Some(1), None])), Found::Here(&frontend));
        assert_eq!(look(Word::of([Some(0), None])), Found::Nowhere);
        assert_eq!(look(Word::of([None, None])), Found::Nowhere);
        assert_eq!(look(Word::of([Some(2), None])), Found::Ask, "a place beyond the end");
        assert_eq!(look(Word::ASK), Found::Ask);
    }
}
