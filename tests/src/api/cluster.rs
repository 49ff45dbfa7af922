//! A cluster for tests of what xlb expects of an API server: the one of this repository, or a real one.
//!
//! `XLB_TEST_KUBECONFIG` names the kubeconfig of a real cluster. The tests then work in namespaces of their own, which are
//! removed afterwards, and need to be allowed to make them.

use std::env;
use std::fmt::Debug;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use xlb_userspace::source::kube::client;

use super::ApiServer;

/// The variable that names the kubeconfig of a real cluster.
pub const KUBECONFIG_VARIABLE: &str = "XLB_TEST_KUBECONFIG";

/// A namespace of its own in a cluster.
pub struct TestCluster {
    client: Client,
    namespace: String,
    node_name: String,
}

/// The kubeconfig of the real cluster, if the tests are to use one.
pub fn kubeconfig() -> Option<PathBuf> {
    env::var_os(KUBECONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

impl ApiServer {
    /// A server for a test of faults, which no real cluster has on demand; none where the tests run on a real one, and
    /// a sentence on standard error, also where the output of tests is captured.
    pub fn for_faults() -> Option<ApiServer> {
        if kubeconfig().is_none() {
            return Some(ApiServer::new());
        }
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        let why = format!("it needs the test API server, and {KUBECONFIG_VARIABLE} names a cluster");
        // A test that cannot say so is skipped nevertheless.
        let _ = writeln!(io::stderr(), "skipped {test}: {why}");
        None
    }
}

impl TestCluster {
    /// Makes a namespace in the cluster of `XLB_TEST_KUBECONFIG`, or in a new server in this process.
    pub async fn open() -> Result<TestCluster> {
        let client = match kubeconfig() {
            Some(path) => client::client(Some(&path)).await?,
            None => ApiServer::new().client(),
        };
        let wanted = from_json(json!({ "metadata": { "generateName": "xlb-test-" } }))?;
        let namespace = Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &wanted)
            .await
            .context("making a namespace; the tests need to be allowed to create namespaces")?
            .name_any();
        let node_name = some_node(&client).await?;
        Ok(TestCluster { client, namespace, node_name })
    }

    /// Removes the namespace with all that is in it.
    pub async fn remove(&self) -> Result<()> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let removed = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
        removed.map(drop).with_context(|| format!("removing the namespace {}", self.namespace))
    }

    /// A client of the whole cluster.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The name of the namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A Node of the cluster.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    /// The objects of a kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an object in the namespace.
    pub async fn create<K>(&self, object: Value) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
    {
        let created = self.api().create(&PostParams::default(), &from_json(object)?).await;
        created.with_context(|| format!("creating a {} in {}", K::kind(&()), self.namespace))
    }
}

/// A Node that is there, or one that is made: a real cluster has some, a new server has none.
async fn some_node(client: &Client) -> Result<String> {
    let nodes = Api::<Node>::all(client.clone());
    if let Some(node) = nodes.list(&ListParams::default().limit(1)).await.context("listing nodes")?.items.first() {
        return Ok(node.name_any());
    }
    let wanted = from_json(json!({ "metadata": { "generateName": "node-" } }))?;
    Ok(nodes.create(&PostParams::default(), &wanted).await.context("making a Node")?.name_any())
}

fn from_json<K: DeserializeOwned>(object: Value) -> Result<K> {
    serde_json::from_value(object).context("reading an object of a test")
}
