//! A thread inside a namespace with an event loop: its sockets are made there, and all its tasks run on it.

use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use tokio::runtime::Builder;
use tokio::sync::watch;

use crate::lab::Namespace;

/// The end of a load, as its tasks see it.
#[derive(Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// The side that asks for it, and the side that hears of it.
    pub fn channel() -> (watch::Sender<bool>, Stop) {
        let (ask, asked) = watch::channel(false);
        (ask, Stop(asked))
    }

    /// Whether it was asked for.
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is asked for.
    pub async fn asked(&mut self) {
        // Whoever has forgotten the load wants it no longer.
        let _ = self.0.wait_for(|is_asked| *is_asked).await;
    }
}

/// Runs what `main` returns until it ends; what it has spawned ends with it.
pub(super) fn spawn<F, T>(namespace: &Namespace, main: impl FnOnce() -> F + Send + 'static) -> JoinHandle<Result<T>>
where
    F: Future<Output = Result<T>>,
    T: Send + 'static,
{
    namespace.spawn(move || run(async { main().await }))
}

/// Runs it on this thread.
pub(super) fn run<T>(main: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build().context("making an event loop")?;
    runtime.block_on(main)
}

/// What the thread returned; its panic becomes the caller's.
pub(super) fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
