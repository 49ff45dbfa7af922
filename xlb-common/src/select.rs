//! Which backend a packet goes to: the rules 1, 2, 4 and 5 of flow admission, in one table.
//!
//! | rule | packet | slot | goes to |
//! |---|---|---|---|
//! | 1 | SYN | one owner | that owner; nothing is looked up |
//! | 2 | SYN | previous owners | the newest owner whose kernel holds the tuple (half-open or open); else the current one |
//! | 4 | other TCP | one owner | that owner; nothing is looked up |
//! | 5 | other TCP | previous owners | the newest owner whose kernel owns the connection; else the current one |
//! | 5 | UDP, and TCP of pods whose sockets cannot be seen | previous owners | the newest owner with a flow entry; else the current one |
//!
//! Their places for later: proof by initial sequence number and by SYN cookie belong into [`proves`], pins after the last
//! owner in [`among_owners`], hints and hot mode (rule 7) beside rule 4, the budget (rule 16) in front of rule 5.

use crate::abi::{Backend, Frontend, frontend_flags};
use crate::family::Family;
use crate::hash::{FlowParts, flow_hash, slot_of};
use crate::parse::{Parsed, Transport};
use crate::reason::Reason;
use crate::slot::{OWNERS, SlotWord};
use crate::tables::{FlowTable, Proof, Stage, Tables};

/// Where a packet goes, and why there.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Id of the backend.
    pub id: u32,
    /// The backend.
    pub backend: Backend,
    /// One of the forwarding reasons.
    pub reason: Reason,
}

/// The backend for a packet to `frontend`.
#[inline(always)]
pub fn select<F: Family, T: Tables<F>>(tables: &T, frontend: &Frontend, parsed: &Parsed<F>) -> Result<Choice, Reason> {
    if frontend.slots == 0 {
        let (id, generation) = (frontend.sole.id(), frontend.sole.generation);
        return chosen(tables, id, generation, Reason::SoleBackend);
    }
    let index = slot_of(flow_hash(parts(parsed)), frontend.slots);
    let word = tables.slot(frontend.slots_base.wrapping_add(index)).ok_or(Reason::StaleReference)?;
    tables.note(Stage::Slot { index, word });
    if !word.has_history() {
        return current::<F, T>(tables, frontend, word, Reason::SlotOwner);
    }
    match among_owners(tables, frontend, parsed, word) {
        Some(choice) => Ok(choice),
        None => current::<F, T>(tables, frontend, word, Reason::UnprovenOwner),
    }
}

/// Rules 2 and 5: the newest owner that has a claim.
#[inline(always)]
fn among_owners<F: Family, T: Tables<F>>(
    tables: &T,
    frontend: &Frontend,
    parsed: &Parsed<F>,
    word: SlotWord,
) -> Option<Choice> {
    for position in 0..OWNERS {
        let Some(owner) = word.owner(position) else {
            // A slot without a current owner still has previous ones behind the gap.
            if position == 0 { continue } else { break }
        };
        let Some((id, backend)) = owner_backend::<F, T>(tables, frontend, owner) else { continue };
        if let Some(reason) = claims(tables, owner, id, &backend, parsed) {
            return Some(Choice { id, backend, reason });
        }
    }
    None
}

/// Whether `backend` has a claim on the packet's flow, and by what.
#[inline(always)]
fn claims<F: Family, T: Tables<F>>(
    tables: &T,
    owner: u8,
    id: u32,
    backend: &Backend,
    parsed: &Parsed<F>,
) -> Option<Reason> {
    let key = F::flow_key(parsed.source, (F::from_stored(backend.address), backend.port));
    let (accepted, pending) = match parsed.transport {
        Transport::Tcp(tcp) if !backend.is_hidden() => {
            let proof = tables.prove(backend, &key);
            tables.note(Stage::Asked { owner, backend: id, proof });
            return proves(proof, tcp.is_syn()).then_some(Reason::ProvenOwner);
        }
        Transport::Tcp(_) => (FlowTable::Tcp, FlowTable::TcpPending),
        Transport::Udp => (FlowTable::Udp, FlowTable::UdpPending),
    };
    let is_live = |table| tables.flow(table, &key).is_some_and(|entry| !entry.is_closed() && entry.backend == id);
    let found = is_live(accepted) || is_live(pending);
    tables.note(Stage::LookedUp { owner, backend: id, found });
    found.then_some(Reason::RememberedOwner)
}

/// What counts as proof. A SYN follows a half-open request, so that its retransmission meets the same pod, and does not
/// follow TIME_WAIT, which a new connection may replace; any other packet needs a connection.
#[inline(always)]
const fn proves(proof: Proof, is_syn: bool) -> bool {
    match proof {
        Proof::Owned => true,
        Proof::HalfOpen => is_syn,
        Proof::TimeWait => !is_syn,
        Proof::Listening | Proof::Absent => false,
    }
}

/// The slot's current owner.
#[inline(always)]
fn current<F: Family, T: Tables<F>>(
    tables: &T,
    frontend: &Frontend,
    word: SlotWord,
    reason: Reason,
) -> Result<Choice, Reason> {
    let Some(owner) = word.current() else {
        return Err(when_empty(frontend));
    };
    let member = tables.member(frontend.members_base.wrapping_add(u32::from(owner))).ok_or(Reason::StaleReference)?;
    chosen(tables, member.id(), member.generation, reason)
}

/// What happens to a packet when no backend is to be had.
#[inline(always)]
#[must_use]
pub const fn when_empty(frontend: &Frontend) -> Reason {
    if frontend.flags & frontend_flags::DROP_WHEN_EMPTY != 0 { Reason::EmptyDropped } else { Reason::EmptyPassed }
}

#[inline(always)]
fn owner_backend<F: Family, T: Tables<F>>(tables: &T, frontend: &Frontend, owner: u8) -> Option<(u32, Backend)> {
    let member = tables.member(frontend.members_base.wrapping_add(u32::from(owner)))?;
    live(tables, member.id(), member.generation).map(|backend| (member.id(), backend))
}

#[inline(always)]
fn chosen<F: Family, T: Tables<F>>(tables: &T, id: u32, generation: u32, reason: Reason) -> Result<Choice, Reason> {
    let backend = live(tables, id, generation).ok_or(Reason::StaleReference)?;
    Ok(Choice { id, backend, reason })
}

/// The backend, if the reference is not older than it.
#[inline(always)]
fn live<F: Family, T: Tables<F>>(tables: &T, id: u32, generation: u32) -> Option<Backend> {
    let backend = tables.backend(id)?;
    (backend.is_in_use() && backend.generation == generation).then_some(backend)
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
