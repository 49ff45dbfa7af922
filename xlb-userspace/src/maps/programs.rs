//! The programs that an agent attaches: those of its own object, or, when these were refused, those that an earlier agent
//! left. Each usual one is pinned, so that it can also be attached when its agent is no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::programs::{Program, ProgramFd, SchedClassifier, Xdp};
use xlb_common::hook::Hook;
use xlb_common::links;

use crate::maps::link::remove_pin;
use crate::maps::load::{self, connect_hook, connect_links, load_programs};
use crate::maps::pins::PinDirectory;
use crate::maps::wanted::{self, Refused};

/// Asked by `xlb explain`, also when no agent runs.
const PROVE: &str = "prove";

/// Programs, and where they are from.
pub enum Programs {
    /// Those of this agent's object.
    Own(Box<Own>),
    /// Those that an earlier agent pinned, and why this agent's own do not serve.
    Kept(Kept),
}

/// An object whose programs are loaded before they are wanted, or when they are.
pub struct Own {
    ebpf: Ebpf,
    pins: PinDirectory,
    /// The hooks whose programs can be reached.
    connected: BTreeSet<Hook>,
    is_connected_to_links: bool,
}

/// What was found.
pub struct Kept {
    classifiers: BTreeMap<String, SchedClassifier>,
    refused: Refused,
}

impl Programs {
    /// Those of a loaded object.
    ///
    /// # Errors
    /// When the kernel does not pin the program that the command line asks.
    pub fn own(mut ebpf: Ebpf, pins: &PinDirectory) -> Result<Self> {
        pin(load::classifier(&mut ebpf, PROVE)?, &pins.program(PROVE))?;
        let (pins, connected) = (pins.clone(), BTreeSet::new());
        Ok(Self::Own(Box::new(Own { ebpf, pins, connected, is_connected_to_links: false })))
    }

    /// Those that are pinned.
    #[must_use]
    pub fn kept(pins: &PinDirectory, refused: Refused) -> Self {
        let mut kept = Kept { classifiers: BTreeMap::new(), refused };
        let of_tc = Hook::ALL.into_iter().filter(|hook| !hook.is_xdp()).map(Hook::program);
        for name in of_tc.chain([links::INGRESS, links::EGRESS]) {
            let program = SchedClassifier::from_pin(pins.program(name));
            kept.classifiers.extend(program.ok().map(|program| (name.to_owned(), program)));
        }
        Self::Kept(kept)
    }

    /// Why this agent's own programs do not serve; none: they do.
    #[must_use]
    pub fn refused(&self) -> Option<&Refused> {
        match self {
            Self::Own(_) => None,
            Self::Kept(kept) => Some(&kept.refused),
        }
    }

    /// The object, if it is this agent's.
    pub fn object(&mut self) -> Option<&mut Ebpf> {
        match self {
            Self::Own(own) => Some(&mut own.ebpf),
            Self::Kept(_) => None,
        }
    }

    /// A tc program of a hook, with those to which it hands over.
    ///
    /// # Errors
    /// When it is not there, or the kernel refuses it.
    pub fn classifier(&mut self, hook: Hook) -> Result<&mut SchedClassifier> {
        match self {
            Self::Own(own) => own.ready(hook).and_then(|ebpf| load::classifier(ebpf, hook.program())),
            Self::Kept(kept) => kept.classifier(hook.program()),
        }
    }

    /// An XDP program, in the same way; none: one that is attached stays, and no other interface gets one.
    ///
    /// # Errors
    /// As for [`Self::classifier`].
    pub fn xdp(&mut self, hook: Hook) -> Result<Option<&mut Xdp>> {
        match self {
            Self::Own(own) => own.ready(hook).and_then(|ebpf| load::xdp(ebpf, hook.program())).map(Some),
            Self::Kept(_) => Ok(None),
        }
    }

    /// A program by its name, whatever it is for; none: the object has none of this name, or it is not this agent's.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn named(&mut self, name: &str) -> Result<Option<ProgramFd>> {
        let Self::Own(own) = self else { return Ok(None) };
        match Hook::ALL.into_iter().find(|hook| hook.program() == name) {
            Some(hook) => drop(own.ready(hook)?),
            None if [links::INGRESS, links::EGRESS].contains(&name) => drop(own.ready_links()?),
            None => {}
        }
        own.ebpf.program(name).map(|program| Ok(program.fd()?.try_clone()?)).transpose()
    }

    /// A program of pods' links, in the same way.
    ///
    /// # Errors
    /// As for [`Self::classifier`].
    pub fn of_links(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        match self {
            Self::Own(own) => own.ready_links().and_then(|ebpf| load::classifier(ebpf, name)),
            Self::Kept(kept) => kept.classifier(name),
        }
    }
}

impl Kept {
    fn classifier(&mut self, name: &str) -> Result<&mut SchedClassifier> {
        self.classifiers.get_mut(name).with_context(|| not_kept(name))
    }
}

/// Why a program cannot be attached.
pub(super) fn not_kept(name: &str) -> String {
    format!("the agent of before left no program {name}, and this agent's own are refused")
}

impl Own {
    /// First come those for each kind of packet, so that the usual one never hands over to none.
    fn ready(&mut self, hook: Hook) -> Result<&mut Ebpf> {
        if !self.connected.contains(&hook) {
            load_programs(&mut self.ebpf, &wanted::of_hook(hook))?;
            connect_hook(&mut self.ebpf, hook)?;
            self.keep(hook.program())?;
            self.connected.insert(hook);
        }
        Ok(&mut self.ebpf)
    }

    fn ready_links(&mut self) -> Result<&mut Ebpf> {
        if !self.is_connected_to_links {
            load_programs(&mut self.ebpf, &wanted::of_links())?;
            connect_links(&mut self.ebpf)?;
            self.keep(links::EGRESS)?;
            self.keep(links::INGRESS)?;
            self.is_connected_to_links = true;
        }
        Ok(&mut self.ebpf)
    }

    fn keep(&mut self, name: &str) -> Result<()> {
        match self.ebpf.program_mut(name) {
            Some(Program::Xdp(program)) => pin(program, &self.pins.program(name)),
            Some(Program::SchedClassifier(program)) => pin(program, &self.pins.program(name)),
            _ => bail!("the object has no program {name} that sees packets"),
        }
    }
}

/// What aya pins in the same way, whatever its type.
trait Pinned {
    fn pin_at(&mut self, path: &Path) -> Result<()>;
}

impl Pinned for SchedClassifier {
    fn pin_at(&mut self, path: &Path) -> Result<()> {
        Ok(self.pin(path)?)
    }
}

impl Pinned for Xdp {
    fn pin_at(&mut self, path: &Path) -> Result<()> {
        Ok(self.pin(path)?)
    }
}

/// Pins a program in the place of the one that is pinned there: at no moment there is none.
fn pin(program: &mut impl Pinned, path: &Path) -> Result<()> {
    // Not with a dot: bpffs takes none in a name.
    let mut new = path.as_os_str().to_owned();
    new.push("-new");
    let new = PathBuf::from(new);
    remove_pin(&new)?;
    program.pin_at(&new).with_context(|| format!("pinning {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("pinning {}", path.display()))
}
