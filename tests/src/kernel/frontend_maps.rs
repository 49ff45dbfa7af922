//! The frontends' maps of an object, written as the agent does: programs find frontends by the directory.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::maps::{Map, MapData};
use xlb_common::abi::Frontend;
use xlb_userspace::maps::frontends::Frontends;
use xlb_userspace::maps::keys::Keys;

/// Brings a family's frontends from one state to another.
pub fn replace<K: Keys>(object: &Ebpf, before: &BTreeMap<K, Frontend>, after: &BTreeMap<K, Frontend>) -> Result<()> {
    if before == after {
        return Ok(());
    }
    let map = |name: &str| again(object, &format!("{name}_{}", K::SUFFIX));
    let (frontends, places) = (Map::HashMap(map("FRONTENDS")?), Map::Array(map("PLACES")?));
    let mut written = Frontends::<K>::over(frontends, &map("DIRECTORY")?, places)?;
    for &key in before.keys().filter(|key| !after.contains_key(key)) {
        written.remove(key).context("removing a frontend")?;
    }
    for (&key, &frontend) in after.iter().filter(|(key, frontend)| before.get(key) != Some(frontend)) {
        written.put(key, frontend).context("writing a frontend")?;
    }
    Ok(())
}

/// The object's map, opened a second time.
fn again(object: &Ebpf, name: &str) -> Result<MapData> {
    match object.map(name).with_context(|| format!("the object has no map {name}"))? {
        Map::HashMap(data) | Map::Array(data) => Ok(MapData::from_id(data.info()?.id())?),
        other => bail!("{name} is a map of another type: {other:?}"),
    }
}
