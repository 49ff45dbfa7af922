//! The cookie of a network namespace: what the programs of sockets know it by.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use anyhow::{Context, Result, ensure};

/// The cookie of the namespace that this thread is in.
///
/// # Errors
/// When the kernel does not tell.
pub fn own_netns_cookie() -> Result<u64> {
    let socket = UnixDatagram::unbound().context("making a socket")?;
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: `cookie` has the eight bytes that `length` says, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    ensure!(result == 0, "asking for the cookie of this network namespace: {}", io::Error::last_os_error());
    Ok(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_one_cookie() {
        let cookie = own_netns_cookie().unwrap();
        assert!(cookie != 0);
        assert_eq!(own_netns_cookie().unwrap(), cookie);
    }
}
