//! TCP segments that are written as a whole, for whoever makes packets: the kernel uses live frames again
//! (BPF_F_TEST_XDP_LIVE_FRAMES) that their receiver has rewritten.

use xlb_common::abi::TCP;
use xlb_common::packet::Packet as _;

use crate::frame::Frame;

/// From which device packets leave, and where they go. Userspace writes it: `tests/src/lab/course.rs`.
#[repr(C)]
pub struct Course {
    /// The device that they leave by.
    pub ifindex: u32,
    /// The MACs of their receiver and of that device.
    pub macs: [u8; 12],
    /// Where they go.
    pub address: [u8; 4],
    /// Its port, network byte order.
    pub port: [u8; 2],
    /// What else a program has to know; else zero.
    pub more: [u8; 2],
}

/// Where a segment comes from.
pub struct Origin {
    /// The address.
    pub address: u32,
    /// The port, of which 16 bits count.
    pub port: u32,
    /// TCP's sequence number.
    pub sequence: u32,
}

/// Sources are those of 100.64.0.0/10 (RFC 6598), which no lab has.
const NETWORK: u32 = 0x6440_0000;
const HOSTS: u32 = 0x003f_ffff;
/// Ports from 1 024 on.
const FIRST_PORT: u32 = 1_024;
const PORTS: u32 = 64_512;
const TTL_AND_TCP: [u8; 2] = [64, TCP];
const IP_BYTES: u8 = 20;
const TCP_BYTES: u8 = 20;
const WINDOW: [u8; 2] = [0xfa, 0xf0];

impl Origin {
    /// One of many, by numbers of which any will do.
    #[inline(always)]
    pub fn of(host: u32, port: u32, sequence: u32) -> Self {
        Self { address: NETWORK | (host & HOSTS), port: FIRST_PORT + port % PORTS, sequence }
    }
}

/// Writes a segment with these flags and options, whose length is a multiple of four.
#[inline(always)]
pub fn write<const OPTIONS: usize>(
    frame: &mut Frame,
    course: &Course,
    from: &Origin,
    flags: u8,
    options: [u8; OPTIONS],
) -> Option<()> {
    let tcp_bytes = TCP_BYTES + OPTIONS as u8;
    // Version, header length, type of service; length; identification; do not fragment.
    let ip_start = [0x45, 0, 0, IP_BYTES + tcp_bytes, 0, 0, 0x40, 0];
    let middle = [tcp_bytes / 4 << 4, flags, WINDOW[0], WINDOW[1]];
    let [s0, s1, s2, s3] = from.address.to_be_bytes();
    let [.., p0, p1] = from.port.to_be_bytes();
    let [q0, q1, q2, q3] = from.sequence.to_be_bytes();
    let ([d0, d1, d2, d3], [v0, v1]) = (course.address, course.port);
    let ends = halves(from.address) + words(course.address);
    let [i0, i1] = folded(ends + words(ip_start) + words(TTL_AND_TCP));
    let pseudo = ends + u32::from(TCP) + u32::from(tcp_bytes);
    let header = from.port + words(course.port) + halves(from.sequence) + words(middle);
    let [t0, t1] = folded(pseudo + header + words(options));
    frame.store(0, course.macs)?;
    frame.store(12, [0x08, 0x00])?;
    frame.store(14, ip_start)?;
    frame.store(22, TTL_AND_TCP)?;
    frame.store(24, [i0, i1, s0, s1, s2, s3, d0, d1, d2, d3])?;
    frame.store(34, [p0, p1, v0, v1, q0, q1, q2, q3, 0, 0, 0, 0])?;
    frame.store(46, middle)?;
    frame.store(50, [t0, t1, 0, 0])?;
    frame.store(54, options)
}

/// The sum of the bytes' words of 16 bits.
#[inline(always)]
fn words<const N: usize>(bytes: [u8; N]) -> u32 {
    let mut sum = 0;
    let mut at = 0;
    while at + 1 < N {
        sum += u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        at += 2;
    }
    sum
}

/// The sum of a word's halves.
#[inline(always)]
fn halves(word: u32) -> u32 {
    (word >> 16) + (word & 0xffff)
}

/// The checksum of that sum (RFC 1071).
#[inline(always)]
fn folded(sum: u32) -> [u8; 2] {
    (!(halves(halves(sum)) as u16)).to_be_bytes()
}
