//! The benches that count and time without traffic: that they run, and what of their figures is exact.

use anyhow::Result;
use xlb_tests::bench::report::Report;
use xlb_tests::bench::tables;

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

/// That each row has a figure, and the one that it is compared with.
fn check_figures(report: &Report) {
    for row in &report.rows {
        assert!(row.median().is_finite(), "{}", row.name);
        assert!(row.baseline.is_none() || report.ratio(row).is_some(), "{} has nothing to be compared with", row.name);
    }
}
