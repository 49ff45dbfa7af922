//! The bytes of a packet, between the two pointers that the kernel gives a program.

/// The `N` bytes at `at`, if they lie before `end`.
#[inline(always)]
pub fn load<const N: usize>(start: usize, end: usize, at: usize) -> Option<[u8; N]> {
    // SAFETY: `within` has compared their end with the packet's; byte arrays have no alignment and every value.
    within::<N>(start, end, at).map(|pointer| unsafe { *pointer })
}

/// Writes `bytes` at `at`, if they end before `end`.
#[inline(always)]
pub fn store<const N: usize>(start: usize, end: usize, at: usize, bytes: [u8; N]) -> Option<()> {
    // SAFETY: as for `load`, and the memory is this program's for the run: a frame is nobody else's, and the verifier's
    // prologue has made an skb's linear part its own.
    within::<N>(start, end, at).map(|pointer| unsafe { *pointer = bytes })
}

#[inline(always)]
fn within<const N: usize>(start: usize, end: usize, at: usize) -> Option<*mut [u8; N]> {
    if start + at + N > end { None } else { Some((start + at) as *mut [u8; N]) }
}
