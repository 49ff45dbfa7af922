//! Which flows are over, and why: a function of what is known.
//!
//! | flow | is over |
//! |---|---|
//! | of a pod that is no backend any more | when that was found so long ago that late packets are not waited for |
//! | TCP, and a handshake with another frontend came after it | at once: nothing is read of it |
//! | TCP, shown by the pod's kernel | when that kernel has no socket for it: it is asked |
//! | the same, of a pod that cannot be asked any more | never: the kernel's LRU decides |
//! | TCP, shown by its packets alone | after the time-out of its state: closed by RST, half closed by the pod's FIN, open |
//! | UDP | when both its entries are idle: for the longer time if a pod has answered |
//! | SCTP | after the time-out of its state: ended, open |
//! | a handshake, TCP or SCTP | never: those maps are made to forget |
//!
//! Invariant: a connection that its pod's kernel holds is never over, whatever the time and the pressure. Nor is an open one
//! of a pod whose kernel cannot be asked before its time: pressure shortens the time of what its pod has ended.

use std::time::Duration;

use xlb_common::abi::{FlowEntry, flow_flags};
use xlb_common::tables::{FlowTable, Proof};

use crate::ageing::timeouts::has_passed;
use crate::ageing::{Pressure, Timeouts};

/// By what flows are judged.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The operator's.
    pub timeouts: Timeouts,
    /// How full the map is.
    pub pressure: Pressure,
    /// The clock of the flow maps.
    pub now: u32,
}

/// What is known of a flow's pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pod {
    /// It is a backend, and its kernel can be asked.
    Visible,
    /// It is a backend.
    Hidden,
    /// It was found to be no backend so long ago.
    Gone(Duration),
}

/// What is to become of a flow's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It stays.
    Keep,
    /// It goes.
    Over(Why),
    /// The pod's kernel decides ([`by_proof`]).
    AskKernel,
    /// What the other map of its protocol knows of the flow decides ([`by_other`]).
    AskOther,
}

/// Why a flow is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its pod ended it.
    Closed,
    /// Its pod sent a FIN, and no packet for long.
    HalfClosed,
    /// Another one took its place.
    Superseded,
    /// Its pod's kernel has no socket for it.
    NoSocket,
    /// Its pod is gone.
    PodGone,
    /// No packet passed for long.
    Idle,
    /// No pod answered.
    Unanswered,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Closed, Self::HalfClosed, Self::Superseded, Self::NoSocket, Self::PodGone, Self::Idle, Self::Unanswered];

    /// As a label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfClosed => "half_closed",
            Self::Superseded => "superseded",
            Self::NoSocket => "no_socket",
            Self::PodGone => "pod_gone",
            Self::Idle => "idle",
            Self::Unanswered => "unanswered",
        }
    }
}

/// Judges a flow by its entry, and by what is known of its pod.
#[must_use]
pub fn judge(table: FlowTable, entry: &FlowEntry, pod: Pod, setting: &Setting) -> Judgement {
    if let Pod::Gone(since) = pod {
        // The first look at it is not enough: a pod that just became one is not known yet.
        let linger = setting.pressure.linger(&setting.timeouts);
        let is_long = !linger.is_zero() && !since.is_zero() && since >= linger;
        return over_if(is_long, Why::PodGone);
    }
    match table {
        FlowTable::Tcp => judge_tcp(entry, pod, setting),
        FlowTable::Sctp if entry.is_closed() => closed(entry, setting),
        FlowTable::Sctp => over_if(has_passed(setting.timeouts.sctp, entry.last_seen, setting.now), Why::Idle),
        FlowTable::Udp => ask_if(has_passed(setting.timeouts.udp_stream, entry.last_seen, setting.now)),
        FlowTable::UdpPending => ask_if(has_passed(setting.timeouts.udp, entry.last_seen, setting.now)),
        FlowTable::TcpPending | FlowTable::SctpPending => Judgement::Keep,
    }
}

fn judge_tcp(entry: &FlowEntry, pod: Pod, setting: &Setting) -> Judgement {
    let Setting { timeouts, now, .. } = setting;
    let is_half_closed = entry.flags & flow_flags::POD_FIN != 0;
    let half_closed = setting.pressure.close_wait(timeouts);
    match () {
        () if entry.is_superseded() => Judgement::Over(Why::Superseded),
        () if !entry.is_unseen() && pod == Pod::Visible => Judgement::AskKernel,
        () if !entry.is_unseen() => Judgement::Keep,
        () if entry.is_closed() => closed(entry, setting),
        () if is_half_closed => over_if(has_passed(half_closed, entry.last_seen, *now), Why::HalfClosed),
        () => over_if(has_passed(timeouts.tcp_established, entry.last_seen, *now), Why::Idle),
    }
}

fn closed(entry: &FlowEntry, setting: &Setting) -> Judgement {
    over_if(has_passed(setting.pressure.linger(&setting.timeouts), entry.last_seen, setting.now), Why::Closed)
}

fn over_if(is_over: bool, why: Why) -> Judgement {
    if is_over { Judgement::Over(why) } else { Judgement::Keep }
}

fn ask_if(is_idle: bool) -> Judgement {
    if is_idle { Judgement::AskOther } else { Judgement::Keep }
}

/// Judges a TCP flow by what its pod's kernel knows of it. A handshake in its place ends in an entry of its own.
#[must_use]
pub fn by_proof(proof: Proof) -> Option<Why> {
    match proof {
        Proof::Absent | Proof::Listening => Some(Why::NoSocket),
        Proof::HalfOpen | Proof::TimeWait | Proof::Owned => None,
    }
}

/// Judges a UDP flow that is idle by its entry in `table`, by that in the other map. A flow has its time in one of them: that
/// of what is not answered yet, as long as that has it.
#[must_use]
pub fn by_other(table: FlowTable, entry: &FlowEntry, other: Option<&FlowEntry>, setting: &Setting) -> Option<Why> {
    let Setting { timeouts, now, .. } = setting;
    let is_answered = table == FlowTable::Udp || other.is_some();
    if !is_answered {
        return Some(Why::Unanswered);
    }
    let is_idle = |entry: &FlowEntry| has_passed(timeouts.udp_stream, entry.last_seen, *now);
    (is_idle(entry) && other.is_none_or(is_idle)).then_some(Why::Idle)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
