//! The tables of iptables from before nftables, by getsockopt: names of chains, and the addresses in kube-proxy's.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::{fs, io};

use anyhow::{Context, Result, ensure};

use super::netfilter::{KUBE_SERVICES, address};

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`; those of ip6tables have the same numbers.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `struct ipt_getinfo`: the name, 12 numbers, and the size of all entries in bytes.
const INFO: usize = NAME + 4 * 13;
const SIZE_AT: usize = NAME + 4 * 12;
/// `struct ipt_get_entries`: the name, their size, and the entries, whose numbers are aligned to 8 bytes.
const ENTRIES: usize = NAME + 8;
/// `struct xt_entry_target`: its name is at 2, and what is the target's own follows.
const TARGET: usize = 32;
const TARGET_NAME: std::ops::Range<usize> = 2..31;
/// Bytes of entries at most; a node with a hundred thousand rules has fewer.
const ENTRIES_MAX: usize = 256 << 20;

/// One IP version of the tables.
struct Version {
    /// Where the kernel lists the tables that there are. Asking for another one would make it.
    names: &'static str,
    domain: libc::c_int,
    level: libc::c_int,
    /// Where a rule's destination and its mask begin, and how long they are.
    destination: usize,
    mask: usize,
    width: usize,
    /// Where a rule says at which offset its target is, and the next rule.
    offsets: usize,
}

const VERSIONS: [Version; 2] = [
    Version {
        names: "/proc/net/ip_tables_names",
        domain: libc::AF_INET,
        level: libc::IPPROTO_IP,
        destination: 4,
        mask: 12,
        width: 4,
        offsets: 88,
    },
    Version {
        names: "/proc/net/ip6_tables_names",
        domain: libc::AF_INET6,
        level: libc::IPPROTO_IPV6,
        destination: 16,
        mask: 48,
        width: 16,
        offsets: 140,
    },
];

/// What these tables hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Legacy {
    /// Names of chains.
    pub chains: BTreeSet<String>,
    /// Destinations of the rules in kube-proxy's chain of services.
    pub kube_proxy: BTreeSet<IpAddr>,
}

/// Reads all tables that there are.
pub(super) fn read() -> Result<Legacy> {
    let mut legacy = Legacy::default();
    for version in VERSIONS {
        // Absent: the kernel has no such tables.
        let names = fs::read_to_string(version.names).unwrap_or_default();
        for table in names.lines() {
            let entries = entries(&version, table).with_context(|| format!("reading the table {table}"))?;
            walk(&version, &entries, &mut legacy);
        }
    }
    Ok(legacy)
}

fn entries(version: &Version, table: &str) -> Result<Vec<u8>> {
    // SAFETY: socket(2) takes no pointer, and its result is checked before it is used.
    let socket = unsafe { libc::socket(version.domain, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    ensure!(socket >= 0, "opening a raw socket: {}", io::Error::last_os_error());
    // SAFETY: the descriptor is open, and nothing else owns it: socket(2) has just made it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut info = vec![0; INFO];
    info[..table.len().min(NAME - 1)].copy_from_slice(&table.as_bytes()[..table.len().min(NAME - 1)]);
    get(&socket, version.level, GET_INFO, &mut info)?;
    let size: [u8; 4] = std::array::from_fn(|index| info[SIZE_AT + index]);
    let length = u32::from_ne_bytes(size) as usize;
    ensure!(length <= ENTRIES_MAX, "{length} bytes of rules are more than are read");
    let mut bytes = vec![0; ENTRIES + length];
    bytes[..NAME].copy_from_slice(&info[..NAME]);
    bytes[NAME..NAME + 4].copy_from_slice(&size);
    get(&socket, version.level, GET_ENTRIES, &mut bytes)?;
    Ok(bytes.split_off(ENTRIES))
}

fn get(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, bytes: &mut [u8]) -> Result<()> {
    let mut length = bytes.len() as libc::socklen_t;
    // SAFETY: the kernel reads and writes no more than the `length` bytes of the slice, which outlives the call.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, bytes.as_mut_ptr().cast(), &raw mut length) };
    ensure!(result == 0, "asking for it: {}", io::Error::last_os_error());
    Ok(())
}

/// A chain begins with a rule whose target is called ERROR, and carries the chain's name.
fn walk(version: &Version, entries: &[u8], legacy: &mut Legacy) {
    let mut chain = String::new();
    let mut rest = entries;
    while let Some((target_at, next_at)) = offsets(version, rest) {
        let Some(target) = rest.get(target_at..next_at).filter(|target| target.len() >= TARGET) else { break };
        if text(&target[TARGET_NAME]) == "ERROR" {
            chain = text(&target[TARGET..]);
            // The last rule of a table is no chain's, and is called as its target.
            legacy.chains.extend((chain != "ERROR").then(|| chain.clone()));
        } else if chain == KUBE_SERVICES {
            legacy.kube_proxy.extend(destination(version, rest));
        }
        rest = &rest[next_at..];
    }
}

fn offsets(version: &Version, entry: &[u8]) -> Option<(usize, usize)> {
    let number = |at: usize| Some(usize::from(u16::from_ne_bytes([*entry.get(at)?, *entry.get(at + 1)?])));
    Some((number(version.offsets)?, number(version.offsets + 2)?)).filter(|(_, next)| *next > 0)
}

/// Only of a rule that is for one address.
fn destination(version: &Version, entry: &[u8]) -> Option<IpAddr> {
    let part = |at: usize| entry.get(at..at + version.width);
    part(version.mask)?.iter().all(|byte| *byte == 0xff).then(|| address(part(version.destination)?))?
}

fn text(bytes: &[u8]) -> String {
    super::ask::text(bytes)
}
