//! Where the context of a socket's call holds its addresses: `user_ip4` or `user_ip6`, as the socket's family is.

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::programs::SockAddrContext;
use xlb_common::inside::Peer;
use xlb_common::{V4, V6};

use crate::maps::FamilyMaps;
use crate::words::{MAPPED, bytes, set_word, word, words};

/// A way to hold addresses.
pub trait Place {
    /// Of which IP version the packets are.
    type Family: FamilyMaps;

    /// The address of the other side.
    fn address(ctx: &SockAddrContext) -> <Self::Family as xlb_common::Family>::Address;
    /// Replaces it.
    fn set_address(ctx: &SockAddrContext, address: <Self::Family as xlb_common::Family>::Address);
    /// The address that the socket is bound to; unspecified: to none.
    fn bound(ctx: &SockAddrContext) -> <Self::Family as xlb_common::Family>::Address;
    /// The address that a datagram is sent from; unspecified: the route will tell. Only for programs of `sendmsg`.
    fn sent_from(ctx: &SockAddrContext) -> <Self::Family as xlb_common::Family>::Address;
}

/// An IPv4 socket, or a datagram for an IPv4 destination.
pub struct Ip4;
/// An IPv6 socket.
pub struct Ip6;
/// An IPv6 socket that speaks IPv4.
pub struct Mapped;

impl Place for Ip4 {
    type Family = V4;

    #[inline(always)]
    fn address(ctx: &SockAddrContext) -> [u8; 4] {
        // SAFETY: the context is valid for the whole run.
        unsafe { word(&raw const (*ctx.sock_addr).user_ip4) }.to_ne_bytes()
    }

    #[inline(always)]
    fn set_address(ctx: &SockAddrContext, address: [u8; 4]) {
        // SAFETY: programs of IPv4 sockets may write the field.
        unsafe { set_word(&raw mut (*ctx.sock_addr).user_ip4, u32::from_ne_bytes(address)) }
    }

    #[inline(always)]
    fn bound(ctx: &SockAddrContext) -> [u8; 4] {
        // SAFETY: the verifier lets a program read the fields of its context's socket.
        unsafe { word(&raw const (*socket(ctx)).src_ip4) }.to_ne_bytes()
    }

    #[inline(always)]
    fn sent_from(ctx: &SockAddrContext) -> [u8; 4] {
        // SAFETY: the context is valid for the whole run.
        unsafe { word(&raw const (*ctx.sock_addr).msg_src_ip4) }.to_ne_bytes()
    }
}

impl Place for Ip6 {
    type Family = V6;

    #[inline(always)]
    fn address(ctx: &SockAddrContext) -> [u8; 16] {
        // SAFETY: the context is valid for the whole run.
        bytes(unsafe { words(&raw const (*ctx.sock_addr).user_ip6) })
    }

    #[inline(always)]
    fn set_address(ctx: &SockAddrContext, address: [u8; 16]) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
        let words = [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes);
        // SAFETY: programs of IPv6 sockets may write the four words of the field.
        unsafe {
            let first = (&raw mut (*ctx.sock_addr).user_ip6).cast::<u32>();
            set_word(first, words[0]);
            set_word(first.add(1), words[1]);
            set_word(first.add(2), words[2]);
            set_word(first.add(3), words[3]);
        }
    }

    #[inline(always)]
    fn bound(ctx: &SockAddrContext) -> [u8; 16] {
        // SAFETY: the verifier lets a program read the fields of its context's socket.
        bytes(unsafe { words(&raw const (*socket(ctx)).src_ip6) })
    }

    #[inline(always)]
    fn sent_from(ctx: &SockAddrContext) -> [u8; 16] {
        // SAFETY: the context is valid for the whole run.
        bytes(unsafe { words(&raw const (*ctx.sock_addr).msg_src_ip6) })
    }
}

impl Place for Mapped {
    type Family = V4;

    #[inline(always)]
    fn address(ctx: &SockAddrContext) -> [u8; 4] {
        // SAFETY: the context is valid for the whole run, and the field has four words.
        unsafe { word((&raw const (*ctx.sock_addr).user_ip6).cast::<u32>().add(3)) }.to_ne_bytes()
    }

    #[inline(always)]
    fn set_address(ctx: &SockAddrContext, address: [u8; 4]) {
        // SAFETY: programs of IPv6 sockets may write the four words of the field.
        unsafe { set_word((&raw mut (*ctx.sock_addr).user_ip6).cast::<u32>().add(3), u32::from_ne_bytes(address)) }
    }

    /// The kernel keeps it beside the IPv6 one (net/ipv6/af_inet6.c, __inet6_bind).
    #[inline(always)]
    fn bound(ctx: &SockAddrContext) -> [u8; 4] {
        Ip4::bound(ctx)
    }

    /// Never asked: such a datagram is of IPv4 before `sendmsg` programs see it (net/ipv6/udp.c, udpv6_sendmsg).
    #[inline(always)]
    fn sent_from(_ctx: &SockAddrContext) -> [u8; 4] {
        [0; 4]
    }
}

/// Address and port of the other side.
#[inline(always)]
pub fn peer<P: Place>(ctx: &SockAddrContext) -> Peer<P::Family> {
    // SAFETY: the context is valid for the whole run.
    let port = unsafe { word(&raw const (*ctx.sock_addr).user_port) };
    (P::address(ctx), (port as u16).to_ne_bytes())
}

/// Replaces both.
#[inline(always)]
pub fn set_peer<P: Place>(ctx: &SockAddrContext, (address, port): Peer<P::Family>) {
    P::set_address(ctx, address);
    // SAFETY: every program of this type may write the field, whose lower half is the port in network byte order.
    unsafe { set_word(&raw mut (*ctx.sock_addr).user_port, u32::from(u16::from_ne_bytes(port))) }
}

/// Whether the other side of an IPv6 socket is of IPv4.
#[inline(always)]
pub fn is_mapped(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context is valid for the whole run.
    let [a, b, c, _] = unsafe { words(&raw const (*ctx.sock_addr).user_ip6) };
    [a, b, c] == MAPPED
}

/// IP protocol number.
#[inline(always)]
pub fn protocol(ctx: &SockAddrContext) -> u8 {
    // SAFETY: the context is valid for the whole run.
    (unsafe { word(&raw const (*ctx.sock_addr).protocol) }) as u8
}

/// The socket.
#[inline(always)]
fn socket(ctx: &SockAddrContext) -> *const bpf_sock {
    let context: *const bpf_sock_addr = ctx.sock_addr;
    // SAFETY: the context is valid for the whole run, and always has a socket.
    unsafe { (&raw const (*context).__bindgen_anon_1.sk).read_volatile() }
}
