//! Where Services and their endpoints are read.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{ArgAction, Args};

use crate::source::SourceChoice;

/// Where Services and their endpoints are read.
#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    /// A file of Kubernetes YAML (Service, EndpointSlice, NetworkPolicy), or a directory of them; followed for changes
    #[arg(long, value_name = "PATH", conflicts_with_all = ["kube", "kubeconfig"])]
    manifests: Option<PathBuf>,
    /// The API server of the cluster that xlb runs in, or of the kubeconfig. The default inside a cluster
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", action = ArgAction::Set)]
    kube: bool,
    /// How to reach the API server from outside of a cluster; means --kube
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl SourceArgs {
    /// The source that was chosen.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn choice(self, is_in_cluster: bool) -> Result<SourceChoice> {
        let Self { manifests, kube, kubeconfig } = self;
        match manifests {
            Some(path) => Ok(SourceChoice::Manifests(path)),
            None if kube || kubeconfig.is_some() || is_in_cluster => Ok(SourceChoice::Kube(kubeconfig)),
            None => bail!("give --manifests PATH, or --kubeconfig FILE to follow a cluster from outside of it"),
        }
    }
}
