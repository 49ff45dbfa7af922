//! Addresses and ranges as Kubernetes objects and operators spell them (semantics 1.6 and 8.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Bits of an IPv4-mapped IPv6 address before the IPv4 one (RFC 4291 chapter 2.5.5.2).
const MAPPED_PREFIX_BITS: u8 = 96;

/// Reads a range, or an address as the range that holds just this address. Blanks around it and bits beyond its prefix do
/// not count.
///
/// # Errors
/// The sentence says what was found and what was expected.
pub fn parse_range(text: &str) -> Result<IpNet, String> {
    let expected = || format!("found {text:?}, expected an address or a range such as 192.0.2.0/24");
    let (address, prefix) = match text.trim().split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text.trim(), None),
    };
    let parsed = parse_address(address).ok_or_else(expected)?;
    let Some(prefix) = prefix else { return Ok(IpNet::from(parsed)) };
    let written_bits = parse_decimal(prefix).ok_or_else(expected)?;
    let is_mapped = address.contains(':') && parsed.is_ipv4();
    let bits = if is_mapped { written_bits.checked_sub(MAPPED_PREFIX_BITS) } else { Some(written_bits) };
    let range = bits.and_then(|bits| IpNet::new(parsed, bits).ok()).ok_or_else(expected)?;
    Ok(range.trunc())
}

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

    #[test]
    fn a_range_is_read_and_holds_what_shares_its_first_bits() {
        for (range, address, expected) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.7/24", "192.0.2.255", true),
            (" 192.0.2.0/24 ", "192.0.2.255", true),
            ("192.000.002.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("::/0", "192.0.2.1", false),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("::/0", "2001:db8::1", true),
            ("::ffff:192.0.2.0/120", "192.0.2.255", true),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("2001:db8::7", "2001:db8::7", true),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(parse_range(range).unwrap().contains(&address), expected, "{range} {address}");
        }
        for text in [
            "",
            "192.0.2.0/33",
            "192.0.2.0/",
            "192.0.2/24",
            "::/129",
            "192.0.2.0/-1",
            "::ffff:192.0.2.0/24",
            "example.org",
        ] {
            assert!(parse_range(text).unwrap_err().starts_with(&format!("found {text:?}, expected ")));
        }
        assert_eq!(parse_range("192.0.2.7/24").unwrap().to_string(), "192.0.2.0/24");
    }
}
