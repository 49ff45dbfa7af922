//! Fragments through the loaded programs: what they do is what the path does on the host.

use anyhow::{Context as _, Result, ensure};
use xlb_common::Reason;
use xlb_common::abi::Config;
use xlb_common::fragments::RECORD_NS;
use xlb_common::memory::MemoryTables;
use xlb_tests::kernel::datagrams::{self, Datagram, Runner};
use xlb_tests::kernel::dataplane::Dataplane;
use xlb_tests::kernel::describe::describe;
use xlb_tests::kernel::flows::{self, Flows};
use xlb_tests::kernel::fragment_maps::records_of;
use xlb_tests::kernel::frame::Spec;
use xlb_tests::kernel::outcome::{Hook, Outcome};
use xlb_tests::kernel::pieces::{fragment, split};
use xlb_tests::kernel::random::{Random, seed};
use xlb_tests::kernel::{host, sample};

const STACK_IN_USE: Config =
    Config { stack_in_use: 1, settings: xlb_common::abi::Settings::NONE, generation: 0, only_uplink: 0, zero: 0 };
/// Of more than 400 kinds, half of which have no pod.
const SERVED_MIN: usize = 300;
const DATAGRAMS: usize = 6_000;
const DATAGRAMS_PER_BATCH: usize = 60;
/// Few, so that datagrams meet.
const IDENTIFICATIONS: usize = 3;
const SIZES: [usize; 4] = [8, 16, 64, 512];
/// A test-run takes frames up to a page less headroom.
const PIECES_MAX: usize = 6;

/// Both sides, compared after each packet.
struct Both {
    tables: MemoryTables,
    dataplane: Dataplane,
}

impl Both {
    fn load() -> Result<Self> {
        let tables = sample::tables();
        Ok(Self { dataplane: Dataplane::load(&tables, STACK_IN_USE)?, tables })
    }
}

impl Runner for Both {
    fn tables(&self) -> &MemoryTables {
        &self.tables
    }

    fn begin(&mut self, given: &Flows) -> Result<()> {
        flows::set(&self.tables, given);
        self.tables.stages.borrow_mut().clear();
        self.dataplane.maps.refill_answers()?;
        self.dataplane.maps.set_flows(given)
    }

    fn run(&mut self, hook: Hook, frame: &[u8]) -> Result<Outcome> {
        let in_kernel = self.dataplane.run(hook, frame)?.context("the kernel refused the packet")?;
        let on_host = host::run(&self.tables, hook, frame);
        ensure!(
            in_kernel == on_host,
            "{hook:?} {frame:02x?}\nin the kernel {in_kernel:02x?}\non the host {on_host:02x?}"
        );
        Ok(in_kernel)
    }
}

#[test]
fn fragments_put_together_are_what_becomes_of_the_whole_datagram() -> Result<()> {
    let served = datagrams::check_each(&mut Both::load()?)?;
    ensure!(served > SERVED_MIN, "only {served} datagrams were served");
    Ok(())
}

#[test]
fn a_record_counts_for_thirty_seconds() -> Result<()> {
    let mut dataplane = Dataplane::load(&sample::tables(), STACK_IN_USE)?;
    let frame = Spec::parse("udp 198.51.100.9:40000 203.0.113.1:53 data 900")?.build();
    let pieces = split(&frame, 400, 7);
    dataplane.run(Hook::Tc, &pieces[0])?;
    for reason in [Reason::FragmentFollowed, Reason::FragmentEarly] {
        let outcome = dataplane.run(Hook::Tc, &pieces[1])?.context("the kernel refused the packet")?;
        ensure!(outcome.reason == Some(reason), "{outcome:?}");
        dataplane.maps.fragments.age(RECORD_NS + 1)?;
    }
    Ok(())
}

/// Fragments of all kinds of datagrams, in any order, some lost, some at a wrong place, some of wrong bytes.
#[test]
fn random_fragments_fare_alike_in_the_kernel_and_on_the_host() -> Result<()> {
    let (mut random, mut both) = (Random::new(seed()), Both::load()?);
    let kinds = datagrams::all(&both.tables)?;
    let mut followed = 0;
    for number in 0..DATAGRAMS {
        let datagram = &kinds[random.below(kinds.len())];
        if number % DATAGRAMS_PER_BATCH == 0 {
            ensure!(both.dataplane.maps.fragments.records()? == records_of(&both.tables), "the records differ");
            both.begin(&datagram.given)?;
        }
        for piece in pieces(&mut random, datagram) {
            let what = || format!("datagram {number}: {}", describe(&datagram.frame));
            let outcome = both.run(datagram.hook, &piece).with_context(what)?;
            let reasons = [Some(Reason::FragmentFollowed), Some(Reason::ReplyFragment)];
            followed += usize::from(reasons.contains(&outcome.reason));
        }
    }
    ensure!(followed > DATAGRAMS / 10, "the generator has lost its aim: only {followed} fragments followed");
    Ok(())
}

fn pieces(random: &mut Random, datagram: &Datagram) -> Vec<Vec<u8>> {
    let (size, identification) = (random.pick(&SIZES), random.below(IDENTIFICATIONS) as u16);
    let mut pieces = split(&datagram.frame, size, identification);
    pieces.truncate(PIECES_MAX);
    if random.one_in(3) {
        let (from, to) = (random.below(pieces.len()), random.below(pieces.len()));
        pieces.swap(from, to);
    }
    if random.one_in(8) {
        let offset = random.pick(&[0, 8, 16, 24, 65_000, 65_528]);
        let payload = vec![7; random.below(80)];
        pieces.push(fragment(&datagram.frame, &payload, offset, random.one_in(2), identification));
    }
    if random.one_in(8) {
        let lost = random.below(pieces.len());
        pieces.remove(lost);
    }
    for piece in &mut pieces {
        if random.one_in(10) {
            // Any byte of the IP header but its first, which says that it is one, and of what follows it.
            let at = 15 + random.below(60.min(piece.len() - 15));
            piece[at] = random.bits() as u8;
        }
    }
    pieces
}
