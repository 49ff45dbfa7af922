//! The bytes of a packet, between the two pointers that the kernel gives a program.
//!
//! What may be unaligned the compiler reads and writes byte by byte. The kernel does not mind: the verifier asks for
//! alignment only where the machine does. So packets are read and written in words, by instructions of their own.

use core::arch::asm;

use xlb_common::shape::{BETWEEN_MAX, TAGS_MAX};

/// Most bytes that are read or written at once.
const BYTES_MAX: usize = 47;

/// The `N` bytes at `at`, if they lie before `end`.
#[inline(always)]
pub fn load<const N: usize>(start: usize, end: usize, at: usize) -> Option<[u8; N]> {
    let from = within::<N>(start, end, at)?;
    let mut bytes = Aligned([0; N]);
    let to = bytes.0.as_mut_ptr();
    // SAFETY: the words are those of `N` bytes, which is the array's length, and `within` has compared the end of as many
    // bytes of the packet with the packet's.
    words::<N>(|at, length| unsafe {
        match length {
            8 => to.add(at).cast::<u64>().write_unaligned(load_8(from.add(at))),
            4 => to.add(at).cast::<u32>().write_unaligned(load_4(from.add(at)) as u32),
            2 => to.add(at).cast::<u16>().write_unaligned(load_2(from.add(at)) as u16),
            _ => to.add(at).write(*from.add(at)),
        }
    });
    Some(bytes.0)
}

/// Writes `bytes` at `at`, if they end before `end`.
#[inline(always)]
pub fn store<const N: usize>(start: usize, end: usize, at: usize, bytes: [u8; N]) -> Option<()> {
    let to = within::<N>(start, end, at)?;
    let bytes = Aligned(bytes);
    let from = bytes.0.as_ptr();
    // SAFETY: as for `load`, and the memory is this program's for the run: a frame is nobody else's, and the verifier's
    // prologue has made an skb's linear part its own.
    words::<N>(|at, length| unsafe {
        match length {
            8 => store_8(to.add(at), from.add(at).cast::<u64>().read_unaligned()),
            4 => store_4(to.add(at), from.add(at).cast::<u32>().read_unaligned().into()),
            2 => store_2(to.add(at), from.add(at).cast::<u16>().read_unaligned().into()),
            _ => to.add(at).write(*from.add(at)),
        }
    });
    Some(())
}

/// The packet's begin, `by` bytes later: what is read and written at a constant offset from it is at one that varies.
///
/// The verifier allows that where the pointer that was compared is the pointer that is used, and where it sees a bound. The
/// instructions keep the compiler from taking either apart.
#[inline(always)]
pub fn moved(start: usize, by: u32) -> usize {
    let mut moved = by as usize;
    // SAFETY: the instructions change no more than this register, and do not jump.
    unsafe {
        asm!("{0} &= 511", "{0} += {1}", inout(reg) moved, in(reg) start, options(pure, nomem, nostack));
    }
    moved
}
const _: () = assert!(TAGS_MAX + BETWEEN_MAX <= 511);
/// The number, of which the verifier knows nothing any more: it does not follow what `unknown`, of which it knows nothing,
/// does to it twice.
#[inline(always)]
pub fn any(number: u32, unknown: u32) -> u32 {
    let mut any = u64::from(number);
    // SAFETY: the instructions change no more than this register, and do not jump.
    unsafe {
        asm!("{0} ^= {1}", "{0} ^= {1}", inout(reg) any, in(reg) u64::from(unknown), options(pure, nomem, nostack));
    }
    any as u32
}

/// Bytes that the compiler can move in words, too.
#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

/// Each word of `N` bytes, the largest first, by its place and length. Not a loop: the compiler does not unroll one with
/// instructions that it does not know.
#[inline(always)]
fn words<const N: usize>(mut word: impl FnMut(usize, usize)) {
    const { assert!(N <= BYTES_MAX) };
    if N >= 8 {
        word(0, 8);
    }
    if N >= 16 {
        word(8, 8);
    }
    if N >= 24 {
        word(16, 8);
    }
    if N >= 32 {
        word(24, 8);
    }
    if N >= 40 {
        word(32, 8);
    }
    if N & 4 != 0 {
        word(N & !7, 4);
    }
    if N & 2 != 0 {
        word(N & !3, 2);
    }
    if N & 1 != 0 {
        word(N & !1, 1);
    }
}

/// The instructions for a word of one size.
macro_rules! word {
    ($load:ident, $store:ident, $word:literal) => {
        /// A word of a packet.
        ///
        /// # Safety
        /// Its end has been compared with the packet's.
        #[inline(always)]
        unsafe fn $load(from: *const u8) -> u64 {
            let word;
            // SAFETY: the instruction reads what the caller vouches for.
            unsafe {
                asm!(concat!("{0} = *(", $word, " *)({1} + 0)"), out(reg) word, in(reg) from,
                    options(pure, readonly, nostack));
            }
            word
        }

        /// Writes a word of a packet.
        ///
        /// # Safety
        /// Its end has been compared with the packet's, and the memory is this program's.
        #[inline(always)]
        unsafe fn $store(to: *mut u8, word: u64) {
            // SAFETY: the instruction writes what the caller vouches for.
            unsafe { asm!(concat!("*(", $word, " *)({0} + 0) = {1}"), in(reg) to, in(reg) word, options(nostack)) };
        }
    };
}

word!(load_8, store_8, "u64");
word!(load_4, store_4, "u32");
word!(load_2, store_2, "u16");

#[inline(always)]
fn within<const N: usize>(start: usize, end: usize, at: usize) -> Option<*mut u8> {
    if start + at + N > end { None } else { Some((start + at) as *mut u8) }
}
