//! Fragments in ordinary memory: put together again, they are what the path makes of the whole datagram.

use anyhow::{Result, ensure};
use xlb_common::Reason;
use xlb_common::fragments::RECORD_NS;
use xlb_common::memory::MemoryTables;
use xlb_tests::kernel::datagrams::{self, Runner};
use xlb_tests::kernel::flows::{self, Flows};
use xlb_tests::kernel::frame::Spec;
use xlb_tests::kernel::outcome::{Hook, Outcome, Verdict};
use xlb_tests::kernel::pieces::split;
use xlb_tests::kernel::{host, rows, sample};

/// Of more than 400 kinds, half of which have no pod.
const SERVED_MIN: usize = 300;

struct OnHost(MemoryTables);

impl Runner for OnHost {
    fn tables(&self) -> &MemoryTables {
        &self.0
    }

    fn begin(&mut self, flows: &Flows) -> Result<()> {
        flows::set(&self.0, flows);
        Ok(())
    }

    fn run(&mut self, hook: Hook, frame: &[u8]) -> Result<Outcome> {
        Ok(host::run(&self.0, hook, frame))
    }
}

#[test]
fn fragments_put_together_are_what_becomes_of_the_whole_datagram() -> Result<()> {
    let served = datagrams::check_each(&mut OnHost(sample::tables()))?;
    ensure!(served > SERVED_MIN, "only {served} datagrams were served");
    Ok(())
}

/// Identifications are used again: what is known of one datagram says nothing of a later one.
#[test]
fn a_record_counts_for_thirty_seconds() -> Result<()> {
    let mut tables = sample::tables();
    let frame = Spec::parse("udp 198.51.100.9:40000 203.0.113.1:53 data 900")?.build();
    let pieces = split(&frame, 400, 7);
    for (before, after) in [(0, Reason::FragmentFollowed), (1, Reason::FragmentLeft)] {
        flows::set(&tables, &Flows::new());
        let _ = host::run(&tables, Hook::Tc, &pieces[before]);
        for (age_ns, reason) in [(RECORD_NS, after), (1, Reason::FragmentEarly)] {
            tables.now_ns += age_ns;
            let outcome = host::run(&tables, Hook::Tc, &pieces[2]);
            ensure!(outcome.reason == Some(reason), "behind fragment {before}: {outcome:?}");
        }
    }
    Ok(())
}

#[test]
fn fragments_of_a_pod_that_is_gone_reach_no_other() -> Result<()> {
    let mut tables = sample::tables();
    let frame = Spec::parse("udp 198.51.100.9:40000 203.0.113.1:53 data 900")?.build();
    let pieces = split(&frame, 400, 7);
    let _ = host::run(&tables, Hook::Tc, &pieces[0]);
    tables.backends.values_mut().for_each(|backend| backend.generation += 1);
    let outcome = host::run(&tables, Hook::Tc, &pieces[1]);
    ensure!(outcome.reason == Some(Reason::Fragment) && outcome.frame == pieces[1], "{outcome:?}");
    Ok(())
}

/// The newest first fragment decides for those behind it.
#[test]
fn an_identification_that_is_used_again_follows_the_newer_datagram() -> Result<()> {
    let tables = sample::tables();
    let frame =
        |vip: &str, port| Spec::parse(&format!("udp 198.51.100.9:{port} {vip}:53 data 900")).map(|spec| spec.build());
    let (older, newer) =
        (split(&frame("203.0.113.20", 40_000)?, 400, 7), split(&frame("203.0.113.20", 40_003)?, 400, 7));
    let destination = |outcome: &Outcome| outcome.frame[30..34].to_vec();
    let to_older = destination(&host::run(&tables, Hook::Tc, &older[0]));
    let to_newer = destination(&host::run(&tables, Hook::Tc, &newer[0]));
    ensure!(to_older != to_newer, "both flows have one pod");
    ensure!(destination(&host::run(&tables, Hook::Tc, &newer[1])) == to_newer);
    Ok(())
}

/// Not to the pod of the older datagram, and not as the VIP of the older reply.
#[test]
fn an_identification_that_is_used_again_by_others_leaves_them_alone() -> Result<()> {
    let tables = sample::tables();
    let given = rows::flow("udp-flow 198.51.100.9:40000 10.244.1.1:5353 vip 203.0.113.1:53", &tables)?;
    flows::set(&tables, &[given].into());
    for (hook, served, other, reasons) in [
        (
            Hook::Tc,
            "198.51.100.9:40000 203.0.113.1:53",
            "198.51.100.9:40000 203.0.113.1:99",
            [Reason::NotOurs, Reason::FragmentEarly],
        ),
        (
            Hook::Pod,
            "10.244.1.1:5353 198.51.100.9:40000",
            "10.244.1.1:99 198.51.100.9:40000",
            [Reason::NotAReply, Reason::Fragment],
        ),
    ] {
        let pieces = |ends: &str| Spec::parse(&format!("udp {ends} data 900")).map(|spec| split(&spec.build(), 400, 7));
        let first = host::run(&tables, hook, &pieces(served)?[0]);
        ensure!(first.verdict == Verdict::Redirect, "{first:?}");
        let others: Vec<_> = pieces(other)?.iter().map(|piece| host::run(&tables, hook, piece).reason).collect();
        ensure!(others[..2] == reasons.map(Some), "{others:?}");
    }
    Ok(())
}
