//! Three questions to a link's driver, by ioctl: what is it called, is its GRO on, and does it take VLAN tags out.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_GFLAGS: u32 = 0x25;
/// `ETH_FLAG_RXVLAN` (include/uapi/linux/ethtool.h).
const FLAG_RXVLAN: u32 = 1 << 8;

/// Name of the driver of a link in the socket's network namespace.
pub fn driver(socket: &UdpSocket, interface: &str) -> io::Result<String> {
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    ask(socket, interface, &mut info)?;
    let name = info.driver.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// Whether a link in the socket's network namespace has generic receive offload on.
pub fn gro_is_on(socket: &UdpSocket, interface: &str) -> io::Result<bool> {
    let mut value = Value { command: ETHTOOL_GGRO, data: 0 };
    ask(socket, interface, &mut value)?;
    Ok(value.data != 0)
}

/// Whether a link in the socket's network namespace takes VLAN tags out of received frames.
pub fn strips_vlan_tags(socket: &UdpSocket, interface: &str) -> io::Result<bool> {
    let mut value = Value { command: ETHTOOL_GFLAGS, data: 0 };
    ask(socket, interface, &mut value)?;
    Ok(value.data & FLAG_RXVLAN != 0)
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// A structure of ethtool's that starts with the command that fills it.
trait Question {}
impl Question for Value {}
impl Question for DriverInfo {}

const _: () = assert!(size_of::<Value>() == 8);
const _: () = assert!(size_of::<DriverInfo>() == 196);

fn ask<Q: Question>(socket: &UdpSocket, interface: &str, question: &mut Q) -> io::Result<()> {
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut *question).cast() };
    let mut request = libc::ifreq { ifr_name: interface_name(interface)?, ifr_ifru };
    // SAFETY: the kernel reads the name and the question's command, and writes no more than the structure of that
    // command, which is Q: both outlive the call, and any bytes are a valid Q.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn interface_name(interface: &str) -> io::Result<[libc::c_char; libc::IFNAMSIZ]> {
    let mut name = [0; libc::IFNAMSIZ];
    // The last byte stays zero: the kernel reads a C string.
    if interface.len() >= name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("interface name {interface} is too long")));
    }
    for (place, byte) in name.iter_mut().zip(interface.bytes()) {
        *place = byte as libc::c_char;
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_does_not_exist_and_a_name_that_cannot_are_errors() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();

        assert_eq!(driver(&socket, "xlb-none").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        assert_eq!(driver(&socket, "a-name-of-16-byt").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
