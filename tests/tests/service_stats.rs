//! What is counted of services: by the path in memory, and by the loaded programs.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use xlb_common::V4;
use xlb_common::abi::{Config, FlowEntry, OTHER_SERVICES, ServiceStats};
use xlb_common::admit;
use xlb_common::memory::MemoryTables;
use xlb_tests::kernel::dataplane::Dataplane;
use xlb_tests::kernel::flows::FlowKey;
use xlb_tests::kernel::frame::Spec;
use xlb_tests::kernel::outcome::Hook;
use xlb_tests::kernel::random::{Random, seed};
use xlb_tests::kernel::rows;
use xlb_tests::kernel::{flows, generate, host, sample};

const STACK_IN_USE: Config =
    Config { stack_in_use: 1, settings: xlb_common::abi::Settings::NONE, generation: 0, only_uplink: 0, zero: 0 };
const PACKETS: usize = 6_000;
/// After so many packets the flow maps begin anew.
const PACKETS_PER_BATCH: usize = 200;
/// Services of the sample, and the entry of all others.
const SERVICES: u16 = 512;

/// The pod's answer to this client of VIP .1 port 80, and the client's packet.
const REPLY: &str = "tcp 10.244.1.1:8080 198.51.100.9:40000 PA data 10";
const REQUEST: &str = "tcp 198.51.100.9:40000 203.0.113.1:80 PA data 10";
const FLOW: &str = "198.51.100.9:40000 10.244.1.1:8080 vip 203.0.113.1:80";

#[test]
fn random_packets_count_alike_in_the_kernel_and_on_the_host() -> Result<()> {
    let mut random = Random::new(seed());
    let tables = sample::tables();
    let mut dataplane = Dataplane::load(&tables, STACK_IN_USE)?;
    // Of every other service the flows that are given are those of its predecessor.
    for index in (1..SERVICES).step_by(2) {
        let begun = ServiceStats { generation: 1, ..ServiceStats::default() };
        tables.service_stats.borrow_mut().insert(index, begun);
        dataplane.maps.set_service_stats(index, begun)?;
    }
    for _ in 0..PACKETS / PACKETS_PER_BATCH {
        let given = generate::flows(&mut random, &tables);
        dataplane.maps.set_flows(&given)?;
        dataplane.maps.refill_answers()?;
        flows::set(&tables, &given);
        tables.stages.borrow_mut().clear();
        for number in 0..PACKETS_PER_BATCH {
            let hook = Hook::ALL[number % Hook::ALL.len()];
            let frame = generate::packet(&mut random, hook);
            if dataplane.run(hook, &frame)?.is_some() {
                let _ = host::run(&tables, hook, &frame);
            }
        }
    }
    let host = numbers(&tables);
    let in_kernel = |&index: &u16| Ok((index, dataplane.maps.service_stats(index)?));
    let kernel: BTreeMap<u16, ServiceStats> = host.keys().map(in_kernel).collect::<Result<_>>()?;
    ensure!(kernel == host, "the kernel counted {kernel:#?}\nthe host {host:#?}");
    let has_aim = |number: fn(&ServiceStats) -> u64| host.values().filter(|it| number(it) > 0).count() > 20;
    ensure!(
        has_aim(|it| it.packets_to_pods) && has_aim(|it| it.packets_to_clients) && has_aim(|it| it.new_flows),
        "the generator has lost its aim: {host:#?}"
    );
    Ok(())
}

#[test]
fn a_connection_is_new_once_however_its_pod_shows_that_it_accepted() -> Result<()> {
    for shows in [&["accepted"][..], &["replied", "accepted"], &["accepted", "replied"]] {
        let tables = sample::tables();
        let pending = rows::flow(&format!("pending {FLOW}"), &tables)?;
        flows::set(&tables, &[pending].into());
        let FlowKey::V4(key) = pending.0.1 else { unreachable!("it is of IPv4") };
        let pod = <V4 as xlb_common::Family>::endpoint_key(key.pod, key.pod_port, 6);
        for how in shows {
            match *how {
                "accepted" => assert!(admit::accepted::<V4, _>(&tables, &key, &pod).is_some()),
                // The pod's sockets are not to be seen: its data is the evidence.
                _ => drop(host::run(&tables, Hook::Pod, &Spec::parse(REPLY)?.build())),
            }
        }
        assert_eq!(sum(&tables).new_flows, 1, "{shows:?}");
    }
    Ok(())
}

#[test]
fn a_flow_of_udp_is_new_with_its_first_datagram() -> Result<()> {
    let tables = sample::tables();
    for (client, flows) in [("198.51.100.9:40000", 1), ("198.51.100.9:40000", 1), ("198.51.100.9:40001", 2)] {
        let frame = Spec::parse(&format!("udp {client} 203.0.113.1:53"))?.build();
        let _ = host::run(&tables, Hook::Tc, &frame);
        assert_eq!(sum(&tables).new_flows, flows, "{client}: {:?}", tables.counts);
    }
    Ok(())
}

#[test]
fn a_syn_is_no_new_flow() -> Result<()> {
    let tables = sample::tables();
    for _ in 0..3 {
        let _ = host::run(&tables, Hook::Tc, &Spec::parse("tcp 198.51.100.9:40000 203.0.113.1:80 S")?.build());
    }
    let ServiceStats { packets_to_pods, new_flows, .. } = sum(&tables);
    assert_eq!((packets_to_pods, new_flows), (3, 0));
    Ok(())
}

/// The id of a service that went is another one's now; its connections still have replies.
#[test]
fn a_flow_of_a_service_that_had_the_id_before_counts_no_more() -> Result<()> {
    for (generation, counted) in [(0, 1), (1, 0)] {
        let tables = sample::tables();
        let (key, flow) = rows::flow(&format!("flow {FLOW}"), &tables)?;
        let begun = ServiceStats { generation, ..ServiceStats::default() };
        tables.service_stats.borrow_mut().insert(flow.service as u16, begun);
        flows::set(&tables, &[(key, flow)].into());
        let _ = host::run(&tables, Hook::Pod, &Spec::parse(REPLY)?.build());
        assert_eq!(sum(&tables).packets_to_clients, counted, "generation {generation}");
        // What a client sends belongs to the service that its VIP leads to now.
        let _ = host::run(&tables, Hook::Tc, &Spec::parse(REQUEST)?.build());
        assert_eq!(sum(&tables).packets_to_pods, 1);
    }
    Ok(())
}

#[test]
fn services_beyond_those_with_numbers_of_their_own_are_counted_together() -> Result<()> {
    let mut tables = sample::tables();
    for frontend in tables.v4.frontends.values_mut() {
        frontend.service += u32::from(OTHER_SERVICES);
    }
    let frame = Spec::parse(REQUEST)?.build();
    let flow = FlowEntry { service: 70_000, ..rows::flow(&format!("flow {FLOW}"), &sample::tables())?.1 };
    let key = rows::flow(&format!("flow {FLOW}"), &sample::tables())?.0;
    flows::set(&tables, &[(key, flow)].into());
    let _ = host::run(&tables, Hook::Tc, &frame);
    let _ = host::run(&tables, Hook::Pod, &Spec::parse(REPLY)?.build());
    let numbers = numbers(&tables);
    let others = numbers.get(&OTHER_SERVICES).context("nothing was counted")?;
    assert_eq!((numbers.len(), others.packets_to_pods, others.packets_to_clients), (1, 1, 1));
    Ok(())
}

fn numbers(tables: &MemoryTables) -> BTreeMap<u16, ServiceStats> {
    tables.service_stats.borrow().clone()
}

fn sum(tables: &MemoryTables) -> ServiceStats {
    numbers(tables).into_values().fold(ServiceStats::default(), ServiceStats::plus)
}
