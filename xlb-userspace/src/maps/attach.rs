//! Which program is attached where. Every attachment is a pinned link, so that it outlives the agent, and is replaced by
//! an atomic update when the next agent finds it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::links::{FdLink, LinkOrder};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{SchedClassifier, TcAttachType, XdpMode};
use tracing::{debug, info, warn};
use xlb_common::hook::Hook;
use xlb_common::links;

use crate::maps::carry::Carry;
use crate::maps::cgroup;
use crate::maps::link::{pin_link, remove_pin, replace_program};
use crate::maps::pins::PinDirectory;
use crate::maps::programs::{Programs, not_kept};
use crate::maps::wanted::Refused;
use crate::maps::watching;

/// Which program meets the packets of an uplink first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FrontDoor {
    /// tc alone.
    Tc,
    /// XDP in the driver, tc behind it.
    XdpNative,
    /// XDP in the stack, alone: docs/decisions/0003.
    XdpGeneric,
}

impl FrontDoor {
    /// Name of the program that meets packets first.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Tc => Hook::Tc,
            Self::XdpNative => Hook::Xdp,
            Self::XdpGeneric => Hook::XdpAlone,
        }
        .program()
    }

    /// The one whose first program has this name.
    #[must_use]
    pub fn of_program(name: &str) -> Option<Self> {
        [Self::Tc, Self::XdpNative, Self::XdpGeneric].into_iter().find(|door| door.program() == name)
    }
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

/// The programs and their links.
pub struct Hooks {
    programs: Programs,
    pins: PinDirectory,
    /// Pins of this agent's links. What else is in the directory was left by an earlier one.
    wanted: BTreeSet<PathBuf>,
}

impl Hooks {
    /// Hooks for these programs.
    #[must_use]
    pub fn new(programs: Programs, pins: PinDirectory) -> Self {
        Self { programs, pins, wanted: BTreeSet::new() }
    }

    /// Why this agent's own programs do not serve; none: they do.
    #[must_use]
    pub fn refused(&self) -> Option<&Refused> {
        self.programs.refused()
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
        self.attach_classifier(Met::Link(links::EGRESS), interface, ifindex, TcAttachType::Egress)?;
        self.attach_classifier(Met::Link(links::INGRESS), interface, ifindex, TcAttachType::Ingress)
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
    /// so, what serves clients inside. Programs that an agent of before attached stay, if they are to be kept.
    ///
    /// # Errors
    /// When the cgroup cannot be opened or the kernel refuses.
    pub fn attach_cgroup(&mut self, path: &Path, serves_inside: bool) -> Result<()> {
        let attached = match self.programs.object() {
            Some(ebpf) => cgroup::attach(ebpf, &self.pins, path, serves_inside)?,
            None => cgroup::pinned(&self.pins),
        };
        self.wanted.extend(attached);
        Ok(())
    }

    /// Puts this agent's programs into the links of an older dataplane, one right after the other, and takes them over. What
    /// has no program here any more goes with the older dataplane.
    ///
    /// # Errors
    /// When the kernel refuses a program, or the file system.
    pub fn take_over(&mut self, carry: &Carry) -> Result<()> {
        for link in carry.old().pinned_links() {
            let file = link.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((name, _)) = file.rsplit_once('-') else { continue };
            let Some(program) = self.programs.named(name)? else { continue };
            if replace_program(&link, program.as_fd())? {
                carry.adopt(&link)?;
                debug!("took over {file}");
            }
        }
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

    /// Ends what somebody who watched and was killed has left in front of XDP.
    pub fn end_left_watches(&self) {
        watching::give_back_left(&self.pins).unwrap_or_else(|error| warn!("{error:#}"));
    }

    fn attach_tc(&mut self, hook: Hook, interface: &str, ifindex: u32, direction: TcAttachType) -> Result<()> {
        self.attach_classifier(Met::At(hook), interface, ifindex, direction)
    }

    fn attach_classifier(&mut self, met: Met, interface: &str, ifindex: u32, direction: TcAttachType) -> Result<()> {
        let (name, pin) = (met.program(), self.pin(met.program(), ifindex));
        if self.wanted.contains(&pin) {
            return Ok(());
        }
        if !replace_program(&pin, self.classifier(met)?.fd()?.as_fd())? {
            let attaching = || format!("attaching the program {name} to {interface}");
            let order = TcAttachOptions::TcxOrder(self.order(name, ifindex)?);
            let program = self.classifier(met)?;
            let id = program.attach_with_options(interface, direction, order).with_context(attaching)?;
            pin_link(FdLink::try_from(program.take_link(id)?).with_context(attaching)?, &pin)?;
            info!("attached {name} to {interface}");
        }
        self.wanted.insert(pin);
        Ok(())
    }

    fn classifier(&mut self, met: Met) -> Result<&mut SchedClassifier> {
        match met {
            Met::At(hook) => self.programs.classifier(hook),
            Met::Link(name) => self.programs.of_links(name),
        }
    }

    /// A program goes behind those that are there. Only replies of a backend, which are most of what it sends, shall not pay
    /// for a look at who may be a client, so they leave by `pod` before.
    fn order(&mut self, name: &str, ifindex: u32) -> Result<LinkOrder> {
        let is_behind_clients = name == Hook::Pod.program() && self.wanted.contains(&self.pin(links::INGRESS, ifindex));
        match is_behind_clients {
            true => Ok(LinkOrder::before_program(&*self.programs.of_links(links::INGRESS)?)?),
            false => Ok(LinkOrder::default()),
        }
    }

    fn attach_xdp(&mut self, hook: Hook, interface: &str, ifindex: u32, mode: XdpMode) -> Result<()> {
        let (name, pin) = (hook.program(), self.pin(hook.program(), ifindex));
        let Some(program) = self.programs.xdp(hook)? else {
            ensure!(pin.exists(), not_kept(name));
            self.wanted.insert(pin);
            return Ok(());
        };
        // An interface takes one XDP program: what an agent in another mode left goes first.
        for other in OF_UPLINK.into_iter().filter(|other| other.is_xdp() && *other != hook) {
            remove_pin(&self.pins.links().join(format!("{}-{ifindex}", other.program())))?;
        }
        if !replace_program(&pin, program.fd()?.as_fd())? {
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

/// What a tc program meets.
#[derive(Clone, Copy)]
enum Met {
    /// Packets of clients and pods, at a hook of the path.
    At(Hook),
    /// Clients inside, at the host's end of their pod's link, by this program.
    Link(&'static str),
}

impl Met {
    const fn program(self) -> &'static str {
        match self {
            Self::At(hook) => hook.program(),
            Self::Link(name) => name,
        }
    }
}
