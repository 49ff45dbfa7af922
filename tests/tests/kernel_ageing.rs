//! A sweep through a flow map of the kernel's: what is over goes, what lives or is written meanwhile stays.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use xlb_common::abi::flow_flags::{CLOSED, POD_FIN, SUPERSEDED, UNSEEN};
use xlb_common::abi::{Backend, EndpointKeyV4, FlowEntry, FlowKeyV4, FlowKeyV6, TCP, backend_flags};
use xlb_common::tables::{FlowTable, Proof};
use xlb_tests::kernel::flow_map::{Writer, flow_map};
use xlb_userspace::ageing::rules::Setting;
use xlb_userspace::ageing::sweep::{Backends, Gone, Swept, World, backends_by_socket, sweep};
use xlb_userspace::ageing::{Pressure, Timeouts, Why};
use xlb_userspace::maps::flows::FlowMap;

/// More than one part of a walk.
const FLOWS: u32 = 20_000;
const NOW: u32 = 1_000_000;
/// Of the link to the pod.
const IFINDEX: u32 = 7;

/// A pod's kernel that has some of the connections, and what happens while a walk rests.
struct Pod<'a> {
    owned: &'a dyn Fn(u32) -> bool,
    asked: RefCell<BTreeSet<u32>>,
    rests: Cell<u32>,
    goes_on: bool,
}

impl World for Pod<'_> {
    fn ask(&self, _netns_id: i32, family: u8, flow: FlowKeyV6) -> Result<Proof> {
        assert_eq!(family, 4);
        let number = u32::from_be_bytes([flow.client[0], flow.client[1], flow.client[2], flow.client[3]]);
        self.asked.borrow_mut().insert(number);
        Ok(if (self.owned)(number) { Proof::Owned } else { Proof::Listening })
    }

    fn rest(&self, _duration: Duration) -> bool {
        self.rests.set(self.rests.get() + 1);
        self.goes_on
    }
}

fn pod(owned: &dyn Fn(u32) -> bool) -> Pod<'_> {
    Pod { owned, asked: RefCell::default(), rests: Cell::new(0), goes_on: true }
}

/// The flow of client `number` with the only pod.
fn key(number: u32) -> FlowKeyV4 {
    let client_port = [40, 0];
    FlowKeyV4 { client: number.to_be_bytes(), pod: [10, 1, 0, 5], client_port, pod_port: [31, 144] }
}

fn entry(flags: u16) -> FlowEntry {
    FlowEntry { flags, last_seen: NOW, vip_port: [0, 80], ..FlowEntry::default() }
}

fn backends() -> Backends {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[10, 1, 0, 5]);
    let pod = Backend { address, port: [31, 144], protocol: TCP, family: 4, ifindex: IFINDEX, ..Backend::default() };
    backends_by_socket([Backend { flags: backend_flags::IN_USE, ..pod }])
}

fn walk(
    map: &mut FlowMap<EndpointKeyV4>,
    other: &FlowMap<EndpointKeyV4>,
    pressure: Pressure,
    world: &Pod,
) -> Result<Swept> {
    walk_from(0, map, other, pressure, world)
}

fn walk_from(
    ask_from: u32,
    map: &mut FlowMap<EndpointKeyV4>,
    other: &FlowMap<EndpointKeyV4>,
    pressure: Pressure,
    world: &Pod,
) -> Result<Swept> {
    let setting = Setting { timeouts: Timeouts::default(), pressure, now: NOW + 50 };
    sweep((FlowTable::Tcp, map, other), (&backends(), &mut Gone::default()), &setting, ask_from, world)
}

fn write(writer: &mut Writer, numbers: impl Iterator<Item = u32>, flags: u16) -> Result<()> {
    for number in numbers {
        writer.write(key(number), entry(flags))?;
    }
    Ok(())
}

/// Of one that ended, or fell silent, the kernel rightly knows nothing.
#[test]
fn a_pod_hides_sockets_if_its_kernel_does_not_know_a_connection_that_goes_on() -> Result<()> {
    let quiet = FlowEntry { last_seen: NOW - 60, ..entry(UNSEEN) };
    let cases = [
        (entry(UNSEEN), false, true),
        (entry(UNSEEN), true, false),
        (entry(UNSEEN | CLOSED), false, false),
        (entry(UNSEEN | POD_FIN), false, false),
        (entry(0), false, false),
        (quiet, false, false),
    ];
    for (entry, is_owned, hides) in cases {
        let (mut map, mut writer) = flow_map(64)?;
        let (other, _) = flow_map(1)?;
        for number in 0..3 {
            writer.write(key(number), entry)?;
        }
        let owned = |_| is_owned;
        let swept = walk(&mut map, &other, Pressure::Calm, &pod(&owned))?;
        let expected = hides.then(|| (IpAddr::from([10, 1, 0, 5]), IFINDEX));
        assert!(swept.hiding.iter().eq(expected.as_ref()), "{entry:?}, {is_owned}: {:?}", swept.hiding);
    }
    Ok(())
}

#[test]
fn a_sweep_removes_what_is_over_and_nothing_else() -> Result<()> {
    let (mut map, mut writer) = flow_map(4 * FLOWS)?;
    let (other, _) = flow_map(1)?;
    write(&mut writer, 0..FLOWS, 0)?;
    write(&mut writer, FLOWS..FLOWS + 100, SUPERSEDED)?;
    write(&mut writer, FLOWS + 100..FLOWS + 200, UNSEEN)?;
    write(&mut writer, FLOWS + 200..FLOWS + 300, UNSEEN | CLOSED)?;
    // Every tenth connection has ended, and nobody told.
    let owned = |number: u32| number >= FLOWS || !number.is_multiple_of(10);
    let world = pod(&owned);
    let swept = walk(&mut map, &other, Pressure::Critical, &world)?;
    let expected = [(Why::Closed, 100), (Why::Superseded, 100), (Why::NoSocket, u64::from(FLOWS) / 10)];
    assert_eq!(swept.removed, expected.into());
    assert_eq!((swept.seen, swept.asked), (u64::from(FLOWS) + 300, u64::from(FLOWS) + 100));
    assert!(swept.hiding.is_empty());
    assert_eq!(swept.left(), writer.count() as u64);
    assert!((0..FLOWS).all(|number| map.get(&key(number)).is_some() == owned(number)));
    assert!(world.rests.get() >= FLOWS / 4096, "it rested {} times", world.rests.get());

    let again = walk(&mut map, &other, Pressure::Critical, &world)?;
    assert_eq!((again.removed.len(), again.seen), (0, swept.left()));
    Ok(())
}

#[test]
fn pods_kernels_are_asked_for_so_many_flows_a_sweep_and_for_all_in_a_few() -> Result<()> {
    let (mut map, mut writer) = flow_map(8 * FLOWS)?;
    let (other, _) = flow_map(1)?;
    let flows = 3 * FLOWS;
    write(&mut writer, 0..flows, 0)?;
    let world = pod(&|_| true);
    let mut ask_from = 0;
    for sweeps in 1.. {
        let swept = walk_from(ask_from, &mut map, &other, Pressure::Calm, &world)?;
        assert!(swept.asked <= Pressure::Calm.asks_max() + 4096, "{}", swept.asked);
        assert_eq!(swept.seen, u64::from(flows));
        ask_from = swept.ask_from;
        if ask_from == 0 {
            assert_eq!(world.asked.borrow().len(), flows as usize, "after {sweeps} sweeps");
            return Ok(());
        }
        assert!(sweeps < 5, "the sweeps do not get around");
    }
    Ok(())
}

#[test]
fn what_is_written_after_it_was_read_stays() -> Result<()> {
    let (mut map, mut writer) = flow_map(1024)?;
    write(&mut writer, 0..3, 0)?;
    let refreshed = FlowEntry { last_seen: NOW + 50, ..entry(0) };
    writer.write(key(1), refreshed)?;
    writer.remove(key(2))?;
    assert_eq!([0, 1, 2].map(|number| map.remove_if(&key(number), &entry(0)).ok()), [true, false, false].map(Some));
    assert_eq!([0, 1, 2].map(|number| map.get(&key(number))), [None, Some(refreshed), None]);
    Ok(())
}

#[test]
fn a_sweep_ends_when_the_agent_does() -> Result<()> {
    let (mut map, mut writer) = flow_map(4 * FLOWS)?;
    let (other, _) = flow_map(1)?;
    write(&mut writer, 0..FLOWS, SUPERSEDED)?;
    let world = Pod { goes_on: false, ..pod(&|_| true) };
    let swept = walk(&mut map, &other, Pressure::Calm, &world)?;
    assert!(swept.seen <= 4096 && writer.count() as u64 == u64::from(FLOWS) - swept.seen, "{swept:?}");
    Ok(())
}
