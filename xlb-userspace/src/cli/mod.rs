//! The commands of `xlb`.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;
use xlb_common::abi::{BACKENDS_LIMIT, COUNTED_SERVICES_MAX, Settings};

pub mod addresses;
pub mod detach;
mod doctor;
pub mod explain;
pub mod inspect;
pub mod inspection;
mod live;
pub mod metrics;
mod next;
mod pod_ips;
pub mod show;
mod source;
pub mod span;
mod top;
mod watch;
pub mod timeouts;

use self::addresses::ServerArgs;
use self::source::SourceArgs;
use self::span::Span;
use crate::agent::{self, ClientsInside, Options, XdpChoice};
use crate::maps::object::Sizes;
use crate::maps::pins::{DEFAULT_DIRECTORY, PinDirectory};
use crate::model::{DeliveryChoice, IpNet, Policy};
use crate::source::address::parse_range;
use crate::source::kube::is_in_cluster;

/// External-IP load balancer for Kubernetes: packets for LoadBalancer addresses go straight to the local pods, with the
/// client's own address.
#[derive(Debug, Parser)]
#[command(name = "xlb", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: keep the kernel's maps equal to the manifests, or to what the cluster's API server says
    Run(Box<RunArgs>),
    /// Show what the kernel's maps hold; works without an agent
    Inspect(InspectArgs),
    /// Walk one packet through the packet path, over the live maps, and say why it goes where it goes; or the next ones that come
    Explain(explain::ExplainArgs),
    #[command(flatten)]
    Live(live::LiveCommand),
    /// Hand back to kube-proxy, without an agent: at once, or with --keep-flows as its connections end
    Detach(DetachArgs),
    /// Detach everything and remove all maps; the connections through xlb end
    Cleanup(PinArgs),
}

#[derive(Debug, Args)]
struct PinArgs {
    /// Where maps, programs and links are pinned, on a BPF file system
    #[arg(long, default_value = DEFAULT_DIRECTORY)]
    bpffs_dir: PathBuf,
}

#[derive(Debug, Args)]
struct DetachArgs {
    /// Leave new connections to the host's stack, and serve those that there are until they end
    #[arg(long)]
    keep_flows: bool,
    #[command(flatten)]
    pins: PinArgs,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Interfaces on which outside traffic arrives
    #[arg(long = "uplink", required = true, value_delimiter = ',', value_name = "IF[,IF]")]
    uplinks: Vec<String>,
    /// Name of this node's Node object: endpoints with this nodeName are local
    #[arg(long)]
    node_name: String,
    #[command(flatten)]
    source: SourceArgs,
    /// Which program meets packets first: auto is XDP on drivers that support it, tc on virtual devices
    #[arg(long, value_enum, default_value = "auto")]
    xdp: XdpChoice,
    /// How packets reach pods: auto is direct behind a veth unless a NetworkPolicy in the namespace restricts ingress.
    /// Cluster-wide policy objects of other kinds cannot be seen: with those, say stack
    #[arg(long, value_enum, default_value = "auto")]
    delivery: DeliveryArg,
    /// Where externalIPs may lie; what is not listed is refused. An address that the node, another Service or a pod has
    /// must be listed by itself, not by a wider range
    #[arg(long = "external-ip-cidrs", value_delimiter = ',', value_name = "CIDR[,CIDR]", value_parser = parse_range)]
    external_ip_cidrs: Vec<IpNet>,
    /// Serve only load balancers of these classes; otherwise every class, and those without one
    #[arg(long = "load-balancer-class", value_delimiter = ',', value_name = "CLASS[,CLASS]")]
    load_balancer_classes: Vec<String>,
    /// Serve addresses with ipMode: Proxy, too, which kube-proxy leaves alone
    #[arg(long)]
    ip_mode_proxy: bool,
    /// Close a Service to the IP family of which its loadBalancerSourceRanges hold no range; kube-proxy leaves it open
    #[arg(long)]
    source_ranges_fail_closed: bool,
    /// Answer ICMP echo requests (ping) to a VIP that has a usable pod on this node
    #[arg(long, value_enum, default_value = "on")]
    vip_echo: Switch,
    /// What becomes of packets to a port of a VIP that no Service has: pass leaves them to the host's stack, drop drops them,
    /// reject answers those that begin a flow with ICMP port unreachable
    #[arg(long, value_enum, default_value = "pass")]
    vip_unowned: UnownedArg,
    #[command(flatten)]
    pod_ips: pod_ips::PodIpsArgs,
    /// How a TCP client is refused: icmp is port unreachable, as kube-proxy does, reset is a TCP reset
    #[arg(long, value_enum, default_value = "icmp")]
    reject_tcp_with: RejectArg,
    /// Leave programs and maps in place at the end: they keep serving until an agent takes them over
    #[arg(long)]
    keep_dataplane: bool,
    /// For how long TCP connections that kube-proxy began stay with it when an address and port become xlb's: as the agent
    /// starts, or as a Service gets its first pod on this node; 0: not at all
    #[arg(long, value_name = "TIME", default_value = "1h")]
    handover: Span,
    /// Serve processes of this node, and of pods on it, that connect or send to a VIP: they get the endpoints of the whole
    /// cluster, whatever the Service's externalTrafficPolicy. With external-policy only the node's own do, and pods follow it
    #[arg(long, value_enum, default_value = "on")]
    clients_inside: ClientsInside,
    /// Follow and serve the sockets below this cgroup instead of the root of the cgroup v2 hierarchy
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// Most VIP, port and protocol combinations of each IP version
    #[arg(long, default_value_t = Sizes::default().frontends, value_parser = clap::value_parser!(u32).range(1..))]
    max_frontends: u32,
    /// Most slots of all services together, 8 bytes each
    #[arg(long, default_value_t = Sizes::default().slots, value_parser = clap::value_parser!(u32).range(512..))]
    max_slots: u32,
    /// Most pod ports on this node
    #[arg(long, default_value_t = Sizes::default().backends,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(BACKENDS_LIMIT)))]
    max_backends: u32,
    /// Most remembered IPv4 TCP connections, about 145 bytes each; the other tables of flows grow with it
    #[arg(long, default_value_t = Sizes::default().flows, value_parser = clap::value_parser!(u32).range(1024..))]
    max_flows: u32,
    /// Count packets, bytes and new flows of each service
    #[arg(long, value_enum, default_value = "on")]
    service_metrics: Switch,
    /// Most services with numbers of their own, those that were served first; the others are counted together
    #[arg(long, default_value_t = Sizes::default().counted_services,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(COUNTED_SERVICES_MAX)))]
    service_metrics_max: u32,
    /// Most fragmented datagrams of each IP version whose fragments are followed at once, about 110 bytes each
    #[arg(long, default_value_t = Sizes::default().fragments, value_parser = clap::value_parser!(u32).range(128..))]
    max_fragments: u32,
    #[command(flatten)]
    timeouts: timeouts::TimeoutArgs,
    #[command(flatten)]
    ask: ServerArgs,
    #[command(flatten)]
    pins: PinArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum UnownedArg {
    Pass,
    Drop,
    Reject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RejectArg {
    Icmp,
    Reset,
}

impl RunArgs {
    fn settings(&self) -> Settings {
        let mut settings = self.pod_ips.settings();
        if self.vip_echo == Switch::On {
            settings = settings.with_echo();
        }
        settings = match self.vip_unowned {
            UnownedArg::Pass => settings,
            UnownedArg::Drop => settings.with_unowned_dropped(),
            UnownedArg::Reject => settings.with_unowned_rejected(),
        };
        if self.reject_tcp_with == RejectArg::Reset { settings.with_tcp_reset() } else { settings }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DeliveryArg {
    Auto,
    Direct,
    Stack,
}

/// What to inspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Section {
    /// Services with their frontends and backends.
    Services,
    /// Backends.
    Backends,
    /// Remembered flows.
    Flows,
    /// Everything.
    All,
    /// Counters in the OpenMetrics text format.
    Metrics,
}

#[derive(Debug, Args)]
struct InspectArgs {
    /// What to show
    #[arg(value_enum, default_value = "all")]
    section: Section,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    pins: PinArgs,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What is logged unless `XLB_LOG` says otherwise. The API client logs every attempt that fails; the agent tells once.
const LOG_FILTER: &str = "info,kube_client=off";

/// Runs the command that the arguments ask for.
///
/// # Errors
/// Whatever the command could not do, with what it was about to do and to what.
pub fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Run(args) => run(*args),
        Command::Inspect(args) => inspect::inspect(&PinDirectory::new(args.pins.bpffs_dir), args.section, args.output),
        Command::Explain(args) => explain::run(args),
        Command::Live(command) => live::run(command),
        Command::Detach(args) if args.keep_flows => detach::keep_flows(&PinDirectory::new(args.pins.bpffs_dir)),
        Command::Detach(args) => detach::at_once(&PinDirectory::new(args.pins.bpffs_dir)),
        Command::Cleanup(args) => detach::cleanup(&PinDirectory::new(args.bpffs_dir)),
    }
}

/// What `xlb` takes, for its documentation and whatever checks it.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

fn run(args: RunArgs) -> Result<()> {
    let filter = EnvFilter::try_from_env("XLB_LOG").unwrap_or_else(|_| EnvFilter::new(LOG_FILTER));
    let is_watched = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(is_watched)
        .with_writer(std::io::stderr)
        .init();
    let options = Options {
        settings: args.settings(),
        uplinks: args.uplinks,
        node_name: args.node_name,
        source: args.source.choice(is_in_cluster())?,
        bpffs_dir: args.pins.bpffs_dir,
        xdp: args.xdp,
        delivery: match args.delivery {
            DeliveryArg::Auto => DeliveryChoice::Auto,
            DeliveryArg::Direct => DeliveryChoice::Direct,
            DeliveryArg::Stack => DeliveryChoice::Stack,
        },
        policy: Policy {
            external_ip_cidrs: args.external_ip_cidrs,
            load_balancer_classes: args.load_balancer_classes,
            ip_mode_proxy: args.ip_mode_proxy,
            source_ranges_fail_closed: args.source_ranges_fail_closed,
        },
        cluster_networks: args.pod_ips.networks(),
        keep_dataplane: args.keep_dataplane,
        handover: args.handover.0,
        clients_inside: args.clients_inside,
        cgroup: args.cgroup,
        sizes: Sizes {
            frontends: args.max_frontends,
            slots: args.max_slots,
            backends: args.max_backends,
            flows: args.max_flows,
            counted_services: if args.service_metrics == Switch::On { args.service_metrics_max } else { 0 },
            fragments: args.max_fragments,
        },
        flow_timeouts: args.timeouts.timeouts(),
        health_address: args.ask.health_address.0,
        metrics_address: args.ask.metrics_address.0,
        health_check_node_ports: args.ask.health_check_node_ports,
    };
    // One thread: netlink sockets and setns belong to the thread's network namespace.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(agent::run(options))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::SourceChoice;

    #[test]
    fn the_source_is_a_cluster_inside_of_one_and_has_to_be_named_outside() {
        let manifests = Some(SourceChoice::Manifests("m".into()));
        let kube = Some(SourceChoice::Kube(None));
        let kubeconfig = Some(SourceChoice::Kube(Some("k".into())));
        for (words, is_in_cluster, expected) in [
            ("--manifests m", false, &manifests),
            ("--manifests m", true, &manifests),
            ("", true, &kube),
            ("", false, &None),
            ("--kube", true, &kube),
            ("--kube", false, &kube),
            ("--kubeconfig k", false, &kubeconfig),
            ("--kube --kubeconfig k", true, &kubeconfig),
            ("--manifests m --kube", true, &None),
            ("--manifests m --kubeconfig k", true, &None),
        ] {
            assert_eq!(&source(words, is_in_cluster), expected, "{words:?} {is_in_cluster}");
        }
    }

    #[test]
    fn more_backends_than_a_reference_can_name_are_refused() {
        let is_taken = |backends: u32| {
            let words = format!("xlb run --uplink eth0 --node-name n --manifests m --max-backends {backends}");
            Cli::try_parse_from(words.split_whitespace()).is_ok()
        };
        assert!(is_taken(BACKENDS_LIMIT) && !is_taken(BACKENDS_LIMIT + 1));
    }

    fn source(words: &str, is_in_cluster: bool) -> Option<SourceChoice> {
        let words = "xlb run --uplink eth0 --node-name n ".to_owned() + words;
        let Command::Run(args) = Cli::try_parse_from(words.split_whitespace()).ok()?.command else { return None };
        args.source.choice(is_in_cluster).ok()
    }
}
