//! Which backend a packet goes to: the rules 1, 2, 4 and 5 of flow admission, in one table.
//!
//! | rule | packet | slot | goes to |
//! |---|---|---|---|
//! | 1 | SYN | one owner | that owner; nothing is looked up |
//! | 2 | SYN | previous owners | the newest owner whose kernel holds the tuple (half-open or open); else the current one |
//! | 4 | other TCP | one owner | that owner; nothing is looked up |
//! | 5 | other TCP | previous owners | the newest owner whose kernel holds the connection; else the one that gave the SYN cookie which the packet acknowledges; else the newest whose kernel has the request for it; else the newest where an earlier connection waits (TIME_WAIT); else the current one |
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
//! Rule 7 is [`crate::hot`]'s. No proof needs the number that a handshake began with: `docs/decisions/0042-no-proof-by-number.md`.

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
pub use self::pick::Pick;

use self::pick::WAITS;

mod owners;
mod pick;

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
    unproven(tables, frontend, parsed, found.reason())
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
        return Err(pick.reason());
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
    match pick.reason() {
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
    if pick.is_final() || !parsed.transport.acknowledges() {
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
