//! What a watcher gets of a packet: shared by the programs that copy it (`xlb-ebpf/src/watch.rs`) and `xlb watch`.

use bytemuck::{Pod, Zeroable};

/// Most bytes of a packet that are copied. Only what GRO made of several packets may be longer.
pub const COPIED_MAX: u32 = 64 * 1024;
/// Bytes of records that wait at most; packets that come then are lost, and counted. A power of two.
pub const QUEUE_BYTES: u32 = 32 << 20;

/// Name of the program that copies at tc.
pub const AT_TC: &str = "watch_tc";
/// Names of those that copy before native and before generic XDP.
pub const BEFORE_XDP: [&str; 2] = ["watch_xdp", "watch_xdp_alone"];
/// Name of the map with the programs that get the packet after these, in the same order.
pub const NEXT: &str = "WATCH_NEXT";
/// Name of the ring buffer.
pub const COPIES: &str = "WATCH_COPIES";
/// Name of the map that counts, for each CPU, packets that found no room.
pub const LOST: &str = "WATCH_LOST";
/// Name of the constant that says of how many packets one is copied.
pub const ONE_IN: &str = "WATCH_ONE_IN";

/// Comes before the packet's bytes, in the machine's byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Watched {
    /// When it came, in nanoseconds of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// The link that received it.
    pub ifindex: u32,
    /// Bytes of the packet, its MACs among them.
    pub length: u32,
    /// Bytes of it that were copied.
    pub copied: u32,
    /// The VLAN tag that was taken out of it, as it was on the wire: type and control; zero: none was.
    pub tag: [u8; 4],
    /// Not zero: its frame is addressed to another host.
    pub is_for_other_host: u32,
    /// Always zero.
    pub zero: u32,
}
const _: () = assert!(size_of::<Watched>() == Watched::BYTES);

impl Watched {
    /// Its length.
    pub const BYTES: usize = 32;

    /// Of a record, with the packet's bytes that were copied, and without the room that is left. None: it is no record of a packet.
    #[must_use]
    pub fn of_record(record: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = record.split_at_checked(Self::BYTES)?;
        let watched: Self = bytemuck::try_pod_read_unaligned(head).ok()?;
        Some((watched, rest.get(..watched.copied as usize)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_what_was_copied_without_the_room_that_is_left() {
        let watched = Watched { at_ns: 7, length: 9, copied: 3, ..Watched::default() };
        let record = [bytemuck::bytes_of(&watched), b"abc", &[0; 5]].concat();
        assert_eq!(Watched::of_record(&record), Some((watched, &b"abc"[..])));
        assert_eq!(Watched::of_record(&record[..Watched::BYTES + 2]), None, "a part of it is missing");
        assert_eq!(Watched::of_record(&record[..Watched::BYTES - 1]), None);
    }
}
