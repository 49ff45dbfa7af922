//! Two Services that ask for the same frontend.

use crate::model::fixtures::*;
use crate::model::objects::*;
use crate::model::{DeliveryChoice, Event, Policy, desired};

#[test]
fn the_older_service_wins_then_the_first_by_name() {
    for (first, second, winner) in [
        (Some(2), Some(1), "b"),
        (Some(1), Some(2), "a"),
        (Some(1), Some(1), "a"),
        (None, Some(9), "b"),
        (None, None, "a"),
    ] {
        let text = served([named("a", first).into(), named("b", second).into()]);
        let loser = if winner == "a" { "b" } else { "a" };
        assert_eq!(
            text,
            format!(
                "default/{winner} 192.0.2.10:80 reject\n\
                 ! Service default/{loser}: 192.0.2.10 port 80 is not served: Service default/{winner} has the same \
                 address, protocol and port and is older, or first by name; change one of the two\n"
            )
        );
    }
}

#[test]
fn the_loser_takes_over_when_the_winner_is_deleted() {
    let mut model = model([named("old", Some(1)).into(), named("new", Some(2)).into()]);

    model.apply(Event::Deleted(Object::from(named("old", None)).key()));

    let after = text(&desired(&Policy::default(), &model, &node(), DeliveryChoice::Auto));
    assert_eq!(after, "default/new 192.0.2.10:80 reject\n");
}

#[test]
fn the_loser_keeps_its_other_addresses() {
    let vips = vec!["192.0.2.10".parse().unwrap(), "192.0.2.11".parse().unwrap()];
    let loser = Service { vips, ..named("new", Some(2)) };
    let text = served([named("old", Some(1)).into(), loser.into()]);
    assert!(text.starts_with("default/new 192.0.2.11:80 reject\ndefault/old 192.0.2.10:80 reject\n! "), "{text}");
}

#[test]
fn one_address_can_be_shared_by_port_or_protocol() {
    let with = |name, protocol, port| Service {
        ports: vec![ServicePort { name: String::new(), protocol, port }],
        ..named(name, None)
    };
    let text = served([
        with("a", TCP, 53).into(),
        with("b", UDP, 53).into(),
        with("c", TCP, 54).into(),
        with("d", SCTP, 53).into(),
    ]);
    assert_eq!(
        text,
        "default/a 192.0.2.10:53 reject\ndefault/b/udp 192.0.2.10:53 reject\ndefault/c 192.0.2.10:54 reject\n\
         default/d/sctp 192.0.2.10:53 reject\n"
    );
}

#[test]
fn a_service_of_another_proxy_takes_nothing_away() {
    let theirs = ProxyLabels { proxy_name: Some("other".into()), headless: false };
    let text = served([Service { labels: theirs, ..named("a", Some(1)) }.into(), named("b", Some(2)).into()]);
    assert_eq!(text, "default/b 192.0.2.10:80 reject\n");
}

fn named(service_name: &str, created_s: Option<i64>) -> Service {
    Service { name: name(service_name), created_s, ..service() }
}
