//! Runs a fact on a cluster of either kind, and the facts of this binary once more over a kubeconfig.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;

use tokio::runtime::{Builder, Runtime};
use xlb_tests::api::{ApiServer, KUBECONFIG_VARIABLE, TestCluster, kubeconfig};

/// Runs a fact in a namespace of its own, which is removed afterwards, also when the fact does not hold. In process time
/// is paused; on a real cluster, or over a socket, it is real.
pub fn on_any_cluster(fact: impl AsyncFnOnce(&TestCluster)) {
    let runtime = runtime();
    let cluster = runtime.block_on(TestCluster::open()).expect("a cluster");
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(fact(&cluster))));
    let removed = runtime.block_on(cluster.remove());
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
    removed.expect("the namespace is removed");
}

/// Runs this binary again over a real socket, with a kubeconfig for the test server itself. Facts whose names hold
/// `any_cluster` have to pass, those whose names hold `faults` have to say that they need the test server.
pub fn assert_facts_hold_over_a_kubeconfig(any_cluster: &str, faults: Option<&str>) {
    if kubeconfig().is_some() {
        return; // They run over one already.
    }
    let server = ApiServer::new();
    let listening = server.listen().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    listening.write_kubeconfig(&path).unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(KUBECONFIG_VARIABLE, &path).arg(any_cluster).args(faults);
    let output = command.args(["--skip", "over_a_kubeconfig"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("running 0 tests"), "{said}");
    if let Some(faults) = faults {
        let skipped = said.lines().any(|line| line.contains("skipped ") && line.contains("needs the test API server"));
        assert!(skipped && said.contains(faults), "{said}");
    }
    assert!(!server.requests_of("create", "namespaces").is_empty(), "the facts did not reach the server");
    for left in ["namespaces", "services", "endpointslices", "networkpolicies", "events", "leases"] {
        assert_eq!(server.objects(left).len(), 0, "{left} were left behind");
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(kubeconfig().is_none()).build().expect("a runtime")
}
