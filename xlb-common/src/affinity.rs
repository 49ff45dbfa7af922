//! Session affinity `ClientIP`: a client's new connections go where its last one went.
//!
//! The slots of such a service are chosen by the client's address alone, so a client meets one slot, and its record names
//! an owner of that slot, present or former. A slot without a history needs no record to be read: its owner is the one.
//!
//! | packet | record | goes to | what is written |
//! |---|---|---|---|
//! | new connection | younger than the timeout, of an owner that takes new connections | that owner | the record, with the time |
//! | new connection | none, too old, or of another backend | the slot's current owner | the record, with the time |
//! | inside a connection | not read | as for any service | - |
//!
//! New is a SYN, and a UDP datagram of a flow that no flow map knows.

use crate::abi::{AffinityEntry, Frontend, Member};
use crate::family::Family;
use crate::parse::Parsed;
use crate::select::{Pick, member_at};
use crate::slot::{OWNERS, SlotWord};
use crate::tables::{Stage, Tables};

const NS_PER_S: u64 = 1_000_000_000;

/// The member of the slot that a new connection's client went to last, if the record counts.
#[inline(always)]
pub fn recorded_owner<F: Family, T: Tables<F>>(
    tables: &T,
    frontend: &Frontend,
    parsed: &Parsed<F>,
    word: SlotWord,
) -> Option<Member> {
    let record = tables.affinity(frontend.service, parsed.source.0)?;
    // A clock that is read on another CPU may be a tick behind the record's.
    let age_ns = tables.now_ns().saturating_sub(record.last_new_ns);
    let is_young = age_ns <= u64::from(frontend.affinity_s) * NS_PER_S;
    let owner = if is_young { owner_of::<F, T>(tables, frontend, word, &record) } else { None };
    let followed = owner.filter(Member::takes_new);
    tables.note(Stage::Affinity { backend: record.backend, age_ns, is_followed: followed.is_some() });
    followed
}

/// The record's backend, as one of the slot's owners.
#[inline(always)]
fn owner_of<F: Family, T: Tables<F>>(
    tables: &T,
    frontend: &Frontend,
    word: SlotWord,
    record: &AffinityEntry,
) -> Option<Member> {
    for position in 0..OWNERS {
        let Some(owner) = word.owner(position) else { continue };
        if let Some(member) = member_at(tables, frontend, owner)
            && member.id() == record.backend
            && member.generation == record.generation
        {
            return Some(member);
        }
    }
    None
}

/// Records where a new connection to a service with affinity went.
#[inline(never)]
pub fn record<F: Family, T: Tables<F>>(tables: &T, service: u32, parsed: &Parsed<F>, pick: Pick) {
    let (backend, generation) = pick.reference();
    tables.record_affinity(
        service,
        parsed.source.0,
        &AffinityEntry { backend, generation, last_new_ns: tables.now_ns() },
    );
}
