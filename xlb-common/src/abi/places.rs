//! Frontends where a packet finds them without a hash map: see [`crate::directory`].

use bytemuck::{Pod, Zeroable};

use super::{EndpointKeyV4, EndpointKeyV6, Frontend};

/// Words of `DIRECTORY_V4` and `DIRECTORY_V6`: 512 KiB each.
pub const DIRECTORY_WORDS: u32 = 1 << 16;

/// Value of `PLACES_V4`: a frontend with its key. It does not change while a word leads there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PlaceV4 {
    /// What `FRONTENDS_V4` says of the key.
    pub frontend: Frontend,
    /// The key.
    pub key: EndpointKeyV4,
}
const _: () = assert!(size_of::<PlaceV4>() == 40);

/// Value of `PLACES_V6`: see [`PlaceV4`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct PlaceV6 {
    /// What `FRONTENDS_V6` says of the key.
    pub frontend: Frontend,
    /// The key.
    pub key: EndpointKeyV6,
    /// Always zero.
    pub zero: u32,
}
const _: () = assert!(size_of::<PlaceV6>() == 56);
