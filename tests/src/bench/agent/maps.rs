//! The agent's pinned maps: how much memory they lock, and who owns the probe's first slot.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use xlb_common::abi::{EndpointKeyV4, Frontend, TCP};
use xlb_common::slot::SlotWord;
use xlb_userspace::maps::pins::PinDirectory;

/// The maps whose size depends on services and their backends.
const GROWING: [&str; 12] = [
    "FRONTENDS_V4",
    "FRONTENDS_V6",
    "SERVICES",
    "SLOTS",
    "MEMBERS",
    "BACKENDS",
    "BACKEND_IDS_V4",
    "BACKEND_IDS_V6",
    "INSIDE_V4",
    "INSIDE_V6",
    "ENDPOINTS_V4",
    "ENDPOINTS_V6",
];

/// Bytes that each map locks, and their sum.
pub fn map_bytes(pin_directory: &Path) -> Result<Vec<(String, u64)>> {
    let mut bytes = Vec::new();
    for name in GROWING {
        let map = open(pin_directory, name)?;
        bytes.push((format!("map {name}"), memlock(&map)?));
    }
    let sum = bytes.iter().map(|(_, bytes)| bytes).sum();
    bytes.push(("maps that grow with services".to_owned(), sum));
    Ok(bytes)
}

/// The frontend of the probe.
pub struct ProbedFrontend {
    frontends: HashMap<MapData, [u8; 8], [u8; 32]>,
    slots: Array<MapData, u64>,
    key: [u8; 8],
}

impl ProbedFrontend {
    /// Port 80 of this VIP.
    pub fn open(pin_directory: &Path, vip: Ipv4Addr) -> Result<ProbedFrontend> {
        let key = EndpointKeyV4 { address: vip.octets(), port: 80_u16.to_be_bytes(), protocol: TCP, zero: 0 };
        Ok(ProbedFrontend {
            frontends: Map::from_map_data(open(pin_directory, "FRONTENDS_V4")?)?.try_into()?,
            slots: Map::from_map_data(open(pin_directory, "SLOTS")?)?.try_into()?,
            key: bytemuck::cast(key),
        })
    }

    /// Who owns the first slot; none where the probe has one backend.
    pub fn owner(&self) -> Result<Option<u8>> {
        let frontend: Frontend = bytemuck::cast(self.frontends.get(&self.key, 0).context("reading the frontend")?);
        if frontend.slots == 0 {
            return Ok(None);
        }
        let word = self.slots.get(&frontend.slots_base, 0).context("reading a slot")?;
        Ok(SlotWord(word).current())
    }
}

fn open(pin_directory: &Path, name: &str) -> Result<MapData> {
    MapData::from_pin(PinDirectory::new(pin_directory).map(name)).with_context(|| format!("opening the map {name}"))
}

/// What the kernel says that a map takes (`memlock` in the description of its file).
fn memlock(map: &MapData) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    let bytes = line.with_context(|| format!("no memlock in {path}"))?.trim().parse().context("reading memlock")?;
    ensure!(bytes > 0, "the kernel does not say what the map takes");
    Ok(bytes)
}
