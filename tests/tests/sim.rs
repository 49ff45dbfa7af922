//! The simulator: it repeats itself, it finds what is known to break, and it finds nothing where nothing breaks.

use xlb_common::abi::FLOWS_MAX;
use xlb_tests::sim::compare::{Contender, Terms, compare, json, table};
use xlb_tests::sim::design::Cause;
use xlb_tests::sim::run::run;
use xlb_tests::sim::scenario::{SCENARIOS, Scenario};
use xlb_tests::sim::tally::{Tally, Violation};
use xlb_tests::sim::xlb::Xlb;

fn scenario(name: &str) -> Scenario {
    SCENARIOS.into_iter().find(|scenario| scenario.name == name).expect("a scenario of that name")
}

fn xlb(name: &str, seed: u64, flows: u64) -> Tally {
    Contender::Xlb.run(scenario(name), seed, flows, 3, FLOWS_MAX)
}

#[test]
fn the_same_seed_gives_the_same_row() {
    let runs = [7, 7, 8].map(|seed| xlb("crash", seed, 2_000));
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0].packets, runs[2].packets);
}

#[test]
fn rows_do_not_depend_on_the_threads() {
    let rows = |threads| {
        let only = Some("flap".to_owned());
        let rows = compare(&Terms { flows: 600, seed: 3, only, explains: 0, threads, max_flows: FLOWS_MAX });
        rows.into_iter().map(|row| (row.name, row.sum)).collect::<Vec<_>>()
    };
    assert_eq!(rows(1), rows(3));
}

#[test]
fn nothing_moves_while_pods_are_replaced_swing_or_the_agent_dies() {
    for name in ["calm", "roll", "hpa", "crash"] {
        let tally = xlb(name, 1, 4_000);
        assert_eq!(tally.broken(), 0, "{name}: {:?}", tally.examples);
        // Pods accept nearly all connections: a world in which nothing arrives has no violations either.
        assert!(tally.accepted * 100 > tally.flows * 95, "{name}: {tally:?}");
    }
}

#[test]
fn slots_without_history_are_found() {
    let tally = run(Xlb::forgetting_owners(), scenario("roll"), 1, 4_000, 0);
    assert!(tally.of(Violation::Moved) > 50, "{tally:?}");
    assert!(tally.causes[&Cause::ForgottenOwner] > 50, "{tally:?}");
}

#[test]
fn a_stateless_table_moves_connections_in_a_rolling_update() {
    let [stateless, remembering] =
        [Contender::Maglev, Contender::Lru].map(|contender| contender.run(scenario("roll"), 1, 4_000, 0, FLOWS_MAX));
    assert!(stateless.of(Violation::Moved) > 50, "{stateless:?}");
    assert_eq!(remembering.broken(), 0, "{remembering:?}");
}

#[test]
fn a_row_says_how_to_repeat_it() {
    let only = Some("maglev/roll".to_owned());
    let first = compare(&Terms { flows: 2_000, seed: 5, only, explains: 1, threads: 1, max_flows: FLOWS_MAX });
    let [row] = &first[..] else { panic!("{first:?}") };
    assert_eq!(row.replay().as_deref(), Some("--flows 2000 --seed 5 --only maglev/roll"));
    assert!(table(&first).contains("Moved, stateless"), "{}", table(&first));
    let json = json(&first, &serde_json::Value::Null);
    assert_eq!(json["rows"][0]["violations"], row.sum.broken());
}
