//! Following the node until something is so.

use std::net::IpAddr;
use std::time::Duration;

use xlb_userspace::node::{Changes, Location, Netlink, PodLink, Snapshot};

/// How long anything may take.
pub const WAIT: Duration = Duration::from_secs(5);

/// The pod's link, once its MAC is known too.
pub async fn wait_for_link(netlink: &Netlink, changes: &mut Changes, pod: IpAddr) -> PodLink {
    let find = |snapshot: &Snapshot| match snapshot.locate(pod) {
        Location::Link(link) if link.pod_mac.is_some() => Some(link),
        _ => None,
    };
    wait_for(netlink, changes, find).await
}

/// Looks at the node again at each change until something is found in it.
pub async fn wait_for<T>(netlink: &Netlink, changes: &mut Changes, find: impl Fn(&Snapshot) -> Option<T>) -> T {
    let found = async {
        loop {
            match find(&netlink.snapshot().await.unwrap()) {
                Some(found) => return found,
                None => changes.next().await.unwrap(),
            }
        }
    };
    tokio::time::timeout(WAIT, found).await.unwrap()
}

/// Takes the changes of the lab's own making until it is quiet; how many there were.
pub async fn settle(changes: &mut Changes) -> usize {
    let mut heard = 0;
    while tokio::time::timeout(Duration::from_secs(1), changes.next()).await.is_ok() {
        heard += 1;
    }
    heard
}
