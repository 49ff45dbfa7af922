//! What the programs answer by themselves has a limit on each CPU.

use anyhow::{Context as _, Result, ensure};
use xlb_common::Reason;
use xlb_common::abi::{Config, Settings};
use xlb_common::budget::ANSWERS_BURST;
use xlb_tests::kernel::dataplane::Dataplane;
use xlb_tests::kernel::frame::Spec;
use xlb_tests::kernel::outcome::{Hook, Outcome, Verdict};
use xlb_tests::kernel::sample;

/// Packets within which a CPU's budget of refusals is used up.
const ANSWERS_MAX: usize = 20_000;

#[test]
fn refusals_beyond_the_budget_are_silence() -> Result<()> {
    let mut dataplane = Dataplane::load(&sample::tables(), Config::default())?;
    let frame = Spec::parse("tcp 198.51.100.9:40000 203.0.113.33:80 S")?.build();
    for hook in Hook::ALL.into_iter().filter(|hook| hook.is_ingress()) {
        dataplane.maps.refill_answers()?;
        let refuse = || dataplane.run(hook, &frame)?.context("the kernel refused the packet");
        for number in 0..ANSWERS_BURST {
            ensure!(refuse()?.reason == Some(Reason::EmptyRejected), "number {number} at {hook:?}");
        }
        // Each CPU has a budget of its own, and gets a report a millisecond meanwhile.
        let silent = (0..ANSWERS_MAX)
            .map(|_| refuse())
            .find(|outcome| outcome.as_ref().map_or(true, |outcome| outcome.reason != Some(Reason::EmptyRejected)));
        let silence = Outcome { verdict: Verdict::Drop, reason: Some(Reason::RejectSuppressed), frame: frame.clone() };
        assert_eq!(silent.context("every packet was answered")??, silence);
    }
    Ok(())
}

#[test]
fn echo_requests_beyond_the_budget_are_silence() -> Result<()> {
    let mut dataplane = Dataplane::load(&sample::tables(), Config::default())?;
    dataplane.set_settings(Settings::NONE.with_echo())?;
    let frame = Spec::parse("icmp 198.51.100.9:0 203.0.113.1:0 echo")?.build();
    for hook in Hook::ALL.into_iter().filter(|hook| hook.is_ingress()) {
        dataplane.maps.refill_answers()?;
        let ask =
            || Ok::<_, anyhow::Error>(dataplane.run(hook, &frame)?.context("the kernel refused the packet")?.reason);
        for number in 0..ANSWERS_BURST {
            ensure!(ask()? == Some(Reason::EchoAnswered), "number {number} at {hook:?}");
        }
        // Each CPU has a budget of its own, and gets an answer a millisecond meanwhile.
        let other = (0..ANSWERS_MAX).map(|_| ask()).find(|reason| !matches!(reason, Ok(Some(Reason::EchoAnswered))));
        ensure!(other.context("every request was answered")?? == Some(Reason::EchoSuppressed), "at {hook:?}");
    }
    Ok(())
}
