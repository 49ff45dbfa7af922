//! A flow map in the kernel, as large as wanted, without any program.

use anyhow::{Context as _, Result};
use aya::EbpfLoader;
use aya::maps::{HashMap, Map, MapData};
use bytemuck::cast;
use xlb_common::abi::{EndpointKeyV4, FlowEntry, FlowKeyV4};
use xlb_userspace::maps::flows::FlowMap;
use xlb_userspace::maps::object::Sizes;

use super::dataplane::object_path;

const KEY: usize = size_of::<FlowKeyV4>();
const VALUE: usize = size_of::<FlowEntry>();
const MAP: &str = "FLOWS_V4";

/// What programs do to the map.
pub struct Writer(HashMap<MapData, [u8; KEY], [u8; VALUE]>);

impl Writer {
    /// Writes an entry.
    pub fn write(&mut self, key: FlowKeyV4, entry: FlowEntry) -> Result<()> {
        Ok(self.0.insert(cast::<_, [u8; KEY]>(key), cast::<_, [u8; VALUE]>(entry), 0)?)
    }

    /// Removes an entry.
    pub fn remove(&mut self, key: FlowKeyV4) -> Result<()> {
        Ok(self.0.remove(&cast::<_, [u8; KEY]>(key))?)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.keys().count()
    }
}

/// An empty map for so many flows, as the sweep sees it, and a writer beside it.
pub fn flow_map(capacity: u32) -> Result<(FlowMap<EndpointKeyV4>, Writer)> {
    let mut loader = EbpfLoader::new();
    // The others would only take memory.
    for shape in Sizes::default().maps() {
        loader.map_max_entries(shape.name, if shape.name == MAP { capacity } else { shape.entries.min(16) });
    }
    let mut object = loader.load_file(object_path("xlb-ebpf.o")).context("making the maps")?;
    let Some(Map::LruHashMap(map)) = object.take_map(MAP) else { anyhow::bail!("the object has no map {MAP}") };
    let id = map.info()?.id();
    let writer = HashMap::try_from(Map::LruHashMap(MapData::from_id(id)?))?;
    Ok((FlowMap::new(MAP, map, MapData::from_id(id)?)?, Writer(writer)))
}
