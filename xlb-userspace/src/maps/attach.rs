//! Which program is attached where. Every attachment is a pinned link, so that it outlives the agent, and is replaced by
//! an atomic update when the next agent finds it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::xdp::XdpLink;
use aya::programs::{TcAttachType, XdpMode};
use tracing::{debug, info, warn};
use xlb_common::hook::Hook;
use xlb_common::links;

use crate::maps::cgroup;
use crate::maps::link::{pin_link, remove_pin};
use crate::maps::object::{classifier, load_hook, load_links, xdp};
use crate::maps::pins::PinDirectory;

/// Which program meets the packets of an uplink first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FrontDoor {
    /// tc alone.
    Tc,
    /// XDP in the driver, tc behind it.
    XdpNative,
    /// XDP in the stack, alone: docs/decisions/0003.
    XdpGeneric,
}

impl fmt::Display for FrontDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tc => "tc",
            Self::XdpNative => "native XDP",
            Self::XdpGeneric => "generic XDP",
        })
    }
}

/// The hooks of an uplink.
const OF_UPLINK: [Hook; 4] = [Hook::Egress, Hook::Tc, Hook::Xdp, Hook::XdpAlone];

/// The loaded programs and their links.
pub struct Hooks {
    ebpf: Ebpf,
    pins: PinDirectory,
    /// Pins of this agent's links. What else is in the directory was left by an earlier one.
    wanted: BTreeSet<PathBuf>,
}

impl Hooks {
    /// Hooks for a loaded object.
    #[must_use]
    pub fn new(ebpf: Ebpf, pins: PinDirectory) -> Self {
        Self { ebpf, pins, wanted: BTreeSet::new() }
    }

    /// Attaches to an uplink. The way out first, so that no reply leaves unrestored.
    ///
    /// # Errors
    /// When the kernel refuses, for example because another XDP program is attached.
    pub fn attach_uplink(&mut self, interface: &str, ifindex: u32, door: FrontDoor) -> Result<()> {
        self.attach_tc(Hook::Egress, interface, ifindex, TcAttachType::Egress)?;
        match door {
            FrontDoor::Tc => self.attach_tc(Hook::Tc, interface, ifindex, TcAttachType::Ingress),
            FrontDoor::XdpNative => {
                self.attach_tc(Hook::Tc, interface, ifindex, TcAttachType::Ingress)?;
                self.attach_xdp(Hook::Xdp, interface, ifindex, XdpMode::Driver)
            }
            FrontDoor::XdpGeneric => self.attach_xdp(Hook::XdpAlone, interface, ifindex, XdpMode::Skb),
        }
    }

    /// Attaches to the host's end of a pod's link. Must be done before the pod's backend becomes `direct`.
    ///
    /// # Errors
    /// When the kernel refuses, for example because the link is gone.
    pub fn attach_pod(&mut self, interface: &str, ifindex: u32) -> Result<()> {
        self.attach_tc(Hook::Pod, interface, ifindex, TcAttachType::Ingress)
    }

    /// Attaches what serves clients behind a pod's link. Answers are restored before the first question is directed.
    ///
    /// # Errors
    /// As for [`Self::attach_pod`].
    pub fn attach_link(&mut self, interface: &str, ifindex: u32) -> Result<()> {
        load_links(&mut self.ebpf)?;
        self.attach_classifier(links::EGRESS, interface, ifindex, TcAttachType::Egress)?;
        self.attach_classifier(links::INGRESS, interface, ifindex, TcAttachType::Ingress)
    }

    /// Removes what is left of every link that is not listed.
    pub fn retain_links(&mut self, ifindexes: &BTreeSet<u32>) {
        let programs = [links::INGRESS, links::EGRESS];
        let keep: BTreeSet<_> =
            ifindexes.iter().flat_map(|&ifindex| programs.map(|program| self.pin(program, ifindex))).collect();
        let is_links = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            programs.iter().any(|program| name.strip_prefix(program).is_some_and(|rest| rest.starts_with('-')))
        };
        let before = self.wanted.len();
        self.wanted.retain(|path| !is_links(path) || keep.contains(path));
        if self.wanted.len() < before {
            self.remove_unwanted();
        }
    }

    /// Removes what is left of an uplink that is gone.
    pub fn forget_uplink(&mut self, ifindex: u32) {
        for hook in OF_UPLINK {
            self.wanted.remove(&self.pin(hook.program(), ifindex));
        }
        self.remove_unwanted();
    }

    /// Detaches from every pod's link that is not listed.
    pub fn retain_pods(&mut self, ifindexes: &BTreeSet<u32>) {
        let keep: BTreeSet<_> = ifindexes.iter().map(|&ifindex| self.pin(Hook::Pod.program(), ifindex)).collect();
        let is_pod = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pod-"));
        self.wanted.retain(|path| !is_pod(path) || keep.contains(path));
        self.remove_unwanted();
    }

    /// Attaches to a cgroup, beside whatever is attached there (links always are): what follows the pods' sockets and, if
    /// so, what serves clients inside.
    ///
    /// # Errors
    /// When the cgroup cannot be opened or the kernel refuses.
    pub fn attach_cgroup(&mut self, path: &Path, serves_inside: bool) -> Result<()> {
        self.wanted.extend(cgroup::attach(&mut self.ebpf, &self.pins, path, serves_inside)?);
        Ok(())
    }

    /// Removes links that an earlier agent left and this one does not want.
    pub fn remove_unwanted(&self) {
        cgroup::detach_all_but(&self.wanted, &self.pins);
        let Ok(entries) = fs::read_dir(self.pins.links()) else { return };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| !self.wanted.contains(path)) {
            match fs::remove_file(&path) {
                Ok(()) => debug!("detached {}", path.display()),
                Err(error) => warn!("detaching {}: {error}", path.display()),
            }
        }
    }

    fn attach_tc(&mut self, hook: Hook, interface: &str, ifindex: u32, direction: TcAttachType) -> Result<()> {
        load_hook(&mut self.ebpf, hook)?;
        self.attach_classifier(hook.program(), interface, ifindex, direction)
    }

    fn attach_classifier(&mut self, name: &str, interface: &str, ifindex: u32, direction: TcAttachType) -> Result<()> {
        let pin = self.pin(name, ifindex);
        if self.wanted.contains(&pin) {
            return Ok(());
        }
        let program = classifier(&mut self.ebpf, name)?;
        let update = |link| Ok(program.attach_to_link(SchedClassifierLink::try_from(link)?).map(drop)?);
        if !replace_program(&pin, update)? {
            let attaching = || format!("attaching the program {name} to {interface}");
            let order = TcAttachOptions::TcxOrder(self.order(name, ifindex)?);
            let program = classifier(&mut self.ebpf, name)?;
            let id = program.attach_with_options(interface, direction, order).with_context(attaching)?;
            pin_link(FdLink::try_from(program.take_link(id)?).with_context(attaching)?, &pin)?;
            info!("attached {name} to {interface}");
        }
        self.wanted.insert(pin);
        Ok(())
    }

    /// A program goes behind those that are there. Only replies of a backend, which are most of what it sends, shall not pay
    /// for a look at who may be a client, so they leave by `pod` before.
    fn order(&mut self, name: &str, ifindex: u32) -> Result<LinkOrder> {
        let is_behind_clients = name == Hook::Pod.program() && self.wanted.contains(&self.pin(links::INGRESS, ifindex));
        match is_behind_clients {
            true => Ok(LinkOrder::before_program(&*classifier(&mut self.ebpf, links::INGRESS)?)?),
            false => Ok(LinkOrder::default()),
        }
    }

    fn attach_xdp(&mut self, hook: Hook, interface: &str, ifindex: u32, mode: XdpMode) -> Result<()> {
        let (name, pin) = (hook.program(), self.pin(hook.program(), ifindex));
        load_hook(&mut self.ebpf, hook)?;
        // An interface takes one XDP program: what an agent in another mode left goes first.
        for other in OF_UPLINK.into_iter().filter(|other| other.is_xdp() && *other != hook) {
            remove_pin(&self.pin(other.program(), ifindex))?;
        }
        let program = xdp(&mut self.ebpf, name)?;
        let update = |link| Ok(program.attach_to_link(XdpLink::try_from(link)?).map(drop)?);
        if !replace_program(&pin, update)? {
            let program = xdp(&mut self.ebpf, name)?;
            let id = program.attach(interface, mode).with_context(|| {
                format!("attaching XDP to {interface}: is another XDP program there (`ip link show {interface}`)?")
            })?;
            let Ok(link) = FdLink::try_from(program.take_link(id)?) else {
                bail!("the kernel made no link for XDP on {interface}: xlb could not detach it again");
            };
            pin_link(link, &pin)?;
            info!("attached {name} to {interface}");
        }
        self.wanted.insert(pin);
        Ok(())
    }

    fn pin(&self, program: &str, ifindex: u32) -> PathBuf {
        self.pins.links().join(format!("{program}-{ifindex}"))
    }
}

/// Puts a new program into the link that is pinned, without a gap. False when there is no link, or one whose interface
/// is gone: the kernel then refuses the update (ENOLINK), and the pin is removed.
fn replace_program(pin: &Path, update: impl FnOnce(FdLink) -> Result<()>) -> Result<bool> {
    if !pin.exists() {
        return Ok(false);
    }
    let link = PinnedLink::from_pin(pin).with_context(|| format!("opening the pinned link {}", pin.display()))?;
    match update(link.into()) {
        Ok(()) => Ok(true),
        Err(error) => {
            debug!("the link {} is dead: {error:#}", pin.display());
            remove_pin(pin)?;
            Ok(false)
        }
    }
}
