//! The short runs of `cargo xtask bench lab` and `cargo xtask bench pps`: facts, no times.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use xlb_tests::bench::report::Report;
use xlb_tests::bench::{lab, pps};

use crate::alone;

const SERVICES: u32 = 20;
/// Ways of `lab` and of `pps`.
const WAYS: usize = 9;
const CASES: usize = 15;

#[test]
fn sockets_get_through_every_way_and_each_figure_has_a_row() -> Result<()> {
    let _alone = alone();
    let report = lab::measure(lab::Terms { time: Duration::from_millis(100), rounds: 2, services: SERVICES })?;
    println!("{}", report.plain_table());
    let ratios = check_rows(&report, 2);
    assert_eq!(ratios, 6);
    let figures: BTreeSet<&str> =
        report.rows.iter().filter_map(|row| row.name.split_once(": ")).map(|it| it.0).collect();
    // One stands for the ratios.
    assert_eq!((figures.len() - 1) * WAYS + ratios, report.rows.len());
    for row in report.rows.iter().filter(|row| row.name.ends_with("xlb direct") && row.unit == "1/s") {
        assert!(row.median() > 0.0, "{row:?}");
    }
    Ok(())
}

#[test]
fn small_packets_arrive_by_every_way() -> Result<()> {
    let _alone = alone();
    let outcome = pps::measure(pps::Terms { packets: 5_000, rounds: 1, services: SERVICES })?;
    println!("{}\n{}", outcome.report.plain_table(), outcome.losses());
    let ratios = check_rows(&outcome.report, 1);
    assert_eq!((outcome.report.rows.len(), ratios, outcome.passed.len()), (2 * CASES + 14, 14, 2 * CASES));
    for (row, passed) in &outcome.passed {
        // More than that is lost only where others keep the machine busy: then ksoftirqd takes its turns, and queues overflow.
        assert!(passed.sent >= 500 && passed.arrived * 2 > passed.sent, "{row}: {passed:?}");
        assert!(passed.arrived <= passed.sent, "{row}: {passed:?}");
    }
    Ok(())
}

/// Every row has a figure for each round, and its baseline is there. How many rows are ratios of targets.
fn check_rows(report: &Report, rounds: usize) -> usize {
    let names: BTreeSet<&str> = report.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names.len(), report.rows.len(), "two rows have one name");
    for row in &report.rows {
        assert_eq!(row.rounds.len(), rounds, "{row:?}");
        assert!(row.rounds.iter().all(|figure| figure.is_finite() && *figure >= 0.0), "{row:?}");
        assert!(row.baseline.as_ref().is_none_or(|baseline| names.contains(baseline.as_str())), "{row:?}");
    }
    report.rows.iter().filter(|row| row.unit == "ratio").count()
}
