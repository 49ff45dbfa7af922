//! The probe's frontend in the agent's pinned maps: who owns its first slot.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, Map, MapData};
use xlb_common::abi::{EndpointKeyV4, Frontend, TCP};
use xlb_common::slot::SlotWord;

use crate::bench::memory::maps::open;

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
