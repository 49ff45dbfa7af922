//! Tells when files may have changed: by inotify at once, and by a regular look in case inotify missed something.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout_at};
use tracing::warn;

/// Between two looks at the files when inotify is silent.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Silence after which a finished change counts as the last of its burst.
const FINISHED_QUIET_MS: u64 = 20;
/// The same while somebody has written to a file and not closed it yet: what is there may be half of it.
const UNFINISHED_QUIET_MS: u64 = 200;
/// The longest that a burst is waited for.
const BURST_MAX_MS: u64 = 1000;

/// Watches one directory, not those below it.
pub struct Watch {
    directory: PathBuf,
    inotify: Option<RecommendedWatcher>,
    armed_on: Option<Identity>,
    news: Receiver<Progress>,
    // Kept so that `news` never closes, even without inotify.
    _sender: Arc<Sender<Progress>>,
    is_pending: bool,
    next_look: Instant,
}

/// Device and inode: what tells a directory from another that took its name.
type Identity = (u64, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Finished,
    Unfinished,
}

impl Watch {
    /// Starts to watch. Without inotify it still works, but only by looking every few seconds.
    pub fn new(directory: &Path) -> Self {
        let (sender, news) = channel(Progress::Finished);
        let sender = Arc::new(sender);
        let tell = sender.clone();
        let on_event = move |event: notify::Result<Event>| {
            if let Some(progress) = progress(event) {
                tell.send_replace(progress);
            }
        };
        let inotify = notify::recommended_watcher(on_event).inspect_err(|error| {
            warn!("watching {} by looking every {LOOK_INTERVAL:?}: {error}", directory.display());
        });
        let mut watch = Self {
            directory: directory.into(),
            inotify: inotify.ok(),
            armed_on: None,
            news,
            _sender: sender,
            is_pending: false,
            next_look: Instant::now() + LOOK_INTERVAL,
        };
        watch.arm();
        watch
    }

    /// Waits until it is worth looking at the files, and whoever writes them seems to have finished. May be dropped and
    /// called again without losing anything.
    pub async fn settled(&mut self) {
        if !self.is_pending {
            // Silence ends as news does: with a look. The moment stays, however often the waiting begins anew.
            let _ = timeout_at(self.next_look, self.news.changed()).await;
            self.is_pending = true;
        }
        self.arm();
        self.quiet().await;
        self.is_pending = false;
        self.next_look = Instant::now() + LOOK_INTERVAL;
    }

    async fn quiet(&mut self) {
        let give_up = Instant::now() + Duration::from_millis(BURST_MAX_MS);
        loop {
            let quiet_ms = match *self.news.borrow_and_update() {
                Progress::Finished => FINISHED_QUIET_MS,
                Progress::Unfinished => UNFINISHED_QUIET_MS,
            };
            let until = give_up.min(Instant::now() + Duration::from_millis(quiet_ms));
            if timeout_at(until, self.news.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Points inotify at the directory that has the name now.
    fn arm(&mut self) {
        let Some(inotify) = &mut self.inotify else { return };
        let identity = fs::metadata(&self.directory).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if identity == self.armed_on {
            return;
        }
        // The kernel may have dropped the old watch together with the directory; then there is nothing to undo.
        let _ = inotify.unwatch(&self.directory);
        self.armed_on = None;
        if identity.is_none() {
            return;
        }
        match inotify.watch(&self.directory, RecursiveMode::NonRecursive) {
            Ok(()) => self.armed_on = identity,
            Err(error) => warn!("watching {}: {error}; looking again in {LOOK_INTERVAL:?}", self.directory.display()),
        }
    }
}

/// What an event says about a file; none for those that change nothing, such as our own reading.
fn progress(event: notify::Result<Event>) -> Option<Progress> {
    let Ok(event) = event else { return Some(Progress::Finished) };
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Progress::Finished),
        EventKind::Access(_) => None,
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => Some(Progress::Unfinished),
        EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Any | EventKind::Other => Some(Progress::Finished),
    }
}
