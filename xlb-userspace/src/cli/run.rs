//! `xlb run`: its flags, and how the agent begins.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use xlb_common::abi::{BACKENDS_LIMIT, COUNTED_SERVICES_MAX, Settings};

use super::addresses::ServerArgs;
use super::config::{self, Settled, Surroundings};
use super::source::SourceArgs;
use super::span::Span;
use super::{PinArgs, pod_ips, timeouts};
use crate::agent::reload::{Configuration, Reading, SetLog};
use crate::agent::{ClientsInside, Options, XdpChoice};
use crate::maps::object::Sizes;
use crate::model::{DeliveryChoice, IpNet, Policy};
use crate::source::address::parse_range;
use crate::source::kube::is_in_cluster;

/// What is logged unless somebody says otherwise. The API client logs every attempt that fails; the agent tells once.
const LOG_FILTER: &str = "info,kube_client=off";

/// Serves until told to stop.
///
/// # Errors
/// When the agent cannot start, or fails.
pub fn run(command: &Command, surroundings: Surroundings, settled: &Settled, matches: &ArgMatches) -> Result<()> {
    let args = RunArgs::from_arg_matches(matches)?;
    let set_log = begin_log(args.log())?;
    let run = command.find_subcommand("run").into_iter();
    for (name, meant) in run.flat_map(|run| config::doubtful(run, &surroundings)) {
        warn!("the variable {name} is no setting, and counts for nothing: did you mean {meant}?");
    }
    let reading = reading(command, settled, args, matches)?;
    let file = settled.file.clone().unwrap_or_else(|| surroundings.default_file.clone());
    let command = command.clone();
    let read =
        move |file_is_needed: bool| read_again(&command, &Surroundings { file_is_needed, ..surroundings.clone() });
    let configuration = Configuration::new(file, Box::new(read), set_log);
    // One thread: netlink sockets and setns belong to the thread's network namespace.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(crate::agent::run(reading, configuration))
}

/// What a start of now would be told.
pub(super) fn read_again(command: &Command, surroundings: &Surroundings) -> Result<Reading> {
    let settled = config::settle(command, surroundings, |_| ())?;
    let matches = command.clone().try_get_matches_from(&settled.arguments)?;
    let (_, matches) = matches.subcommand().ok_or_else(|| anyhow::anyhow!("the arguments name no command"))?;
    reading(command, &settled, RunArgs::from_arg_matches(matches)?, matches)
}

fn reading(command: &Command, settled: &Settled, args: RunArgs, matches: &ArgMatches) -> Result<Reading> {
    let run = command.find_subcommand("run").ok_or_else(|| anyhow::anyhow!("there is no command run"))?;
    let settings = settled.settings(run, matches);
    let log = args.log().to_owned();
    Ok(Reading { settings, log, file: settled.file.clone(), options: args.options(is_in_cluster())? })
}

/// Begins to log, and answers how to log something else from some moment on.
fn begin_log(filter: &str) -> Result<SetLog> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter)?)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_filter_reloading();
    let handle = builder.reload_handle();
    builder.init();
    Ok(Box::new(move |filter| {
        if let Ok(filter) = EnvFilter::try_new(filter) {
            // It fails only when nothing logs any more.
            let _ = handle.reload(filter);
            log::set_max_level(most(LevelFilter::current()));
        }
    }))
}

/// The level for what logs by `log`.
fn most(level: LevelFilter) -> log::LevelFilter {
    level.to_string().parse().unwrap_or(log::LevelFilter::Info)
}

/// A filter of what is logged. What is neither a level nor says one of a part would be a part of that name, with everything.
fn parse_filter(text: &str) -> Result<String, String> {
    let is_level = |level: &str| level.parse::<LevelFilter>().is_ok() && !level.is_empty();
    let is_sound = |part: &str| is_level(part.rsplit_once('=').map_or(part, |(_, level)| level).trim());
    match text.split(',').all(is_sound) && EnvFilter::try_new(text).is_ok() {
        true => Ok(text.to_owned()),
        false => Err(format!("found {text:?}, expected a level such as info or debug, or info,kube_client=debug")),
    }
}

/// The flags of `xlb run`. Each is a setting, which the environment and the configuration file may have, too.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A YAML file with more settings, named as the flags here; if nobody names one, /etc/xlb/config.yaml, if that is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Interfaces on which outside traffic arrives
    #[arg(long = "uplink", required = true, value_delimiter = ',', value_name = "IF[,IF]")]
    uplinks: Vec<String>,
    /// Name of this node's Node object: endpoints with this nodeName are local
    #[arg(long, value_name = "NAME")]
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
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", action = ArgAction::Set)]
    ip_mode_proxy: bool,
    /// Close a Service to the IP family of which its loadBalancerSourceRanges hold no range; kube-proxy leaves it open
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", action = ArgAction::Set)]
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
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", action = ArgAction::Set)]
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
    /// What is logged: off, error, warn, info, debug or trace, of parts of it as in info,kube_client=off. At debug each
    /// change of a map is
    #[arg(long, value_name = "FILTER", default_value = LOG_FILTER, value_parser = parse_filter)]
    log: String,
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
    /// What to log.
    #[must_use]
    pub fn log(&self) -> &str {
        &self.log
    }

    /// As the agent takes them.
    ///
    /// # Errors
    /// When no source is named, and none is to be guessed.
    pub fn options(self, is_in_cluster: bool) -> Result<Options> {
        Ok(Options {
            settings: self.settings(),
            uplinks: self.uplinks,
            node_name: self.node_name,
            source: self.source.choice(is_in_cluster)?,
            bpffs_dir: self.pins.bpffs_dir,
            xdp: self.xdp,
            delivery: match self.delivery {
                DeliveryArg::Auto => DeliveryChoice::Auto,
                DeliveryArg::Direct => DeliveryChoice::Direct,
                DeliveryArg::Stack => DeliveryChoice::Stack,
            },
            policy: Policy {
                external_ip_cidrs: self.external_ip_cidrs,
                load_balancer_classes: self.load_balancer_classes,
                ip_mode_proxy: self.ip_mode_proxy,
                source_ranges_fail_closed: self.source_ranges_fail_closed,
            },
            cluster_networks: self.pod_ips.networks(),
            keep_dataplane: self.keep_dataplane,
            handover: self.handover.0,
            clients_inside: self.clients_inside,
            cgroup: self.cgroup,
            sizes: Sizes {
                frontends: self.max_frontends,
                slots: self.max_slots,
                backends: self.max_backends,
                flows: self.max_flows,
                counted_services: if self.service_metrics == Switch::On { self.service_metrics_max } else { 0 },
                fragments: self.max_fragments,
            },
            flow_timeouts: self.timeouts.timeouts(),
            health_address: self.ask.health_address.0,
            metrics_address: self.ask.metrics_address.0,
            health_check_node_ports: self.ask.health_check_node_ports,
        })
    }

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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::source::SourceChoice;

    #[derive(Debug, Parser)]
    struct Words {
        #[command(flatten)]
        run: RunArgs,
    }

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
            ("--kube=false", false, &None),
            ("--kubeconfig k", false, &kubeconfig),
            ("--kube --kubeconfig k", true, &kubeconfig),
            ("--manifests m --kube", true, &None),
            ("--manifests m --kubeconfig k", true, &None),
        ] {
            let options = parse(words).and_then(|args| args.options(is_in_cluster).ok());
            assert_eq!(&options.map(|options| options.source), expected, "{words:?} {is_in_cluster}");
        }
    }

    #[test]
    fn more_backends_than_a_reference_can_name_are_refused() {
        let is_taken = |backends: u32| parse(&format!("--manifests m --max-backends {backends}")).is_some();
        assert!(is_taken(BACKENDS_LIMIT) && !is_taken(BACKENDS_LIMIT + 1));
    }

    #[test]
    fn what_is_no_level_is_no_filter() {
        for text in ["info", "DEBUG", "off", "info,kube_client=off", "warn,xlb_userspace::agent=trace"] {
            assert!(parse_filter(text).is_ok(), "{text}");
        }
        for text in ["", "inof", "info,", "kube_client", "info,kube_client=of"] {
            assert!(parse_filter(text).is_err(), "{text}");
        }
    }

    fn parse(words: &str) -> Option<RunArgs> {
        let words = "run --uplink eth0 --node-name n ".to_owned() + words;
        Some(Words::try_parse_from(words.split_whitespace()).ok()?.run)
    }
}
