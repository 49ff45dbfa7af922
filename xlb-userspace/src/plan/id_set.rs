//! A set of ids, which are low numbers.

/// The ids, each as one bit.
pub(super) struct IdSet(Vec<u64>);

impl IdSet {
    pub(super) fn of(ids: impl Iterator<Item = u32>) -> Self {
        let mut bits = Vec::new();
        for id in ids {
            let (at, bit) = place(id);
            if at >= bits.len() {
                bits.resize(at + 1, 0);
            }
            bits[at] |= bit;
        }
        Self(bits)
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        let (at, bit) = place(id);
        self.0.get(at).is_some_and(|bits| bits & bit != 0)
    }
}

fn place(id: u32) -> (usize, u64) {
    ((id / u64::BITS) as usize, 1 << (id % u64::BITS))
}
