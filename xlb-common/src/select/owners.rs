//! Which of a slot's owners has a claim on a packet, and by what.

use core::ops::Deref;

use super::pick::{ASKED, Pick, WAITS};
use super::{live, member_at};
use crate::abi::{Backend, FlowEntry, Frontend, Member};
use crate::admit::{holder, is_to};
use crate::family::Family;
use crate::parse::Parsed;
use crate::reason::Reason;
use crate::slot::{OWNERS, SlotWord};
use crate::tables::{FlowTable, Proof, Stage, Step, Tables};
use crate::twin::{SeatKind, look};

/// A slot's owners, or all members that slots forgot, asked one by one whether they have a claim on a packet.
pub(super) struct Asking<'a, F: Family> {
    pub(super) frontend: &'a Frontend,
    pub(super) parsed: &'a Parsed<F>,
    pub(super) word: SlotWord,
    /// Who has the best claim so far; of several that are as good, the first.
    pub(super) pick: Pick,
}

impl<F: Family, T: Tables<F>> Step<T> for Asking<'_, F> {
    #[inline(always)]
    fn step(&mut self, tables: &T, place: u32) -> bool {
        // A slot without a current owner still has previous ones behind the gap.
        let Some(owner) = owner_at(self.word, place) else { return place != 0 };
        let Some((member, backend)) = owner_backend::<F, T>(tables, self.frontend, self.word, owner) else {
            return false;
        };
        let claim = claims(tables, owner, member.id(), &backend, self.parsed);
        let is_better = match claim {
            Claim::Nothing => false,
            Claim::Waits => !self.pick.has_backend(),
            Claim::Asked => self.pick.reason() == WAITS,
            Claim::Remembered | Claim::Holds => true,
        };
        if is_better {
            self.pick = Pick::of(member, claim.reason());
        }
        // A SYN goes where it was before: nobody behind has more of it.
        self.pick.is_final() || self.pick.is_claim() && self.parsed.transport.is_syn()
    }
}

/// The same owners, asked whether they gave the SYN cookie that the packet acknowledges.
pub(super) struct AskingForCookies<'a, F: Family>(pub(super) Asking<'a, F>);

impl<F: Family, T: Tables<F>> Step<T> for AskingForCookies<'_, F> {
    #[inline(always)]
    fn step(&mut self, tables: &T, place: u32) -> bool {
        let Asking { frontend, parsed, word, ref mut pick } = self.0;
        let Some(owner) = owner_at(word, place) else { return place != 0 };
        let Some((member, backend)) = owner_backend::<F, T>(tables, frontend, word, owner) else { return false };
        let key = F::flow_key(parsed.source.pair(), (F::from_stored(backend.address), backend.port));
        let found = tables.gave_cookie(&key, parsed.transport.segment());
        if found {
            *pick = Pick::of(member, Reason::ProvenOwner);
        }
        found
    }
}

/// Where the flow's owner was found before, if somewhere. A function by itself, as the two that follow: their keys would lie on the
/// stack below the search's steps.
#[inline(never)]
pub(super) fn pinned<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>) -> Pick {
    let key = F::flow_key(parsed.source.pair(), parsed.destination.pair());
    tables.pin(&key).map_or(Pick::none(WAITS), |member| Pick::of(member, WAITS))
}

/// The same backend, if it has a claim.
#[inline(never)]
pub(super) fn still_claims<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, pinned: Pick) -> Pick {
    let (id, generation) = pinned.reference();
    let Some(backend) = live(tables, id, generation) else { return Pick::none(WAITS) };
    match claims(tables, 0, id, &backend, parsed).reason() {
        WAITS => Pick::none(WAITS),
        Reason::RememberedOwner => pinned.because(Reason::RememberedOwner),
        _ => pinned.because(Reason::ProvenOwner),
    }
}

/// Writes where the flow's owner was found.
#[inline(never)]
pub(super) fn pin<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, found: Pick) {
    let key = F::flow_key(parsed.source.pair(), parsed.destination.pair());
    let (id, generation) = found.reference();
    tables.record_pin(&key, &Member { backend: id as u16, flags: 0, generation });
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
    /// By nothing.
    Nothing,
    /// Its kernel has an earlier connection of the tuple in TIME_WAIT: the present one may be with another owner.
    Waits,
    /// Its kernel has a request for the connection. It may be a SYN sent again, which nobody knew whose it was: the first one may
    /// have been answered by another owner's cookie, and the connection be there.
    Asked,
    /// A flow map names it.
    Remembered,
    /// Its kernel has the connection.
    Holds,
}

impl Claim {
    #[inline(always)]
    const fn reason(self) -> Reason {
        match self {
            Self::Nothing | Self::Waits => WAITS,
            Self::Asked => ASKED,
            Self::Remembered => Reason::RememberedOwner,
            Self::Holds => Reason::ProvenOwner,
        }
    }
}

/// Whether `backend` has a claim on the packet's flow, and by what.
#[inline(always)]
fn claims<F: Family, T: Tables<F>>(tables: &T, owner: u8, id: u32, backend: &Backend, parsed: &Parsed<F>) -> Claim {
    let key = F::flow_key(parsed.source.pair(), (F::from_stored(backend.address), backend.port));
    let (accepted, pending) = match parsed.transport.tcp() {
        Some(tcp) if !backend.is_hidden() => {
            let proof = tables.prove(backend, &key);
            tables.note(Stage::Asked { owner, backend: id, proof });
            if !proves(proof, tcp.is_syn()) {
                return Claim::Nothing;
            }
            if holder(tables, &key, proof).is_some_and(|entry| !is_to(&entry, parsed)) {
                tables.note(Stage::OtherFrontend { owner });
                return Claim::Nothing;
            }
            return match proof {
                Proof::TimeWait => Claim::Waits,
                Proof::HalfOpen => Claim::Asked,
                _ => Claim::Holds,
            };
        }
        None if parsed.transport.is_udp() => (FlowTable::Udp, FlowTable::UdpPending),
        Some(_) => (FlowTable::Tcp, FlowTable::TcpPending),
        None => (FlowTable::Sctp, FlowTable::SctpPending),
    };
    // A closed association still has its last packets.
    let is_over = |entry: &FlowEntry| entry.is_closed() && !parsed.transport.is_inside_association();
    let is_claim = |entry: &FlowEntry| u32::from(entry.backend) == id && is_to(entry, parsed) && !is_over(entry);
    let is_live = |table| tables.flow_at(table, &key).is_some_and(|entry| is_claim(&entry));
    let found = is_live(accepted) || is_live(pending);
    tables.note(Stage::LookedUp { owner, backend: id, found });
    if found { Claim::Remembered } else { Claim::Nothing }
}

/// A slot's owners, or all members that slots forgot, looked for at `PLACES` places of a datagram's flow.
pub(super) struct AskingDatagrams<'a, F: Family, const PLACES: u32> {
    pub(super) frontend: &'a Frontend,
    pub(super) parsed: &'a Parsed<F>,
    pub(super) word: SlotWord,
    /// Where the flow was last: it may have been elsewhere before, with an owner that did not serve for a while.
    pub(super) pick: Pick,
    /// When that was.
    pub(super) last_seen: u32,
}

impl<F: Family, T: Tables<F>, const PLACES: u32> Step<T> for AskingDatagrams<'_, F, PLACES> {
    #[inline(always)]
    fn step(&mut self, tables: &T, index: u32) -> bool {
        let (position, place) = (index / PLACES, index % PLACES);
        let Some(owner) = owner_at(self.word, position) else { return position != 0 };
        let Some((member, backend)) = owner_backend::<F, T>(tables, self.frontend, self.word, owner) else {
            return false;
        };
        let (seat, last_seen) = look(tables, &self.parsed.source, &self.parsed.destination, &backend, place);
        let found = seat.kind == SeatKind::Own && u32::from(seat.backend) == member.id();
        if found || place == 0 {
            tables.note(Stage::LookedUp { owner, backend: member.id(), found });
        }
        if PLACES == 1 && !self.pick.has_backend() && matches!(seat.kind, SeatKind::Idle | SeatKind::Taken) {
            self.pick = Pick::none(Reason::OtherFrontend);
            return true;
        }
        // Who has served for longer has come back less: of two entries of one second, the earlier owner's is the newer.
        if found && (!self.pick.has_backend() || !is_before(last_seen, self.last_seen)) {
            self.pick = Pick::of(member, Reason::RememberedOwner);
            self.last_seen = last_seen;
        }
        // Nothing is newer than now: most flows need not look further.
        found && last_seen == tables.now()
    }
}

/// Whether the first of two times of [`Tables::now`] is before the other.
#[inline(always)]
const fn is_before(time: u32, other: u32) -> bool {
    (time.wrapping_sub(other) as i32) < 0
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
