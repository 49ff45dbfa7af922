//! The flood itself.

use std::collections::BTreeSet;
use std::net::SocketAddrV4;

use anyhow::Result;
use xlb_tests::kernel::describe::{Sums, sums};
use xlb_tests::lab::{Lab, LabSpec};
use xlb_tests::load::flood::Flood;

const FRAMES: usize = 1_000;
const SYN: u8 = 2;

#[test]
fn frames_of_a_flood_are_syns_of_many_sources_with_right_sums() -> Result<()> {
    let lab = Lab::new(LabSpec { pod_count: 0, ..LabSpec::default() })?;
    let vip = SocketAddrV4::new(lab.vip(0), 80);
    let frames = Flood::frames(&lab, vip, FRAMES)?;
    for frame in &frames {
        assert_eq!(sums(frame), Some(Sums { ip: true, transport: true }), "{frame:02x?}");
        assert_eq!((&frame[30..34], &frame[36..38], frame[47]), (&vip.ip().octets()[..], &[0, 80][..], SYN));
        assert_eq!((frame[26], frame[27] & 0xc0), (100, 64), "a source outside 100.64.0.0/10");
    }
    let sources: BTreeSet<&[u8]> = frames.iter().map(|frame| &frame[26..36]).collect();
    assert!(sources.len() > FRAMES - 10, "{} sources of {FRAMES} frames", sources.len());
    Ok(())
}
