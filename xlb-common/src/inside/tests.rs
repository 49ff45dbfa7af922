//! Facts about clients inside, over tables in memory.

use std::collections::BTreeSet;

use super::{Call, Peer, Request, Socket, serve, service_of, tells_address, vip_of};
use crate::abi::{EndpointKeyV4, Inside, TCP, inside_flags};
use crate::family::{Family, V4, V6};
use crate::memory::{InMemory, MemoryTables};
use crate::reason::Reason;

const SERVICE: u32 = 7;
const BASE: u32 = 100;
const PORT: [u8; 2] = [0, 80];
const VIP: Peer<V4> = ([203, 0, 113, 10], PORT);
const UNBOUND: [u8; 4] = [0; 4];
const CLIENT: u64 = 4_000_001;
const SOCKET: Socket = Socket { cookie: 90, protocol: TCP };
const S: u64 = 1_000_000_000;

/// A service whose pods here get its local endpoints.
fn local() -> Inside {
    Inside { flags: inside_flags::LOCAL_FOR_PODS, ..Inside::default() }
}

#[test]
fn a_destination_that_no_service_has_is_nobodys() {
    let tables = tables(3, Inside::default());
    assert!(service_of::<V4, _>(&tables, VIP, TCP).is_some());
    for other in [(VIP.0, [0, 81]), ([203, 0, 113, 11], PORT)] {
        assert_eq!(service_of::<V4, _>(&tables, other, TCP), None);
    }
    assert_eq!(service_of::<V4, _>(&tables, VIP, crate::abi::UDP), None);
}

#[test]
fn connections_reach_every_usable_endpoint_and_no_other() {
    for count in [1, 2, 3, 250] {
        let tables = tables(count, Inside { lingering: 1, ..Inside::default() });
        let reached: BTreeSet<_> = (0..4_096).map(|n: u32| connect(&tables, n << 20).unwrap()).collect();
        assert!(reached == (0..count).map(endpoint).collect(), "{count} endpoints, {} reached", reached.len());
    }
}

#[test]
fn the_last_endpoint_of_the_largest_number_is_inside_the_service() {
    let tables = tables(3, Inside::default());
    assert_eq!(connect(&tables, u32::MAX), Ok(endpoint(2)));
    assert_eq!(connect(&tables, 0), Ok(endpoint(0)));
}

#[test]
fn the_peer_of_a_connected_socket_is_the_vip() {
    let tables = tables(3, Inside::default());
    let reached = connect(&tables, 0).unwrap();
    assert_eq!(vip_of::<V4, _>(&tables, SOCKET, reached), Some(VIP));
    let other = Socket { cookie: SOCKET.cookie + 1, ..SOCKET };
    assert_eq!(vip_of::<V4, _>(&tables, other, reached), None, "another socket may speak to the pod itself");
    assert_eq!(vip_of::<V4, _>(&tables, SOCKET, endpoint(2)), None);
    assert_eq!(tables.inside.flows.borrow().len(), 1, "a connected socket needs one entry");
}

#[test]
fn datagrams_of_a_socket_stay_with_their_endpoint() {
    let tables = tables(200, Inside::default());
    let first = send(&tables, 0).unwrap();
    assert!((1..200).all(|n: u32| send(&tables, n << 24) == Ok(first)));
    assert_eq!(vip_of::<V4, _>(&tables, SOCKET, first), Some(VIP));
    assert_eq!(counts(&tables), [(Reason::InsideServed, 1), (Reason::InsideRemembered, 199)]);
}

#[test]
fn a_socket_counts_for_its_service_when_it_is_directed_and_not_again() {
    let tables = tables(3, Inside::default());
    let flows = || tables.service_stats.borrow().get(&(SERVICE as u16)).map_or(0, |stats| stats.inside_flows);
    for (call, expected) in [(Call::Connect, 1), (Call::Connect, 2), (Call::Send, 3), (Call::Send, 3)] {
        let request = request(call, 0);
        serve::<V4, _>(&tables, &service(&tables), &request).expect("an endpoint");
        assert_eq!(flows(), expected, "{call:?}");
    }
}

#[test]
fn datagrams_leave_an_endpoint_only_when_it_no_longer_serves() {
    let mut tables = tables(3, Inside::default());
    assert_eq!(send(&tables, u32::MAX), Ok(endpoint(2)));
    change(&mut tables, |service| (service.endpoints, service.lingering) = (2, 1));
    assert_eq!(send(&tables, 0), Ok(endpoint(2)), "it takes nothing new, and still serves");
    change(&mut tables, |service| service.lingering = 0);
    assert_eq!(send(&tables, 0), Ok(endpoint(0)));
}

#[test]
fn narrowing_the_ranges_cuts_no_datagrams_of_a_socket_that_is_served() {
    let mut tables = tables(3, Inside::default());
    let first = send(&tables, 0);
    change(&mut tables, |service| service.flags = inside_flags::SOURCE_RANGES);
    assert_eq!(send(&tables, u32::MAX), first);
}

#[test]
fn without_a_usable_endpoint_the_call_is_rejected() {
    let tables = tables(0, Inside { lingering: 2, ..Inside::default() });
    assert_eq!(connect(&tables, 0), Err(Reason::InsideRejected));
    assert_eq!(send(&tables, 0), Err(Reason::InsideRejected));
    assert_eq!(counts(&tables), [(Reason::InsideRejected, 2)]);
}

#[test]
fn source_ranges_come_before_the_rejection_and_hold_for_everyone() {
    let mut tables = tables(0, Inside { flags: inside_flags::SOURCE_RANGES, ..Inside::default() });
    tables.v4.source_ranges.insert((SERVICE, V4::to_stored([10, 1, 0, 0]), 16));
    let from = |source| serve::<V4, _>(&tables, &service(&tables), &Request { source, ..request(Call::Connect, 0) });
    assert_eq!(from([10, 1, 2, 3]), Err(Reason::InsideRejected));
    assert_eq!(from([10, 2, 2, 3]), Err(Reason::InsideNotAllowed));
    assert_eq!(from(UNBOUND), Err(Reason::InsideSourceUnknown));
}

#[test]
fn an_unbound_socket_has_the_address_of_its_namespace() {
    let mut tables = tables(1, Inside { flags: inside_flags::SOURCE_RANGES, ..Inside::default() });
    tables.v4.source_ranges.insert((SERVICE, V4::to_stored([10, 1, 0, 0]), 16));
    tables.inside.addresses.insert(super::netns_address_key::<V6>(CLIENT), V4::to_stored([10, 1, 0, 1]));
    assert_eq!(connect(&tables, 0), Err(Reason::InsideSourceUnknown), "that address is of the other family");
    for (address, result) in [([10, 1, 0, 1], Ok(endpoint(0))), ([10, 2, 0, 1], Err(Reason::InsideNotAllowed))] {
        tables.inside.addresses.insert(super::netns_address_key::<V4>(CLIENT), V4::to_stored(address));
        assert_eq!(connect(&tables, 0), result);
    }
}

#[test]
fn affinity_returns_a_client_to_its_endpoint_and_each_connection_renews_it() {
    let mut tables = tables(100, Inside { affinity_s: 60, ..Inside::default() });
    let first = connect(&tables, 0);
    for (after_ns, expected) in [(59 * S, first), (60 * S, first), (60 * S + 1, Ok(endpoint(99)))] {
        tables.now_ns += after_ns;
        assert_eq!(connect(&tables, u32::MAX), expected, "after {after_ns} ns");
    }
}

#[test]
fn affinity_is_of_a_namespace_and_follows_no_endpoint_that_is_gone() {
    let mut tables = tables(3, Inside { affinity_s: 60, ..Inside::default() });
    assert_eq!(connect(&tables, u32::MAX), Ok(endpoint(2)));
    let neighbour = Request { client: CLIENT + 1, ..request(Call::Connect, 0) };
    assert_eq!(serve::<V4, _>(&tables, &service(&tables), &neighbour), Ok(endpoint(0)));
    change(&mut tables, |service| (service.endpoints, service.lingering) = (2, 1));
    assert_eq!(connect(&tables, 0), Ok(endpoint(0)));
    change(&mut tables, |service| (service.endpoints, service.lingering) = (3, 0));
    assert_eq!(connect(&tables, u32::MAX), Ok(endpoint(0)), "the new choice was recorded");
}

#[test]
fn pods_get_the_local_endpoints_and_the_node_those_of_the_cluster() {
    let tables = tables(3, Inside { lingering: 1, local: 2, ..local() });
    for is_in_pod in [true, false] {
        let reach = |n: u32| ask(&tables, Request { is_in_pod, ..request(Call::Connect, n << 20) }).unwrap();
        let reached: BTreeSet<_> = (0..4_096).map(reach).collect();
        let expected = if is_in_pod { 4..6 } else { 0..3 };
        assert_eq!(reached, expected.map(endpoint).collect(), "in a pod: {is_in_pod}");
    }
}

#[test]
fn without_the_flag_pods_get_the_endpoints_of_the_cluster() {
    let tables = tables(3, Inside { local: 1, ..Inside::default() });
    assert_eq!(ask(&tables, in_pod(Call::Connect, u32::MAX)), Ok(endpoint(2)));
}

#[test]
fn a_pod_without_a_local_endpoint_is_refused_after_the_ranges_and_unless_nobody_has_one() {
    for (usable, refusal) in [(2, Reason::InsideNotLocal), (0, Reason::InsideRejected)] {
        let mut tables = tables(usable, local());
        assert_eq!(ask(&tables, in_pod(Call::Connect, 0)), Err(refusal));
        assert_eq!(ask(&tables, in_pod(Call::Send, 0)), Err(refusal));
        change(&mut tables, |service| service.flags |= inside_flags::SOURCE_RANGES);
        let source = [10, 2, 2, 3];
        assert_eq!(ask(&tables, Request { source, ..in_pod(Call::Connect, 0) }), Err(Reason::InsideNotAllowed));
    }
    assert_eq!(connect(&tables(2, local()), 0), Ok(endpoint(0)), "the node's own process is not");
}

#[test]
fn datagrams_of_a_pod_stay_with_an_endpoint_that_serves_whatever_the_policy_has_become() {
    let mut tables = tables(2, Inside { local: 1, ..local() });
    assert_eq!(ask(&tables, in_pod(Call::Send, 0)), Ok(endpoint(2)), "it is in no other part");
    assert_eq!(ask(&tables, in_pod(Call::Send, 0)), Ok(endpoint(2)));
    change(&mut tables, |service| (service.flags, service.lingering, service.local) = (0, 1, 0));
    assert_eq!(ask(&tables, in_pod(Call::Send, 0)), Ok(endpoint(2)));
    change(&mut tables, |service| service.lingering = 0);
    assert_eq!(ask(&tables, in_pod(Call::Send, 0)), Ok(endpoint(0)));
    change(&mut tables, |service| (service.flags, service.local) = (inside_flags::LOCAL_FOR_PODS, 1));
    assert_eq!(ask(&tables, in_pod(Call::Send, 0)), Ok(endpoint(0)), "what is of another node, too");
}

#[test]
fn affinity_leads_no_pod_to_an_endpoint_that_is_not_local() {
    let mut tables = tables(3, Inside { affinity_s: 60, ..Inside::default() });
    assert_eq!(ask(&tables, in_pod(Call::Connect, 0)), Ok(endpoint(0)));
    change(&mut tables, |service| {
        (service.flags, service.endpoints, service.local) = (inside_flags::LOCAL_FOR_PODS, 1, 2);
    });
    assert_eq!(ask(&tables, in_pod(Call::Connect, u32::MAX)), Ok(endpoint(2)));
    assert_eq!(ask(&tables, in_pod(Call::Connect, 0)), Ok(endpoint(2)), "the new choice was recorded");
    assert_eq!(counts(&tables), [(Reason::InsideServed, 2), (Reason::InsideAffine, 1)]);
}

#[test]
fn an_entry_that_was_never_written_is_no_endpoint() {
    let mut tables = tables(3, Inside::default());
    for absent in [None, Some(EndpointKeyV4 { address: [0; 4], port: [0; 2], protocol: 0, zero: 0 })] {
        tables.v4.endpoints.remove(&BASE);
        tables.v4.endpoints.extend(absent.map(|key| (BASE, key)));
        assert_eq!(connect(&tables, 0), Err(Reason::StaleReference));
    }
}

#[test]
fn an_ipv6_service_is_served_like_one_of_ipv4() {
    let (vip, pod) = (([0x20; 16], PORT), ([0xfd; 16], [0x1f, 0x90]));
    let mut tables = MemoryTables::default();
    fill::<V6>(&mut tables, vip, &[pod], Inside::default());
    let service = service_of::<V6, _>(&tables, vip, TCP).unwrap();
    let request =
        Request { call: Call::Send, vip, source: [0; 16], socket: SOCKET, client: CLIENT, is_in_pod: false, random: 5 };
    assert_eq!(serve::<V6, _>(&tables, &service, &request), Ok(pod));
    assert_eq!(serve::<V6, _>(&tables, &service, &request), Ok(pod));
    assert_eq!(vip_of::<V6, _>(&tables, SOCKET, pod), Some(vip));
    assert_eq!(counts(&tables), [(Reason::InsideServed, 1), (Reason::InsideRemembered, 1)]);
}

#[test]
fn only_a_connection_to_somebody_else_tells_a_namespaces_address() {
    let [pod, other] = [[10, 1, 0, 2], [10, 1, 0, 3]];
    assert!(tells_address::<V4>(pod, other));
    assert!(!tells_address::<V4>(pod, pod));
    assert!(!tells_address::<V4>([127, 0, 0, 6], other));
    let link_local = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    assert!(!tells_address::<V6>(link_local, [0xfd; 16]));
    assert!(tells_address::<V6>([0xfd; 16], link_local));
}

fn connect(tables: &MemoryTables, random: u32) -> Result<Peer<V4>, Reason> {
    ask(tables, request(Call::Connect, random))
}

fn send(tables: &MemoryTables, random: u32) -> Result<Peer<V4>, Reason> {
    ask(tables, request(Call::Send, random))
}

fn ask(tables: &MemoryTables, request: Request<V4>) -> Result<Peer<V4>, Reason> {
    serve::<V4, _>(tables, &service(tables), &request)
}

fn in_pod(call: Call, random: u32) -> Request<V4> {
    Request { is_in_pod: true, ..request(call, random) }
}

fn request(call: Call, random: u32) -> Request<V4> {
    Request { call, vip: VIP, source: UNBOUND, socket: SOCKET, client: CLIENT, is_in_pod: false, random }
}

fn service(tables: &MemoryTables) -> Inside {
    service_of::<V4, _>(tables, VIP, TCP).unwrap()
}

fn change(tables: &mut MemoryTables, edit: impl FnOnce(&mut Inside)) {
    edit(tables.v4.inside.values_mut().next().unwrap());
}

/// One service of this many usable endpoints; those that linger follow them, then those for pods.
fn tables(usable: u8, service: Inside) -> MemoryTables {
    let mut tables = MemoryTables::default();
    let service = Inside { endpoints: u32::from(usable), ..service };
    let all: Vec<_> = (0..usable + (service.lingering + service.local) as u8).map(endpoint).collect();
    fill::<V4>(&mut tables, VIP, &all, service);
    tables
}

fn fill<F: InMemory>(tables: &mut MemoryTables, (address, port): Peer<F>, endpoints: &[Peer<F>], service: Inside) {
    let usable = endpoints.len() as u32 - service.lingering - service.local;
    let service = Inside { service: SERVICE, endpoints_base: BASE, endpoints: usable, ..service };
    let family = F::of_mut(tables);
    family.inside.insert(F::endpoint_key(address, port, TCP), service);
    let keys = endpoints.iter().map(|&(address, port)| F::endpoint_key(address, port, TCP));
    family.endpoints.extend((BASE..).zip(keys));
}

fn endpoint(number: u8) -> Peer<V4> {
    ([10, 0, 0, number], [0x1f, 0x90])
}

fn counts(tables: &MemoryTables) -> Vec<(Reason, u64)> {
    tables.counts.borrow().iter().map(|(&reason, &count)| (reason, count)).collect()
}
