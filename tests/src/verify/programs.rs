//! Loads the programs one by one, as the agent does. How much stack they take is not among the figures: the kernel tells
//! it in the verifier's log only, which aya asks for when a program was refused.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::EbpfLoader;
use xlb_userspace::maps::load::load_once;
use xlb_userspace::maps::object::Sizes;

use super::budgets::Figures;
use crate::kernel::dataplane::object_path;

/// Stands for the cookie of the node's network namespace: the verifier follows what depends on it.
const NODE_NETNS: u64 = 1;
/// Entries of the flow maps, which no program depends on: their real size would only take memory.
const FLOWS: u32 = 1_024;

/// One program in the kernel.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its name.
    pub name: String,
    /// What has a budget.
    pub figures: Figures,
    /// Until the kernel had verified and translated it.
    pub time: Duration,
}

/// Every program of the object, by name. The maps are those of an agent with default limits.
///
/// # Errors
/// When the object cannot be read, or the kernel refuses a map or a program.
pub fn load_each() -> Result<Vec<Loaded>> {
    let path = object_path("xlb-ebpf.o");
    let bytes = std::fs::read(&path)
        .with_context(|| format!("reading {}; `cargo xtask build-ebpf` makes it", path.display()))?;
    let sizes = Sizes { flows: FLOWS, fragments: FLOWS, ..Sizes::default() };
    let mut loader = EbpfLoader::new();
    for shape in sizes.maps() {
        loader.map_max_entries(shape.name, shape.entries);
    }
    loader.override_global("AYA_LOG_LEVEL", &0_u8, true);
    loader.override_global("COUNTED_SERVICES", &sizes.counted_services, true);
    loader.override_global("NODE_NETNS", &NODE_NETNS, true);
    let mut object = loader.load(&bytes).with_context(|| format!("making the maps of {}", path.display()))?;
    let mut names: Vec<String> = object.programs().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    names.into_iter().map(|name| load_program(&mut object, name)).collect()
}

fn load_program(object: &mut aya::Ebpf, name: String) -> Result<Loaded> {
    let start = Instant::now();
    load_once(object, &name)?;
    let time = start.elapsed();
    let program = object.program(&name).with_context(|| format!("the object has no program {name}"))?;
    let info = program.info().with_context(|| format!("asking the kernel about {name}"))?;
    let instructions = info.verified_instruction_count().context("the kernel does not tell what it verified")?;
    Ok(Loaded { name, figures: Figures { instructions, machine_bytes: info.size_jitted() }, time })
}
