//! Hot times: more handshakes begin than PENDING can remember until they end, as in a flood of SYNs. Then the entry that a
//! pod's replies need may be gone when the pod accepts, and the client's own packets bring it back: the rules 7 and 14 of flow
//! admission.
//!
//! | packet of a client in hot times, without an entry | is written to PENDING |
//! |---|---|
//! | the pod's kernel holds the connection, or has the handshake, or gave the cookie that the packet acknowledges | yes |
//! | the pod's sockets cannot be seen | yes |
//! | anything else | no |
//!
//! From PENDING it goes to FLOWS as ever: the pod accepts, or its kernel holds the connection when it replies.
//!
//! The same where FLOWS is full of connections that live, so that the kernel evicts some: the agent tells programs of it, for two hours
//! from then on. It stands in for rule 7's hint.
//!
//! So what a flood itself sends does not fill either map. In other times no packet of a connection pays more than a look at
//! its uplink's flags, which it takes anyway.

use bytemuck::{Pod, Zeroable};

use crate::abi::{FlowEntry, flow_flags};
use crate::family::Family;
use crate::parse::Parsed;
use crate::select::{Pick, backend_of};
use crate::tables::{FlowTable, Proof, Tables};

/// For how long handshakes are counted before the count begins anew.
pub const WINDOW_NS: u64 = 100_000_000;
/// How long times stay hot.
pub const HOLD_NS: u64 = 10_000_000_000;
/// Handshakes that a CPU begins before it adds them to the others'.
pub const SHARE: u32 = 64;
/// Handshakes in a window that make times hot: 16 384 a second. PENDING remembers sixteen seconds of as many, and the
/// smallest that is of use, of 65 536 entries, four (flow-admission chapter 6).
pub const BEGUN_MAX: u64 = 65_536 / 4 * WINDOW_NS / 1_000_000_000;

/// Value of `HALF_OPEN`: how many handshakes began in this window, on all CPUs. Several may change it at once, and then some of
/// their counts are lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct HalfOpen {
    /// When the window began, in nanoseconds of the kernel's monotonic clock.
    pub window_ns: u64,
    /// Handshakes since then.
    pub begun: u64,
    /// Until when times are hot.
    pub hot_until_ns: u64,
    /// Whether they were when handshakes were counted last: 1 or 0.
    pub is_hot: u64,
}
const _: () = assert!(size_of::<HalfOpen>() == 32);

impl HalfOpen {
    /// Counts handshakes that began until now.
    #[inline(always)]
    pub const fn note(&mut self, begun: u64, now_ns: u64) {
        if now_ns.saturating_sub(self.window_ns) >= WINDOW_NS {
            self.window_ns = now_ns;
            self.begun = 0;
        }
        self.begun += begun;
        if self.begun > BEGUN_MAX {
            self.hot_until_ns = now_ns + HOLD_NS;
        }
        self.is_hot = (self.hot_until_ns > now_ns) as u64;
    }
}

/// Rule 7: whether a client's packet inside a connection is to bring its entry back. Its table is at the top.
#[inline(always)]
pub fn is_to_relearn<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, pick: Pick) -> bool {
    let Some(tcp) = parsed.transport.tcp() else { return false };
    let Ok(backend) = backend_of(tables, &pick) else { return false };
    let key = F::flow_key(parsed.source.pair(), (F::from_stored(backend.address), backend.port));
    let is_known = |table| tables.flow_at(table, &key).is_some();
    if tcp.is_reset() || is_known(FlowTable::Tcp) || is_known(FlowTable::TcpPending) {
        return false;
    }
    if backend.is_hidden() {
        return true;
    }
    match tables.prove(&backend, &key) {
        Proof::Owned | Proof::HalfOpen => true,
        Proof::Listening => tables.gave_cookie(&key, parsed.transport.segment()),
        Proof::TimeWait | Proof::Absent => false,
    }
}

/// Makes an entry one that such a packet brings back: its client has the pod's SYN-ACK, which acknowledged what comes before the
/// packet's own number.
#[inline(always)]
pub fn answered<F: Family>(entry: &mut FlowEntry, parsed: &Parsed<F>) {
    entry.flags |= flow_flags::SYN_ACK_SEEN;
    entry.syn_ack_acknowledged = parsed.transport.segment().sequence;
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// Whether times are hot after so many handshakes in a second, in shares.
    fn after(rate: u64, half_open: &mut HalfOpen, from_ns: u64) -> bool {
        let shares = rate / u64::from(SHARE);
        (0..shares).for_each(|share| half_open.note(SHARE.into(), from_ns + share * S / shares));
        half_open.is_hot != 0
    }

    #[test]
    fn times_are_hot_while_handshakes_are_many_and_ten_seconds_more() {
        let mut half_open = HalfOpen::default();
        assert!(!after(14_700, &mut half_open, 100 * S));
        assert!(after(18_000, &mut half_open, 101 * S));
        for (now_ns, is_hot) in [(101 * S + HOLD_NS, 1), (102 * S + HOLD_NS, 0)] {
            half_open.note(1, now_ns);
            assert_eq!(half_open.is_hot, is_hot);
        }
    }
}
