//! What a fragment says of itself and of its datagram.

use crate::abi::{SCTP, TCP, UDP};
use crate::family::Family;
use crate::parse::{Endpoint, Macs, Parsed, Transport};
use crate::reason::Reason;

/// Bytes of the longest datagram (RFC 791 chapter 3.1): its header is one of them.
const DATAGRAM_MAX: u32 = 65_535;
/// An offset's unit.
const UNIT: u32 = 8;

/// A fragment.
#[derive(Clone, Copy, Debug)]
pub struct Piece<F: Family> {
    /// Source address.
    pub source: F::Address,
    /// Destination address.
    pub destination: F::Address,
    /// Which datagram of this source and destination, network byte order; of IPv4's two bytes the first two.
    pub identification: [u8; 4],
    /// IP protocol number, of TCP or UDP.
    pub protocol: u8,
    /// Bytes of the datagram's payload before it.
    pub offset: u32,
    /// Whether others follow it in the datagram.
    pub has_more: bool,
    /// TTL or hop limit.
    pub hops: u8,
    /// The frame's.
    pub macs: Macs,
}

impl<F: Family> Piece<F> {
    /// Key of what is known of its datagram.
    #[inline(always)]
    pub fn key(&self) -> F::FragmentKey {
        F::fragment_key(self.source, self.destination, self.identification, self.protocol)
    }

    /// As a packet whose ports are not known: what a rewriting of its addresses needs.
    #[inline(always)]
    pub fn as_parsed(&self) -> Parsed<F> {
        Parsed {
            source: Endpoint(self.source, [0; 2]),
            destination: Endpoint(self.destination, [0; 2]),
            transport: Transport::UDP,
            hops: self.hops,
            macs: self.macs,
        }
    }

    /// The fragment, if `length` bytes of payload and its place are possible in a datagram whose header counts
    /// `header` bytes of it, and its protocol is served. Linux drops the others, too (`ip_frag_queue`, `ip6_frag_queue`).
    #[inline(always)]
    pub fn checked(self, length: u32, header: u32) -> Result<Self, Reason> {
        match self.protocol {
            TCP | UDP => {}
            SCTP => return Err(Reason::Sctp),
            _ => return Err(Reason::OtherProtocol),
        }
        let is_uneven = self.has_more && !length.is_multiple_of(UNIT);
        if length == 0 || length > DATAGRAM_MAX || is_uneven || self.offset + length + header > DATAGRAM_MAX {
            return Err(Reason::Malformed);
        }
        Ok(self)
    }
}
