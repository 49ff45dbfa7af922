//! The way to the API server.

use std::env;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// For the TCP and TLS handshake.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Silence of a connection; longer than any watch lives.
const READ_LIMIT: Duration = Duration::from_secs(90);

/// Whether this process runs in a pod of a cluster.
#[must_use]
pub fn is_in_cluster() -> bool {
    env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// A client as the kubeconfig says, or as the pod's own service account.
///
/// # Errors
/// When there is neither, or it cannot be used.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await.with_context(|| format!("reading the kubeconfig {}", path.display()))?,
        None => {
            ensure!(is_in_cluster(), "--kube outside of a cluster needs --kubeconfig FILE");
            Config::incluster().context("reading the pod's service account")?
        }
    };
    config.connect_timeout = Some(CONNECT_LIMIT);
    config.read_timeout = Some(READ_LIMIT);
    // What fails is told to the follower, which knows best when to try again.
    config.default_retry = false;
    let url = config.cluster_url.clone();
    let without_ca = config.root_cert.is_none().then_some(
        " (a kubeconfig that names no certificate authority needs those of the system, which a container image has none of: put the \
         cluster's into its certificate-authority-data)",
    );
    Client::try_from(config).with_context(|| format!("preparing to talk to {url}{}", without_ca.unwrap_or_default()))
}

async fn from_file(path: &Path) -> Result<Config> {
    Ok(Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?)
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
