//! A frontend that the host's stack served a while ago, as kube-proxy does for the cluster: its connections are in the
//! host's conntrack, and go on there until they end.
//!
//! | packet | goes to |
//! |---|---|
//! | SYN | where it always goes: what begins now is xlb's |
//! | other TCP, of a flow that came through xlb to an owner of its slot, present or former | that owner |
//! | other TCP | the host's stack, as it came |
//! | UDP | where it always goes: nothing tells a datagram of a flow from before from a new one |
//!
//! The flow maps say what came through xlb, not the pod's kernel: a connection that conntrack led to a pod of this node
//! is known to that pod's kernel as well, under the same addresses, and netfilter has to see both its directions.

use crate::abi::{Frontend, Member, frontend_flags};
use crate::admit::{is_to, tcp_flow};
use crate::family::Family;
use crate::parse::Parsed;
use crate::reason::Reason;
use crate::select::{Pick, index_apart, is_rehashed, live, member_at, opens_flow, proves, word_at};
use crate::slot::{OWNERS, SlotWord};
use crate::tables::{Stage, Step, Tables};

/// By which hashes of a flow its slot is found: all of it, or its client alone.
const HASHES: usize = 2;

/// Whether the packet may be one of a connection that the host's stack has.
#[inline(always)]
pub fn may_be_hosts<F: Family>(frontend: &Frontend, parsed: &Parsed<F>) -> bool {
    frontend.has(frontend_flags::HOST_BEFORE) && !opens_flow(parsed)
}

/// The newest owner that the packet's flow came to through xlb; else the host's stack.
#[inline(always)]
pub fn pick_by_entry<F: Family, T: Tables<F>>(tables: &T, frontend: &Frontend, parsed: &Parsed<F>) -> Pick {
    let mut is_by_client = frontend.affinity_s != 0;
    for _ in 0..HASHES {
        let Some(word) = owners_of(tables, frontend, parsed, is_by_client) else {
            return Pick::none(Reason::StaleReference);
        };
        let nobody = Pick::none(Reason::LeftToFormer);
        let LookingUp { pick, .. } =
            tables.each_until(OWNERS as u32, LookingUp { frontend, parsed, word, pick: nobody });
        if pick.has_backend() {
            return pick.because(reason_of(frontend));
        }
        if !is_rehashed(frontend, parsed) {
            break;
        }
        is_by_client = !is_by_client;
    }
    Pick::none(Reason::LeftToFormer)
}

/// The slot's owners; a sole backend is the only one.
#[inline(always)]
fn owners_of<F: Family, T: Tables<F>>(
    tables: &T,
    frontend: &Frontend,
    parsed: &Parsed<F>,
    is_by_client: bool,
) -> Option<SlotWord> {
    if frontend.slots == 0 {
        return Some(SlotWord::owned_by(0));
    }
    let index = index_apart(frontend, parsed, is_by_client);
    let word = word_at(tables, frontend, index)?;
    tables.note(Stage::Slot { index, word });
    Some(word)
}

#[inline(always)]
fn member_of<F: Family, T: Tables<F>>(tables: &T, frontend: &Frontend, owner: u8) -> Option<Member> {
    if frontend.slots == 0 { Some(frontend.sole) } else { member_at(tables, frontend, owner) }
}

#[inline(always)]
const fn reason_of(frontend: &Frontend) -> Reason {
    if frontend.slots == 0 { Reason::SoleBackend } else { Reason::RememberedOwner }
}

/// A slot's owners, looked for in the flow maps one by one.
struct LookingUp<'a, F: Family> {
    frontend: &'a Frontend,
    parsed: &'a Parsed<F>,
    word: SlotWord,
    /// The first that the flow came to.
    pick: Pick,
}

impl<F: Family, T: Tables<F>> Step<T> for LookingUp<'_, F> {
    #[inline(always)]
    fn step(&mut self, tables: &T, position: u32) -> bool {
        // A slot without a current owner still has previous ones behind the gap.
        let Some(owner) = self.word.owner(position as usize) else { return false };
        let Some(member) = member_of(tables, self.frontend, owner) else { return false };
        if !came_through_xlb::<F, T>(tables, owner, member, self.parsed) {
            return false;
        }
        self.pick = Pick::of(member, reason_of(self.frontend));
        true
    }
}

/// Whether a flow map knows the flow with this member, and this frontend. Of a flow that the pod's socket closed, the pod's kernel has the
/// last word: the host may have a later one with the same ports.
#[inline(always)]
fn came_through_xlb<F: Family, T: Tables<F>>(tables: &T, owner: u8, member: Member, parsed: &Parsed<F>) -> bool {
    let Some(backend) = live(tables, member.id(), member.generation) else { return false };
    let key = F::flow_key(parsed.source.pair(), (F::from_stored(backend.address), backend.port));
    let found = tcp_flow(tables, &key).is_some_and(|entry| {
        let holds = || !backend.is_hidden() && proves(tables.prove(&backend, &key), false);
        u32::from(entry.backend) == member.id() && is_to(&entry, parsed) && (!entry.is_closed() || holds())
    });
    tables.note(Stage::LookedUp { owner, backend: member.id(), found });
    found
}
