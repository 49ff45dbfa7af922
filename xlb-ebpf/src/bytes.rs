//! The bytes of a packet, between the two pointers that the kernel gives a program.
//!
//! An IPv6 address lies at an odd multiple of two bytes, and what may be unaligned the compiler reads and writes byte by
//! byte. The kernel does not mind: the verifier asks for alignment only where the machine does. So addresses are read and
//! written in two words, by instructions of their own.

use core::arch::asm;

/// Bytes of an IPv6 address.
const ADDRESS: usize = 16;

/// The `N` bytes at `at`, if they lie before `end`.
#[inline(always)]
pub fn load<const N: usize>(start: usize, end: usize, at: usize) -> Option<[u8; N]> {
    let from = within::<N>(start, end, at)?;
    if N == ADDRESS {
        let mut bytes = [0; N];
        let to = bytes.as_mut_ptr().cast::<u64>();
        // SAFETY: the array has room for two words, and `within` has compared their end with the packet's.
        unsafe {
            to.write_unaligned(load_word(from.cast()));
            to.add(1).write_unaligned(load_word(from.cast::<u64>().add(1)));
        }
        return Some(bytes);
    }
    // SAFETY: `within` has compared their end with the packet's; byte arrays have no alignment and every value.
    Some(unsafe { *from })
}

/// Writes `bytes` at `at`, if they end before `end`.
#[inline(always)]
pub fn store<const N: usize>(start: usize, end: usize, at: usize, bytes: [u8; N]) -> Option<()> {
    let to = within::<N>(start, end, at)?;
    if N == ADDRESS {
        let from = bytes.as_ptr().cast::<u64>();
        // SAFETY: as for `load`; whose memory it is, is said below.
        unsafe {
            store_word(to.cast(), from.read_unaligned());
            store_word(to.cast::<u64>().add(1), from.add(1).read_unaligned());
        }
        return Some(());
    }
    // SAFETY: as for `load`, and the memory is this program's for the run: a frame is nobody else's, and the verifier's
    // prologue has made an skb's linear part its own.
    unsafe { *to = bytes };
    Some(())
}

/// A word of a packet.
///
/// # Safety
/// Its end has been compared with the packet's.
#[inline(always)]
unsafe fn load_word(from: *const u64) -> u64 {
    let word;
    // SAFETY: the instruction reads what the caller vouches for.
    unsafe { asm!("{0} = *(u64 *)({1} + 0)", out(reg) word, in(reg) from, options(readonly, nostack)) };
    word
}

/// Writes a word of a packet.
///
/// # Safety
/// Its end has been compared with the packet's, and the memory is this program's.
#[inline(always)]
unsafe fn store_word(to: *mut u64, word: u64) {
    // SAFETY: the instruction writes what the caller vouches for.
    unsafe { asm!("*(u64 *)({0} + 0) = {1}", in(reg) to, in(reg) word, options(nostack)) };
}

#[inline(always)]
fn within<const N: usize>(start: usize, end: usize, at: usize) -> Option<*mut [u8; N]> {
    if start + at + N > end { None } else { Some((start + at) as *mut [u8; N]) }
}
