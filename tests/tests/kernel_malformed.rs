//! Malformed packets through the loaded programs: around each row, what they do is what the path does on the host, to the last
//! byte.

use anyhow::{Context as _, Result, ensure};
use xlb_common::abi::{Config, Settings};
use xlb_common::memory::MemoryTables;
use xlb_tests::kernel::bent::{cut, with_each_byte_bent};
use xlb_tests::kernel::dataplane::{Dataplane, is_no_skb};
use xlb_tests::kernel::describe::{describe, describe_flows};
use xlb_tests::kernel::outcome::Hook;
use xlb_tests::kernel::random::{Random, seed};
use xlb_tests::kernel::rows::{self, Row, without_times};
use xlb_tests::kernel::{flows, host, sample};

const STACK_IN_USE: Config =
    Config { stack_in_use: 1, settings: Settings::NONE, generation: 0, only_uplink: 0, zero: 0 };
/// A CPU may send so many refusals at once, and more soon.
const PACKETS_PER_REFILL: usize = 40;
/// One of so many cut and bent packets goes through the kernel in a run: all would take minutes. Over the host's path go all.
const CUT_ONE_IN: usize = 3;
const BENT_ONE_IN: usize = 40;
/// What a run is to reach at least.
const PACKETS_MIN: usize = 20_000;

#[test]
fn rows_cut_and_bent_fare_alike_in_the_kernel_and_on_the_host() -> Result<()> {
    let mut random = Random::new(seed());
    let mut both =
        Both { tables: sample::tables(), dataplane: Dataplane::load(&sample::tables(), STACK_IN_USE)?, run: 0 };
    rows::check_each(&sample::tables(), |row, hook| {
        both.begin(row, hook)?;
        for frame in cut(&row.frame) {
            if random.one_in(CUT_ONE_IN) {
                both.compare(hook, &frame)?;
            }
        }
        for frame in with_each_byte_bent(&row.frame) {
            if random.one_in(BENT_ONE_IN) {
                both.compare(hook, &frame)?;
            }
        }
        both.compare_flows()
    })?;
    println!("{} packets went through the kernel", both.run);
    ensure!(both.run > PACKETS_MIN, "only {} packets went through the kernel", both.run);
    Ok(())
}

struct Both {
    tables: MemoryTables,
    dataplane: Dataplane,
    run: usize,
}

impl Both {
    /// The row's flows, and the packets before it.
    fn begin(&mut self, row: &Row, hook: Hook) -> Result<()> {
        row.prepare(&self.tables, hook);
        self.tables.stages.borrow_mut().clear();
        self.dataplane.set_settings(row.settings)?;
        self.dataplane.maps.set_flows(&row.given)?;
        row.before.iter().try_for_each(|frame| self.dataplane.run(hook, frame).map(drop))
    }

    fn compare(&mut self, hook: Hook, frame: &[u8]) -> Result<()> {
        if self.run.is_multiple_of(PACKETS_PER_REFILL) {
            self.dataplane.maps.refill_answers()?;
        }
        self.run += 1;
        let Some(in_kernel) = self.dataplane.run(hook, frame)? else {
            ensure!(is_no_skb(hook, frame), "the kernel refused {frame:02x?}");
            return Ok(());
        };
        let on_host = host::run(&self.tables, hook, frame);
        ensure!(
            in_kernel == on_host,
            "{}, {frame:02x?}\nin the kernel {in_kernel:02x?}\non the host {on_host:02x?}",
            describe(frame)
        );
        Ok(())
    }

    fn compare_flows(&self) -> Result<()> {
        let kernel = without_times(&self.dataplane.maps.flows().context("reading the flows")?);
        let host = without_times(&flows::of(&self.tables));
        ensure!(kernel == host, "left\n{}on the host\n{}", describe_flows(&kernel), describe_flows(&host));
        Ok(())
    }
}
