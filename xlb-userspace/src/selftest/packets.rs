//! The golden packets, in the order in which they are sent: what a flow leaves behind is what its answer is known by.

use xlb_common::abi::{TCP, UDP};
use xlb_common::checksum::checksum;
use xlb_common::hook::Hook;

use super::table::{POD, SERVICES, VIP, pod_port};
use crate::maps::wanted::Wanted;

/// A packet for a hook.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it is.
    pub name: String,
    /// Where it is met.
    pub hook: Hook,
    /// The packet from its Ethernet header on.
    pub frame: Vec<u8>,
}

/// The next hop on the way to clients.
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Clients.
const CLIENT: ([u8; 4], [u8; 16]) = ([198, 51, 100, 9], [0x20, 1, 0xd, 0xb8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
/// Of the first client; each door has one of its own, so that its flows are its own.
const CLIENT_PORT: u16 = 40_000;
/// No service has it.
const UNOWNED_PORT: u16 = 9;

const SYN: u8 = 2;
const ACK: u8 = 16;
const PUSH: u8 = 8;
/// IP protocol numbers of ICMP and ICMPv6, and their types of an echo request.
const ECHO: [(u8, u8); 2] = [(1, 8), (58, 128)];

/// Where the header of TCP, UDP or ICMP begins in a frame.
const fn transport_at(family: usize) -> usize {
    [34, 54][family]
}

/// All packets for the hooks that are wanted.
#[must_use]
pub fn steps(wanted: &Wanted, uplink_mac: [u8; 6]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (number, &door) in (0..).zip(wanted.hooks.iter().filter(|hook| hook.is_ingress())) {
        for family in 0..2 {
            let to = Talk { client_port: CLIENT_PORT + number, family, uplink_mac };
            for (port, protocol, is_direct) in SERVICES {
                let back = if is_direct { Hook::Pod } else { Hook::Egress };
                let kinds: &[(&str, u8)] = match protocol {
                    TCP => &[("SYN", SYN), ("segment", ACK | PUSH), ("next segment", ACK | PUSH)],
                    _ => &[("datagram", 0), ("next datagram", 0)],
                };
                for &(what, flags) in kinds {
                    steps.push(to.step(what, door, to.of_client(protocol, port, flags)));
                    let reply = to.of_pod(protocol, pod_port(is_direct), flags | ACK);
                    steps.push(to.step(&format!("reply to a {what}"), back, reply));
                }
            }
            steps.push(to.step("packet for another port", door, to.of_client(TCP, UNOWNED_PORT, SYN)));
            steps.push(to.step("packet for another address", door, to.to_other(UDP, SERVICES[1].0)));
            steps.push(to.step("ping", door, to.ping()));
            steps.push(to.step("packet of the pod's own", Hook::Pod, to.of_pod(UDP, UNOWNED_PORT, 0)));
        }
    }
    steps.retain(|step| wanted.hooks.contains(&step.hook));
    steps
}

/// Between a client and a VIP.
struct Talk {
    client_port: u16,
    family: usize,
    uplink_mac: [u8; 6],
}

impl Talk {
    fn step(&self, what: &str, hook: Hook, frame: Vec<u8>) -> Step {
        Step { name: format!("{what} over IPv{}", [4, 6][self.family]), hook, frame }
    }

    fn of_client(&self, protocol: u8, port: u16, flags: u8) -> Vec<u8> {
        let body = transport(protocol, [self.client_port, port], flags);
        self.frame([CLIENT, VIP], protocol, body)
    }

    fn to_other(&self, protocol: u8, port: u16) -> Vec<u8> {
        self.frame([CLIENT, POD], protocol, transport(protocol, [self.client_port, port], 0))
    }

    fn of_pod(&self, protocol: u8, port: u16, flags: u8) -> Vec<u8> {
        self.frame([POD, CLIENT], protocol, transport(protocol, [port, self.client_port], flags))
    }

    fn ping(&self) -> Vec<u8> {
        let (protocol, kind) = ECHO[self.family];
        self.frame([CLIENT, VIP], protocol, vec![kind, 0, 0, 0, 0, 1, 0, 1, b'x', b'l', b'b', b'!'])
    }

    fn frame(&self, [source, destination]: [([u8; 4], [u8; 16]); 2], protocol: u8, mut body: Vec<u8>) -> Vec<u8> {
        let length = body.len() as u16;
        let (ether_type, mut ip) = match self.family {
            0 => {
                let [high, low] = (20 + length).to_be_bytes();
                let mut ip = vec![0x45, 0, high, low, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0];
                ip.extend([source.0, destination.0].concat());
                let sum = checksum(0, &ip);
                ip[10..12].copy_from_slice(&sum);
                ([8, 0], ip)
            }
            _ => {
                let [high, low] = length.to_be_bytes();
                let mut ip = vec![0x60, 0, 0, 0, high, low, protocol, 64];
                ip.extend([source.1, destination.1].concat());
                ([0x86, 0xdd], ip)
            }
        };
        let addresses = &ip[[12, 8][self.family]..];
        // ICMP over IPv4 has no pseudo header (RFC 792).
        let pseudo = match (self.family, protocol) {
            (0, 1) => Vec::new(),
            _ => [addresses, &[0, protocol], &length.to_be_bytes()].concat(),
        };
        let sum_at = match protocol {
            TCP => 16,
            UDP => 6,
            _ => 2,
        };
        let sum = checksum(0, &[&pseudo[..], &body].concat());
        body[sum_at..sum_at + 2].copy_from_slice(&sum);
        let mut frame = [&self.uplink_mac[..], &ROUTER_MAC, &ether_type].concat();
        frame.append(&mut ip);
        debug_assert_eq!(frame.len(), transport_at(self.family));
        frame.append(&mut body);
        frame
    }
}

/// A header without its sum, and four bytes of payload if it carries any.
fn transport(protocol: u8, [source, destination]: [u16; 2], flags: u8) -> Vec<u8> {
    let mut body = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    let payload: &[u8] = if flags & SYN != 0 { &[] } else { b"xlb!" };
    match protocol {
        TCP => body.extend([0, 0, 0, 9, 0, 0, 0, if flags & ACK != 0 { 5 } else { 0 }, 0x50, flags, 1, 0, 0, 0, 0, 0]),
        _ => body.extend([0, 8 + payload.len() as u8, 0, 0]),
    }
    body.extend(payload);
    body
}
