//! The packets of scenarios once more, through the loaded programs (BPF_PROG_TEST_RUN): verdict, reason and bytes have to
//! be those of the path in memory.
//!
//! The object is loaded once. In front of a packet the kernel's maps become the node's tables, unless the packets since
//! then went through both. What pods' kernels know are real sockets: connections that nobody negotiated (TCP_REPAIR), in
//! the namespace of the test-runs, which stands for the namespaces of all pods; their addresses tell them apart.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
use nix::time::{ClockId, clock_gettime};
use xlb_common::abi::{AffinityEntry, Config, NETNS_HOST};
use xlb_common::memory::{FamilyTables, InMemory, MemoryTables};
use xlb_common::{Disposition, Reason};

use crate::kernel::dataplane::Dataplane;
use crate::kernel::describe::describe;
use crate::kernel::host;
use crate::kernel::outcome::{Hook, Outcome};

/// Pods of the node's own network are behind its stack.
const CONFIG: Config =
    Config { stack_in_use: 1, settings: xlb_common::abi::Settings::NONE, generation: 0, only_uplink: 0, zero: 0 };
/// Records of affinity become younger by this, so that one as old as its timeout has not expired before it is read; times
/// in scenarios are whole seconds.
const HEADROOM_NS: u64 = 500_000_000;

/// The programs, and what was written for them last.
pub struct InKernel {
    dataplane: RefCell<Dataplane>,
    written: RefCell<MemoryTables>,
    is_current: Cell<bool>,
    sockets: RefCell<Vec<OwnedFd>>,
    packets: Cell<usize>,
}

impl InKernel {
    /// Loads the object, in a network namespace that the calling thread enters.
    pub fn load() -> Result<Self> {
        let dataplane = Dataplane::load(&MemoryTables::default(), CONFIG)?;
        for family in ["-4", "-6"] {
            let status = Command::new("ip").args([family, "route", "add", "default", "dev", "lo"]).status();
            ensure!(status.context("running ip")?.success(), "the namespace takes no default route");
        }
        Ok(Self {
            dataplane: RefCell::new(dataplane),
            written: RefCell::default(),
            is_current: Cell::new(false),
            sockets: RefCell::default(),
            packets: Cell::new(0),
        })
    }

    /// How many packets were compared.
    pub fn packets(&self) -> usize {
        self.packets.get()
    }

    /// Another node's pods: their sockets are not known any more.
    pub fn begin(&self) {
        self.sockets.borrow_mut().clear();
        self.is_current.set(false);
    }

    /// The tables were changed, or a packet went through memory alone.
    pub fn is_behind(&self) {
        self.is_current.set(false);
    }

    /// The pod's kernel has this connection.
    pub fn connect(&self, client: SocketAddr, pod: SocketAddr) -> Result<()> {
        let opened = connection(client, pod).with_context(|| format!("making a connection of {client} to {pod}"))?;
        self.sockets.borrow_mut().push(opened);
        Ok(())
    }

    /// The packet in memory, then in the kernel.
    pub fn run(&self, tables: &MemoryTables, hook: Hook, frame: &[u8]) -> Result<Outcome> {
        if is_no_skb(frame) {
            return Ok(host::run(tables, hook, frame));
        }
        self.catch_up(tables)?;
        let in_memory = host::run(tables, hook, frame);
        self.compare(hook, frame, &in_memory)?;
        let is_decided_by_xdp = in_memory
            .reason
            .is_some_and(|reason| matches!(reason.disposition(), Disposition::Drop | Disposition::Reply));
        if hook == Hook::Tc && is_decided_by_xdp {
            let by_xdp = host::run(tables, Hook::Xdp, frame);
            let is_left = by_xdp.reason == Some(Reason::LeftToTc);
            ensure!(is_left || by_xdp == in_memory, "ingress_xdp decides otherwise than ingress_tc: {by_xdp:?}");
            self.compare(Hook::Xdp, frame, &by_xdp)?;
        }
        Ok(in_memory)
    }

    fn compare(&self, hook: Hook, frame: &[u8], in_memory: &Outcome) -> Result<()> {
        let mut dataplane = self.dataplane.borrow_mut();
        dataplane.maps.refill_answers()?;
        let in_kernel = dataplane.run(hook, frame)?.context("the kernel takes no such packet for a test-run")?;
        self.packets.set(self.packets.get() + 1);
        ensure!(in_kernel == *in_memory, "in the kernel {}, in memory {}", told(&in_kernel), told(in_memory));
        Ok(())
    }

    fn catch_up(&self, tables: &MemoryTables) -> Result<()> {
        if self.is_current.replace(true) {
            return Ok(());
        }
        let after = as_kernel_has_it(tables)?;
        let before = self.written.replace(after.clone());
        self.dataplane.borrow_mut().replace(&before, &after, CONFIG)
    }
}

/// Test-run makes no skb of a frame that ends inside its IP header.
fn is_no_skb(frame: &[u8]) -> bool {
    let header = if frame[12..14] == [0x86, 0xdd] { 40 } else { 20 };
    frame.len() < 14 + header
}

fn told(outcome: &Outcome) -> String {
    format!("{:?} ({:?}) {}", outcome.verdict, outcome.reason, describe(&outcome.frame))
}

/// The tables by the kernel's clock, with all pods in the namespace of the test-runs.
fn as_kernel_has_it(tables: &MemoryTables) -> Result<MemoryTables> {
    let mut tables = tables.clone();
    for backend in tables.backends.values_mut() {
        backend.netns_id = NETNS_HOST;
    }
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading the clock")?;
    let now_ns = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
    by_clock(&tables.v4, tables.now_ns, now_ns);
    by_clock(&tables.v6, tables.now_ns, now_ns);
    Ok(tables)
}

/// A record older than this machine's clock is as if it were not there, if that is too old for every service; else it is
/// as old as the clock.
fn by_clock<F: InMemory>(tables: &FamilyTables<F>, then_ns: u64, now_ns: u64) {
    let longest_s = tables.frontends.values().map(|frontend| frontend.affinity_s).max().unwrap_or_default();
    let longest_ns = u64::from(longest_s) * 1_000_000_000;
    let age_ns = |entry: &AffinityEntry| then_ns.saturating_sub(entry.last_new_ns).saturating_sub(HEADROOM_NS);
    let mut affinity = tables.affinity.borrow_mut();
    affinity.retain(|_, entry| age_ns(entry) <= now_ns || age_ns(entry) <= longest_ns);
    for entry in affinity.values_mut() {
        entry.last_new_ns = now_ns.saturating_sub(age_ns(entry));
    }
}

/// A pod's end of a connection that is open from the start, and goes without a word.
fn connection(client: SocketAddr, pod: SocketAddr) -> Result<OwnedFd> {
    let family = if pod.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let end = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).context("making a socket")?;
    socket::setsockopt(&end, sockopt::IpTransparent, &true).context("taking a pod's address")?;
    socket::setsockopt(&end, sockopt::ReuseAddr, &true).context("sharing a pod's port")?;
    socket::setsockopt(&end, sockopt::TcpRepair, &1).context("skipping the handshake")?;
    socket::bind(end.as_raw_fd(), &SockaddrStorage::from(pod)).context("binding")?;
    socket::connect(end.as_raw_fd(), &SockaddrStorage::from(client)).context("connecting")?;
    Ok(end)
}
