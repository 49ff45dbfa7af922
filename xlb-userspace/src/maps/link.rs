//! A pinned link gets another program, whatever it links: aya does this for tc and XDP, and not for the programs of cgroups.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use aya::programs::links::FdLink;
use tracing::debug;

/// `BPF_OBJ_GET` and `BPF_LINK_UPDATE` (include/uapi/linux/bpf.h).
const OBJ_GET: libc::c_long = 7;
const LINK_UPDATE: libc::c_long = 29;
/// `BPF_F_REPLACE`: only if the old program is the one that is named.
const REPLACE: u32 = 1 << 2;

/// The part of `union bpf_attr` that names a pin.
#[repr(C)]
#[derive(Default)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part `link_update` of `union bpf_attr`.
#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Puts a program into the link that is pinned there, without a gap: each packet or event meets the old program or the new
/// one, never both. False when there is no link, or one whose interface or cgroup is gone: the kernel then refuses (ENOLINK),
/// and the pin is removed.
pub(super) fn replace_program(pin: &Path, program: BorrowedFd) -> Result<bool> {
    if !pin.exists() {
        return Ok(false);
    }
    match open(pin).and_then(|link| update(&link, program, None)) {
        Ok(()) => Ok(true),
        Err(error) => {
            debug!("the link {} is dead: {error:#}", pin.display());
            remove_pin(pin)?;
            Ok(false)
        }
    }
}

/// Puts a pinned program into a pinned link in the place of another pinned one. False when that one is not there, or the link's
/// interface is gone.
pub(super) fn exchange_program(link: &Path, old: &Path, new: &Path) -> Result<bool> {
    let (old, new) = (open(old)?, open(new)?);
    let updated = update(&open(link)?, new.as_fd(), Some(old.as_fd()));
    let number = updated.as_ref().err().and_then(|error| error.downcast_ref::<io::Error>()?.raw_os_error());
    if let Some(libc::EPERM | libc::ENOLINK) = number { Ok(false) } else { updated.map(|()| true) }
}

/// Keeps a link alive beyond this process.
pub(super) fn pin_link(link: FdLink, pin: &Path) -> Result<()> {
    link.pin(pin).map(drop).with_context(|| format!("pinning {}", pin.display()))
}

/// Lets a link go, if it is there: the program is detached.
pub(super) fn remove_pin(pin: &Path) -> Result<()> {
    match std::fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing the pin {}", pin.display()))
        }
        _ => Ok(()),
    }
}

fn open(pin: &Path) -> Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let get = ObjGet { pathname: path.as_ptr() as u64, ..ObjGet::default() };
    // SAFETY: the kernel only reads `get`, which is as long as it is told, and the path behind it, which ends in a zero
    // byte; both outlive the call.
    let descriptor = unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET, &raw const get, size_of::<ObjGet>()) };
    let descriptor = i32::try_from(descriptor)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("opening the pin {}", pin.display()));
    }
    // SAFETY: the kernel has just made the descriptor for this call, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn update(link: &OwnedFd, program: BorrowedFd, old: Option<BorrowedFd>) -> Result<()> {
    let (link_fd, new_prog_fd) = (link.as_raw_fd() as u32, program.as_raw_fd() as u32);
    let (flags, old_prog_fd) = old.map_or((0, 0), |old| (REPLACE, old.as_raw_fd() as u32));
    let update = LinkUpdate { link_fd, new_prog_fd, flags, old_prog_fd };
    // SAFETY: the kernel only reads `update`, which outlives the call and is as long as it is told.
    let failed = unsafe { libc::syscall(libc::SYS_bpf, LINK_UPDATE, &raw const update, size_of::<LinkUpdate>()) } != 0;
    if failed {
        return Err(io::Error::last_os_error()).context("replacing the program of the link");
    }
    Ok(())
}
