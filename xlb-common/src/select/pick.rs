//! What the rules make of a packet: a backend and by which reason, or why there is none.

use crate::abi::Member;
use crate::reason::Reason;

/// A backend as the rules name it, or why there is none. It fits a register, and has a value in each case: the verifier
/// refuses to copy what one of two cases leaves open, as `Result` does.
#[derive(Clone, Copy, Debug)]
pub struct Pick {
    generation: u32,
    id: u16,
    reason: Reason,
}
const _: () = assert!(size_of::<Option<Pick>>() == 8);

/// What asking owners ends with if no owner has more than an earlier connection of the tuple.
pub(super) const WAITS: Reason = Reason::UnprovenOwner;

/// The same if an owner's kernel has the request for the connection, and no more: [`Reason::ProvenOwner`], unless another one gave the
/// cookie that the packet acknowledges.
pub(super) const ASKED: Reason = Reason::RepliedHalfOpen;

/// [`Pick::id`] where there is none: above any id.
const NO_BACKEND: u16 = u16::MAX;

impl Pick {
    /// One of the forwarding reasons; without a backend, one of the others.
    #[inline(always)]
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// The same, for this reason. After a loop of the kernel's the compiler does not know that there is a reason at all, and
    /// what it then looks at costs every packet a nanosecond.
    #[inline(always)]
    pub(crate) const fn because(self, reason: Reason) -> Self {
        Self { reason, ..self }
    }

    /// Whether it says that owners who were forgotten are to be searched.
    #[inline(always)]
    pub(super) fn is_to_search(&self) -> bool {
        self.reason == Reason::UnsearchedOwner
    }

    /// Whether nobody else needs to be asked.
    #[inline(always)]
    pub(super) fn is_claim(&self) -> bool {
        self.reason != WAITS && self.reason != Reason::UnsearchedOwner
    }

    /// Whether no owner can have a better claim.
    #[inline(always)]
    pub(super) fn is_final(&self) -> bool {
        self.is_claim() && self.reason != ASKED
    }

    /// The other one if it has a claim, else where something waits; whoever says that owners are to be searched, they are.
    #[inline(always)]
    pub(super) fn unless_better(self, other: Self) -> Self {
        if other.is_claim() {
            return other;
        }
        let kept = if self.has_backend() { self } else { other };
        if self.is_to_search() { kept.because(Reason::UnsearchedOwner) } else { kept }
    }

    #[inline(always)]
    pub(crate) const fn has_backend(&self) -> bool {
        self.id != NO_BACKEND
    }

    /// Id of the backend, and the generation that it has if it is that one.
    #[inline(always)]
    pub(crate) const fn reference(&self) -> (u32, u32) {
        (self.id as u32, self.generation)
    }

    /// No backend, and why.
    #[inline(always)]
    #[must_use]
    pub const fn none(reason: Reason) -> Self {
        Self { id: NO_BACKEND, generation: 0, reason }
    }

    /// In one number, as it passes between functions that the verifier walks through by themselves.
    #[inline(always)]
    #[must_use]
    pub const fn to_number(self) -> u64 {
        (self.generation as u64) << 32 | (self.id as u64) << 16 | self.reason as u64
    }

    /// What [`Pick::to_number`] made.
    #[inline(always)]
    #[must_use]
    pub fn of_number(number: u64) -> Self {
        Self { generation: (number >> 32) as u32, id: (number >> 16) as u16, reason: Reason::of_number(number as u16) }
    }

    #[inline(always)]
    pub(crate) const fn of(member: Member, reason: Reason) -> Self {
        Self { id: member.backend, generation: member.generation, reason }
    }
}
