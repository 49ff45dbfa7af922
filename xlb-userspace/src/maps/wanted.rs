//! Which programs of the object an agent needs, and what it says of one that must not serve.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use xlb_common::hook::{Hook, Kind};
use xlb_common::links::{self, Job};

use crate::maps::attach::FrontDoor;
use crate::maps::cgroup;
use crate::plan::desired::Refusal;

/// The programs that a configuration needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Hooks at which packets are met.
    pub hooks: BTreeSet<Hook>,
    /// Whether clients inside are served: at sockets and at pods' links.
    pub serves_inside: bool,
}

impl Wanted {
    /// Those for uplinks with these front doors.
    #[must_use]
    pub fn of(doors: impl IntoIterator<Item = FrontDoor>, serves_inside: bool) -> Self {
        let of_doors = doors.into_iter().flat_map(|door| match door {
            FrontDoor::Tc => vec![Hook::Tc],
            FrontDoor::XdpNative => vec![Hook::Tc, Hook::Xdp],
            FrontDoor::XdpGeneric => vec![Hook::XdpAlone],
        });
        Self { hooks: [Hook::Egress, Hook::Pod].into_iter().chain(of_doors).collect(), serves_inside }
    }

    /// And those whose links are there.
    #[must_use]
    pub fn and_of_links(mut self, found: &[PathBuf]) -> Self {
        let names = found.iter().filter_map(|link| link.file_name()?.to_str()?.rsplit_once('-'));
        for (name, _) in names {
            self.hooks.extend(Hook::ALL.into_iter().filter(|hook| hook.program() == name));
            self.serves_inside |= name == links::INGRESS || cgroup::SERVING_INSIDE.contains(&name);
        }
        self
    }

    /// The same with tc alone in front.
    #[must_use]
    pub fn without_xdp(mut self) -> Self {
        self.hooks.retain(|hook| !hook.is_xdp());
        self
    }

    /// The names of all of them.
    #[must_use]
    pub fn programs(&self) -> Vec<String> {
        let inside: &[&str] = if self.serves_inside { &cgroup::SERVING_INSIDE } else { &[] };
        let of_links = if self.serves_inside { of_links() } else { Vec::new() };
        let of_cgroup = [cgroup::FOLLOWING].iter().chain(inside).map(|&name| name.to_owned());
        let others = std::iter::once("prove".to_owned()).chain(of_cgroup).chain(of_links);
        others.chain(self.of_packets()).collect()
    }

    /// The names of those that packets from and to uplinks meet.
    #[must_use]
    pub fn of_packets(&self) -> Vec<String> {
        self.hooks.iter().flat_map(|&hook| of_hook(hook)).collect()
    }
}

/// The programs of a hook: each behind those that it hands over to.
#[must_use]
pub fn of_hook(hook: Hook) -> Vec<String> {
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.is_at(hook));
    let of_kinds = kinds.map(|kind| format!("{}{}", hook.program(), kind.suffix()));
    of_kinds.chain([hook.program().to_owned()]).collect()
}

/// The programs of pods' links, in the same order.
#[must_use]
pub fn of_links() -> Vec<String> {
    let jobs = Job::ALL.map(Job::program);
    jobs.into_iter().chain([links::EGRESS, links::INGRESS]).map(String::from).collect()
}

/// A program that must not serve, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its name; [`Refused::WHOLE`] if none can be blamed.
    pub program: String,
    /// In a sentence.
    pub why: String,
}

impl Refused {
    /// Stands for all programs together.
    pub const WHOLE: &str = "all";

    /// An error that is about no single program.
    pub fn object(error: impl Into<anyhow::Error>) -> Self {
        Self::by(Self::WHOLE)(error.into())
    }

    /// An error that is about this program.
    pub fn by(program: &str) -> impl FnOnce(anyhow::Error) -> Self + use<> {
        let program = program.to_owned();
        move |error| Self { program, why: format!("{error:#}") }
    }
}

impl Refused {
    /// For the operator, while the programs of before serve on.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        self.told("the programs of before serve on and follow the cluster")
    }

    /// Whether it is a program that tc can stand in for.
    #[must_use]
    pub fn is_of_xdp(&self) -> bool {
        Hook::ALL.into_iter().filter(|hook| hook.is_xdp()).flat_map(of_hook).any(|name| name == self.program)
    }

    /// For the operator, while uplinks do without XDP.
    #[must_use]
    pub fn refusal_of_xdp(&self) -> Refusal {
        let why = format!(
            "uplinks are served by tc, as this program of xlb {} cannot be used: {}; report it, or say `--xdp off` if this \
             kernel takes no XDP programs",
            env!("CARGO_PKG_VERSION"),
            self.why
        );
        Refusal { object: format!("program {}", self.program), why }
    }

    /// The same as [`Self::refusal`] beside a dataplane of this older version of the map ABI, which this agent cannot keep up to date.
    #[must_use]
    pub fn refusal_beside(&self, older: u32) -> Refusal {
        let serves = format!("the dataplane of map ABI v{older} serves on, but nothing follows the cluster");
        self.told(&serves)
    }

    fn told(&self, serves: &str) -> Refusal {
        let object = match self.program.as_str() {
            Self::WHOLE => "programs".to_owned(),
            program => format!("program {program}"),
        };
        let why = format!(
            "{serves}, as the programs of xlb {} cannot be used: {}; go back to the version of before, and report it",
            env!("CARGO_PKG_VERSION"),
            self.why
        );
        Refusal { object, why }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.program.as_str() {
            Self::WHOLE => write!(f, "the programs cannot be used: {}", self.why),
            program => write!(f, "the program {program} cannot be used: {}", self.why),
        }
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_loaded_behind_those_that_they_hand_over_to() {
        for hook in Hook::ALL {
            let names = of_hook(hook);
            assert_eq!(names.last().map(String::as_str), Some(hook.program()));
        }
        assert_eq!(of_links().last().map(String::as_str), Some(links::INGRESS));
    }

    #[test]
    fn tc_stands_in_for_the_programs_of_xdp_and_for_no_others() {
        let [native, tc] = [FrontDoor::XdpNative, FrontDoor::Tc].map(|door| Wanted::of([door], true));
        let of_xdp = |name: &String| Refused { program: name.clone(), why: String::new() }.is_of_xdp();
        assert!(native.programs().iter().all(|name| of_xdp(name) == name.starts_with("ingress_xdp")));
        assert!(!of_xdp(&Refused::WHOLE.to_owned()));
        assert_eq!(native.without_xdp(), tc);
    }

    #[test]
    fn only_what_the_front_doors_need_is_wanted() {
        let hooks = |doors: &[FrontDoor]| Wanted::of(doors.iter().copied(), false).hooks;
        assert_eq!(hooks(&[FrontDoor::Tc]), [Hook::Egress, Hook::Pod, Hook::Tc].into());
        assert_eq!(hooks(&[FrontDoor::XdpNative]), [Hook::Egress, Hook::Pod, Hook::Tc, Hook::Xdp].into());
        assert_eq!(hooks(&[FrontDoor::XdpGeneric]), [Hook::Egress, Hook::Pod, Hook::XdpAlone].into());
        let programs = Wanted::of([FrontDoor::Tc], false).programs();
        assert!(programs.contains(&"accepted".to_owned()) && !programs.iter().any(|name| name.starts_with("connect")));
        let links = ["/links/ingress_xdp-3", "/links/pod-7", "/links/connect4-1"].map(PathBuf::from);
        let found = Wanted::of([FrontDoor::Tc], false).and_of_links(&links);
        assert!(found.hooks.contains(&Hook::Xdp) && found.serves_inside, "what is there is replaced, too");
        assert!(Wanted::of([], true).programs().contains(&"link_serve".to_owned()));
    }
}
