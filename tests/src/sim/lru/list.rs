//! The lists of an LRU map: each node is in one of them, or in none yet.

/// Looked up since it was last seen.
pub const ACTIVE: u32 = 0;
/// Not.
pub const INACTIVE: u32 = 1;
/// Free for any CPU.
pub const FREE: u32 = 2;
/// Free for this CPU.
pub const LOCAL_FREE: u32 = 3;
/// Used by this CPU, and not yet in the lists of all.
pub const PENDING: u32 = 4;
/// Heads of lists, which have the first links; a node's come after.
pub const LISTS: u32 = 5;
/// In no list.
const NOWHERE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Link {
    previous: u32,
    next: u32,
    list: u32,
}

/// All links. A head's `next` is its first node, and its `previous` the last one.
pub struct Links {
    links: Vec<Link>,
    counts: [u32; LISTS as usize],
}

impl Links {
    pub fn new() -> Self {
        let head = |at| Link { previous: at, next: at, list: at };
        Self { links: (0..LISTS).map(head).collect(), counts: [0; LISTS as usize] }
    }

    pub fn len(&self) -> u32 {
        self.links.len() as u32
    }

    /// Adds a node that is in no list.
    pub fn push(&mut self) {
        let at = self.len();
        self.links.push(Link { previous: at, next: at, list: NOWHERE });
    }

    pub fn count(&self, list: u32) -> u32 {
        self.counts[list as usize]
    }

    pub fn list_of(&self, link: u32) -> u32 {
        self.links[link as usize].list
    }

    pub fn next(&self, link: u32) -> u32 {
        self.links[link as usize].next
    }

    pub fn previous(&self, link: u32) -> u32 {
        self.links[link as usize].previous
    }

    pub fn first(&self, list: u32) -> Option<u32> {
        Some(self.next(list)).filter(|&link| link != list)
    }

    pub fn last(&self, list: u32) -> Option<u32> {
        Some(self.previous(list)).filter(|&link| link != list)
    }

    /// The node before this one, if it is not the first.
    pub fn before(&self, link: u32) -> Option<u32> {
        Some(self.previous(link)).filter(|&link| link >= LISTS)
    }

    /// From the last node to the first.
    pub fn backward(&self, list: u32) -> impl Iterator<Item = u32> {
        std::iter::successors(self.last(list), |&link| self.before(link))
    }

    /// Takes the node out of its list, and makes it the first of another.
    pub fn move_to_head(&mut self, link: u32, list: u32) {
        let Link { previous, next, list: was } = self.links[link as usize];
        if was != NOWHERE {
            self.links[previous as usize].next = next;
            self.links[next as usize].previous = previous;
            self.counts[was as usize] -= 1;
        }
        let first = self.links[list as usize].next;
        self.links[link as usize] = Link { previous: list, next: first, list };
        self.links[first as usize].previous = link;
        self.links[list as usize].next = link;
        self.counts[list as usize] += 1;
    }
}
