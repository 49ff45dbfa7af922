//! The simulator's LRU map beside the kernel's: the same writes, the same entries left.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use aya::EbpfLoader;
use aya::maps::HashMap;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use xlb_common::abi::{FlowEntry, FlowKeyV4, SCTP_PENDING_MAX};
use xlb_tests::kernel::dataplane::object_path;
use xlb_tests::kernel::random::{Random, seed};
use xlb_tests::sim::lru::Lru;

const MAP: &str = "SCTP_PENDING_V4";
const KEY: usize = size_of::<FlowKeyV4>();
const VALUE: usize = size_of::<FlowEntry>();
/// Maps that the test does not touch: their real size would only take memory.
const OTHERS: [&str; 8] = [
    "FLOWS_V4",
    "UDP_FLOWS_V4",
    "UDP_PENDING_V4",
    "PENDING_V4",
    "FLOWS_V6",
    "UDP_FLOWS_V6",
    "UDP_PENDING_V6",
    "PENDING_V6",
];
const WRITES: u32 = 60_000;
/// Of so many entries one may differ: another CPU may have taken a batch if the thread was moved before it was bound.
const DIFFERENT_ONE_IN: usize = 100;

#[test]
fn the_simulated_lru_keeps_what_the_kernels_keeps() -> Result<()> {
    stay_on_one_cpu()?;
    let mut random = Random::new(seed());
    for again_one_in in [0, 50, 4, 2] {
        let (kernel, simulated) = both_after(&mut random, again_one_in)?;
        let different = kernel.symmetric_difference(&simulated).count();
        println!("one in {again_one_in} written again: {} entries, {different} differ", kernel.len());
        ensure!(kernel.len() > SCTP_PENDING_MAX as usize - 300, "the kernel has {} entries", kernel.len());
        ensure!(different * DIFFERENT_ONE_IN <= kernel.len(), "{different} of {} differ", kernel.len());
    }
    Ok(())
}

/// Keys in the kernel's map and in the simulated one after the same writes. Some are of a recent key: in both maps such an
/// entry is a new one that counts as looked up.
fn both_after(random: &mut Random, again_one_in: usize) -> Result<(BTreeSet<u32>, BTreeSet<u32>)> {
    let mut loader = EbpfLoader::new();
    for name in OTHERS {
        loader.map_max_entries(name, 1);
    }
    let mut object = loader.load_file(object_path("xlb-ebpf.o")).context("making the maps")?;
    let map = object.take_map(MAP).context("no such map")?;
    let mut kernel: HashMap<_, [u8; KEY], [u8; VALUE]> = HashMap::try_from(map)?;
    let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
    let mut simulated: Lru<u32, u8> = Lru::new(SCTP_PENDING_MAX, cpus as u32);
    for number in 0..WRITES {
        let is_again = again_one_in > 0 && number > 0 && random.one_in(again_one_in);
        let key = if is_again { number - 1 - random.below(number.min(6000) as usize) as u32 } else { number };
        kernel.insert(key_of(key), [0; VALUE], 0).context("writing an entry")?;
        simulated.insert(key, 0);
    }
    let kernel = kernel.keys().map(|key| Ok(u32::from_be_bytes(*key?.first_chunk().context("a short key")?)));
    Ok((kernel.collect::<Result<_>>()?, simulated.keys().collect()))
}

fn key_of(number: u32) -> [u8; KEY] {
    let mut key = [0; KEY];
    key[..4].copy_from_slice(&number.to_be_bytes());
    key
}

fn stay_on_one_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("staying on one CPU")
}
