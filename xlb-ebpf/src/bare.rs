//! What a hard-coded forwarder knows of a packet, for benches: the limit that the path is compared with.

use xlb_common::V4;
use xlb_common::abi::TCP;
use xlb_common::packet::Packet;
use xlb_common::parse::{Endpoint, Macs, Parsed, TcpView, Transport};

/// A TCP segment over IPv4, as far as it takes to readdress it.
#[inline(always)]
pub fn parsed<P: Packet>(packet: &P) -> Option<Parsed<V4>> {
    let (kind, header) = (packet.load::<2>(12)?, packet.load::<24>(14)?);
    if kind != [8, 0] || [header[0], header[9]] != [0x45, TCP] {
        return None;
    }
    let [.., s0, s1, s2, s3, d0, d1, d2, d3, c0, c1, v0, v1] = header;
    Some(Parsed {
        source: Endpoint([s0, s1, s2, s3], [c0, c1]),
        destination: Endpoint([d0, d1, d2, d3], [v0, v1]),
        transport: Transport::of_tcp(TcpView::NOTHING),
        hops: header[8],
        macs: Macs { destination: [0; 6], source: [0; 6] },
    })
}
