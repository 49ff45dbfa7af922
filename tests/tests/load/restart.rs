//! Agents that end and begin under load.

use std::time::Duration;

use anyhow::Result;
use xlb_tests::bench::restart::{Terms, measure};

use crate::alone;

#[test]
fn restarts_and_replaced_programs_lose_no_datagram_and_move_no_flow() -> Result<()> {
    check(false)
}

#[test]
fn restarts_and_replaced_xdp_programs_lose_no_datagram_and_move_no_flow() -> Result<()> {
    check(true)
}

fn check(by_xdp: bool) -> Result<()> {
    let _alone = alone();
    let outcome = measure(Terms { restarts: 6, flows: 8, connections: 16, quiet: Duration::from_secs(1), by_xdp })?;
    let part = &outcome.restarted;
    println!("{}", outcome.report().plain_table());
    // Of the uplink two programs or more, and one of each of four pods.
    assert!(outcome.links >= 6, "{} links", outcome.links);
    assert!(part.datagrams.sent > 500 && part.connections.answered > 500, "too little load: {:?}", part.datagrams);
    assert_eq!(part.faults(), 0, "{:?} {:?}", part.datagrams, part.connections);
    Ok(())
}
