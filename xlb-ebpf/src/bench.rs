//! Programs for `cargo xtask bench path` only: never part of the production object.
#![no_std]
#![no_main]
#![allow(missing_docs)]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
