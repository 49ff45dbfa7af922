//! Which of a slot's owners the kernel's sockets speak for.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use xlb_common::Reason;
use xlb_common::tables::Proof;
use xlb_tests::kernel::dataplane::Dataplane;
use xlb_tests::kernel::flows::Flows;
use xlb_tests::kernel::frame::Spec;
use xlb_tests::kernel::headers::Layout;
use xlb_tests::kernel::outcome::Hook;
use xlb_tests::kernel::sample::{self, Version, pod_address};
use xlb_tests::kernel::{flows, rows};

use crate::{Listening, STACK_IN_USE, run_with_proof};

/// VIPs .11 and .22 lead to pod 2 and led to pod 1, which holds the sockets; .22 forgot it, as its slot had no room. What is found there
/// once is found again.
#[test]
fn a_former_owner_keeps_what_its_kernel_proves() -> Result<()> {
    let tables = sample::tables();
    for version in Version::ALL {
        let mut dataplane = Dataplane::load(&tables, STACK_IN_USE)?;
        let pod = Listening::start(&dataplane, version)?;
        for (vip, (client, proof)) in
            [11, 22].into_iter().flat_map(|vip| pod.clients().map(move |client| (vip, client)))
        {
            let vip = SocketAddr::new(sample::vip_address(version, vip), 80);
            dataplane.maps.set_flows(&Flows::new())?;
            for flags in ["A", "PA", "S", "A"] {
                let frame = Spec::parse(&format!("tcp {client} {vip} {flags}"))?.build();
                let outcome = run_with_proof(&tables, &dataplane, Hook::Xdp, &frame, (&pod, client, proof))?;
                let is_proven =
                    matches!(proof, Proof::Owned | Proof::HalfOpen) || (proof == Proof::TimeWait && flags != "S");
                let (reason, owner) = if is_proven { (Reason::ProvenOwner, 1) } else { (Reason::UnprovenOwner, 2) };
                let layout = Layout::of(&outcome.frame).context("no IP packet came out")?;
                let [_, chosen] = layout.addresses(&outcome.frame);
                let expected = (Some(reason), pod_address(version, owner));
                assert_eq!((outcome.reason, chosen), expected, "{vip} {proof:?} {flags}");
            }
        }
    }
    Ok(())
}

/// The client's port has a connection with pod 1 by VIP .10, which .1 leads to as well, and .11 did. A flow's entry says so.
#[test]
fn what_a_kernel_holds_for_one_frontend_is_no_other_ones() -> Result<()> {
    let tables = sample::tables();
    for version in Version::ALL {
        let mut dataplane = Dataplane::load(&tables, STACK_IN_USE)?;
        let pod = Listening::start(&dataplane, version)?;
        for (client, proof) in pod.clients() {
            let held = |table: &str| {
                let vip = SocketAddr::new(sample::vip_address(version, 10), 80);
                rows::flow(&format!("{table} {client} {} vip {vip}", pod.address), &tables)
            };
            for table in ["flow", "pending"] {
                for (vip, flags) in [(11, "S"), (11, "A"), (1, "S"), (1, "A")] {
                    let flows: Flows = [held(table)?].into();
                    dataplane.maps.set_flows(&flows)?;
                    flows::set(&tables, &flows);
                    let vip_socket = SocketAddr::new(sample::vip_address(version, vip), 80);
                    let frame = Spec::parse(&format!("tcp {client} {vip_socket} {flags}"))?.build();
                    let outcome = run_with_proof(&tables, &dataplane, Hook::Xdp, &frame, (&pod, client, proof))?;
                    // A handshake is what the half-open entry says; without one the pod's kernel is believed.
                    let is_claimed = table == "flow" && proof == Proof::HalfOpen;
                    let is_in_use = table == "pending" && matches!(proof, Proof::Owned | Proof::HalfOpen);
                    let expected = match (vip, flags) {
                        (11, _) if is_claimed => Reason::ProvenOwner,
                        (11, _) => Reason::UnprovenOwner,
                        (_, "S") if is_in_use => Reason::PortInUse,
                        _ => Reason::SoleBackend,
                    };
                    assert_eq!(outcome.reason, Some(expected), "{version:?} {proof:?} {table} .{vip} {flags}");
                }
            }
        }
    }
    Ok(())
}
