//! Packet memory, read and written in words. A packet's fields are not aligned, and the compiler, which must not know
//! that this kernel does not care (x86-64 and arm64 do not, and the verifier allows it for packets alone), would take
//! them byte by byte: so the word is named to the machine.

use core::arch::asm;

macro_rules! word {
    ($read:ident, $write:ident, $type:ty, $load:literal, $store:literal) => {
        #[inline(always)]
        unsafe fn $read(from: *const u8) -> $type {
            let word: u64;
            // SAFETY: the caller has compared the packet's end with the last byte read.
            unsafe { asm!($load, out(reg) word, in(reg) from, options(pure, readonly, nostack, preserves_flags)) };
            word as $type
        }

        #[inline(always)]
        unsafe fn $write(to: *mut u8, word: $type) {
            // SAFETY: the caller has compared the packet's end with the last byte written.
            unsafe { asm!($store, in(reg) to, in(reg) u64::from(word), options(nostack, preserves_flags)) };
        }
    };
}

word!(read_u32, write_u32, u32, "{0} = *(u32 *)({1} + 0)", "*(u32 *)({0} + 0) = {1}");
word!(read_u16, write_u16, u16, "{0} = *(u16 *)({1} + 0)", "*(u16 *)({0} + 0) = {1}");
word!(read_u8, write_u8, u8, "{0} = *(u8 *)({1} + 0)", "*(u8 *)({0} + 0) = {1}");

/// The `N` bytes at `from`.
///
/// # Safety
/// They lie inside the packet, as compared with its end on this very pointer.
#[inline(always)]
pub unsafe fn read<const N: usize>(from: *const u8) -> [u8; N] {
    let mut bytes = [0; N];
    let to = bytes.as_mut_ptr();
    let mut at = 0;
    // SAFETY: `at` stays below N in packet and array alike.
    unsafe {
        while at + 4 <= N {
            to.add(at).cast::<[u8; 4]>().write(read_u32(from.add(at)).to_ne_bytes());
            at += 4;
        }
        if at + 2 <= N {
            to.add(at).cast::<[u8; 2]>().write(read_u16(from.add(at)).to_ne_bytes());
            at += 2;
        }
        if at < N {
            to.add(at).write(read_u8(from.add(at)));
        }
    }
    bytes
}

/// Writes `bytes` to `to`.
///
/// # Safety
/// As for [`read`].
#[inline(always)]
pub unsafe fn write<const N: usize>(to: *mut u8, bytes: [u8; N]) {
    let from = bytes.as_ptr();
    let mut at = 0;
    // SAFETY: `at` stays below N in packet and array alike.
    unsafe {
        while at + 4 <= N {
            write_u32(to.add(at), u32::from_ne_bytes(from.add(at).cast::<[u8; 4]>().read()));
            at += 4;
        }
        if at + 2 <= N {
            write_u16(to.add(at), u16::from_ne_bytes(from.add(at).cast::<[u8; 2]>().read()));
            at += 2;
        }
        if at < N {
            write_u8(to.add(at), from.add(at).read());
        }
    }
}
