//! The connections that a namespace's conntrack knows.

use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::namespace::Namespace;

/// Header of a netlink message and of netfilter's (include/uapi/linux/netfilter/nfnetlink.h).
const REQUEST_BYTES: usize = 20;
/// NFNL_SUBSYS_CTNETLINK and IPCTNL_MSG_CT_DELETE, which without a tuple deletes all.
const DELETE: u16 = 1 << 8 | 2;
/// NLM_F_REQUEST and NLM_F_ACK.
const FLAGS: u16 = 1 | 4;
/// Where an answer has its error; zero: done.
const ERROR_AT: usize = 16;

/// Makes a namespace's conntrack forget everything.
pub fn forget_connections(namespace: &Namespace) -> Result<()> {
    namespace.run(forget).with_context(|| format!("flushing the conntrack table of {}", namespace.name()))
}

fn forget() -> Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
    send(socket.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut answer = [0; 64];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let error = answer[..length].get(ERROR_AT..ERROR_AT + 4).context("a short answer")?;
    ensure!(error == [0; 4], "refused: {error:?}");
    Ok(())
}

fn request() -> [u8; REQUEST_BYTES] {
    let mut request = [0; REQUEST_BYTES];
    request[..4].copy_from_slice(&(REQUEST_BYTES as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&DELETE.to_ne_bytes());
    request[6..8].copy_from_slice(&FLAGS.to_ne_bytes());
    request
}
