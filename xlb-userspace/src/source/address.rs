//! Addresses as Kubernetes objects spell them (semantics 1.6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Reads an address as old objects may hold it: leading zeroes are decimal, and an IPv4-mapped IPv6 address means the
/// IPv4 one.
pub fn parse_address(text: &str) -> Option<IpAddr> {
    if !text.contains(':') {
        return parse_v4(text).map(IpAddr::V4);
    }
    let address: Ipv6Addr = match text.rsplit_once(':') {
        Some((head, tail)) if tail.contains('.') => format!("{head}:{}", parse_v4(tail)?).parse().ok()?,
        _ => text.parse().ok()?,
    };
    Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4))
}

fn parse_v4(text: &str) -> Option<Ipv4Addr> {
    let bytes: Option<Vec<u8>> = text.split('.').map(parse_decimal).collect();
    <[u8; 4]>::try_from(bytes?).ok().map(Ipv4Addr::from)
}

fn parse_decimal(text: &str) -> Option<u8> {
    let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_decimal.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_tolerantly_and_compare_as_binary() {
        for (text, expected) in [
            ("192.0.2.10", Some("192.0.2.10")),
            ("192.000.002.010", Some("192.0.2.10")),
            ("::ffff:192.0.2.10", Some("192.0.2.10")),
            ("::ffff:192.000.2.010", Some("192.0.2.10")),
            ("::FFFF:c000:020a", Some("192.0.2.10")),
            ("2001:0db8::01", Some("2001:db8::1")),
            ("192.0.2", None),
            ("192.0.2.10.1", None),
            ("192.0.2.256", None),
            ("192.0.2.+1", None),
            ("192.0.2.", None),
            (" 192.0.2.10", None),
            ("192.0.2.10/32", None),
            ("example.org", None),
            ("", None),
        ] {
            assert_eq!(parse_address(text), expected.map(|text| text.parse().unwrap()), "{text:?}");
        }
    }
}
