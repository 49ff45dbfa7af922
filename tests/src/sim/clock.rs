//! What happens when: a wheel of ticks for the next seconds, a heap for what comes later.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Ticks of a second: one is 100 us.
pub const TICKS_PER_S: u64 = 10_000;
/// Ticks of a millisecond.
pub const TICKS_PER_MS: u64 = TICKS_PER_S / 1000;
/// Ticks that the wheel covers; a power of two.
const WHEEL: u64 = 1 << 15;
const NOBODY: u32 = u32::MAX;

/// The events to come. Two of one tick come in the order of last in, first out, which is as good as any.
pub struct Clock<E> {
    now: u64,
    heads: Vec<u32>,
    events: Vec<(u32, E)>,
    free: u32,
    later: BinaryHeap<Reverse<(u64, u64, Later<E>)>>,
    number: u64,
    pending: usize,
}

/// An event has no order of its own.
struct Later<E>(E);

impl<E> PartialEq for Later<E> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<E> Eq for Later<E> {}

impl<E> PartialOrd for Later<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Later<E> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl<E: Copy> Default for Clock<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Copy> Clock<E> {
    /// At tick zero, with nothing to come.
    #[must_use]
    pub fn new() -> Self {
        Self {
            now: 0,
            heads: vec![NOBODY; WHEEL as usize],
            events: Vec::new(),
            free: NOBODY,
            later: BinaryHeap::new(),
            number: 0,
            pending: 0,
        }
    }

    /// The tick of the last event.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Lets `event` come after so many ticks.
    pub fn after(&mut self, ticks: u64, event: E) {
        self.pending += 1;
        if ticks < WHEEL {
            self.put(self.now + ticks, event);
        } else {
            self.number += 1;
            self.later.push(Reverse((self.now + ticks, self.number, Later(event))));
        }
    }

    /// The next event, if it comes before the tick `end`.
    pub fn next(&mut self, end: u64) -> Option<E> {
        if self.pending == 0 {
            return None;
        }
        while self.now < end {
            let head = &mut self.heads[(self.now % WHEEL) as usize];
            if *head != NOBODY {
                let at = *head;
                let (next, event) = self.events[at as usize];
                *head = next;
                self.events[at as usize].0 = self.free;
                self.free = at;
                self.pending -= 1;
                return Some(event);
            }
            self.now += 1;
            self.bring_in();
        }
        None
    }

    /// What the wheel covers now.
    fn bring_in(&mut self) {
        while self.later.peek().is_some_and(|Reverse((due, ..))| *due < self.now + WHEEL) {
            if let Some(Reverse((due, _, Later(event)))) = self.later.pop() {
                self.put(due, event);
            }
        }
    }

    fn put(&mut self, due: u64, event: E) {
        let head = &mut self.heads[(due % WHEEL) as usize];
        let node = (*head, event);
        *head = match self.events.get_mut(self.free as usize) {
            Some(free) => {
                let at = self.free;
                self.free = free.0;
                *free = node;
                at
            }
            None => {
                self.events.push(node);
                self.events.len() as u32 - 1
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_time_whether_near_or_far() {
        let mut clock = Clock::new();
        for ticks in [5, 90_000, 40_000, 0, 32_767, 32_768, 200_000] {
            clock.after(ticks, ticks);
        }
        let mut came = Vec::new();
        while let Some(event) = clock.next(100_000) {
            assert_eq!(clock.now(), event);
            came.push(event);
        }
        assert_eq!(came, [0, 5, 32_767, 32_768, 40_000, 90_000]);
        assert_eq!(clock.now(), 100_000);
    }
}
