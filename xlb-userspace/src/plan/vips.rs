//! Which addresses are VIPs, and which of them have somebody behind them on this node. Several services may share one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use xlb_common::abi::{Frontend, vip_flags};

use super::desired::Protocol;
use super::endpoint::Endpoint;
use super::observed::Observed;
use super::op::Op;

/// The entries that a plan leads to.
pub(super) struct Vips<'a> {
    /// What the services of the plan have.
    pub(super) observed: &'a Observed,
    /// What all services have.
    pub(super) whole: &'a Observed,
    /// The frontends of the plan.
    pub(super) planned: &'a BTreeMap<Endpoint, Frontend>,
    /// The ids of its services, and whether they have a backend that takes new connections.
    pub(super) served: &'a BTreeMap<u32, bool>,
}

impl Vips<'_> {
    /// What is put, after the frontends, and what is removed, before them: a VIP without an entry is served as well.
    pub(super) fn changes(&self) -> (Vec<Op>, Vec<Op>) {
        let (mut puts, mut removals) = (Vec::new(), Vec::new());
        for address in self.addresses() {
            match (self.flags(address), self.whole.vips.get(&address)) {
                (Some(flags), was) if was != Some(&flags) => puts.push(Op::PutVip { address, flags }),
                (None, Some(_)) => removals.push(Op::RemoveVip { address }),
                _ => {}
            }
        }
        (puts, removals)
    }

    /// Those that may be others than before.
    fn addresses(&self) -> BTreeSet<IpAddr> {
        let known = self.observed.vips.keys().copied();
        let keys = self.planned.keys().chain(self.observed.frontends.keys());
        known.chain(keys.map(|key| key.socket.ip())).collect()
    }

    fn flags(&self, address: IpAddr) -> Option<u32> {
        let planned = at(self.planned, address).map(|(_, frontend)| self.served.get(&frontend.service) == Some(&true));
        let is_others = |key: &Endpoint| !self.observed.frontends.contains_key(key);
        let others = at(&self.whole.frontends, address).filter(|(key, _)| is_others(key));
        let all = planned.chain(others.map(|(_, frontend)| is_usable(self.whole, frontend)));
        all.reduce(|one, other| one || other).map(|usable| if usable { vip_flags::USABLE } else { 0 })
    }
}

fn at(frontends: &BTreeMap<Endpoint, Frontend>, address: IpAddr) -> impl Iterator<Item = (&Endpoint, &Frontend)> {
    let first = Endpoint { socket: SocketAddr::new(address, 0), protocol: Protocol::Tcp };
    let last = Endpoint { socket: SocketAddr::new(address, u16::MAX), protocol: Protocol::Sctp };
    frontends.range(first..=last)
}

/// Whether a frontend's service has a backend that takes new connections: then each of its slots has an owner.
fn is_usable(observed: &Observed, frontend: &Frontend) -> bool {
    let word = || observed.slots.get(&frontend.slots_base)?.first()?.current();
    frontend.slots == 0 || word().is_some()
}
