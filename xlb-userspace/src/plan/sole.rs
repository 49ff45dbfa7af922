//! To which pod ports one frontend alone leads, and always has: what their pods answer can be told without a flow entry
//! (`xlb_common::sole`).
//!
//! An entry is written with the backend that it is about, and goes, before anything else happens, as soon as another frontend
//! is to lead there. It does not come again: connections by the other one may live as long as the pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use xlb_common::abi::{Member, SoleFrontend};

use super::backends::stored;
use super::desired::{DesiredService, Protocol};
use super::endpoint::Endpoint;
use super::observed::Observed;
use super::op::Op;

/// The frontends that a plan leads to pods.
pub(super) struct Soles<'a> {
    observed: &'a Observed,
    /// What all services have.
    whole: &'a Observed,
    /// Whether any is asked for.
    are_wanted: bool,
    /// The frontends that each service has now: they lead to its pods until the plan is done.
    present: BTreeMap<u32, BTreeSet<SocketAddr>>,
    led: BTreeMap<Endpoint, Led>,
}

/// What leads to a pod.
#[derive(Default)]
struct Led {
    backend: Member,
    frontends: BTreeSet<SocketAddr>,
    service: u32,
    /// Whether the host's stack may have connections of one of them, which came by who knows what.
    is_hosts: bool,
}

impl<'a> Soles<'a> {
    pub(super) fn new((observed, whole): (&'a Observed, &'a Observed), limit: u32) -> Self {
        let mut present: BTreeMap<u32, BTreeSet<SocketAddr>> = BTreeMap::new();
        for (key, frontend) in observed.frontends.iter().filter(|_| limit > 0) {
            present.entry(frontend.service).or_default().insert(key.socket);
        }
        Self { observed, whole, are_wanted: limit > 0, present, led: BTreeMap::new() }
    }

    /// Notes that these VIPs of a service lead to these backends.
    pub(super) fn lead(
        &mut self,
        id: u32,
        vips: &[Endpoint],
        service: &DesiredService,
        backends: impl Iterator<Item = (Endpoint, Member)>,
    ) {
        if !self.are_wanted {
            return;
        }
        for (pod, backend) in backends.filter(|(pod, _)| pod.protocol == Protocol::Tcp) {
            let led = self.led.entry(pod).or_default();
            led.backend = Member { flags: 0, ..backend };
            led.service = id;
            led.frontends
                .extend(vips.iter().map(|vip| vip.socket).chain(self.present.get(&id).into_iter().flatten().copied()));
            led.is_hosts |= !service.host_before.is_empty();
        }
    }

    /// What is put, once the backends are there, and what is removed, before anything else.
    pub(super) fn changes(&self) -> (Vec<Op>, Vec<Op>) {
        let (mut puts, mut removals) = (Vec::new(), Vec::new());
        for (&pod, led) in &self.led {
            let was = self.observed.sole_frontends.get(&pod);
            match (self.wanted(&pod, led), was) {
                (Some(sole), was) if was == Some(&sole) => {}
                (Some(sole), _) => puts.push(Op::PutSoleFrontend { pod, sole }),
                (None, Some(_)) => removals.push(Op::RemoveSoleFrontend { pod }),
                (None, None) => {}
            }
        }
        let gone = self.observed.sole_frontends.keys().filter(|pod| !self.led.contains_key(pod));
        removals.extend(gone.map(|&pod| Op::RemoveSoleFrontend { pod }));
        (puts, removals)
    }

    fn wanted(&self, pod: &Endpoint, led: &Led) -> Option<SoleFrontend> {
        let was = self.observed.sole_frontends.get(pod).filter(|was| was.backend == led.backend);
        let mut frontends = led.frontends.iter();
        match (frontends.next(), frontends.next()) {
            _ if led.is_hosts => None,
            // Its connections go on until the pod ends.
            (None, _) => was.copied(),
            (Some(frontend), None) => {
                let sole = sole(frontend, led);
                let is_same = |was: &SoleFrontend| (was.vip, was.vip_port) == (sole.vip, sole.vip_port);
                (self.is_new(pod, led) || was.is_some_and(is_same)).then_some(sole)
            }
            (Some(_), Some(_)) => None,
        }
    }

    /// Whether the plan makes the backend: then nothing has ever led to it.
    fn is_new(&self, pod: &Endpoint, led: &Led) -> bool {
        let id = led.backend.id();
        let is_known = self.whole.backend_ids.get(pod) == Some(&id)
            && self.whole.backends.get(&id).is_some_and(|was| was.generation == led.backend.generation);
        !is_known
    }
}

fn sole(frontend: &SocketAddr, led: &Led) -> SoleFrontend {
    let ip: IpAddr = frontend.ip();
    SoleFrontend {
        backend: led.backend,
        vip: stored(ip).0,
        vip_port: frontend.port().to_be_bytes(),
        zero: [0; 2],
        service: led.service,
    }
}
