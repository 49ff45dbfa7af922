//! Whether a pod's end of its veth takes frames that native XDP redirects: only the pod's own network namespace can
//! tell.
//!
//! A veth receives such frames when its NAPI runs, that is when its GRO is on or an XDP program is attached to it
//! (`veth_xdp_xmit` in drivers/net/veth.c). Only GRO is looked at: a pod that runs its own XDP program without GRO is
//! served by tc, which always works.
//!
//! Finding the namespace needs /proc of the host (`hostPID: true`) or /run/netns; without them the answer is no, and tc
//! serves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use tracing::debug;

use super::snapshot::{Link, Snapshot};
use super::{Location, ethtool};

/// Room for the answer to one RTM_GETNSID, in bytes.
const NETNS_ID_ANSWER_BYTES: usize = 4096;

/// Fills in `takes_xdp_frames` of every pod behind a veth.
///
/// Expensive (it looks through all processes once) and blocking; call it only when XDP is in use, on a thread in the
/// node's namespace.
pub fn complete_with_xdp(snapshot: &Snapshot, pods: &mut BTreeMap<Ipv4Addr, Location>) {
    let links = pods.values().filter_map(|location| link_of(snapshot, location));
    let namespaces = find_namespaces(links.filter_map(|link| link.netns_id).collect());
    for location in pods.values_mut() {
        let takes = link_of(snapshot, location).is_some_and(|link| pod_end_takes_frames(link, &namespaces));
        if let Location::Link(pod) = location {
            pod.takes_xdp_frames = takes;
        }
    }
}

/// The same for one link; for many, [`complete_with_xdp`] looks through the processes only once.
pub fn takes_xdp_frames(link: &Link) -> bool {
    pod_end_takes_frames(link, &find_namespaces(link.netns_id.into_iter().collect()))
}

fn link_of<'a>(snapshot: &'a Snapshot, location: &Location) -> Option<&'a Link> {
    match location {
        Location::Link(pod) => snapshot.links.get(&pod.ifindex),
        _ => None,
    }
}

fn pod_end_takes_frames(link: &Link, namespaces: &BTreeMap<i32, File>) -> bool {
    if link.kind != "veth" {
        return false;
    }
    pod_end_gro(link, namespaces).unwrap_or_else(|error| {
        debug!("pod's end of {} counts as one that takes no xdp frames: {error:#}", link.name);
        false
    })
}

fn pod_end_gro(link: &Link, namespaces: &BTreeMap<i32, File>) -> Result<bool> {
    let peer_index = link.peer_index.context("it has no other end")?;
    let namespace = match link.netns_id {
        None => None,
        Some(id) => Some(namespaces.get(&id).with_context(|| format!("network namespace {id} was not found"))?),
    };
    std::thread::scope(|scope| scope.spawn(|| gro_in(namespace, peer_index)).join())
        .map_err(|_| anyhow!("the thread that looked failed"))?
}

/// Runs on a thread of its own: entering a namespace changes the thread, and the thread ends with it.
fn gro_in(namespace: Option<&File>, index: u32) -> Result<bool> {
    if let Some(namespace) = namespace {
        setns(namespace, CloneFlags::CLONE_NEWNET).context("entering the pod's network namespace")?;
    }
    let name = nix::net::if_::if_indextoname(index).with_context(|| format!("looking up interface {index}"))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("opening a socket")?;
    let name = name.to_str().context("reading the interface's name")?;
    ethtool::gro_is_on(&socket, name).with_context(|| format!("asking {name} for its gro"))
}

/// The namespaces with these ids. An open file keeps a namespace alive after its pod: they must be closed soon.
fn find_namespaces(mut wanted: BTreeSet<i32>) -> BTreeMap<i32, File> {
    let mut found = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for path in namespace_paths() {
        if wanted.is_empty() {
            break;
        }
        // A process may end, and a file may vanish, while we look.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        let Ok(file) = File::open(&path) else { continue };
        match netns_id(&file) {
            Ok(Some(id)) if wanted.remove(&id) => {
                found.insert(id, file);
            }
            Ok(_) => {}
            Err(error) => debug!("asking for the id of {}: {error:#}", path.display()),
        }
    }
    found
}

/// Named namespaces first: they are few.
fn namespace_paths() -> impl Iterator<Item = PathBuf> {
    let named = fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.path());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    named.chain(processes.map(|entry| entry.path().join("ns/net")))
}

/// The id by which this thread's network namespace knows another one (RTM_GETNSID), if it has given it one.
fn netns_id(namespace: &File) -> Result<Option<i32>> {
    let mut request = NsidMessage::default();
    request.attributes.push(NsidAttribute::Fd(u32::try_from(namespace.as_raw_fd())?));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(request));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);

    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let mut answer = Vec::with_capacity(NETNS_ID_ANSWER_BYTES);
    socket.recv(&mut answer, 0)?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(|error| anyhow!("{error}"))?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(message)) => Ok(assigned_id(&message)),
        NetlinkPayload::Error(error) => bail!(error.to_io()),
        _ => bail!("the kernel answered something else"),
    }
}

fn assigned_id(message: &NsidMessage) -> Option<i32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) => Some(*id).filter(|id| *id >= 0),
        _ => None,
    })
}
