//! The benches that count and time without traffic: that they run, and what of their figures is exact.

use anyhow::Result;
use xlb_tests::bench::report::Report;
use xlb_tests::bench::{memory, tables};
use xlb_tests::scale::Scale;

use crate::alone;

#[test]
fn tables_move_no_slot_in_vain_and_share_evenly() -> Result<()> {
    let report = tables::measure(tables::Terms { rounds: 1, repeat: 2, others: 3, most_slots: 4093 })?;
    println!("{}", report.plain_table());
    let figures = |name: &str| &report.rows.iter().find(|row| row.name == name).expect(name).rounds;
    let of = |what: &str| figures(&format!("4093 slots, 100 backends: {what}"));
    assert_eq!(of("one leaves, has"), of("one leaves, moved"));
    assert_eq!(of("most slots of one, at best"), of("most slots of one"));
    let replaced = |what: &str| figures(&format!("4093 slots, 100 backends, 1000 replaced: {what}"));
    assert_eq!(replaced("moved, at best"), replaced("moved"));
    assert_eq!(figures("4093 slots, 100 backends, one more: words"), &[40.0]);
    check_figures(&report);
    Ok(())
}

#[test]
fn memory_is_told_of_all_that_an_agent_holds() -> Result<()> {
    let _alone = alone();
    let report = memory::measure(Scale { services: 10, endpoints: 20, local: 5, seed: 1 }, 1)?;
    println!("{}", report.plain_table());
    check_figures(&report);
    let figure = |name: &str| report.rows.iter().find(|row| row.name == name).expect(name).median();
    let maps = "maps that grow with services";
    assert!(figure(&format!("10 Services: {maps}")) > figure(&format!("0 Services: {maps}")));
    assert_eq!(
        figure("10 Services: maps of flows"),
        figure("0 Services: maps of flows"),
        "they have their size at once"
    );
    assert!(figure("10 Services: programs") >= 20.0);
    Ok(())
}

/// That each row has a figure, and the one that it is compared with.
fn check_figures(report: &Report) {
    for row in &report.rows {
        assert!(row.median().is_finite(), "{}", row.name);
        assert!(row.baseline.is_none() || report.ratio(row).is_some(), "{} has nothing to be compared with", row.name);
    }
}
