//! After what time without a packet a flow is over.

use std::time::Duration;

use xlb_common::tables::NOW_NS;

/// The time-outs; zero is never. They are counted from the pod's last packet, of UDP from anybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A TCP connection with a pod whose sockets cannot be seen. Others have none: their kernel is asked.
    pub tcp_established: Duration,
    /// The same, when the pod has sent its FIN.
    pub tcp_close_wait: Duration,
    /// A TCP connection or SCTP association that is over, and any flow of a pod that is gone.
    pub closed: Duration,
    /// A UDP flow that no pod has answered.
    pub udp: Duration,
    /// A UDP flow that a pod has answered.
    pub udp_stream: Duration,
    /// An open SCTP association.
    pub sctp: Duration,
}

impl Default for Timeouts {
    /// kube-proxy's, where it sets one (`--conntrack-tcp-timeout-established`, `-close-wait`), else nf_conntrack's. SCTP's is
    /// longer than the 210 s there: an association may have its heartbeats switched off.
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_secs(86_400),
            tcp_close_wait: Duration::from_secs(3_600),
            closed: Duration::from_secs(120),
            udp: Duration::from_secs(30),
            udp_stream: Duration::from_secs(120),
            sctp: Duration::from_secs(86_400),
        }
    }
}

impl Timeouts {
    /// The shortest; none: nothing ever times out.
    #[must_use]
    pub fn shortest(&self) -> Option<Duration> {
        let Self { tcp_established, tcp_close_wait, closed, udp, udp_stream, sctp } = *self;
        let all = [tcp_established, tcp_close_wait, closed, udp, udp_stream, sctp];
        all.into_iter().filter(|timeout| !timeout.is_zero()).min()
    }
}

/// Whether at least so much time has passed since then, on the clock of [`Tables::now`](xlb_common::tables::Tables::now). Its
/// units are coarse: two that are `n` apart may be only `n - 1` units of time apart. What is written on another CPU may be
/// ahead of this clock, and counts as just now.
#[must_use]
pub fn has_passed(timeout: Duration, since: u32, now: u32) -> bool {
    let elapsed_units = now.wrapping_sub(since) as i32 - 1;
    !timeout.is_zero() && elapsed_units >= 0 && elapsed_units as u128 * u128::from(NOW_NS) >= timeout.as_nanos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_passes_when_it_has_surely_passed() {
        let seconds = Duration::from_secs;
        // 28 units are 30.06 s.
        for (timeout, since, now, expected) in [
            (seconds(30), 100, 100, false),
            (seconds(30), 100, 128, false),
            (seconds(30), 100, 129, true),
            (seconds(30), u32::MAX - 10, 18, true),
            (seconds(30), u32::MAX - 10, 17, false),
            (seconds(1), 101, 100, false),
            (seconds(0), 0, 1 << 30, false),
            (seconds(u64::from(u32::MAX) * 3600), 0, 1 << 30, false),
        ] {
            assert_eq!(has_passed(timeout, since, now), expected, "{timeout:?} from {since} to {now}");
        }
    }

    #[test]
    fn what_never_times_out_is_no_shortest_time() {
        let never = Duration::ZERO;
        let default = Timeouts::default();
        assert_eq!(default.shortest(), Some(Duration::from_secs(30)));
        assert_eq!(Timeouts { udp: never, ..default }.shortest(), Some(Duration::from_secs(120)));
        let none = Timeouts {
            tcp_established: never,
            tcp_close_wait: never,
            closed: never,
            udp: never,
            udp_stream: never,
            sctp: never,
        };
        assert_eq!(none.shortest(), None);
    }
}
