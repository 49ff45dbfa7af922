//! An agent's pinned maps, and how much memory each takes.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use xlb_userspace::maps::object::Sizes;
use xlb_userspace::maps::pins::PinDirectory;

use super::held::memlock;

/// Names of maps about services and their backends, without the IP version.
const OF_SERVICES: [&str; 14] = [
    "FRONTENDS",
    "DIRECTORY",
    "PLACES",
    "VIPS",
    "SERVICES",
    "SERVICE_STATS",
    "SLOTS",
    "MEMBERS",
    "BACKENDS",
    "BACKEND_IDS",
    "SOLE_FRONTENDS",
    "SOURCE_RANGES",
    "INSIDE",
    "ENDPOINTS",
];
/// How names end of maps about clients: their flows, and what is remembered of them.
const OF_FLOWS: [&str; 5] = ["FLOWS", "PENDING", "PINS", "AFFINITY", "FRAGMENTS"];

/// What a map grows with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Services and their backends.
    Services,
    /// Flows. Its size is fixed when it is made.
    Flows,
    /// Neither.
    Others,
}

impl Group {
    /// In the order of the table.
    pub const ALL: [Group; 3] = [Group::Services, Group::Flows, Group::Others];

    /// In the table.
    pub fn title(self) -> &'static str {
        match self {
            Group::Services => "maps that grow with services",
            Group::Flows => "maps of flows",
            Group::Others => "other pinned maps",
        }
    }

    fn of(name: &str) -> Group {
        let name = name.trim_end_matches("_V4").trim_end_matches("_V6");
        match name {
            name if OF_SERVICES.contains(&name) => Group::Services,
            name if OF_FLOWS.iter().any(|end| name.ends_with(end)) => Group::Flows,
            _ => Group::Others,
        }
    }
}

/// One of them.
#[derive(Clone, Debug)]
pub struct PinnedMap {
    /// Its name, and its pin's.
    pub name: &'static str,
    /// The kernel's number of it.
    pub id: u32,
    /// What it grows with.
    pub group: Group,
    /// The memory that it takes.
    pub bytes: u64,
}

/// All of them.
pub fn pinned(pin_directory: &Path) -> Result<Vec<PinnedMap>> {
    let look = |name| {
        let map = open(pin_directory, name)?;
        let id = map.info().with_context(|| format!("asking the kernel about the map {name}"))?.id();
        let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let bytes = memlock(&text).with_context(|| format!("reading {path}, which is of the map {name}"))?;
        Ok(PinnedMap { name, id, group: Group::of(name), bytes })
    };
    let maps: Vec<PinnedMap> =
        Sizes::default().maps().into_iter().map(|shape| look(shape.name)).collect::<Result<_>>()?;
    // A trie without entries takes nothing; older kernels say that of every map.
    ensure!(maps.iter().any(|map| map.bytes > 0), "this kernel does not say what maps take");
    Ok(maps)
}

/// One of them, by its name.
pub fn open(pin_directory: &Path, name: &str) -> Result<MapData> {
    MapData::from_pin(PinDirectory::new(pin_directory).map(name)).with_context(|| format!("opening the map {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_map_is_in_the_group_of_what_it_grows_with() {
        let names_of = |group| {
            let maps = Sizes::default().maps().into_iter().map(|shape| shape.name);
            maps.filter(move |name| Group::of(name) == group).collect::<Vec<_>>()
        };
        let others = ["NETNS_ADDRESSES", "REASONS", "CLIENT_LINKS", "JUMPS_LINKS", "CONFIG", "JUMPS_TC", "JUMPS_XDP"];
        assert_eq!(names_of(Group::Others), [&others[..], &["UPLINKS", "WAYS"]].concat());
        let of_services = names_of(Group::Services);
        for name in OF_SERVICES {
            assert!(of_services.iter().any(|map| map.starts_with(name)), "no map is called {name}");
        }
        assert!(names_of(Group::Flows).contains(&"INSIDE_UDP_FLOWS"));
    }
}
