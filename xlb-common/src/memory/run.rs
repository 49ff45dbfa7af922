//! Runs a hook in ordinary memory: the path of xlb-common, and what the adapters decide in front of it.

use crate::packet::BytePacket;
use crate::path::{self, Arrival, Delivery, Door};
use crate::reason::{Disposition, Reason};
use crate::shape::is_tagged;

use super::MemoryTables;
use super::outcome::{Hook, Outcome, Verdict};

/// What `hook` does with `frame`, on an uplink with this index and MAC. The tables' flows follow.
#[must_use]
pub fn run(tables: &MemoryTables, hook: Hook, frame: &[u8], uplink: (u32, [u8; 6])) -> Outcome {
    let mut frame = frame.to_vec();
    let decided = decide(tables, hook, &mut frame, uplink);
    if is_tagged_anew(hook, &decided) && is_tagged(&BytePacket(&mut frame)) {
        frame.drain(12..16);
    }
    let (verdict, reason) = match decided {
        Ok(Delivery { to: Some(_), reason }) => (Verdict::Redirect, reason),
        Ok(Delivery { to: None, reason }) => (Verdict::Pass, reason),
        Err(reason) if reason.disposition() == Disposition::Drop => (Verdict::Drop, reason),
        Err(reason) if reason.disposition() == Disposition::Reply => (Verdict::Redirect, reason),
        Err(reason) => (Verdict::Pass, reason),
    };
    Outcome { verdict, reason: Some(reason), frame }
}

fn decide(
    tables: &MemoryTables,
    hook: Hook,
    frame: &mut Vec<u8>,
    (ifindex, mac): (u32, [u8; 6]),
) -> Result<Delivery, Reason> {
    if hook == Hook::Tc && is_for_other_host(frame, mac) {
        return Err(Reason::OtherHost);
    }
    let packet = &mut BytePacket(frame);
    match hook {
        Hook::Xdp => path::ingress(packet, tables, Arrival::at(Door::Xdp, ifindex)),
        Hook::XdpAlone => path::ingress(packet, tables, Arrival::at(Door::XdpAlone, ifindex)),
        Hook::Tc => path::ingress(packet, tables, Arrival::at(Door::Tc, ifindex)),
        Hook::Pod => path::egress::<_, _, true>(packet, tables),
        Hook::Egress => path::egress::<_, _, false>(packet, tables),
    }
}

/// Whether a tag of the packet was put on by the program: the outermost is kept beside the skb, where a test-run does not
/// show it.
fn is_tagged_anew(hook: Hook, decided: &Result<Delivery, Reason>) -> bool {
    match hook {
        Hook::Pod => decided.is_ok(),
        Hook::Tc => decided.as_ref().is_err_and(|reason| reason.refuses()),
        Hook::Xdp | Hook::XdpAlone | Hook::Egress => false,
    }
}

/// PACKET_OTHERHOST, as `eth_type_trans` sets it: neither the device's MAC nor a group's.
fn is_for_other_host(frame: &[u8], uplink_mac: [u8; 6]) -> bool {
    frame.first_chunk().is_some_and(|mac| *mac != uplink_mac && mac[0] & 1 == 0)
}
