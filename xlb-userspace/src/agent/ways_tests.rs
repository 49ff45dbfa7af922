use super::*;

const A: Mac = [2, 0, 0, 0, 0, 0xa];
const B: Mac = [2, 0, 0, 0, 0, 0xb];
const C: Mac = [2, 0, 0, 0, 0, 0xc];
const ETH0: u32 = 2;
const ETH1: u32 = 3;

#[test]
fn of_what_does_not_change_nothing_is_told() {
    let mut ways = at(&[eth0(&[("192.0.2.1", A)]), eth1(&[("192.0.2.9", B)])]);
    ways.take_in(vec![eth0(&[("192.0.2.1", A)]), eth1(&[])], 1);
    ways.take_in(vec![eth0(&[]), eth1(&[("192.0.2.9", B)])], 2);
    let told = ways.told(3);
    assert_eq!((told.ways.len(), told.flags), (0, [(ETH0, 0), (ETH1, 0)].into()));
}

#[test]
fn a_gateway_with_another_mac_gets_the_replies_of_the_one_before() {
    let mut ways = at(&[eth0(&[("192.0.2.1", A)])]);
    ways.take_in(vec![eth0(&[])], 1);
    ways.take_in(vec![eth0(&[("192.0.2.1", B)])], 2);
    assert_eq!(texts(&ways, 2), ["2 a -> 2 b"]);
    ways.take_in(vec![eth0(&[("192.0.2.1", C)])], 3);
    assert_eq!(texts(&ways, 3), ["2 a -> 2 c", "2 b -> 2 c"]);
    ways.take_in(vec![eth0(&[("192.0.2.1", A)])], 4);
    assert_eq!(texts(&ways, 4), ["2 b -> 2 a", "2 c -> 2 a"]);
    assert_eq!(ways.told(4).flags, [(ETH0, uplink_flags::FOLLOW | uplink_flags::MOVED)].into());
}

#[test]
fn entries_are_brought_back_until_long_after_connections_lost_theirs() {
    let mut ways = at(&[eth0(&[("192.0.2.1", A)])]);
    ways.crowd(5);
    ways.crowd(7);
    assert_eq!(ways.told(6 + RELEARN_MS).flags, [(ETH0, uplink_flags::HOT)].into());
    assert_eq!(ways.told(7 + RELEARN_MS).flags, [(ETH0, 0)].into());
}

/// A router that lost the gateway's address to another one may still be there with an address of its own.
#[test]
fn a_gateway_s_address_decides_and_any_other_only_with_its_last_mac() {
    let mut ways = at(&[eth0(&[("192.0.2.1", A), ("192.0.2.2", A), ("192.0.2.7", C), ("192.0.2.8", C)])]);
    ways.take_in(vec![eth0(&[("192.0.2.1", B), ("192.0.2.2", A)])], 1);
    assert_eq!(texts(&ways, 1), ["2 a -> 2 b"]);
    ways.take_in(vec![eth0(&[("192.0.2.7", B)])], 2);
    assert_eq!(texts(&ways, 2), ["2 a -> 2 b"]);
    ways.take_in(vec![eth0(&[("192.0.2.8", B)])], 3);
    assert_eq!(texts(&ways, 3), ["2 a -> 2 b", "2 c -> 2 b"]);
}

#[test]
fn an_uplink_that_is_down_has_its_replies_sent_by_another_until_it_is_up() {
    let mut ways = at(&[eth0(&[("192.0.2.1", A)]), eth1(&[("192.0.2.9", B)])]);
    ways.take_in(vec![down(eth0(&[])), eth1(&[])], 1);
    assert_eq!(texts(&ways, 1), ["2 any -> 3 b"]);
    assert_eq!(ways.told(1).flags[&ETH1], uplink_flags::FOLLOW);
    assert!(ways.follows(1 + 2 * FOLLOW_MS), "clients come by the other uplink for as long as it lasts");
    ways.take_in(vec![eth0(&[]), eth1(&[])], 2);
    assert_eq!(texts(&ways, 2), Vec::<String>::new());
    assert!(ways.follows(1 + FOLLOW_MS) && !ways.follows(2 + FOLLOW_MS));
}

#[test]
fn without_another_uplink_that_leads_on_there_is_no_way() {
    let mut ways = at(&[eth0(&[("192.0.2.1", A)]), eth1(&[("192.0.2.9", B), ("192.0.2.10", C)])]);
    ways.take_in(vec![down(eth0(&[])), eth1(&[])], 1);
    assert_eq!(texts(&ways, 1), ["2 any -> nowhere"]);
    let gateways = vec!["192.0.2.10".parse().unwrap()];
    ways.take_in(vec![down(eth0(&[])), Seen { gateways, ..eth1(&[]) }], 2);
    assert_eq!(texts(&ways, 2), ["2 any -> 3 c"]);
    ways.take_in(vec![down(eth0(&[])), down(eth1(&[]))], 3);
    assert_eq!(texts(&ways, 3), ["2 any -> nowhere", "3 any -> nowhere"]);
}

#[test]
fn an_uplink_made_anew_gets_the_replies_of_the_one_before() {
    let mut ways = at(&[eth0(&[("192.0.2.1", A)]), eth1(&[("192.0.2.9", B)])]);
    let anew = |neighbours| Seen { ifindex: 9, ..eth0(neighbours) };
    ways.take_in(vec![anew(&[])], 1);
    assert_eq!(texts(&ways, 1), ["2 any -> 9 same"]);
    ways.take_in(vec![anew(&[("192.0.2.1", A)])], 2);
    assert_eq!(texts(&ways, 2), ["2 any -> 9 same"]);

    let mut other = at(&[eth0(&[("192.0.2.1", A)]), eth1(&[("192.0.2.9", B)])]);
    other.take_in(vec![anew(&[("192.0.2.1", C)])], 1);
    assert_eq!(texts(&other, 1), ["2 any -> 9 c"]);
    other.take_in(vec![down(anew(&[]))], 2);
    assert_eq!(texts(&other, 2), ["2 any -> 3 b", "9 any -> 3 b"]);
}

#[test]
fn a_neighbour_that_nobody_knew_may_be_another_router() {
    let mut ways = at(&[eth0(&[("192.0.2.1", A)])]);
    ways.take_in(vec![eth0(&[("192.0.2.1", A), ("192.0.2.2", B)])], 5);
    assert_eq!(ways.told(5).flags, [(ETH0, uplink_flags::FOLLOW)].into());
    ways.take_in(vec![eth0(&[("192.0.2.3", B)])], 5 + FOLLOW_MS);
    assert_eq!(ways.told(5 + FOLLOW_MS).flags, [(ETH0, 0)].into());
}

#[test]
fn an_agent_goes_on_with_what_another_one_told() {
    let mut before = at(&[eth0(&[("192.0.2.1", A)]), eth1(&[("192.0.2.9", B)])]);
    before.take_in(vec![eth0(&[("192.0.2.1", C)]), Seen { ifindex: 9, ..eth1(&[("192.0.2.9", B)]) }], 1);
    let mut ways = Ways::inherit(&before.told(1).ways, &[ETH1], 0);
    ways.take_in(vec![eth0(&[("192.0.2.1", C)]), Seen { ifindex: 9, ..eth1(&[("192.0.2.9", B)]) }], 0);
    assert_eq!(texts(&ways, 0), ["2 a -> 2 c", "3 any -> 2 c"]);
    assert!(ways.follows(FOLLOW_MS - 1) && !ways.follows(FOLLOW_MS));
}

fn at(seen: &[Seen]) -> Ways {
    let mut ways = Ways::default();
    ways.take_in(seen.to_vec(), 0);
    ways
}

fn eth0(neighbours: &[(&str, Mac)]) -> Seen {
    seen("eth0", ETH0, &["192.0.2.1"], neighbours)
}

fn eth1(neighbours: &[(&str, Mac)]) -> Seen {
    seen("eth1", ETH1, &[], neighbours)
}

fn seen(name: &str, ifindex: u32, gateways: &[&str], neighbours: &[(&str, Mac)]) -> Seen {
    let neighbours = neighbours.iter().map(|(address, mac)| (address.parse().unwrap(), *mac)).collect();
    let gateways = gateways.iter().map(|gateway| gateway.parse().unwrap()).collect();
    Seen { name: name.into(), ifindex, mac: [2, 1, 0, 0, 0, ifindex as u8], carries: true, neighbours, gateways }
}

fn down(seen: Seen) -> Seen {
    Seen { carries: false, ..seen }
}

/// The ways in words.
fn texts(ways: &Ways, now_ms: u64) -> Vec<String> {
    let name = |mac: Mac, zero: &str| match mac {
        A => "a".to_owned(),
        B => "b".to_owned(),
        C => "c".to_owned(),
        _ => zero.to_owned(),
    };
    let to = |way: Way| match way.ifindex {
        0 => "nowhere".to_owned(),
        ifindex => {
            assert_eq!(way.uplink_mac, [2, 1, 0, 0, 0, way.uplink_mac[5]]);
            format!("{ifindex} {}", name(way.next_hop_mac, "same"))
        }
    };
    let ways = ways.told(now_ms).ways;
    ways.into_iter()
        .map(|(key, way)| format!("{} {} -> {}", key.ifindex, name(key.next_hop_mac, "any"), to(way)))
        .collect()
}
