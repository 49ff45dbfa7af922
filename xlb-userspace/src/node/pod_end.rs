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
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
pub fn complete_with_xdp(snapshot: &Snapshot, pods: &mut BTreeMap<IpAddr, Location>) {
    let links: BTreeMap<u32, &Link> =
        pods.values().filter_map(|location| link_of(snapshot, location)).map(|link| (link.index, link)).collect();
    let taking = links_that_take_frames(links.into_values());
    for location in pods.values_mut() {
        if let Location::Link(pod) = location {
            pod.takes_xdp_frames = taking.contains(&pod.ifindex);
        }
    }
}

/// The same for one link; for many, [`complete_with_xdp`] looks through the processes only once.
pub fn takes_xdp_frames(link: &Link) -> bool {
    links_that_take_frames([link]).contains(&link.index)
}

fn link_of<'a>(snapshot: &'a Snapshot, location: &Location) -> Option<&'a Link> {
    match location {
        Location::Link(pod) => snapshot.links.get(&pod.ifindex),
        _ => None,
    }
}

/// The indexes of those links whose other end takes frames.
fn links_that_take_frames<'a>(links: impl IntoIterator<Item = &'a Link>) -> BTreeSet<u32> {
    let mut ends: BTreeMap<Option<i32>, Vec<&Link>> = BTreeMap::new();
    for link in links.into_iter().filter(|link| link.kind == "veth") {
        ends.entry(link.netns_id).or_default().push(link);
    }
    let looker = std::thread::scope(|scope| scope.spawn(|| look_at_all(ends)).join());
    looker.map_err(|_| anyhow!("the thread that looked failed")).flatten().unwrap_or_else(|error| {
        debug!("no pod's end counts as one that takes xdp frames: {error:#}");
        BTreeSet::new()
    })
}

/// Runs on a thread of its own: entering a namespace changes the thread, and the thread ends with it. The ends in this
/// namespace come first.
fn look_at_all(mut ends: BTreeMap<Option<i32>, Vec<&Link>>) -> Result<BTreeSet<u32>> {
    let ids = NamespaceIds::open().context("opening a netlink socket")?;
    let mut taking = look_here(&ends.remove(&None).unwrap_or_default());
    let mut seen = BTreeSet::new();
    for path in namespace_paths() {
        if ends.is_empty() {
            break;
        }
        let Some((id, namespace)) = open_new(&path, &ids, &mut seen) else { continue };
        let Some(links) = ends.remove(&Some(id)) else { continue };
        match setns(&namespace, CloneFlags::CLONE_NEWNET) {
            Ok(()) => taking.extend(look_here(&links)),
            Err(error) => debug!("entering network namespace {id}: {error}"),
        }
    }
    for (id, links) in &ends {
        let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
        debug!("network namespace {id:?} was not found: {} counts as one that takes no xdp frames", names.join(", "));
    }
    Ok(taking)
}

/// Those of the links whose other end is in this thread's namespace and takes frames.
fn look_here(links: &[&Link]) -> BTreeSet<u32> {
    let takes = |link: &&&Link| {
        pod_end_gro(link).unwrap_or_else(|error| {
            debug!("pod's end of {} counts as one that takes no xdp frames: {error:#}", link.name);
            false
        })
    };
    links.iter().filter(takes).map(|link| link.index).collect()
}

fn pod_end_gro(link: &Link) -> Result<bool> {
    let index = link.peer_index.context("it has no other end")?;
    let name = nix::net::if_::if_indextoname(index).with_context(|| format!("looking up interface {index}"))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("opening a socket")?;
    let name = name.to_str().context("reading the interface's name")?;
    ethtool::gro_is_on(&socket, name).with_context(|| format!("asking {name} for its gro"))
}

/// The namespace and its id, unless it was met before or has none. An open file keeps a namespace alive after its pod:
/// it must be closed soon.
fn open_new(path: &Path, ids: &NamespaceIds, seen: &mut BTreeSet<(u64, u64)>) -> Option<(i32, File)> {
    // A process may end, and a file may vanish, while we look.
    let metadata = fs::metadata(path).ok()?;
    if !seen.insert((metadata.dev(), metadata.ino())) {
        return None;
    }
    let file = File::open(path).ok()?;
    let id = ids.id_of(&file).unwrap_or_else(|error| {
        debug!("asking for the id of {}: {error:#}", path.display());
        None
    });
    Some((id?, file))
}

/// Named namespaces first: they are few.
fn namespace_paths() -> impl Iterator<Item = PathBuf> {
    let named = fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.path());
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    named.chain(processes.map(|entry| entry.path().join("ns/net")))
}

/// Asks by which ids a network namespace knows the others (RTM_GETNSID): the one that it was opened in, wherever its
/// thread went since.
struct NamespaceIds(Socket);

impl NamespaceIds {
    fn open() -> std::io::Result<Self> {
        Socket::new(NETLINK_ROUTE).map(Self)
    }

    fn id_of(&self, namespace: &File) -> Result<Option<i32>> {
        let mut request = NsidMessage::default();
        request.attributes.push(NsidAttribute::Fd(u32::try_from(namespace.as_raw_fd())?));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(request));
        request.header.flags = NLM_F_REQUEST;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);

        self.0.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
        let mut answer = Vec::with_capacity(NETNS_ID_ANSWER_BYTES);
        self.0.recv(&mut answer, 0)?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(|error| anyhow!("{error}"))?;
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(message)) => Ok(assigned_id(&message)),
            NetlinkPayload::Error(error) => bail!(error.to_io()),
            _ => bail!("the kernel answered something else"),
        }
    }
}

fn assigned_id(message: &NsidMessage) -> Option<i32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) => Some(*id).filter(|id| *id >= 0),
        _ => None,
    })
}
