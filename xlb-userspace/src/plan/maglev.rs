//! The table that nodes agree on without talking: Maglev (Eisenbud et al., NSDI 2016, chapter 3.4).

use xlb_common::hash::{FlowParts, flow_hash};
use xlb_common::slot::MEMBERS_PER_SERVICE_MAX;

const NOBODY: u8 = 0xff;
/// Seeds of the two hashes of a name.
const OFFSET_SEED: u8 = 1;
const SKIP_SEED: u8 = 2;

/// Owner of each of `slots` (a prime) slots: the backend's place among the names in order. Weights are at least 1.
///
/// The same backends give the same table, in whatever order they are listed. The first 254 names count.
#[must_use]
pub fn maglev(slots: u32, backends: &[(String, u16)]) -> Vec<u8> {
    let mut sorted: Vec<_> = backends.iter().collect();
    sorted.sort_unstable();
    sorted.truncate(MEMBERS_PER_SERVICE_MAX);
    let mut table = vec![NOBODY; slots as usize];
    let mut turns = Turns::new(slots, &sorted);
    for _ in 0..slots {
        let Some(turn) = turns.take() else { break };
        take_a_slot(&mut table, turn);
    }
    table
}

/// The order in which one backend wants the slots, and how far it came.
struct Permutation {
    place: u8,
    next: u64,
    skip: u64,
    weight: u32,
    credit: u32,
}

/// Whose turn it is. A backend of half the greatest weight has a turn in every other round.
struct Turns {
    permutations: Vec<Permutation>,
    greatest_weight: u32,
    at: usize,
}

impl Turns {
    fn new(slots: u32, sorted: &[&(String, u16)]) -> Self {
        let greatest_weight = sorted.iter().map(|(_, weight)| u32::from(*weight)).max().unwrap_or(0).max(1);
        let permutation = |(place, (name, weight)): (u8, &&(String, u16))| Permutation {
            place,
            next: u64::from(name_hash(name, OFFSET_SEED) % slots.max(1)),
            skip: u64::from(skip(name, slots)),
            weight: u32::from(*weight).max(1),
            credit: 0,
        };
        Self { permutations: (0..NOBODY).zip(sorted).map(permutation).collect(), greatest_weight, at: 0 }
    }

    fn take(&mut self) -> Option<&mut Permutation> {
        if self.permutations.is_empty() {
            return None;
        }
        loop {
            let at = self.at % self.permutations.len();
            self.at = at + 1;
            let permutation = &mut self.permutations[at];
            permutation.credit += permutation.weight;
            if permutation.credit >= self.greatest_weight {
                permutation.credit -= self.greatest_weight;
                return self.permutations.get_mut(at);
            }
        }
    }
}

/// The backend takes the first slot of its permutation that nobody has. The permutation visits every slot.
fn take_a_slot(table: &mut [u8], permutation: &mut Permutation) {
    let slots = table.len() as u64;
    for _ in 0..slots {
        let slot = permutation.next as usize;
        permutation.next = (permutation.next + permutation.skip) % slots;
        if table[slot] == NOBODY {
            table[slot] = permutation.place;
            return;
        }
    }
}

/// A step that has no divisor in common with the number of slots: with a prime number the first try is one.
fn skip(name: &str, slots: u32) -> u32 {
    let range = slots.saturating_sub(1).max(1);
    let first = name_hash(name, SKIP_SEED) % range;
    let mut tries = (0..range).map(|step| (first + step) % range + 1);
    tries.find(|&skip| greatest_divisor(skip, slots) == 1).unwrap_or(1)
}

fn greatest_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

/// The one hash of xlb, over a name of any length.
fn name_hash(name: &str, seed: u8) -> u32 {
    let fold = |hash: u32, chunk: &[u8]| {
        let client = chunk.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        let length = chunk.len() as u16;
        flow_hash(FlowParts { client, vip: u64::from(hash), client_port: length, vip_port: 0, protocol: seed })
    };
    name.as_bytes().chunks(8).fold(u32::from(seed), fold)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_never_changes_between_versions() {
        assert_eq!(maglev(13, &named(&[1, 1, 1])), [1, 0, 2, 0, 1, 0, 1, 0, 2, 0, 2, 2, 1]);
    }

    #[test]
    fn shares_follow_weights_within_two_in_a_hundred() {
        let table = maglev(16_381, &named(&[4, 2, 1, 1]));
        for (place, weight) in [(0, 4), (1, 2), (2, 1), (3, 1)] {
            let share = count(&table, place) as f64 / (16_381.0 * f64::from(weight) / 8.0);
            assert!((0.98..1.02).contains(&share), "{place} has {share} of its share");
        }
    }

    #[test]
    fn removing_one_of_ten_moves_few_slots_of_the_others() {
        let all = named(&[1; 10]);
        let (before, after) = (maglev(16_381, &all), maglev(16_381, &all[..9]));
        let moved = before.iter().zip(&after).filter(|(old, new)| **old != 9 && old != new).count();
        assert!(moved < 16_381 / 10, "{moved} slots of living backends moved");
    }

    #[test]
    fn odd_sizes_give_whole_tables() {
        for slots in [0, 1, 2, 4, 6, 100] {
            let table = maglev(slots, &named(&[1, 3]));
            assert!(table.len() == slots as usize && !table.contains(&NOBODY), "{slots}");
        }
        assert_eq!(maglev(3, &[]), [NOBODY; 3]);
    }

    proptest! {
        #[test]
        fn the_order_of_backends_does_not_matter((names, shuffled) in shuffled_names()) {
            prop_assert_eq!(maglev(251, &names), maglev(251, &shuffled));
        }

        #[test]
        fn equal_backends_differ_by_one_slot(backends in 1usize..60) {
            let table = maglev(1021, &named(&vec![1; backends]));
            let counts: Vec<_> = (0..backends).map(|place| count(&table, place as u8)).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
    }

    type Names = Vec<(String, u16)>;

    fn shuffled_names() -> impl Strategy<Value = (Names, Names)> {
        let names = prop::collection::btree_map("[a-z]{1,20}", 1u16..5, 1..20);
        names.prop_flat_map(|names| {
            let names: Vec<_> = names.into_iter().collect();
            (Just(names.clone()), Just(names).prop_shuffle())
        })
    }

    fn named(weights: &[u16]) -> Vec<(String, u16)> {
        weights.iter().enumerate().map(|(place, &weight)| (format!("10.1.0.{place}:8080"), weight)).collect()
    }

    fn count(table: &[u8], place: u8) -> usize {
        table.iter().filter(|&&owner| owner == place).count()
    }
}
