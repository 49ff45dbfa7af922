//! Calls that are refused, and with which error.

use anyhow::Result;
use xlb_common::Reason;
use xlb_common::abi::{Inside, inside_flags};

use crate::stage::{Name, Stage, connect, datagrams};

#[test]
fn without_any_usable_endpoint_the_call_is_refused_at_once() -> Result<()> {
    let stage = Stage::serving(2, &[], Inside::default())?;
    check_refused(&stage, libc::ECONNREFUSED)?;
    assert_eq!(stage.hooks.counts()?, [(Reason::InsideRejected, 27)].into());
    Ok(())
}

#[test]
fn who_is_in_no_source_range_is_not_permitted() -> Result<()> {
    let mut stage = Stage::serving(2, &[0], Inside::default())?;
    for place in stage.places() {
        for name in [Name::V4, Name::V6] {
            connect(place, stage.endpoint(name, if place.name() == stage.lab.pod(1).name() { 0 } else { 1 }))?;
        }
    }
    stage.publish(&[0], Inside { flags: inside_flags::SOURCE_RANGES, ..Inside::default() })?;
    check_refused(&stage, libc::EPERM)?;
    assert_eq!(stage.hooks.counts()?, [(Reason::InsideNotAllowed, 27)].into());
    Ok(())
}

fn check_refused(stage: &Stage, error: i32) -> Result<()> {
    for name in Name::ALL {
        for place in stage.places() {
            let vip = stage.vip(name);
            let socket = datagrams(place, vip)?;
            let calls = [
                ("connect", connect(place, vip).err()),
                ("sendto", place.run(|| socket.send_to(b"?", vip)).err()),
                ("connect of a datagram socket", place.run(|| socket.connect(vip)).err()),
            ];
            for (call, refusal) in calls {
                let found = refusal.and_then(|error| error.raw_os_error());
                assert_eq!(found, Some(error), "{call} from {} by {name:?}", place.name());
            }
        }
    }
    Ok(())
}
