//! What a watcher gets of a packet that XDP meets: shared by the program that copies it (`xlb-ebpf/src/watch.rs`) and `xlb watch`.

use bytemuck::{Pod, Zeroable};

/// Most bytes of a packet that are copied: a record of the perf buffer has at most 64 KiB (`struct perf_event_header`,
/// include/uapi/linux/perf_event.h), and more than packets have before GRO.
pub const COPIED_MAX: u32 = 60 * 1024;

/// Name of the program that copies.
pub const PROGRAM: &str = "watch_xdp";
/// Name of the map whose only program gets the packet next.
pub const NEXT: &str = "WATCH_NEXT";
/// Name of the perf buffer.
pub const COPIES: &str = "WATCH_COPIES";
/// Name of the constant that says of how many packets one is copied.
pub const ONE_IN: &str = "WATCH_ONE_IN";

/// Comes before the packet's bytes, in the machine's byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Watched {
    /// When it came, in nanoseconds of CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// Bytes of the packet, its MACs among them.
    pub length: u32,
    /// Bytes of it that were copied.
    pub copied: u32,
}
const _: () = assert!(size_of::<Watched>() == Watched::BYTES);

impl Watched {
    /// Its length.
    pub const BYTES: usize = 16;

    /// As it stands before the packet.
    #[inline(always)]
    #[must_use]
    pub fn bytes(self) -> [u8; Self::BYTES] {
        bytemuck::cast(self)
    }

    /// Of a record, with the packet's bytes that were copied; what the kernel adds to fill up the record is left out. None: it is
    /// no record of a packet.
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
    fn a_record_is_what_was_copied_without_what_fills_it_up() {
        let watched = Watched { at_ns: 7, length: 9, copied: 3 };
        let record = [&watched.bytes()[..], b"abc", &[0; 5]].concat();
        assert_eq!(Watched::of_record(&record), Some((watched, &b"abc"[..])));
        assert_eq!(Watched::of_record(&record[..18]), None, "a part of it is missing");
        assert_eq!(Watched::of_record(&record[..15]), None);
    }
}
