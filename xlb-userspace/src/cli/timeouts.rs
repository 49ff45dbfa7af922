//! After what time flows are forgotten, on the command line.

use clap::Args;

use super::span::Span;
use crate::ageing::Timeouts;

/// Of flows without a packet; 0 is never.
#[derive(Debug, Args)]
pub struct TimeoutArgs {
    /// When a TCP connection without a packet of the pod is forgotten, of pods whose sockets cannot be seen; those of others
    /// live as long as their sockets. 0: never, as for the next ones
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub flow_timeout_tcp_established: Span,
    /// The same, after the pod's FIN
    #[arg(long, value_name = "TIME", default_value = "1h")]
    pub flow_timeout_tcp_close_wait: Span,
    /// How long a TCP connection or an SCTP association that is over waits for late packets, and any flow of a pod that is
    /// gone
    #[arg(long, value_name = "TIME", default_value = "2m")]
    pub flow_timeout_closed: Span,
    /// When a UDP flow is forgotten that no pod answers
    #[arg(long, value_name = "TIME", default_value = "30s")]
    pub flow_timeout_udp: Span,
    /// When a UDP flow is forgotten that a pod has answered
    #[arg(long, value_name = "TIME", default_value = "2m")]
    pub flow_timeout_udp_stream: Span,
    /// When an open SCTP association without a packet of the pod is forgotten
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub flow_timeout_sctp: Span,
}

impl TimeoutArgs {
    /// As values.
    #[must_use]
    pub fn timeouts(&self) -> Timeouts {
        Timeouts {
            tcp_established: self.flow_timeout_tcp_established.0,
            tcp_close_wait: self.flow_timeout_tcp_close_wait.0,
            closed: self.flow_timeout_closed.0,
            udp: self.flow_timeout_udp.0,
            udp_stream: self.flow_timeout_udp_stream.0,
            sctp: self.flow_timeout_sctp.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        timeouts: TimeoutArgs,
    }

    #[test]
    fn what_is_not_said_is_the_default_and_what_is_no_time_is_refused() {
        let of = |words: &str| Cli::try_parse_from(words.split_whitespace());
        assert_eq!(of("xlb").unwrap().timeouts.timeouts(), Timeouts::default());
        let given = of("xlb --flow-timeout-udp 5s --flow-timeout-closed 0").unwrap().timeouts.timeouts();
        assert_eq!((given.udp.as_secs(), given.closed.as_secs(), given.sctp.as_secs()), (5, 0, 86_400));
        let error = of("xlb --flow-timeout-udp 30").unwrap_err().to_string();
        assert!(error.contains("found \"30\", expected a time such as 90s, 15m or 1h; or 0"), "{error}");
    }
}
