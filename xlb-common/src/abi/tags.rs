//! VLAN tags as a flow's entry keeps them.

use bytemuck::{Pod, Zeroable};

/// The tags of a frame (IEEE 802.1Q), as on the wire: type and control information of each, network byte order. A tag of
/// zeros is none. A priority tag, which names VLAN 0, is a tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C, align(4))]
pub struct Tags {
    /// Behind the MACs.
    pub outer: [u8; 4],
    /// Behind the outer one.
    pub inner: [u8; 4],
}
const _: () = assert!(size_of::<Tags>() == 8);

impl Tags {
    /// No tag.
    pub const NONE: Self = Self { outer: [0; 4], inner: [0; 4] };

    /// Whether there is none.
    #[inline(always)]
    #[must_use]
    pub const fn is_none(self) -> bool {
        u32::from_ne_bytes(self.outer) == 0
    }

    /// Whether there are two.
    #[inline(always)]
    #[must_use]
    pub const fn are_two(self) -> bool {
        u32::from_ne_bytes(self.inner) != 0
    }
}
