//! What any client of the API server needs to hear of a change: a watch that reads, and does nothing with it. The agent cannot be
//! faster.

use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt as _};
use tokio::runtime::Builder;
use xlb_userspace::source::kube::client;

use super::Figure;
use super::churn::{Probe, Watcher, churn, quantile};
use crate::api::ApiServer;
use crate::scale::{Scale, World};

/// Measures it once, by a connection as the agent's.
pub fn measure(scale: Scale, changes: u32) -> Result<Vec<Figure>> {
    let mut world = World::new(scale);
    let server = ApiServer::new();
    server.apply_all(world.objects());
    let pods = [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)];
    let probe = Probe { server: &server, vip: Ipv4Addr::new(203, 0, 113, 1), pods };
    probe.begin();

    let listening = server.listen()?;
    let directory = tempfile::tempdir()?;
    let kubeconfig = directory.path().join("kubeconfig");
    listening.write_kubeconfig(&kubeconfig)?;
    let (teller, heard) = channel();
    let version = server.version().to_string();
    let listener = thread::spawn(move || -> Result<()> {
        Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(async { listen(client::client(Some(&kubeconfig)).await?, &version, &teller).await })
    });
    let mut watcher = Watcher::start(&probe, move || has_heard(&heard))?;
    let latencies = churn(&mut world, &mut watcher, changes)?;
    drop(watcher);
    // The next change finds nobody who listens for it, and the listener ends.
    probe.move_on();
    listener.join().expect("the listener ends")?;
    Ok(vec![
        Figure::ms("client: change sent to heard by a watch, p50", quantile(&latencies, 50)),
        Figure::ms("client: change sent to heard by a watch, p99", quantile(&latencies, 99)),
    ])
}

async fn listen(client: Client, version: &str, teller: &Sender<()>) -> Result<()> {
    let slices: Api<EndpointSlice> = Api::all(client);
    let mut events = slices.watch(&WatchParams::default(), version).await?.boxed();
    while let Some(event) = events.try_next().await? {
        let is_of_probe =
            matches!(event, WatchEvent::Modified(slice) if slice.namespace().as_deref() == Some(Probe::NAMESPACE));
        if is_of_probe && teller.send(()).is_err() {
            return Ok(());
        }
    }
    bail!("the watch ended")
}

fn has_heard(heard: &Receiver<()>) -> Result<bool> {
    match heard.try_recv() {
        Ok(()) => Ok(true),
        Err(TryRecvError::Empty) => Ok(false),
        Err(error) => Err(error).context("the listener has ended"),
    }
}
