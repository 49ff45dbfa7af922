//! Which backend a packet goes to: the rules 1, 2, 4 and 5 of flow admission, in one table.
//!
//! | rule | packet | slot | goes to |
//! |---|---|---|---|
//! | 1 | SYN | one owner | that owner; nothing is looked up |
//! | 2 | SYN | previous owners | the newest owner whose kernel holds the tuple (half-open or open); else the current one |
//! | 4 | other TCP | one owner | that owner; nothing is looked up |
//! | 5 | other TCP | previous owners | the newest owner whose kernel holds the tuple (half-open or open); else the one that gave the SYN cookie which the packet acknowledges; else the newest where an earlier connection waits (TIME_WAIT); else the current one |
//! | - | SYN or new UDP flow of a service with affinity | previous owners, and none claims it | the owner that the client's record names; else the current one |
//! | 5 | SCTP, and TCP of pods whose sockets cannot be seen | previous owners | the newest owner with a flow entry; else the current one |
//! | 5 | UDP | previous owners | the owner with the newest flow entry; else the current one |
//! | 12 | any that no owner claims | owners forgotten | where the last search for its owner found it; else any member that was forgotten and claims it, within the budget (rule 16); else as above |
//!
//! A pod's port may serve several frontends, and what its kernel holds be a connection of the same client's port to another
//! one of them: the flow's entry says to which, and one of another frontend is no claim. Of a datagram it may mean that its
//! flow has a port of its own there ([`crate::twin`]).
//!
//! A SYN is also what asks for an association of SCTP.
//!
//! Its place for later: proof by initial sequence number belongs into `proves`. Rule 7 is [`crate::hot`]'s.

use core::ops::Deref;

use crate::abi::{Backend, Frontend, Member, frontend_flags};
use crate::affinity::recorded_owner;
use crate::budget::Spending;
use crate::family::Family;
use crate::handover::may_be_hosts;
use crate::hash::{FlowParts, flow_hash, slot_of};
use crate::parse::Parsed;
use crate::reason::Reason;
use crate::slot::SlotWord;
use crate::tables::{Stage, Tables};
use crate::twin::PLACES;

pub(crate) use self::owners::proves;
use self::owners::{Asking, AskingDatagrams, AskingForCookies, pin, pinned, places, still_claims};

mod owners;

/// A backend as the rules name it, or why there is none. It fits a register, and has a value in each case: the verifier
/// refuses to copy what one of two cases leaves open, as `Result` does.
#[derive(Clone, Copy, Debug)]
pub struct Pick {
    generation: u32,
    id: u16,
    reason: Reason,
}
const _: () = assert!(size_of::<Option<Pick>>() == 8);

/// What the slot alone says of a packet to `frontend`: rules 1 and 4. None: its owners have to be asked.
#[inline(always)]
pub fn pick_at_once<F: Family, T: Tables<F>>(tables: &T, frontend: &Frontend, parsed: &Parsed<F>) -> Option<Pick> {
    if may_be_hosts(frontend, parsed) {
        return None;
    }
    if frontend.slots == 0 {
        return Some(Pick::of(frontend.sole, Reason::SoleBackend));
    }
    let index = index_of(frontend, parsed, frontend.affinity_s != 0);
    let Some(word) = word_at(tables, frontend, index) else {
        return Some(Pick::none(Reason::StaleReference));
    };
    tables.note(Stage::Slot { index, word });
    if word.has_history() || is_rehashed(frontend, parsed) {
        return None;
    }
    Some(current(tables, frontend, parsed, word, Reason::SlotOwner))
}

/// What the owners say: those of the flow's slot, of the one where the other hash leads, and those whom slots forgot.
#[inline(always)]
pub fn pick_by_owners<F: Family, T: Tables<F>, const TWINS: bool>(
    tables: &T,
    frontend: &Frontend,
    parsed: &Parsed<F>,
) -> Pick {
    let ask = |is_by_client| {
        if TWINS {
            pick_by_asking::<F, T, TWINS>(tables, frontend, parsed, is_by_client)
        } else {
            tables.ask_owners(frontend, parsed, is_by_client)
        }
    };
    let is_by_client = frontend.affinity_s != 0;
    let mut pick = ask(is_by_client);
    if !pick.is_claim() && is_rehashed(frontend, parsed) {
        pick = pick.unless_better(ask(!is_by_client));
    }
    match (pick.is_claim(), TWINS) {
        (true, _) => pick,
        (false, true) => pick_unclaimed::<F, T, TWINS>(tables, frontend, parsed, pick),
        (false, false) => tables.search_owner(frontend, parsed, pick),
    }
}

/// What the owners of a slot say: rules 2 and 5. Where nobody has a claim, [`Reason::UnprovenOwner`], or
/// [`Reason::UnsearchedOwner`] if others were forgotten; with the backend where an earlier connection waits, if there is one.
#[inline(always)]
pub fn pick_by_asking<F: Family, T: Tables<F>, const TWINS: bool>(
    tables: &T,
    frontend: &Frontend,
    parsed: &Parsed<F>,
    is_by_client: bool,
) -> Pick {
    let index = index_apart(frontend, parsed, is_by_client);
    let Some(word) = word_at(tables, frontend, index) else { return Pick::none(Reason::StaleReference) };
    if is_by_client != (frontend.affinity_s != 0) {
        tables.note(Stage::Slot { index, word });
    }
    let pick = among_owners::<F, T, TWINS>(tables, frontend, parsed, word);
    if !pick.is_claim() && word.has_forgotten() { pick.because(Reason::UnsearchedOwner) } else { pick }
}

/// Where a packet goes that no owner who is named has a claim on, as [`pick_by_asking`] said: to one that slots had no room for, if
/// that has a claim; else where an earlier connection waits; else where the client's record says; else to the slot's current owner.
#[inline(always)]
pub fn pick_unclaimed<F: Family, T: Tables<F>, const TWINS: bool>(
    tables: &T,
    frontend: &Frontend,
    parsed: &Parsed<F>,
    waiting: Pick,
) -> Pick {
    let found = if waiting.is_to_search() { search::<F, T, TWINS>(tables, frontend, parsed, waiting) } else { waiting };
    if found.is_claim() {
        return found;
    }
    if found.has_backend() {
        return found.because(Reason::ProvenOwner);
    }
    unproven(tables, frontend, parsed, found.reason)
}

/// Where a packet of a slot with history goes that nobody knows. A function by itself: what it looks up would lie on the stack
/// below the search's steps.
#[inline(never)]
fn unproven<F: Family, T: Tables<F>>(tables: &T, frontend: &Frontend, parsed: &Parsed<F>, reason: Reason) -> Pick {
    let index = index_apart(frontend, parsed, frontend.affinity_s != 0);
    let Some(word) = word_at(tables, frontend, index) else { return Pick::none(Reason::StaleReference) };
    if frontend.affinity_s != 0
        && opens_flow(parsed)
        && let Some(member) = recorded_owner(tables, frontend, parsed, word)
    {
        return Pick::of(member, Reason::AffineOwner);
    }
    current(tables, frontend, parsed, word, reason)
}

/// Rule 12. Where the last search found a flow's owner is a hint: it is asked again, so nobody's hint does harm.
#[inline(always)]
fn search<F: Family, T: Tables<F>, const TWINS: bool>(
    tables: &T,
    frontend: &Frontend,
    parsed: &Parsed<F>,
    waiting: Pick,
) -> Pick {
    let known = still_claims(tables, parsed, pinned(tables, parsed));
    if known.is_claim() {
        return known;
    }
    if !tables.may_spend(if is_syn(parsed) { Spending::SearchBySyn } else { Spending::Search }) {
        return waiting.because(if is_syn(parsed) { WAITS } else { Reason::UnsearchedOwner });
    }
    let found = among_owners::<F, T, TWINS>(tables, frontend, parsed, SlotWord::FORGOTTEN);
    if found.is_claim() {
        pin(tables, parsed, found);
    }
    waiting.because(WAITS).unless_better(found)
}

/// The backend that was picked, if it is still that one.
#[inline(always)]
pub fn backend_of<'a, F: Family, T: Tables<F>>(
    tables: &'a T,
    pick: &Pick,
) -> Result<impl Deref<Target = Backend> + use<'a, F, T>, Reason> {
    if !pick.has_backend() {
        return Err(pick.reason);
    }
    let (id, generation) = pick.reference();
    live(tables, id, generation).ok_or(Reason::StaleReference)
}

/// Whether the packet may belong to a connection that lies where the other hash leads.
#[inline(always)]
pub(crate) fn is_rehashed<F: Family>(frontend: &Frontend, parsed: &Parsed<F>) -> bool {
    frontend.has(frontend_flags::REHASHED) && !is_syn(parsed)
}

/// The slot that the flow belongs to: by its five parts, or by its client alone.
#[inline(always)]
fn index_of<F: Family>(frontend: &Frontend, parsed: &Parsed<F>, is_by_client: bool) -> u32 {
    let parts = if is_by_client { FlowParts::of_client(F::to_hash(parsed.source.0)) } else { parts(parsed) };
    slot_of(flow_hash(parts), frontend.slots)
}

/// The same for few packets, so that what the hash needs does not lie on the stack below the owners' steps.
#[inline(never)]
pub(crate) fn index_apart<F: Family>(frontend: &Frontend, parsed: &Parsed<F>, is_by_client: bool) -> u32 {
    index_of(frontend, parsed, is_by_client)
}

#[inline(always)]
pub(crate) fn word_at<F: Family, T: Tables<F>>(tables: &T, frontend: &Frontend, index: u32) -> Option<SlotWord> {
    tables.slot(frontend.slots_base.wrapping_add(index))
}

/// The backend that a slot names by this local index.
#[inline(always)]
pub(crate) fn member_at<F: Family, T: Tables<F>>(tables: &T, frontend: &Frontend, owner: u8) -> Option<Member> {
    tables.member(frontend.members_base.wrapping_add(u32::from(owner)))
}

#[inline(always)]
const fn is_syn<F: Family>(parsed: &Parsed<F>) -> bool {
    parsed.transport.is_syn()
}

/// Whether the packet begins a flow, if nobody has a claim on it.
#[inline(always)]
#[must_use]
pub fn opens_flow<F: Family>(parsed: &Parsed<F>) -> bool {
    parsed.transport.is_udp() || is_syn(parsed)
}

/// Rules 2 and 5: the owner that has a claim, else one where an earlier connection waits, else nobody.
#[inline(always)]
fn among_owners<F: Family, T: Tables<F>, const TWINS: bool>(
    tables: &T,
    frontend: &Frontend,
    parsed: &Parsed<F>,
    word: SlotWord,
) -> Pick {
    let pick = if TWINS && parsed.transport.is_udp() {
        last_owner::<F, T, PLACES>(tables, frontend, parsed, word)
    } else if parsed.transport.is_udp() {
        last_owner::<F, T, 1>(tables, frontend, parsed, word)
    } else {
        first_owner(tables, frontend, parsed, word)
    };
    match pick.reason {
        Reason::OtherFrontend => Pick::none(Reason::OtherFrontend),
        Reason::RememberedOwner => pick.because(Reason::RememberedOwner),
        WAITS => pick.because(WAITS),
        _ => pick.because(Reason::ProvenOwner),
    }
}

/// Of TCP and SCTP: the newest owner that has a claim. A function by itself, as the next one: what each asks with would lie on the
/// stack below the other's steps.
#[inline(never)]
fn first_owner<F: Family, T: Tables<F>>(tables: &T, frontend: &Frontend, parsed: &Parsed<F>, word: SlotWord) -> Pick {
    let places = places(frontend, word);
    let Asking { pick, .. } = tables.each_until(places, Asking { frontend, parsed, word, pick: Pick::none(WAITS) });
    // Packets of connections do not pay for this.
    if pick.is_claim() || !parsed.transport.acknowledges() {
        return pick;
    }
    tables.each_until(places, AskingForCookies(Asking { frontend, parsed, word, pick })).0.pick
}

/// Of datagrams: the owner with the flow's newest entry.
#[inline(never)]
fn last_owner<F: Family, T: Tables<F>, const EACH: u32>(
    tables: &T,
    frontend: &Frontend,
    parsed: &Parsed<F>,
    word: SlotWord,
) -> Pick {
    let steps = places(frontend, word) * EACH;
    let asking = AskingDatagrams::<F, EACH> { frontend, parsed, word, pick: Pick::none(WAITS), last_seen: 0 };
    let AskingDatagrams { pick, .. } = tables.each_until(steps, asking);
    pick
}

/// The slot's current owner.
#[inline(always)]
fn current<F: Family, T: Tables<F>>(
    tables: &T,
    frontend: &Frontend,
    parsed: &Parsed<F>,
    word: SlotWord,
    reason: Reason,
) -> Pick {
    let Some(owner) = word.current() else {
        return Pick::none(when_empty(frontend, opens_flow(parsed)));
    };
    match member_at(tables, frontend, owner) {
        Some(member) => Pick::of(member, reason),
        None => Pick::none(Reason::StaleReference),
    }
}

/// What happens to a packet when no backend is to be had. Only a new flow is refused: any other may be one that
/// kube-proxy's conntrack holds.
#[inline(always)]
const fn when_empty(frontend: &Frontend, opens_flow: bool) -> Reason {
    if frontend.has(frontend_flags::REJECT_WHEN_EMPTY) {
        return if opens_flow { Reason::EmptyRejected } else { Reason::EmptyPassed };
    }
    if frontend.has(frontend_flags::DROP_WHEN_EMPTY) { Reason::EmptyDropped } else { Reason::EmptyPassed }
}

/// What [`Asking`] ends with if no owner has more than an earlier connection of the tuple.
const WAITS: Reason = Reason::UnprovenOwner;

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
    fn is_to_search(&self) -> bool {
        self.reason == Reason::UnsearchedOwner
    }

    /// Whether nobody else needs to be asked.
    #[inline(always)]
    fn is_claim(&self) -> bool {
        self.reason != WAITS && self.reason != Reason::UnsearchedOwner
    }

    /// The other one if it has a claim, else where something waits; whoever says that owners are to be searched, they are.
    #[inline(always)]
    fn unless_better(self, other: Self) -> Self {
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

/// The backend, if the reference is not older than it.
#[inline(always)]
pub(crate) fn live<'a, F: Family, T: Tables<F>>(
    tables: &'a T,
    id: u32,
    generation: u32,
) -> Option<impl Deref<Target = Backend> + use<'a, F, T>> {
    tables.backend(id).filter(|backend| backend.is_in_use() && backend.generation == generation)
}

#[inline(always)]
fn parts<F: Family>(parsed: &Parsed<F>) -> FlowParts {
    FlowParts {
        client: F::to_hash(parsed.source.0),
        vip: F::to_hash(parsed.destination.0),
        client_port: u16::from_be_bytes(parsed.source.1),
        vip_port: u16::from_be_bytes(parsed.destination.1),
        protocol: parsed.transport.number(),
    }
}
