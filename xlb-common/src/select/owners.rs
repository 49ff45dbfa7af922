//! Which of a slot's owners has a claim on a packet, and by what.

use core::ops::Deref;

use super::{Pick, WAITS, live, member_at};
use crate::abi::{Backend, FlowEntry, Frontend, Member};
use crate::admit::{holder, is_to, newest_udp};
use crate::family::Family;
use crate::parse::Parsed;
use crate::reason::Reason;
use crate::slot::{OWNERS, SlotWord};
use crate::tables::{FlowTable, Proof, Stage, Step, Tables};
use crate::twin::{PLACES, SeatKind, look};

/// A slot's owners, or all members that slots forgot, asked one by one: by the first steps whether they have a claim, by as many
/// others whether they gave the SYN cookie that the packet acknowledges.
pub(super) struct Asking<'a, F: Family> {
    pub(super) frontend: &'a Frontend,
    pub(super) parsed: &'a Parsed<F>,
    pub(super) word: SlotWord,
    /// The first that had a claim; until there is one, the first where an earlier connection of the tuple waits.
    pub(super) pick: Pick,
}

impl<F: Family, T: Tables<F>> Step<T> for Asking<'_, F> {
    #[inline(always)]
    fn step(&mut self, tables: &T, index: u32) -> bool {
        let places = places(self.frontend, self.word);
        let is_second = index >= places;
        let place = if is_second { index - places } else { index };
        let Some(owner) = owner_at(self.word, place) else {
            // A slot without a current owner still has previous ones behind the gap.
            return place != 0 && (is_second || !self.parsed.transport.acknowledges());
        };
        let Some((member, backend)) = owner_backend::<F, T>(tables, self.frontend, self.word, owner) else {
            return false;
        };
        if is_second {
            let key = F::flow_key(self.parsed.source.pair(), (F::from_stored(backend.address), backend.port));
            let found = tables.gave_cookie(key, self.parsed.transport.segment());
            if found {
                self.pick = Pick::of(member, Reason::ProvenOwner);
            }
            return found;
        }
        let Some(claim) = claims(tables, owner, member.id(), &backend, self.parsed) else { return false };
        if claim == Claim::Waits {
            if !self.pick.has_backend() {
                self.pick = Pick::of(member, WAITS);
            }
            return false;
        }
        self.pick = Pick::of(member, claim.reason());
        true
    }
}

/// The backend where the flow's owner was found before, if it still has a claim. A function by itself, as what comes after: their keys
/// would lie on the stack below the search's steps.
#[inline(never)]
pub(super) fn pinned<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>) -> Pick {
    let nobody = Pick::none(Reason::UnprovenOwner);
    let key = F::flow_key(parsed.source.pair(), parsed.destination.pair());
    let Some(member) = tables.pin(&key) else { return nobody };
    let Some(backend) = live(tables, member.id(), member.generation) else { return nobody };
    match claims(tables, 0, member.id(), &backend, parsed) {
        None | Some(Claim::OtherFrontend) => nobody,
        Some(claim) => Pick::of(member, claim.reason()),
    }
}

/// Writes where the flow's owner was found, if somewhere.
#[inline(never)]
pub(super) fn pin<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, found: Pick) {
    if found.has_backend() {
        let key = F::flow_key(parsed.source.pair(), parsed.destination.pair());
        tables.record_pin(&key, &Member { backend: found.id, flags: 0, generation: found.generation });
    }
}

/// How many places for owners there are.
#[inline(always)]
pub(super) const fn places(frontend: &Frontend, word: SlotWord) -> u32 {
    if word.is_forgotten() { frontend.members as u32 } else { OWNERS as u32 }
}

/// The local index of the owner at that place, if there is one.
#[inline(always)]
const fn owner_at(word: SlotWord, place: u32) -> Option<u8> {
    if word.is_forgotten() { Some(place as u8) } else { word.owner(place as usize) }
}

#[inline(always)]
fn owner_backend<'a, F: Family, T: Tables<F>>(
    tables: &'a T,
    frontend: &Frontend,
    word: SlotWord,
    owner: u8,
) -> Option<(Member, impl Deref<Target = Backend> + use<'a, F, T>)> {
    let member = member_at(tables, frontend, owner).filter(|member| !word.is_forgotten() || member.is_forgotten())?;
    live(tables, member.id(), member.generation).map(|backend| (member, backend))
}

/// By what an owner has a claim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// Its kernel has the connection, or the request for it.
    Holds,
    /// Its kernel has an earlier connection of the tuple in TIME_WAIT: the present one may be with another owner.
    Waits,
    /// A flow map names it.
    Remembered,
    /// A flow map names it with another frontend, which has to be looked into.
    OtherFrontend,
}

impl Claim {
    #[inline(always)]
    const fn reason(self) -> Reason {
        match self {
            Self::Holds | Self::Waits => Reason::ProvenOwner,
            Self::Remembered => Reason::RememberedOwner,
            Self::OtherFrontend => Reason::OtherFrontend,
        }
    }
}

/// Whether `backend` has a claim on the packet's flow, and by what.
#[inline(always)]
fn claims<F: Family, T: Tables<F>>(
    tables: &T,
    owner: u8,
    id: u32,
    backend: &Backend,
    parsed: &Parsed<F>,
) -> Option<Claim> {
    let key = F::flow_key(parsed.source.pair(), (F::from_stored(backend.address), backend.port));
    let (accepted, pending) = match parsed.transport.tcp() {
        Some(tcp) if !backend.is_hidden() => {
            let proof = tables.prove(backend, &key);
            tables.note(Stage::Asked { owner, backend: id, proof });
            if !proves(proof, tcp.is_syn()) {
                return None;
            }
            if holder(tables, &key, proof).is_some_and(|entry| !is_to(&entry, parsed)) {
                tables.note(Stage::OtherFrontend { owner });
                return None;
            }
            return Some(if proof == Proof::TimeWait { Claim::Waits } else { Claim::Holds });
        }
        None if parsed.transport.is_udp() => return claims_datagram(tables, owner, id, &key, parsed),
        Some(_) => (FlowTable::Tcp, FlowTable::TcpPending),
        None => (FlowTable::Sctp, FlowTable::SctpPending),
    };
    // A closed association still has its last packets.
    let is_over = |entry: &FlowEntry| entry.is_closed() && !parsed.transport.is_inside_association();
    let is_claim = |entry: &FlowEntry| u32::from(entry.backend) == id && is_to(entry, parsed) && !is_over(entry);
    let is_live = |table| tables.flow_at(table, &key).is_some_and(|entry| is_claim(&entry));
    let found = is_live(accepted) || is_live(pending);
    tables.note(Stage::LookedUp { owner, backend: id, found });
    found.then_some(Claim::Remembered)
}

/// Of a datagram: by the flow's entry.
#[inline(always)]
fn claims_datagram<F: Family, T: Tables<F>>(
    tables: &T,
    owner: u8,
    id: u32,
    key: &F::FlowKey,
    parsed: &Parsed<F>,
) -> Option<Claim> {
    let found = match newest_udp(tables, key) {
        None => false,
        Some(entry) if is_to(&entry, parsed) => u32::from(entry.backend) == id,
        Some(_) => return Some(Claim::OtherFrontend),
    };
    tables.note(Stage::LookedUp { owner, backend: id, found });
    found.then_some(Claim::Remembered)
}

/// A slot's owners, of which each is looked for at all places of a datagram's flow.
pub(super) struct AskingTwins<'a, F: Family> {
    pub(super) frontend: &'a Frontend,
    pub(super) parsed: &'a Parsed<F>,
    pub(super) word: SlotWord,
    /// The first that has the flow.
    pub(super) pick: Pick,
}

impl<F: Family, T: Tables<F>> Step<T> for AskingTwins<'_, F> {
    #[inline(always)]
    fn step(&mut self, tables: &T, index: u32) -> bool {
        let (position, place) = (index / PLACES, index % PLACES);
        let Some(owner) = owner_at(self.word, position) else { return position != 0 };
        let Some((member, backend)) = owner_backend::<F, T>(tables, self.frontend, self.word, owner) else {
            return false;
        };
        let seat = look(tables, &self.parsed.source, &self.parsed.destination, &backend, place);
        let found = seat.kind == SeatKind::Own && u32::from(seat.backend) == member.id();
        if found {
            tables.note(Stage::LookedUp { owner, backend: member.id(), found });
            self.pick = Pick::of(member, Reason::RememberedOwner);
        }
        found
    }
}

/// What counts as proof. Every packet follows a half-open request: a SYN sent again, and the acknowledgement that ends the
/// handshake, which may be with a former owner. A SYN does not follow TIME_WAIT, which a new connection may replace.
#[inline(always)]
pub(crate) const fn proves(proof: Proof, is_syn: bool) -> bool {
    match proof {
        Proof::Owned | Proof::HalfOpen => true,
        Proof::TimeWait => !is_syn,
        Proof::Listening | Proof::Absent => false,
    }
}
