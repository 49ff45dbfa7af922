//! What services do that look at their clients, over time: affinity, a change of the hash, the limit of refusals.
//! Needs neither root nor a kernel.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use xlb_common::abi::{AffinityEntry, Frontend, TCP, UDP};
use xlb_common::budget::ANSWERS_BURST;
use xlb_common::hash::{FlowParts, flow_hash, slot_of};
use xlb_common::memory::MemoryTables;
use xlb_common::slot::SlotWord;
use xlb_common::tables::FlowTable;
use xlb_common::{Family as _, Reason, V4};
use xlb_tests::kernel::flows::{self, FlowKey};
use xlb_tests::kernel::frame::Spec;
use xlb_tests::kernel::headers::Layout;
use xlb_tests::kernel::host;
use xlb_tests::kernel::outcome::Hook;
use xlb_tests::kernel::sample::{self, AFFINITY_S, Version, client_address, pod_address, vip_address};

const NS_PER_S: u64 = 1_000_000_000;
const TIMEOUT_NS: u64 = AFFINITY_S as u64 * NS_PER_S;
/// Its slot belongs to pod 2, and belonged to pod 1 before.
const AFFINE_VIP: u8 = 36;
/// The same, and pod 1 takes no new connections.
const DRAINING_VIP: u8 = 37;
/// A VIP of no service of the sample.
const FREE_VIP: u8 = 99;
const CLIENT: u8 = 77;

#[test]
fn a_client_returns_until_the_timeout_has_passed_since_its_last_new_connection() -> Result<()> {
    let mut tables = sample::tables();
    record(&tables, AFFINE_VIP, AffinityEntry { last_new_ns: 0, ..recorded(&tables, AFFINE_VIP)? })?;
    for now_ns in [TIMEOUT_NS, 2 * TIMEOUT_NS] {
        tables.now_ns = now_ns;
        assert_eq!(connect(&tables, AFFINE_VIP)?, (Reason::AffineOwner, pod(1)));
        assert_eq!(recorded(&tables, AFFINE_VIP)?.last_new_ns, now_ns);
    }
    tables.now_ns = 3 * TIMEOUT_NS + 1;
    assert_eq!(connect(&tables, AFFINE_VIP)?, (Reason::UnprovenOwner, pod(2)));
    let renewed = recorded(&tables, AFFINE_VIP)?;
    assert_eq!((renewed.backend, renewed.last_new_ns), (2, tables.now_ns));
    Ok(())
}

#[test]
fn packets_inside_a_connection_do_not_prolong_affinity() -> Result<()> {
    let mut tables = sample::tables();
    let before = AffinityEntry { last_new_ns: 0, ..recorded(&tables, AFFINE_VIP)? };
    record(&tables, AFFINE_VIP, before)?;
    tables.now_ns = TIMEOUT_NS;
    send(&tables, AFFINE_VIP, "A")?;
    assert_eq!(recorded(&tables, AFFINE_VIP)?, before);
    Ok(())
}

#[test]
fn a_member_that_takes_no_new_connections_loses_its_clients_for_good() -> Result<()> {
    let tables = sample::tables();
    assert_eq!(recorded(&tables, DRAINING_VIP)?.backend, 1);
    assert_eq!(connect(&tables, DRAINING_VIP)?, (Reason::UnprovenOwner, pod(2)));
    assert_eq!(recorded(&tables, DRAINING_VIP)?.backend, 2);
    Ok(())
}

#[test]
fn a_record_of_an_id_that_was_used_again_is_not_followed() -> Result<()> {
    let tables = sample::tables();
    let before = recorded(&tables, AFFINE_VIP)?;
    record(&tables, AFFINE_VIP, AffinityEntry { generation: before.generation - 1, ..before })?;
    assert_eq!(connect(&tables, AFFINE_VIP)?, (Reason::UnprovenOwner, pod(2)));
    Ok(())
}

#[test]
fn the_vips_of_a_service_share_the_record_and_its_other_ports_do_not() -> Result<()> {
    let mut tables = sample::tables();
    let frontend = *frontend(&tables, AFFINE_VIP, TCP)?;
    let other_port = Frontend { service: u32::MAX, ..frontend };
    tables.v4.frontends.insert(V4::endpoint_key(address(FREE_VIP), 80_u16.to_be_bytes(), TCP), frontend);
    tables.v4.frontends.insert(V4::endpoint_key(address(FREE_VIP), 81_u16.to_be_bytes(), TCP), other_port);

    assert_eq!(connect(&tables, FREE_VIP)?, (Reason::AffineOwner, pod(1)));
    let (reason, _) = run(&tables, &format!("tcp {}:40000 {}:81 S", client(CLIENT), vip(FREE_VIP)))?;
    assert_eq!(reason, Reason::UnprovenOwner);
    Ok(())
}

/// The services .39 and .40 were rehashed: to the client's address alone, and back to all parts of the flow.
#[test]
fn a_flow_from_before_affinity_was_switched_keeps_its_backend() -> Result<()> {
    let mut kept = 0;
    for (vip_number, is_by_client) in [(39, true), (40, false)] {
        for host in 0..=255 {
            let tables = sample::tables();
            let Some((pod, key)) = backend_before(&tables, vip_number, host, !is_by_client)? else { continue };
            let entry = sample::flow_entry(&tables, (vip(vip_number), 53).into(), UDP, &key).context("no entry")?;
            flows::set(&tables, &[((FlowTable::Udp as u8, key), entry)].into());
            let got = run(&tables, &format!("udp {}:40000 {}:53", client(host), vip(vip_number)))?;
            assert_eq!(got.1, pod, "of client {host} at .{vip_number}: {:?}", got.0);
            assert_eq!(got.0, Reason::RememberedOwner);
            kept += 1;
        }
    }
    assert!(kept > 256, "only {kept} of 512 clients had a backend before");
    Ok(())
}

#[test]
fn refusals_beyond_the_budget_are_silence() -> Result<()> {
    let mut tables = sample::tables();
    tables.now_ns = NS_PER_S;
    tables.budgets = Some(Cell::default());
    let refuse = |tables: &MemoryTables| -> Result<Reason> { Ok(send(tables, 33, "S")?.0) };
    for number in 0..ANSWERS_BURST {
        assert_eq!(refuse(&tables)?, Reason::EmptyRejected, "number {number}");
    }
    assert_eq!(refuse(&tables)?, Reason::RejectSuppressed);
    tables.now_ns += NS_PER_S;
    assert_eq!(refuse(&tables)?, Reason::EmptyRejected);
    Ok(())
}

/// The backend that a flow had under the other hash, and the flow's key with it; none if there was none.
fn backend_before(
    tables: &MemoryTables,
    vip_number: u8,
    host: u8,
    was_by_client: bool,
) -> Result<Option<(Ipv4Addr, FlowKey)>> {
    let frontend = frontend(tables, vip_number, UDP)?;
    let source = u64::from(u32::from(client(host)));
    let flow = FlowParts {
        client: source,
        vip: u64::from(u32::from(vip(vip_number))),
        client_port: 40_000,
        vip_port: 53,
        protocol: UDP,
    };
    let parts = if was_by_client { FlowParts::of_client(source) } else { flow };
    let index = frontend.slots_base + slot_of(flow_hash(parts), frontend.slots);
    let word = SlotWord(*tables.slots.get(&index).context("no slot")?);
    let member = word.current().and_then(|owner| tables.members.get(&(frontend.members_base + u32::from(owner))));
    let backend = member.and_then(|member| Some((member, tables.backends.get(&member.id())?)));
    let Some((_, backend)) = backend.filter(|(member, backend)| member.generation == backend.generation) else {
        return Ok(None);
    };
    let pod = V4::from_stored(backend.address);
    let key = V4::flow_key((client(host).octets(), 40_000_u16.to_be_bytes()), (pod, backend.port));
    Ok(Some((pod.into(), FlowKey::V4(key))))
}

/// A SYN of the client with a record.
fn connect(tables: &MemoryTables, vip_number: u8) -> Result<(Reason, Ipv4Addr)> {
    send(tables, vip_number, "S")
}

fn send(tables: &MemoryTables, vip_number: u8, tcp_flags: &str) -> Result<(Reason, Ipv4Addr)> {
    run(tables, &format!("tcp {}:40000 {}:80 {tcp_flags}", client(CLIENT), vip(vip_number)))
}

/// What became of a packet, and where it goes.
fn run(tables: &MemoryTables, packet: &str) -> Result<(Reason, Ipv4Addr)> {
    let outcome = host::run(tables, Hook::Tc, &Spec::parse(packet)?.build());
    let layout = Layout::of(&outcome.frame).context("no IP packet came out")?;
    let std::net::IpAddr::V4(to) = layout.addresses(&outcome.frame)[1] else { anyhow::bail!("not of IPv4") };
    Ok((outcome.reason.context("no reason")?, to))
}

fn recorded(tables: &MemoryTables, vip_number: u8) -> Result<AffinityEntry> {
    let key = V4::source_key(frontend(tables, vip_number, TCP)?.service, client(CLIENT).octets());
    tables.v4.affinity.borrow().get(&key).copied().context("no record")
}

fn record(tables: &MemoryTables, vip_number: u8, entry: AffinityEntry) -> Result<()> {
    let key = V4::source_key(frontend(tables, vip_number, TCP)?.service, client(CLIENT).octets());
    tables.v4.affinity.borrow_mut().insert(key, entry);
    Ok(())
}

fn frontend(tables: &MemoryTables, vip_number: u8, protocol: u8) -> Result<&Frontend> {
    let port: u16 = if protocol == TCP { 80 } else { 53 };
    let key = V4::endpoint_key(address(vip_number), port.to_be_bytes(), protocol);
    tables.v4.frontends.get(&key).with_context(|| format!("no frontend .{vip_number}"))
}

fn address(vip_number: u8) -> [u8; 4] {
    vip(vip_number).octets()
}

fn vip(number: u8) -> Ipv4Addr {
    v4(SocketAddr::new(vip_address(Version::V4, number), 0))
}

fn client(number: u8) -> Ipv4Addr {
    v4(SocketAddr::new(client_address(Version::V4, number), 0))
}

fn pod(number: u8) -> Ipv4Addr {
    v4(SocketAddr::new(pod_address(Version::V4, number), 0))
}

fn v4(socket: SocketAddr) -> Ipv4Addr {
    match socket {
        SocketAddr::V4(socket) => *socket.ip(),
        SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}
