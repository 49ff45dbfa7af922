//! What a link's driver says of its XDP, by the generic netlink family `netdev` (Linux 6.3). Only `xlb doctor` asks.

use anyhow::{Context, Result};

use super::ask::{ask, attribute, written};

/// `NETLINK_GENERIC`, and of its controller: its type, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID` and `_NAME`
/// (include/uapi/linux/genetlink.h).
const NETLINK_GENERIC: isize = 16;
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `struct genlmsghdr`, in bytes.
const GENERIC_HEADER: usize = 4;
/// `NETDEV_CMD_DEV_GET`, `NETDEV_A_DEV_IFINDEX`, `NETDEV_A_DEV_XDP_FEATURES` (include/uapi/linux/netdev.h).
const DEVICE_GET: u8 = 1;
const DEVICE_IFINDEX: u16 = 1;
const DEVICE_FEATURES: u16 = 3;

/// What a driver's XDP can do: bits of `enum netdev_xdp_act`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures(pub u64);

impl XdpFeatures {
    /// Whether it runs programs, whose packets it can pass, drop, or send back.
    #[must_use]
    pub const fn runs(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether it can hand frames to another link.
    #[must_use]
    pub const fn redirects(self) -> bool {
        self.0 & 1 << 1 != 0
    }

    /// Whether it takes frames of several buffers, as an MTU above that of one page needs.
    #[must_use]
    pub const fn takes_several_buffers(self) -> bool {
        self.0 & 1 << 5 != 0
    }
}

/// What the driver of a link says.
///
/// # Errors
/// When the kernel is too old to ask.
pub fn features(ifindex: u32) -> Result<XdpFeatures> {
    let name = written(FAMILY_NAME, b"netdev\0");
    let family = ask(NETLINK_GENERIC, CONTROLLER, false, &[&[GET_FAMILY, 1, 0, 0][..], &name].concat())
        .context("looking for the netlink family netdev")?;
    let id = number(&family, FAMILY_ID).context("the netlink family netdev has no number")?;
    let device = written(DEVICE_IFINDEX, &ifindex.to_ne_bytes());
    let answer = ask(NETLINK_GENERIC, u16::try_from(id)?, false, &[&[DEVICE_GET, 1, 0, 0][..], &device].concat())
        .context("asking what XDP it can do")?;
    Ok(XdpFeatures(number(&answer, DEVICE_FEATURES).context("the kernel does not tell")?))
}

fn number(answer: &[Vec<u8>], kind: u16) -> Option<u64> {
    let value = attribute(answer.first()?.get(GENERIC_HEADER..)?, kind)?;
    let mut bytes = [0; 8];
    // A number of the netlink format is shorter where it may be; the machine's order decides at which end.
    match cfg!(target_endian = "little") {
        true => bytes.get_mut(..value.len())?.copy_from_slice(value),
        false => bytes.get_mut(8_usize.checked_sub(value.len())?..)?.copy_from_slice(value),
    }
    Some(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_runs_no_native_xdp() {
        let features = features(1).unwrap();
        assert!(!features.runs() && !features.redirects(), "{features:?}");
    }
}
