//! Two looks at the maps, and the whole text that they become.

use std::collections::BTreeMap;

use xlb_common::Reason;
use xlb_common::abi::ServiceStats;

use super::{Sort, lines, short, window};
use crate::cli::services::ShareView;
use crate::maps::fill::Fill;
use crate::top::look::{Look, ServiceLook};
use crate::top::rates::round;

#[test]
fn two_looks_become_rates_shares_drops_and_fills() {
    let text = text(Sort::Packets);
    let expected = "\
SERVICE, by packets                 pkt/s in   B/s in pkt/s out  B/s out   new/s inside/s
all together                            2.0k     200k      1.5k     5.0M      26      1.5
default/web:http                        2.0k     200k      1.5k     5.0M      25      1.5
  10.1.0.7:8080         #####.....  49.8 % (125 of 251 slots), 3 before, 12 flows
  10.1.0.8:8080         #####.....  50.2 % (126 of 251 slots), 0 flows
default/dns:dns/udp                        0        0         0        0     1.0        0
  10.1.0.9:53           ########## the only one, 2 flows
default/new:http                   (not counted by itself)
  no backend on this node
DROPPED OR REFUSED                     pkt/s   so far
empty_dropped                             20      100
source_not_allowed                         0        7
MAPS                                 entries       of
FLOWS_V4                               13107   131072 #.........  10.0 %
";
    assert_eq!(text, expected);
}

#[test]
fn services_come_in_the_order_that_is_asked_for() {
    for (sort, first) in [
        (Sort::Packets, "default/web"),
        (Sort::Bytes, "default/web"),
        (Sort::Flows, "default/web"),
        (Sort::Name, "default/dns"),
    ] {
        let text = text(sort);
        assert!(text.lines().nth(2).is_some_and(|line| line.starts_with(first)), "{sort:?}: {text}");
    }
    for (key, sort) in [('p', Some(Sort::Packets)), ('b', Some(Sort::Bytes)), ('f', Some(Sort::Flows)), ('x', None)] {
        assert_eq!(Sort::of_key(key), sort);
    }
}

#[test]
fn numbers_that_began_anew_are_no_rates_of_before() {
    let stats = |generation, packets_to_pods| ServiceStats { generation, packets_to_pods, ..ServiceStats::default() };
    let look = |at_s, stats| Look {
        at_s,
        services: BTreeMap::from([("a".to_owned(), ServiceLook { stats: Some(stats), ..ServiceLook::default() })]),
        ..Look::default()
    };
    let packets = |before, now| round(&look(0.0, before), &look(2.0, now)).total.packets_to_pods;
    assert_eq!(packets(stats(1, 1000), stats(1, 1200)), 100.0);
    assert_eq!(packets(stats(1, 1000), stats(2, 200)), 100.0, "another service has the id");
    assert_eq!(packets(stats(1, 1000), stats(1, 900)), 0.0);
}

#[test]
fn numbers_have_three_digits_at_most() {
    for (number, expected) in [
        (0.0, "0"),
        (0.2, "0.2"),
        (9.94, "9.9"),
        (9.96, "10"),
        (999.4, "999"),
        (999.6, "1.0k"),
        (12_345.0, "12k"),
        (1.5e9, "1.5G"),
        (9.9e15, "9900T"),
    ] {
        assert_eq!(short(number), expected, "{number}");
    }
}

#[test]
fn a_screen_keeps_the_title_and_shows_what_fits() {
    let all = lines(&round(&before(), &now()), Sort::Name);
    let shown = |from, size| window(&all, from, size).into_iter().map(|line| line.text).collect::<Vec<_>>();
    assert_eq!(shown(0, (7, 2)), ["SERVICE", "all tog"]);
    assert_eq!(shown(1, (11, 2)), ["SERVICE, by", "default/dns"]);
    assert_eq!(shown(1000, (8, 2)), ["SERVICE,", "FLOWS_V4"], "the end is the end");
    assert_eq!(shown(3, (200, 100)).len(), all.len(), "a large screen shows all");
    assert!(shown(0, (80, 0)).is_empty());
}

fn text(sort: Sort) -> String {
    lines(&round(&before(), &now()), sort).into_iter().map(|line| line.text + "\n").collect()
}

fn before() -> Look {
    look(1.0, [1_000, 100_000, 500, 1_000_000, 50, 7], 3, &[(Reason::EmptyDropped, 60), (Reason::SourceNotAllowed, 7)])
}

fn now() -> Look {
    look(
        3.0,
        [5_000, 500_000, 3_500, 11_000_000, 100, 10],
        5,
        &[(Reason::EmptyDropped, 100), (Reason::SourceNotAllowed, 7), (Reason::SlotOwner, 9)],
    )
}

fn look(at_s: f64, numbers: [u64; 6], udp_flows: u64, counters: &[(Reason, u64)]) -> Look {
    let share = |address: &str, slots, former_slots| ShareView {
        id: 0,
        address: address.parse().unwrap(),
        slots,
        former_slots,
    };
    let [packets_to_pods, bytes_to_pods, packets_to_clients, bytes_to_clients, new_flows, inside_flows] = numbers;
    let stats = ServiceStats {
        packets_to_pods,
        bytes_to_pods,
        packets_to_clients,
        bytes_to_clients,
        new_flows,
        inside_flows,
        ..ServiceStats::default()
    };
    let web = ServiceLook {
        stats: Some(stats),
        slots: 251,
        backends: vec![(share("10.1.0.7:8080", 125, 3), Some(12)), (share("10.1.0.8:8080", 126, 0), Some(0))],
    };
    let dns = ServiceLook {
        stats: Some(ServiceStats { new_flows: udp_flows, ..ServiceStats::default() }),
        slots: 0,
        backends: vec![(share("10.1.0.9:53", 0, 0), Some(2))],
    };
    let services =
        [("default/web:http", web), ("default/dns:dns/udp", dns), ("default/new:http", ServiceLook::default())];
    let fill = |map, entries| Fill { map, entries, capacity: 131_072 };
    Look {
        at_s,
        services: services.into_iter().map(|(name, service)| (name.to_owned(), service)).collect(),
        others: Some(ServiceStats::default()),
        counters: counters.iter().copied().collect(),
        fills: vec![fill("FLOWS_V4", 13_107), fill("FLOWS_V6", 0)],
    }
}
