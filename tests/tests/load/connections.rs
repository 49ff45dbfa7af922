//! Open connections in all kinds of trouble at once.

use std::time::Duration;

use anyhow::Result;
use xlb_tests::bench::connections::{Terms, measure};

use crate::alone;

const TERMS: Terms = Terms {
    connections: 2_000,
    streams: 20,
    trouble: Duration::from_secs(4),
    flood_per_s: 1_000_000,
    grace: Duration::from_secs(2),
    ..Terms::TARGET
};

#[test]
fn accepted_connections_stay_while_pods_roll_a_flood_comes_and_agents_die() -> Result<()> {
    check(TERMS)
}

#[test]
fn accepted_connections_stay_behind_native_xdp_while_pods_roll_a_flood_comes_and_agents_die() -> Result<()> {
    check(Terms { by_xdp: true, ..TERMS })
}

fn check(terms: Terms) -> Result<()> {
    let _alone = alone();
    let outcome = measure(terms)?;
    println!("{}", outcome.report().plain_table());
    let (done, through) = (&outcome.done, outcome.during.times.len());
    assert!(done.kills >= 1 && done.replaced >= 1 && outcome.connections.ended > 0, "too little trouble");
    // A generator whose frames nobody receives complains of nothing.
    assert!(
        outcome.flood.arrived > 10_000 && outcome.routed.arrived > 10_000,
        "floods: {:?} and {:?}",
        outcome.flood,
        outcome.routed
    );
    assert!(through > 0, "no new connection got through: {:?}", outcome.during);
    let incidents: Vec<_> = outcome.incidents().collect();
    assert_eq!(outcome.violations(), 0, "{incidents:#?}");
    Ok(())
}
