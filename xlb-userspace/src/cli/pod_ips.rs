//! Who addresses pods by their own addresses.

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use xlb_common::abi::Settings;

use crate::source::address::parse_range;

/// What the operator says of pods' addresses.
#[derive(Debug, Args)]
pub(super) struct PodIpsArgs {
    /// Who addresses pods by their own addresses and node ports: with routed anybody may. With cluster-only nobody outside of
    /// --cluster-cidrs does: a TCP reply that no flow entry knows then leaves as the only VIP and port that lead to its pod's
    #[arg(long, value_enum, default_value = "routed", requires_if("cluster-only", "cluster_cidrs"))]
    pod_ips: PodIps,
    /// The networks of all nodes and pods of the cluster, for --pod-ips cluster-only
    #[arg(long = "cluster-cidrs", value_delimiter = ',', value_name = "CIDR[,CIDR]", value_parser = parse_range)]
    cluster_cidrs: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PodIps {
    Routed,
    ClusterOnly,
}

impl PodIpsArgs {
    /// What the programs have to know of it.
    pub(super) fn settings(&self) -> Settings {
        match self.pod_ips {
            PodIps::Routed => Settings::NONE,
            PodIps::ClusterOnly => Settings::NONE.with_pods_of_cluster(),
        }
    }

    /// The networks outside of which nobody addresses pods; none: anybody may.
    pub(super) fn networks(self) -> Vec<IpNet> {
        match self.pod_ips {
            PodIps::Routed => Vec::new(),
            PodIps::ClusterOnly => self.cluster_cidrs,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        args: PodIpsArgs,
    }

    #[test]
    fn who_says_that_pods_are_the_clusters_says_which_networks_are() {
        let networks = |words: &str| {
            let words = Words::try_parse_from(format!("xlb {words}").split_whitespace()).ok()?;
            let is_said = words.args.settings().pods_are_clusters();
            let networks = words.args.networks();
            assert_eq!(is_said, !networks.is_empty());
            Some(networks.len())
        };
        assert_eq!(networks(""), Some(0));
        assert_eq!(networks("--pod-ips routed"), Some(0));
        assert_eq!(networks("--pod-ips cluster-only"), None);
        assert_eq!(networks("--pod-ips cluster-only --cluster-cidrs 10.0.0.0/8,fd00::/8"), Some(2));
    }
}
