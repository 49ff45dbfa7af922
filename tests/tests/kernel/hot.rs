//! Hot times in the kernel: what its sockets say decides which packet brings an entry back, and handshakes make times hot.

use std::net::SocketAddr;

use anyhow::Result;
use xlb_common::hot::{BEGUN_MAX, SHARE};
use xlb_common::tables::{FlowTable, Proof};
use xlb_tests::kernel::dataplane::Dataplane;
use xlb_tests::kernel::flows::{FlowKey, Flows};
use xlb_tests::kernel::frame::Spec;
use xlb_tests::kernel::outcome::Hook;
use xlb_tests::kernel::sample::{self, UPLINK, Version};
use xlb_tests::kernel::{flows, rows};

use crate::{Listening, STACK_IN_USE, check_rows, run_with_proof};

#[test]
fn entries_are_brought_back_in_hot_times_in_the_kernel() -> Result<()> {
    let tables = sample::hot();
    check_rows(&tables, rows::hot(&tables)?)
}

#[test]
fn a_packet_brings_its_entry_back_if_the_pods_kernel_knows_its_connection() -> Result<()> {
    for tables in [sample::hot(), sample::tables()] {
        for version in Version::ALL {
            let mut dataplane = Dataplane::load(&tables, STACK_IN_USE)?;
            let pod = Listening::start(&dataplane, version)?;
            for (client, proof) in pod.clients() {
                for flags in ["A", "PA", "RA"] {
                    dataplane.maps.set_flows(&Flows::new())?;
                    flows::set(&tables, &Flows::new());
                    let vip = SocketAddr::new(sample::vip_address(version, 1), 80);
                    let frame = Spec::parse(&format!("tcp {client} {vip} {flags}"))?.build();
                    run_with_proof(&tables, &dataplane, Hook::Tc, &frame, (&pod, client, proof))?;
                    let key = FlowKey::between(client, pod.address)?;
                    let found = dataplane.maps.flow(FlowTable::TcpPending as u8, &key);
                    let is_hot = tables.uplink_flags.contains_key(&UPLINK);
                    let is_known = matches!(proof, Proof::Owned | Proof::HalfOpen) && flags != "RA";
                    assert_eq!(found.is_some(), is_hot && is_known, "{is_hot} {version:?} {proof:?} {flags}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn handshakes_make_times_hot_at_the_uplink_where_they_begin() -> Result<()> {
    let mut dataplane = Dataplane::load(&sample::tables(), STACK_IN_USE)?;
    // At least one CPU begins a whole share of them.
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)? as u32;
    let syn = Spec::parse("tcp 198.51.100.9:40000 203.0.113.1:80 S")?.build();
    for (begun, is_hot) in [(0, false), (BEGUN_MAX, true), (0, false)] {
        dataplane.maps.set_half_open(begun)?;
        for _ in 0..SHARE * cpus {
            dataplane.run(Hook::Tc, &syn)?;
        }
        assert_eq!(dataplane.is_hot(UPLINK)?, is_hot, "{begun}");
        assert!(!dataplane.is_hot(UPLINK + 1)?, "no handshake began there");
    }
    Ok(())
}
