//! Facts about the document.

use std::net::SocketAddr;

use serde_json::Value;

use super::*;
use crate::maps::stats::ServiceNumbers;
use crate::page::ask::wanted;
use crate::page::history::History;
use crate::plan::Endpoint;
use crate::plan::desired::Protocol;

/// A name that no object of Kubernetes can have, as if somebody had found a way.
const EVIL: &str = "default/<img src=x onerror=alert(1)>:http";

fn agent() -> Agent {
    Agent {
        version: "1",
        node_name: "node-a".into(),
        uplinks: vec!["eth0 (veth): tc".into()],
        now_s: 100.0,
        in_sync_at_s: 90.0,
        is_healthy: true,
        is_ready: true,
        services: 1,
        frontends: 1,
        backends: 1,
    }
}

fn row(id: u32, name: &str, when_empty: WhenEmpty, backends: &[(u32, u32)]) -> Row {
    let share = |&(backend, slots): &(u32, u32)| Share {
        id: backend,
        address: SocketAddr::from(([10, 1, 0, backend as u8], 8080)),
        slots,
        former_slots: 0,
        is_direct: backend != 9,
        ifindex: 7,
        is_hidden: false,
    };
    let frontend = Endpoint { socket: ([203, 0, 113, id as u8], 80).into(), protocol: Protocol::Tcp };
    let backends: Vec<Share> = backends.iter().map(share).collect();
    Row { id, name: name.into(), frontends: vec![frontend], when_empty, slots: 251, backends }
}

fn told(rows: Vec<Row>, refusals: &[Refusal], query: &str) -> Value {
    let numbers = ServiceStats { packets_to_pods: 5, bytes_to_pods: 300, ..ServiceStats::default() };
    let own = vec![("default/web:http".to_owned(), numbers)];
    let services = Some(ServiceNumbers { own, others: ServiceStats::default() });
    let maps = MapFacts {
        counters: vec![(Reason::EmptyDropped, 3), (Reason::SlotOwner, 9), (Reason::NotOurs, 0)],
        generation: 1,
        services,
        fills: vec![Fill { map: "PENDING_V4", entries: 10, capacity: 10 }],
    };
    let mut log = Log::default();
    log.follow(refusals, 95);
    let mut history = History::default();
    history.add(80, &[]);
    history.add(90, &[(Reason::EmptyDropped, 3)]);
    let spread = Spread::from_counts([((1, 1), 30), ((1, 2), 10)]);
    let shown = Shown { generation: 1, services: rows };
    let sources = Sources {
        agent: agent(),
        shown: &shown,
        fills: &[Fill { map: "FRONTENDS_V4", entries: 1, capacity: 100 }],
        maps: Some(&maps),
        spread: Some(&spread),
        steps: history.steps(),
        log: &log,
        waiting: &[],
    };
    let state = state(&sources, &wanted(query).expect("a query"), |index| format!("veth{index}"));
    serde_json::to_value(state).expect("a document")
}

fn names(state: &Value) -> Vec<&str> {
    state["services"]["rows"].as_array().expect("rows").iter().filter_map(|row| row["name"].as_str()).collect()
}

fn refusal(object: &str) -> Refusal {
    Refusal { object: object.into(), why: "it has the same address, protocol and port as another".into() }
}

#[test]
fn a_service_says_who_gets_what_of_it() {
    let state = told(vec![row(1, "default/web:http", WhenEmpty::Pass, &[(1, 200), (2, 51)])], &[], "");
    let web = &state["services"]["rows"][0];
    assert_eq!((web["state"].as_str(), web["delivery"].as_str()), (Some("serving"), Some("direct")));
    assert_eq!(web["frontends"][0], "203.0.113.1:80/tcp");
    assert_eq!(web["traffic"]["packets_to_pods"], 5);
    let of = |name: &str| [0, 1].map(|at| web["backends"][at][name].clone());
    assert_eq!(of("slots"), [200, 51]);
    assert_eq!(of("flows"), [30, 10]);
    assert_eq!(of("interface"), ["veth7", "veth7"]);
    let shares = of("share").map(|share| share.as_f64().unwrap_or_default());
    assert!((shares[0] + shares[1] - 1.0).abs() < 1e-9 && shares[0] > 0.79, "{shares:?}");
}

#[test]
fn why_nothing_new_is_taken_is_said() {
    for (when_empty, backends, state, part) in [
        (WhenEmpty::Drop, &[][..], "empty", "policy Local"),
        (WhenEmpty::Drop, &[], "empty", "dropped"),
        (WhenEmpty::Pass, &[], "empty", "left to kube-proxy"),
        (WhenEmpty::Reject, &[(1, 0)], "draining", "refused"),
        (WhenEmpty::Pass, &[(1, 0), (9, 1)], "serving", ""),
    ] {
        let part = part.replace("policy Local", "externalTrafficPolicy Local");
        let told = told(vec![row(1, "default/web:http", when_empty, backends)], &[], "");
        let row = &told["services"]["rows"][0];
        assert_eq!(row["state"], state, "{when_empty:?}");
        assert!(row["why"].as_str().unwrap_or_default().contains(&part), "{row}");
    }
    let gone = Row { frontends: Vec::new(), ..row(1, "default/web:http", WhenEmpty::Pass, &[(1, 0)]) };
    assert_eq!(told(vec![gone], &[], "")["services"]["rows"][0]["state"], "leaving");
}

#[test]
fn troubled_services_come_first_then_those_with_pods_here() {
    let rows = || {
        vec![
            row(1, "default/a:http", WhenEmpty::Pass, &[]),
            row(2, "default/b:http", WhenEmpty::Pass, &[(1, 251)]),
            row(3, "default/c:http", WhenEmpty::Pass, &[(2, 251)]),
            row(4, "default/d:http", WhenEmpty::Pass, &[]),
        ]
    };
    let refusals = [refusal("Service default/d:http"), refusal("Service shop/lost"), refusal("uplink eth0")];
    let state = told(rows(), &refusals, "");
    assert_eq!(names(&state), ["shop/lost", "default/d:http", "default/b:http", "default/c:http", "default/a:http"]);
    let lost = &state["services"]["rows"][0];
    assert_eq!((lost["state"].as_str(), lost["warnings"][0]["kind"].as_str()), (Some("refused"), Some("contested")));
    assert_eq!(state["refusals_total"], 3);
    assert_eq!(state["events"].as_array().map(Vec::len), Some(3));
    for (query, expected) in [
        ("limit=2", &["shop/lost", "default/d:http"][..]),
        ("limit=1&from=3", &["default/c:http"]),
        ("find=.113.3:80", &["default/c:http"]),
        ("find=LOST", &["shop/lost"]),
        ("find=nothing", &[]),
    ] {
        let state = told(rows(), &refusals, query);
        assert_eq!(names(&state), expected, "{query}");
        assert_eq!(state["services"]["total"], 5);
    }
}

#[test]
fn reasons_maps_and_the_hour_are_told() {
    let state = told(Vec::new(), &[], "");
    assert_eq!(state["reasons"].as_array().map(Vec::len), Some(2), "those that happened");
    let dropped = &state["reasons"][0];
    assert_eq!((dropped["reason"].as_str(), dropped["is_drop"].as_bool()), (Some("empty_dropped"), Some(true)));
    assert!(dropped["advice"].is_string() && state["reasons"][1]["is_drop"] == false);
    assert_eq!(state["history"]["drops"]["empty_dropped"][0], 3);
    assert_eq!((&state["history"]["begun_s"][0], &state["history"]["ended_s"]), (&80.into(), &90.into()));
    let maps: Vec<_> =
        state["maps"].as_array().expect("maps").iter().map(|map| (&map["map"], &map["may_be_full"])).collect();
    assert_eq!(maps, [(&"FRONTENDS_V4".into(), &false.into()), (&"PENDING_V4".into(), &true.into())]);
}

#[test]
fn a_name_is_told_as_it_is() {
    let rows = vec![row(1, EVIL, WhenEmpty::Pass, &[(1, 251)])];
    assert_eq!(names(&told(rows, &[], "")), [EVIL]);
}

#[test]
fn ten_thousand_services_make_an_answer_as_long_as_a_hundred_do() {
    let many = |count: u32| {
        (0..count).map(|id| row(id, &format!("team-{id}/web:http"), WhenEmpty::Pass, &[(1, 251)])).collect()
    };
    let refusals: Vec<Refusal> = (0..10_000).map(|index| refusal(&format!("Service lost/number-{index}"))).collect();
    let length = |rows, refusals: &[Refusal]| told(rows, refusals, "").to_string().len();
    let (few, all) = (length(many(100), &refusals[..200]), length(many(10_000), &refusals));
    assert!(all < few + few / 20, "{few} {all}");
    assert!(all < 300_000, "{all}");
}
