//! Facts about the way to the API server.

use super::*;

#[tokio::test]
async fn a_kubeconfig_leads_to_a_client_also_over_tls() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    for scheme in ["http", "https"] {
        std::fs::write(&path, kubeconfig(&format!("{scheme}://127.0.0.1:1"))).unwrap();
        assert!(client(Some(&path)).await.is_ok(), "{scheme}");
    }
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_named() {
    let error = client(Some(Path::new("/nowhere"))).await.map(|_| ()).unwrap_err();
    assert!(format!("{error:#}").starts_with("reading the kubeconfig /nowhere: "), "{error:#}");
}

fn kubeconfig(server: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: '{server}'}}}}]
users: [{{name: u, user: {{token: t}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"
    )
}
