//! An skb's headers need not be in its linear part: a driver may have put any number of bytes there. What the path reads it
//! gathers first, and every packet fares as if all of it were linear.

use anyhow::{Result, ensure};
use xlb_common::abi::Tags;
use xlb_common::checksum::{Difference, TransportChange};
use xlb_common::memory::MemoryTables;
use xlb_common::packet::{BytePacket, Packet};
use xlb_common::path::{self, Arrival, Delivery, Door};
use xlb_common::{Disposition, Reason};
use xlb_tests::kernel::describe::describe;
use xlb_tests::kernel::outcome::Hook;
use xlb_tests::kernel::{rows, sample};

/// What the kernel programs gather of every packet (xlb-ebpf, skb.rs).
const GATHERED: usize = 74;

#[test]
fn every_row_holds_for_a_packet_of_which_little_is_linear() -> Result<()> {
    let tables = sample::tables();
    rows::check_each(&tables, |row, hook| {
        if hook.is_xdp() {
            return Ok(());
        }
        let [whole, little] = [usize::MAX, GATHERED].map(|linear| {
            let tables = sample::tables();
            row.prepare(&tables, hook);
            let mut frame = row.frame.clone();
            let verdict = run(&tables, hook, &mut Linear { bytes: BytePacket(&mut frame), linear });
            (verdict, frame)
        });
        ensure!(whole.0 == little.0, "came out as {:?}, not {:?}", little.0, whole.0);
        let is_changed = !matches!(whole.0, Err(reason) if reason.disposition() == Disposition::Drop);
        ensure!(!is_changed || whole.1 == little.1, "became\n{}\nnot\n{}", describe(&little.1), describe(&whole.1));
        Ok(())
    })
}

fn run(tables: &MemoryTables, hook: Hook, packet: &mut Linear<'_>) -> Result<Delivery, Reason> {
    match hook {
        Hook::Pod => path::egress::<_, _, true>(packet, tables),
        Hook::Egress => path::egress::<_, _, false>(packet, tables),
        _ => path::ingress(packet, tables, Arrival::at(Door::Tc, sample::UPLINK)),
    }
}

/// A packet of which only the first bytes can be read and written, until more are gathered.
struct Linear<'a> {
    bytes: BytePacket<'a>,
    linear: usize,
}

impl Packet for Linear<'_> {
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        if at + N <= self.linear { self.bytes.load(at) } else { None }
    }

    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        if at + N <= self.linear { self.bytes.store(at, bytes) } else { None }
    }

    fn gather(&mut self, length: usize) {
        self.linear = self.linear.max(length);
    }

    /// The kernel's helper finds the sum wherever it is.
    fn follow(&mut self, at: usize, change: TransportChange) -> Option<()> {
        self.bytes.follow(at, change)
    }

    fn note_change(&mut self, change: Difference) {
        self.bytes.note_change(change);
    }

    fn renew(&mut self, length: usize) -> Option<()> {
        self.linear = self.linear.max(length);
        self.bytes.renew(length)
    }

    fn length(&self) -> u32 {
        self.bytes.length()
    }

    fn fits(&self, ifindex: u32) -> bool {
        self.bytes.fits(ifindex)
    }

    fn untag(&mut self, in_line: u32) -> Option<()> {
        self.bytes.untag(in_line)
    }

    fn tag(&mut self, tags: Tags) -> Option<()> {
        self.bytes.tag(tags)
    }
}
