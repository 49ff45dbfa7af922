//! Services as people meet them: with nginx, dnsmasq and iperf3 in pods, and curl, dig, tracepath and the like as clients,
//! over IPv4 and IPv6, by each way to a pod.
//!
//! Read in this order: [`stage`] and [`ways`] (which tests there are), then the checks by their programs, and [`inside`].
//!
//! What a packet has to look like is tested elsewhere; here programs that know nothing of xlb have to be content.

#[path = "programs/stage.rs"]
mod stage;
#[path = "programs/ways.rs"]
mod ways;
#[path = "programs/run.rs"]
mod run;
#[path = "programs/counts.rs"]
mod counts;
#[path = "programs/http.rs"]
mod http;
#[path = "programs/dns.rs"]
mod dns;
#[path = "programs/throughput.rs"]
mod throughput;
#[path = "programs/sctp.rs"]
mod sctp;
#[path = "programs/paths.rs"]
mod paths;
#[path = "programs/neighbours.rs"]
mod neighbours;
#[path = "programs/small_hop.rs"]
mod small_hop;
#[path = "programs/inside.rs"]
mod inside;
