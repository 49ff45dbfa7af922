//! The server over loopback HTTP, for processes that are not this one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tower::Service as _;

use super::ApiServer;

/// A server that listens until this is dropped. It has a thread and a runtime of its own, and runs on real time.
pub struct Listening {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl ApiServer {
    /// Listens on a free port of loopback.
    pub fn listen(&self) -> Result<Listening> {
        self.listen_at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Listens on an address: the one of a server that was stopped, for example.
    pub fn listen_at(&self, address: SocketAddr) -> Result<Listening> {
        let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        self.serve(listener)
    }

    /// Serves a listener that the caller bound, in a network namespace for example.
    pub fn serve(&self, listener: TcpListener) -> Result<Listening> {
        let address = listener.local_addr().context("reading the address of the listener")?;
        listener.set_nonblocking(true).with_context(|| format!("preparing the listener on {address}"))?;
        let runtime = Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
        let (stop, stopped) = oneshot::channel();
        let server = self.clone();
        let thread = thread::spawn(move || run(&runtime, server, listener, stopped));
        Ok(Listening { address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Listening {
    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes a kubeconfig that leads here.
    pub fn write_kubeconfig(&self, path: &Path) -> Result<()> {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{ "name": "test", "cluster": { "server": format!("http://{}", self.address) } }],
            "users": [{ "name": "test", "user": {} }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        });
        // JSON is YAML.
        std::fs::write(path, format!("{config:#}\n")).with_context(|| format!("writing {}", path.display()))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(runtime: &Runtime, server: ApiServer, listener: TcpListener, stopped: oneshot::Receiver<()>) {
    runtime.block_on(async {
        tokio::select! {
            result = accept(server, listener) => if let Err(error) = result {
                eprintln!("the test API server stopped listening: {error}");
            },
            _ = stopped => {}
        }
    });
}

async fn accept(server: ApiServer, listener: TcpListener) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (connection, _) = listener.accept().await?;
        // As a real API server: an event does not wait for the acknowledgement of the one before.
        connection.set_nodelay(true)?;
        let server = server.clone();
        let answers = service_fn(move |request| server.clone().call(request));
        // An error here is a client that left, or a fault that broke the connection on purpose.
        tokio::spawn(async move {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), answers).await;
        });
    }
}
