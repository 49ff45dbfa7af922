//! A dataplane of an older version of the map ABI becomes one of this version, under traffic.
//!
//! A map whose layout is the same is pinned a second time, and serves programs of both versions meanwhile: nothing is copied,
//! and nothing can be missed. What has another layout is copied before the programs are replaced and once more afterwards,
//! when nobody writes to the old one. Each step can be done again: as long as the older version has a directory, the next
//! start begins anew with what is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use aya::maps::{MapData, MapType};
use tracing::{debug, info};

use crate::maps::batch::{Page, Shape, put};
use crate::maps::object::MapShape;
use crate::maps::pins::PinDirectory;

/// Entries that are read at a time: more than a bucket of a hash table has.
const PAGE_ENTRIES: u32 = 4_096;

/// Maps that every version fills anew: those by which its own programs call each other, and counters, whose numbers say
/// something else in each version.
const BEGUN_ANEW: [&str; 4] = ["JUMPS_TC", "JUMPS_XDP", "JUMPS_LINKS", "REASONS"];

/// Makes a value of this version of an older one; of a value that each CPU has, of one CPU's.
pub type Convert = fn(old: &[u8], new: &mut [u8]);

/// How values of a map are carried over whose layout has changed. Keys stay as they are.
#[derive(Clone, Copy, Debug)]
pub struct Converter {
    /// The map.
    pub map: &'static str,
    /// Bytes of an older value.
    pub old_value: usize,
    /// Does it.
    pub convert: Convert,
}

/// All of them. A map that is not among them can be carried over only if keys and values have the size that they had: then
/// they mean what they meant. A map whose meaning changes within its size gets another name.
pub const CONVERTERS: &[Converter] = &[
    // Which uplink is the only one, the agent's first round says; whether times are hot, the first handshakes.
    Converter { map: "CONFIG", old_value: 16, convert: grown },
    Converter { map: "UPLINKS", old_value: 32, convert: grown },
];

/// The value has got fields at its end, for which zero means none.
pub fn grown(old: &[u8], new: &mut [u8]) {
    new[..old.len()].copy_from_slice(old);
}

/// What becomes of a map.
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// It is made, and filled by the agent and by packets.
    Anew,
    /// Both versions have it.
    Shared,
    /// Its entries are copied as they are, into a map with more room.
    Copied,
    /// Its entries are copied, and their values converted.
    Converted(Convert),
}

/// Entries, key bytes and value bytes.
pub type Layout = (u32, usize, usize);

/// What becomes of the maps that this version wants. Nothing is touched yet.
///
/// # Errors
/// When one cannot be carried over.
pub fn plan(
    wanted: &[MapShape],
    found: &BTreeMap<&str, Layout>,
    converters: &[Converter],
) -> Result<Vec<(&'static str, How)>> {
    wanted.iter().map(|shape| Ok((shape.name, how(shape, found.get(shape.name), converters)?))).collect()
}

fn how(wanted: &MapShape, found: Option<&Layout>, converters: &[Converter]) -> Result<How> {
    let Some(&(entries, key, value)) = found.filter(|_| !BEGUN_ANEW.contains(&wanted.name)) else {
        return Ok(How::Anew);
    };
    let of_value = converters.iter().find(|one| one.map == wanted.name && one.old_value == value);
    let how = match of_value {
        _ if key == wanted.key && value == wanted.value && entries == wanted.entries => How::Shared,
        _ if key == wanted.key && value == wanted.value => How::Copied,
        Some(converter) if key == wanted.key => How::Converted(converter.convert),
        _ => bail!(
            "the map {} of the older dataplane has entries of {key}+{value} bytes, and this xlb does not know how to make \
             its own of {}+{} bytes of them",
            wanted.name,
            wanted.key,
            wanted.value
        ),
    };
    if entries > wanted.entries {
        bail!(
            "the map {} of the older dataplane has room for {entries} entries, this xlb wants {}: start it with the sizes \
             it had",
            wanted.name,
            wanted.entries
        );
    }
    Ok(how)
}

/// A dataplane on its way to this version.
pub struct Carry {
    old: PinDirectory,
    new: PinDirectory,
    maps: Vec<(&'static str, How)>,
}

impl Carry {
    /// From an older dataplane. Nothing is touched yet.
    ///
    /// # Errors
    /// When a map cannot be carried over, with what to do.
    pub fn plan(old: PinDirectory, new: &PinDirectory, wanted: &[MapShape]) -> Result<Self> {
        let mut found = BTreeMap::new();
        for shape in wanted.iter().filter(|shape| old.map(shape.name).exists()) {
            let info =
                pinned(&old, shape.name)?.info().with_context(|| format!("reading the shape of {}", shape.name))?;
            found.insert(shape.name, (info.max_entries(), info.key_size() as usize, info.value_size() as usize));
        }
        let advice = || {
            let root = new.root().display();
            format!(
                "the dataplane in {root} serves on; begin anew with `xlb cleanup --bpffs-dir {root}` (its flows end)"
            )
        };
        let maps = plan(wanted, &found, CONVERTERS).with_context(advice)?;
        Ok(Self { old, new: new.clone(), maps })
    }

    /// The older dataplane.
    #[must_use]
    pub fn old(&self) -> &PinDirectory {
        &self.old
    }

    /// Pins what both versions have. What is to be anew, and is there from an attempt before, stays.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn share(&self) -> Result<()> {
        self.new.make_version()?;
        let shared = self.maps.iter().filter(|(_, how)| matches!(how, How::Shared));
        for (name, _) in shared.filter(|(name, _)| !self.new.map(name).exists()) {
            let pin = self.new.map(name);
            pinned(&self.old, name)?.pin(&pin).with_context(|| format!("pinning {}", pin.display()))?;
        }
        Ok(())
    }

    /// Copies what has another layout. An entry that the new map has already is newer, and stays.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn copy(&self) -> Result<()> {
        for (name, how) in &self.maps {
            let convert = match how {
                How::Anew | How::Shared => continue,
                How::Copied => grown,
                How::Converted(convert) => *convert,
            };
            let copied = copy(&pinned(&self.old, name)?, &pinned(&self.new, name)?, convert);
            debug!("{name}: {} entries copied", copied.with_context(|| format!("copying the map {name}"))?);
        }
        Ok(())
    }

    /// Gives a link of the older dataplane to this version.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn adopt(&self, link: &Path) -> Result<()> {
        let name = link.file_name().context("a link without a name")?;
        fs::rename(link, self.new.links().join(name)).with_context(|| format!("adopting {}", link.display()))
    }

    /// Copies what came before the last program was replaced, and removes the older dataplane: everything is carried over.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn finish(&self) -> Result<()> {
        self.copy()?;
        self.old.remove_version()?;
        let shared = self.maps.iter().filter(|(_, how)| matches!(how, How::Shared)).count();
        info!("the dataplane of an older version is carried over: {shared} of {} maps as they are", self.maps.len());
        Ok(())
    }
}

fn pinned(pins: &PinDirectory, name: &str) -> Result<MapData> {
    let path = pins.map(name);
    MapData::from_pin(&path).with_context(|| format!("opening the pinned map {}", path.display()))
}

/// Answers how many entries were not there. Those of an array always are: what the agent wrote there is written again.
fn copy(old: &MapData, new: &MapData, convert: Convert) -> Result<usize> {
    let (from, to) = (Shape::of(&old.info()?)?, Shape::of(&new.info()?)?);
    let keeps_present = !matches!(new.info()?.map_type()?, MapType::Array | MapType::PerCpuArray);
    let (mut page, mut copied) = (Page::new(from, PAGE_ENTRIES), 0);
    while !page.is_last() {
        page.read(old)?;
        for (key, value) in page.iter() {
            let mut converted = vec![0; to.whole()];
            for (old, new) in value.chunks(from.stride).zip(converted.chunks_mut(to.stride)) {
                convert(&old[..from.value], &mut new[..to.value]);
            }
            copied += usize::from(put(new, to, (key, &converted), keeps_present)?);
        }
    }
    Ok(copied)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: MapShape = MapShape { name: "FLOWS_V4", entries: 100, key: 12, value: 64 };

    fn planned(found: Layout, converters: &[Converter]) -> String {
        let how = plan(&[WANTED], &[("FLOWS_V4", found)].into(), converters);
        how.map_or_else(|error| error.to_string(), |maps| format!("{:?}", maps[0].1))
    }

    #[test]
    fn a_map_of_the_same_layout_is_shared_and_one_with_less_room_is_copied() {
        assert_eq!(planned((100, 12, 64), &[]), "Shared");
        assert_eq!(planned((50, 12, 64), &[]), "Copied");
        assert!(planned((101, 12, 64), &[]).contains("start it with the sizes it had"));
    }

    #[test]
    fn another_layout_is_refused_unless_somebody_knows_how_to_convert_it() {
        let converter = Converter { map: "FLOWS_V4", old_value: 56, convert: grown };
        assert!(planned((100, 12, 56), &[]).contains("does not know how"));
        assert!(planned((100, 12, 56), &[converter]).starts_with("Converted"));
        assert!(planned((100, 12, 48), &[converter]).contains("does not know how"), "an even older one");
        assert!(planned((100, 16, 56), &[converter]).contains("does not know how"), "another key");
        assert!(planned((100, 12, 56), &[Converter { map: "FLOWS_V6", ..converter }]).contains("does not know how"));
    }

    #[test]
    fn what_each_version_fills_itself_and_what_is_new_is_made_anew() {
        let wanted = MapShape { name: "JUMPS_TC", ..WANTED };
        let maps = plan(&[wanted, WANTED], &[("JUMPS_TC", (100, 12, 64))].into(), &[]).unwrap();
        assert!(maps.iter().all(|(_, how)| matches!(how, How::Anew)), "{maps:?}");
    }

    #[test]
    fn a_value_that_has_grown_ends_with_zeros() {
        let mut new = [9; 6];
        new[4..].fill(0);
        grown(&[1, 2, 3, 4], &mut new);
        assert_eq!(new, [1, 2, 3, 4, 0, 0]);
    }
}
