//! Where the fuzzer begins: the rows, and random choices.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::case::Case;
use crate::input::bytes_of;
use crate::kernel::random::Random;
use crate::kernel::{rows, sample};

/// The folder into which a target writes its seeds before it begins.
const FOLDER: &str = "XLB_FUZZ_SEEDS";
const RANDOM_SEEDS: u64 = 200;
/// Choices of a random seed.
const CHOICES: usize = 120;

/// One seed for each row at each of its hooks. A few rows have flows that no input says: of other ports, uplinks or times.
pub fn write_rows() -> Result<()> {
    let tables = sample::tables();
    let (mut seeds, mut rows_at_hooks) = (Vec::new(), 0);
    for row in rows::all(&tables)? {
        rows_at_hooks += row.hooks.len();
        let frames: Vec<Vec<u8>> = row.before.iter().chain([&row.frame]).cloned().collect();
        let cases = row.hooks.iter().map(|hook| Case { hook: *hook, given: row.given.clone(), frames: frames.clone() });
        seeds.extend(cases.filter_map(|case| bytes_of(&case, &tables)));
    }
    ensure!(seeds.len() * 100 > rows_at_hooks * 95, "only {} of {rows_at_hooks} rows have a seed", seeds.len());
    write(&seeds)
}

/// Random choices.
pub fn write_choices() -> Result<()> {
    let seeds = (0..RANDOM_SEEDS).map(|seed| {
        let mut random = Random::new(seed);
        (0..2 * CHOICES).map(|_| random.bits() as u8).collect()
    });
    write(&seeds.collect::<Vec<Vec<u8>>>())
}

fn write(seeds: &[Vec<u8>]) -> Result<()> {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return Ok(()) };
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    for (number, seed) in seeds.iter().enumerate() {
        let path = folder.join(format!("seed-{number:04}"));
        fs::write(&path, seed).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
