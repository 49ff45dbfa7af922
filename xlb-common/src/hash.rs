//! Which slot a flow belongs to. Defined once: kernel and userspace, this node and the next, agree without talking.

/// What the hash of a flow is made of. Addresses are folded to 64 bits by their family.
#[derive(Clone, Copy, Debug)]
pub struct FlowParts {
    /// The client's address.
    pub client: u64,
    /// The VIP.
    pub vip: u64,
    /// The client's port, host byte order.
    pub client_port: u16,
    /// The VIP's port, host byte order.
    pub vip_port: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// An IPv6 address in 64 bits: no two interfaces of one network meet, and no two networks of one interface.
#[inline(always)]
#[must_use]
pub const fn fold_address(address: [u8; 16]) -> u64 {
    let address = u128::from_be_bytes(address);
    let [network, interface] = [(address >> 64) as u64, address as u64];
    network.wrapping_mul(0xa076_1d64_78bd_642f) ^ interface
}

impl FlowParts {
    /// What all flows of a client have in common: services with affinity keep them together.
    #[inline(always)]
    #[must_use]
    pub const fn of_client(client: u64) -> Self {
        Self { client, vip: 0, client_port: 0, vip_port: 0, protocol: 0 }
    }
}

/// Hash of a flow: two rounds of multiply and shift, which spread neighbouring addresses and ports evenly.
#[inline(always)]
#[must_use]
pub const fn flow_hash(flow: FlowParts) -> u32 {
    let ports = (flow.client_port as u64) << 32 | (flow.vip_port as u64) << 8 | flow.protocol as u64;
    let mut hash = (flow.client ^ (ports << 16)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^= hash >> 32;
    hash = (hash ^ flow.vip).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    (hash >> 32) as u32
}

/// The slot of a flow among `slots` of a service: a multiplication in place of a division, even to one part in 2^32/M.
#[inline(always)]
#[must_use]
pub const fn slot_of(hash: u32, slots: u32) -> u32 {
    ((hash as u64 * slots as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(client: u64, client_port: u16) -> u32 {
        let flow = FlowParts { client, vip: 0xcb00_710a, client_port, vip_port: 80, protocol: 6 };
        slot_of(flow_hash(flow), 251)
    }

    /// Chi-square over 251 slots; 99.9 % of even spreads stay below 325.
    fn unevenness(slots: impl Iterator<Item = u32>) -> f64 {
        let (mut counts, mut total) = ([0f64; 251], 0f64);
        for slot in slots {
            counts[slot as usize] += 1.0;
            total += 1.0;
        }
        counts.iter().map(|count| (count - total / 251.0).powi(2) / (total / 251.0)).sum()
    }

    #[test]
    fn neighbouring_ports_of_one_client_spread_evenly() {
        assert!(unevenness((1024..=65_535).map(|port| slot(0xc633_6409, port))) < 325.0);
    }

    #[test]
    fn neighbouring_clients_with_one_port_spread_evenly() {
        assert!(unevenness((0..65_536).map(|host| slot(0x0a00_0000 + host, 40_000))) < 325.0);
    }

    /// Clients `2001:db8:0:NETWORK::INTERFACE`.
    fn slot_v6(network: u16, interface: u64) -> u32 {
        slot(
            fold_address((0x2001_0db8 << 96 | u128::from(network) << 64 | u128::from(interface)).to_be_bytes()),
            40_000,
        )
    }

    #[test]
    fn neighbouring_ipv6_clients_spread_evenly() {
        assert!(unevenness((0..=u16::MAX).map(|host| slot_v6(1, u64::from(host)))) < 325.0);
        assert!(unevenness((0..=u16::MAX).map(|network| slot_v6(network, 1))) < 325.0);
        assert!(unevenness((0..=u16::MAX).map(|number| slot_v6(number, u64::from(number)))) < 325.0);
    }

    #[test]
    fn the_slot_of_a_flow_never_changes_between_versions() {
        assert_eq!(slot(0xc633_6409, 40_000), 64);
        assert_eq!(slot_v6(7, 9), 105);
    }
}
