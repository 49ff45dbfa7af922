//! Who served a VIP for another service until now: connections of any slot may be theirs, as the other service's slots
//! need not be those of this one.

use std::collections::BTreeMap;

use xlb_common::abi::{Frontend, Member};

use super::endpoint::Endpoint;
use super::observed::Observed;

/// How much of a VIP's connections a member may have: the slots that it owns, then those that it owned before. The last
/// to be forgotten is the one with most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Holding {
    owned: u32,
    owned_before: u32,
}

/// The members of other services that have one of these VIPs, each by its backend and generation.
#[derive(Default)]
pub(super) struct Formers(BTreeMap<(u16, u32), Holding>);

impl Formers {
    /// Those of the VIPs that service `id` is to have.
    pub(super) fn of(observed: &Observed, id: u32, vips: &[Endpoint]) -> Self {
        let mut formers = Self::default();
        let frontends = vips.iter().filter_map(|key| observed.frontends.get(key));
        for frontend in frontends.filter(|frontend| frontend.service != id) {
            formers.add(observed, frontend);
        }
        formers
    }

    /// What a member has, if it is one of them.
    pub(super) fn holding(&self, member: &Member) -> Option<Holding> {
        self.0.get(&(member.backend, member.generation)).copied()
    }

    fn add(&mut self, observed: &Observed, frontend: &Frontend) {
        if frontend.slots == 0 {
            self.note(&frontend.sole, Holding { owned: u32::MAX, owned_before: 0 });
            return;
        }
        let Some(service) = observed.services.get(&frontend.service) else { return };
        let mut holdings = [Holding::default(); 256];
        for word in observed.words(service).into_iter().flatten() {
            word.current().into_iter().for_each(|owner| holdings[usize::from(owner)].owned += 1);
            word.previous().for_each(|owner| holdings[usize::from(owner)].owned_before += 1);
        }
        for (index, holding) in (service.members_base..).zip(holdings).take(service.members as usize) {
            // Of one that no word names, words may say that they forgot somebody.
            let may_hold = |member: &&Member| holding != Holding::default() || member.is_forgotten();
            if let Some(member) = observed.members.get(&index).filter(may_hold) {
                self.note(member, holding);
            }
        }
    }

    fn note(&mut self, member: &Member, holding: Holding) {
        let known = self.0.entry((member.backend, member.generation)).or_default();
        *known = holding.max(*known);
    }
}
