//! A TCP reset that refuses a SYN (RFC 9293 chapter 3.10.7.1), made of the SYN itself: it comes from the VIP, and
//! acknowledges the SYN and whatever data that had.

use crate::checksum::Sum;
use crate::family::{Family, V4, V6};
use crate::packet::Packet;
use crate::parse::{
    DATA_UNKNOWN, ETHER_TYPE_AT, ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ETHERNET_LENGTH, macs, tcp_flags, wanted,
};
use crate::refusal::HOPS;
use crate::rewrite::readdress_frame;

const TCP_LENGTH: usize = 20;
/// Protocol number of TCP.
const TCP: u8 = crate::abi::TCP;

/// The segment, from its ports on, with its checksum still zero. None if the packet is no TCP segment.
#[inline(always)]
fn segment<F: Family, P: Packet>(packet: &P) -> Option<[u8; TCP_LENGTH]> {
    let parsed = F::parse::<P, { wanted::TCP_AND_UDP }>(packet).ok()?;
    // Of a SYN whose IP header says nothing of its length nobody knows what is to be acknowledged.
    let tcp = parsed.transport.tcp().filter(|tcp| tcp.data_length != DATA_UNKNOWN)?;
    let sequence = u32::from_be_bytes(packet.load::<4>(F::TRANSPORT_AT + 4)?);
    let [a0, a1, a2, a3] = sequence.wrapping_add(tcp.data_length.into()).wrapping_add(1).to_be_bytes();
    let ([s0, s1], [d0, d1]) = (parsed.destination.1, parsed.source.1);
    let flags = tcp_flags::RST | tcp_flags::ACK;
    Some([s0, s1, d0, d1, 0, 0, 0, 0, a0, a1, a2, a3, (TCP_LENGTH as u8 / 4) << 4, flags, 0, 0, 0, 0, 0, 0])
}

/// Makes an IPv4 SYN the reset that refuses it.
#[inline(never)]
pub fn reset_v4<P: Packet>(packet: &mut P) -> Option<()> {
    const LENGTH: [u8; 2] = ((V4::TRANSPORT_AT - ETHERNET_LENGTH + TCP_LENGTH) as u16).to_be_bytes();
    let macs = macs(packet).ok()?;
    let segment = segment::<V4, P>(packet)?;
    let [client, vip]: [[u8; 4]; 2] = bytemuck::cast(packet.load::<8>(ETHERNET_LENGTH + 12)?);
    packet.renew(V4::TRANSPORT_AT + TCP_LENGTH)?;
    packet.store(ETHER_TYPE_AT, ETHER_TYPE_IPV4)?;
    let first = [0x45, 0, LENGTH[0], LENGTH[1], 0, 0, 0x40, 0, HOPS, TCP];
    packet.store(ETHERNET_LENGTH, first)?;
    packet.store(ETHERNET_LENGTH + 10, Sum::of(first).and(vip).and(client).checksum())?;
    packet.store(ETHERNET_LENGTH + 12, vip)?;
    packet.store(ETHERNET_LENGTH + 16, client)?;
    store_segment::<V4, P>(packet, segment, Sum::of(vip).and(client))?;
    readdress_frame(packet, macs.source, macs.destination)
}

/// Makes an IPv6 SYN the reset that refuses it.
#[inline(never)]
pub fn reset_v6<P: Packet>(packet: &mut P) -> Option<()> {
    let macs = macs(packet).ok()?;
    let segment = segment::<V6, P>(packet)?;
    let [client, vip]: [[u8; 16]; 2] = bytemuck::cast(packet.load::<32>(ETHERNET_LENGTH + 8)?);
    packet.renew(V6::TRANSPORT_AT + TCP_LENGTH)?;
    packet.store(ETHER_TYPE_AT, ETHER_TYPE_IPV6)?;
    packet.store(ETHERNET_LENGTH, [0x60, 0, 0, 0, 0, TCP_LENGTH as u8, TCP, HOPS])?;
    packet.store(ETHERNET_LENGTH + 8, vip)?;
    packet.store(ETHERNET_LENGTH + 24, client)?;
    store_segment::<V6, P>(packet, segment, Sum::of(vip).and(client))?;
    readdress_frame(packet, macs.source, macs.destination)
}

/// The segment behind an IP header with these addresses.
#[inline(always)]
fn store_segment<F: Family, P: Packet>(packet: &mut P, segment: [u8; TCP_LENGTH], addresses: Sum) -> Option<()> {
    let sum = addresses.and([0, TCP]).and([0, TCP_LENGTH as u8]).and(segment);
    packet.store(F::TRANSPORT_AT, segment)?;
    packet.store(F::TRANSPORT_AT + 16, sum.checksum())
}
