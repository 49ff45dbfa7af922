//! When a TCP flow is over: rule 10 of flow admission. FLOWS holds what lives; where the pod's kernel tells of the end of a
//! connection, its flow leaves FLOWS at once, so that no live one is evicted for it.
//!
//! Of pods whose sockets cannot be seen nobody tells, and a connection may have ended while nobody listened: such flows the
//! agent finds and removes (`ageing` in `xlb-userspace`), by what is kept here of the pod's packets.

use crate::abi::{FlowEntry, flow_flags};
use crate::family::Family;
use crate::parse::TcpView;
use crate::reason::Reason;
use crate::tables::{FlowTable, Tables};

impl FlowEntry {
    /// Whether its packets alone tell of an accepted TCP flow.
    #[inline(always)]
    #[must_use]
    pub fn is_unseen(&self) -> bool {
        self.flags & flow_flags::UNSEEN != 0
    }

    /// Whether it is this pending entry, admitted by the pod's packets, which may have told more since, or as it was.
    #[inline(always)]
    #[must_use]
    pub fn is_admitted_from(&self, pending: &Self) -> bool {
        let last_seen = if self.is_unseen() { pending.last_seen } else { self.last_seen };
        Self { flags: pending.flags, last_seen, ..*self } == *pending
    }

    /// Whether nothing of an accepted TCP flow has to be looked into: most are so, and one comparison tells.
    #[inline(always)]
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.flags & (flow_flags::SUPERSEDED | flow_flags::UNSEEN) == 0
    }
}

/// The pod's socket closed. Late packets of the flow still need the entry, for some time: a retransmitted FIN is acknowledged
/// from TIME_WAIT, and the reset of a socket that is closed with unread data leaves after this event. PENDING has it for so
/// long, in FLOWS it would push out flows that live. A handshake with another frontend that came after it keeps its entry.
///
/// Other programs may have asked for the events of sockets that xlb has nothing to do with.
#[inline(always)]
pub fn closed<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, pod: &F::EndpointKey) -> Option<Reason> {
    let Some(mut entry) = tables.flow(FlowTable::Tcp, key) else {
        return tables.is_backend(pod).then_some(Reason::ClosedUnknown);
    };
    if !entry.is_superseded() {
        entry.flags |= flow_flags::CLOSED;
        tables.remember(FlowTable::TcpPending, key, &entry);
    }
    tables.forget(FlowTable::Tcp, key);
    Some(Reason::Closed)
}

/// Rule 10: the pod's packets say that an unseen flow goes on, and how it ends. False: there is none.
#[inline(always)]
pub fn heard_unseen<F: Family, T: Tables<F>>(tables: &T, key: &F::FlowKey, tcp: &TcpView) -> bool {
    let Some(entry) = tables.flow_at(FlowTable::Tcp, key) else { return false };
    if !entry.is_unseen() || entry.is_superseded() {
        return false;
    }
    let end = match (tcp.is_reset(), tcp.is_fin()) {
        (true, _) => flow_flags::CLOSED,
        (_, true) => flow_flags::POD_FIN,
        _ => 0,
    };
    let now = tables.now();
    if entry.last_seen != now || entry.flags & end != end {
        tables.change(FlowTable::Tcp, key, |entry| {
            entry.last_seen = now;
            entry.flags |= end;
        });
    }
    true
}
