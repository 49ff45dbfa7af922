//! The agent's self-test: good programs pass it, and one with a mistake is found before it serves.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use xlb_common::Reason;
use xlb_common::memory::run;
use xlb_tests::lab::{Bend, bent_object};
use xlb_userspace::maps::attach::FrontDoor;
use xlb_userspace::maps::object::{Globals, OBJECT};
use xlb_userspace::maps::wanted::Wanted;
use xlb_userspace::selftest::{self, packets, table};

const GLOBALS: Globals = Globals { counted_services: 1, node_netns: 1 };
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

#[test]
fn the_programs_of_every_front_door_pass_the_self_test() -> Result<()> {
    for door in [FrontDoor::Tc, FrontDoor::XdpNative, FrontDoor::XdpGeneric] {
        selftest::run(OBJECT, &Wanted::of([door], false), GLOBALS).with_context(|| format!("{door}"))?;
    }
    Ok(())
}

#[test]
fn a_program_that_drops_what_it_should_pass_on_is_found_by_the_self_test() -> Result<()> {
    for program in ["ingress_tc", "pod", "uplink_egress"] {
        let object = bent_object(program, Bend::DropsAll)?;
        let refused = selftest::run(&object, &Wanted::of([FrontDoor::Tc], false), GLOBALS);
        let refused = refused.err().with_context(|| format!("{program} passed"))?;
        ensure!(refused.program == program && refused.why.contains("Drop"), "{refused}");
    }
    Ok(())
}

#[test]
fn a_program_that_the_verifier_refuses_is_named() -> Result<()> {
    for program in ["ingress_tc", "ingress_tc_icmp", "ingress_xdp"] {
        let object = bent_object(program, Bend::Unverifiable)?;
        let refused = selftest::run(&object, &Wanted::of([FrontDoor::XdpNative], false), GLOBALS);
        let refused = refused.err().with_context(|| format!("{program} passed"))?;
        ensure!(refused.program == program, "{refused}");
    }
    Ok(())
}

/// A self-test in which all packets took one way would find nothing.
#[test]
fn the_golden_packets_take_the_ways_that_a_nodes_packets_take() {
    let wanted = Wanted::of([FrontDoor::XdpNative], false);
    let tables = table::tables(MAC);
    let steps = packets::steps(&wanted, MAC);
    let met: BTreeSet<Option<Reason>> =
        steps.iter().map(|step| run::run(&tables, step.hook, &step.frame, (1, MAC)).reason).collect();
    for reason in [
        Reason::SlotOwner,
        Reason::Replied,
        Reason::RepliedAdmitted,
        Reason::EchoAnswered,
        Reason::NotOurs,
        Reason::NotAReply,
        Reason::LeftToTc,
    ] {
        assert!(met.contains(&Some(reason)), "{reason:?} is not among {met:?}");
    }
}
