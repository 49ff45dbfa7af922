//! The frames that scenarios send, and what is read of those that come back.

use std::net::{IpAddr, SocketAddr};

use xlb_common::abi::SCTP;
use xlb_common::parse::tcp_flags::{ACK, SYN};
use xlb_common::sctp::chunk;

use crate::kernel::flows::socket;
use crate::kernel::frame::{ICMP, ICMP_V6, Spec};

/// Bytes of an INIT chunk behind its header (RFC 9260 chapter 3.3.2).
const INIT_LENGTH: usize = 16;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// A frame of that protocol from one end to the other, which are of one family. What is no SYN carries data. In SCTP an
/// INIT is what a SYN is.
pub fn frame(protocol: u8, source: SocketAddr, destination: SocketAddr, flags: u8) -> Vec<u8> {
    let data = match (flags & SYN != 0, protocol) {
        (false, _) => 4,
        (true, SCTP) => INIT_LENGTH,
        (true, _) => 0,
    };
    let chunk = match (flags & SYN != 0, flags & ACK != 0) {
        (true, false) => chunk::INIT,
        (true, true) => chunk::INIT_ACK,
        (false, _) => chunk::DATA,
    };
    Spec { flags, chunk, data, ..Spec::new(protocol, source, destination) }.build()
}

/// Source and destination of a frame without IP options.
pub fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let Header { source, destination, payload_at, .. } = Header::of(frame);
    let port = |at: usize| [frame[at], frame[at + 1]];
    (socket(source, port(payload_at)), socket(destination, port(payload_at + 2)))
}

/// Whether it is the ICMP error "port unreachable" for this client.
pub fn is_report_to(frame: &[u8], client: IpAddr) -> bool {
    let Header { protocol, destination, payload_at, .. } = Header::of(frame);
    let message = (protocol, frame[payload_at], frame[payload_at + 1]);
    destination == client && [(ICMP, 3, 3), (ICMP_V6, 1, 4)].contains(&message)
}

struct Header {
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    payload_at: usize,
}

impl Header {
    fn of(frame: &[u8]) -> Self {
        let is_ipv6 = frame[ETHERNET] >> 4 == 6;
        let v4 = |at: usize| IpAddr::from(std::array::from_fn::<u8, 4, _>(|byte| frame[at + byte]));
        let v6 = |at: usize| IpAddr::from(std::array::from_fn::<u8, 16, _>(|byte| frame[at + byte]));
        if is_ipv6 {
            let (source, destination) = (v6(ETHERNET + 8), v6(ETHERNET + 24));
            return Self { protocol: frame[ETHERNET + 6], source, destination, payload_at: ETHERNET + 40 };
        }
        let (source, destination) = (v4(ETHERNET + 12), v4(ETHERNET + 16));
        Self { protocol: frame[ETHERNET + 9], source, destination, payload_at: ETHERNET + 20 }
    }
}
