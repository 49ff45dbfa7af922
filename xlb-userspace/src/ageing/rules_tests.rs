//! What becomes of each kind of flow, as rows: table, flags, seconds since it was seen, pod, pressure.

use super::*;
use xlb_common::tables::now_of;

use Judgement::{AskKernel, AskOther, Keep, Over};
use Pressure::{Calm, Critical, High};
use xlb_common::abi::flow_flags::{CLOSED, POD_FIN, STACK, SUPERSEDED, SYN_ACK_SEEN, UNSEEN};

const DAY: u64 = 86_400;
const HOUR: u64 = 3_600;
const GONE_A_MOMENT: Pod = Pod::Gone(Duration::ZERO);
const GONE_3_MINUTES: Pod = Pod::Gone(Duration::from_secs(180));
const GONE_40_S: Pod = Pod::Gone(Duration::from_secs(40));
/// Not near an end of the clock's range, and not a round number.
const NOW_S: u64 = 1_000_000_007;

fn entry(flags: u16, seen_s_ago: u64) -> FlowEntry {
    FlowEntry { flags, last_seen: units(NOW_S - seen_s_ago), vip_port: [0, 80], ..FlowEntry::default() }
}

fn units(seconds: u64) -> u32 {
    now_of(seconds * 1_000_000_000)
}

fn setting(pressure: Pressure) -> Setting {
    Setting { timeouts: Timeouts::default(), pressure, now: units(NOW_S) }
}

#[test]
fn flows_are_over_when_nothing_of_them_can_come_any_more() {
    use FlowTable::{Sctp, SctpPending, Tcp, TcpPending, Udp, UdpPending};
    use Pod::{Hidden, Visible};
    let rows = [
        // The pod's kernel decides, however long ago the handshake was, and however full the map is.
        (Tcp, SYN_ACK_SEEN, 0, Visible, Calm, AskKernel),
        (Tcp, SYN_ACK_SEEN | STACK, 900 * DAY, Visible, Critical, AskKernel),
        (Tcp, CLOSED, 900 * DAY, Visible, Calm, AskKernel),
        // Nobody can be asked any more, and nothing tells.
        (Tcp, SYN_ACK_SEEN, 900 * DAY, Hidden, Critical, Keep),
        (Tcp, SYN_ACK_SEEN | SUPERSEDED, 0, Visible, Calm, Over(Why::Superseded)),
        (Tcp, UNSEEN | SUPERSEDED, 0, Hidden, Calm, Over(Why::Superseded)),
        // Its packets tell, also when the pod is taken for one that can be asked (gVisor).
        (Tcp, UNSEEN, DAY - 1, Visible, Critical, Keep),
        (Tcp, UNSEEN, DAY + 3, Visible, Calm, Over(Why::Idle)),
        (Tcp, UNSEEN, DAY - 1, Hidden, Critical, Keep),
        (Tcp, UNSEEN, DAY + 3, Hidden, Calm, Over(Why::Idle)),
        (Tcp, UNSEEN | POD_FIN, HOUR - 1, Hidden, Calm, Keep),
        (Tcp, UNSEEN | POD_FIN, 119, Hidden, Critical, Keep),
        (Tcp, UNSEEN | POD_FIN, 123, Hidden, High, Over(Why::HalfClosed)),
        (Tcp, UNSEEN | POD_FIN, HOUR + 3, Hidden, Calm, Over(Why::HalfClosed)),
        (Tcp, UNSEEN | CLOSED, 119, Hidden, Calm, Keep),
        (Tcp, UNSEEN | CLOSED, 123, Hidden, Calm, Over(Why::Closed)),
        (Tcp, UNSEEN | CLOSED, 29, Hidden, High, Keep),
        (Tcp, UNSEEN | CLOSED, 33, Hidden, High, Over(Why::Closed)),
        (Tcp, UNSEEN | CLOSED | POD_FIN, 10, Hidden, Critical, Over(Why::Closed)),
        // A pod that just became a backend is not taken for one that is gone.
        (Tcp, SYN_ACK_SEEN, DAY, GONE_A_MOMENT, Critical, Keep),
        (Tcp, SYN_ACK_SEEN, 0, GONE_40_S, Calm, Keep),
        (Tcp, SYN_ACK_SEEN, 0, GONE_40_S, High, Over(Why::PodGone)),
        (Tcp, SYN_ACK_SEEN, 0, GONE_3_MINUTES, Calm, Over(Why::PodGone)),
        (Udp, 0, 0, GONE_3_MINUTES, Calm, Over(Why::PodGone)),
        (Sctp, 0, 0, GONE_3_MINUTES, Calm, Over(Why::PodGone)),
        (Udp, 0, 119, Visible, Critical, Keep),
        (Udp, 0, 123, Visible, Calm, AskOther),
        (UdpPending, 0, 29, Visible, Critical, Keep),
        (UdpPending, 0, 33, Hidden, Calm, AskOther),
        (Sctp, 0, DAY - 1, Visible, Critical, Keep),
        (Sctp, 0, DAY + 3, Visible, Calm, Over(Why::Idle)),
        (Sctp, CLOSED, 119, Visible, Calm, Keep),
        (Sctp, CLOSED, 123, Visible, Calm, Over(Why::Closed)),
        (Sctp, CLOSED, 10, Visible, Critical, Over(Why::Closed)),
        (TcpPending, CLOSED, 900 * DAY, Visible, Critical, Keep),
        (SctpPending, 0, 900 * DAY, Visible, Critical, Keep),
    ];
    for (table, flags, seen_s_ago, pod, pressure, expected) in rows {
        let judged = judge(table, &entry(flags, seen_s_ago), pod, &setting(pressure));
        assert_eq!(judged, expected, "{table:?} {flags:#b}, seen {seen_s_ago} s ago, {pod:?}, {pressure:?}");
    }
}

#[test]
fn a_connection_is_over_when_its_pods_kernel_has_no_socket_for_it() {
    for (proof, expected) in [
        (Proof::Absent, Some(Why::NoSocket)),
        (Proof::Listening, Some(Why::NoSocket)),
        (Proof::HalfOpen, None),
        (Proof::TimeWait, None),
        (Proof::Owned, None),
    ] {
        assert_eq!(by_proof(proof), expected, "{proof:?}");
    }
}

#[test]
fn a_udp_flow_is_over_when_neither_of_its_entries_was_seen() {
    use FlowTable::{Udp, UdpPending};
    for (table, own_s, other_s, expected) in [
        (UdpPending, 33, None, Some(Why::Unanswered)),
        (UdpPending, 33, Some(33), None),
        (UdpPending, 119, Some(500), None),
        (UdpPending, 500, Some(119), None),
        (UdpPending, 123, Some(123), Some(Why::Idle)),
        (Udp, 123, None, Some(Why::Idle)),
        (Udp, 500, Some(5), None),
        (Udp, 123, Some(123), Some(Why::Idle)),
    ] {
        let other = other_s.map(|seconds| entry(0, seconds));
        let why = by_other(table, &entry(0, own_s), other.as_ref(), &setting(Calm));
        assert_eq!(why, expected, "{table:?}, seen {own_s} s ago, and {other_s:?}");
    }
}

/// However the time-outs are set: what is answered lives as long as the longer time says.
#[test]
fn a_time_of_zero_is_never() {
    let never = Timeouts {
        tcp_established: Duration::ZERO,
        tcp_close_wait: Duration::ZERO,
        closed: Duration::ZERO,
        udp: Duration::ZERO,
        udp_stream: Duration::ZERO,
        sctp: Duration::ZERO,
    };
    let setting = Setting { timeouts: never, ..setting(Critical) };
    for table in [FlowTable::Tcp, FlowTable::Udp, FlowTable::UdpPending, FlowTable::Sctp] {
        for flags in [UNSEEN, UNSEEN | CLOSED, UNSEEN | POD_FIN] {
            for pod in [Pod::Hidden, GONE_3_MINUTES] {
                assert_eq!(judge(table, &entry(flags, 900 * DAY), pod, &setting), Keep, "{table:?} {flags:#b} {pod:?}");
            }
        }
    }
    assert_eq!(by_other(FlowTable::UdpPending, &entry(0, DAY), Some(&entry(0, DAY)), &setting), None);
}
