//! The words of a socket's context, one by one: the kernel lets no wider ones be read.

/// What an IPv4 address is behind in an IPv6 socket (RFC 4291 chapter 2.5.5.2), in network byte order.
pub const MAPPED: [u32; 3] = [0, 0, 0xffff_u32.to_be()];

/// The bytes of an IPv6 address.
#[inline(always)]
pub fn bytes([a, b, c, d]: [u32; 4]) -> [u8; 16] {
    let [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] = [a, b, c, d].map(u32::to_ne_bytes);
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// Four words of the context.
///
/// # Safety
/// `field` is one of the context's.
#[inline(always)]
pub unsafe fn words(field: *const [u32; 4]) -> [u32; 4] {
    let first = field.cast();
    // SAFETY: the four lie inside the field.
    unsafe { [word(first), word(first.add(1)), word(first.add(2)), word(first.add(3))] }
}

/// A word of the context.
///
/// # Safety
/// `field` is one of the context's, or a word in it.
#[inline(always)]
pub unsafe fn word(field: *const u32) -> u32 {
    // SAFETY: the caller has it from the context.
    unsafe { field.read_volatile() }
}

/// Writes a word of the context.
///
/// # Safety
/// `field` is one of the context's that the program may write, or a word in it.
#[inline(always)]
pub unsafe fn set_word(field: *mut u32, value: u32) {
    // SAFETY: the caller has it from the context.
    unsafe { field.write_volatile(value) }
}
