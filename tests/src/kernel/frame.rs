//! Packets from text: `tcp 198.51.100.9:40000 203.0.113.1:80 S ttl 64 data 100`. Sums are made from scratch.
//!
//! | word | means |
//! |---|---|
//! | `tcp` `udp` `icmp` | protocol; then source and destination, `ADDRESS:PORT` |
//! | letters of `FSRPAU` | TCP flags |
//! | `ttl N` `data N` `ack N` | TTL; bytes of payload; acknowledgement number |
//! | `from MAC` `to MAC` | `router` (from), `uplink` (to), `podN`, `hostN`, `other`, `all` |
//! | `no-sum` | UDP without a checksum |
//! | `sum ffff` | payload such that the checksum is that |
//! | `options` `tcp-options` | one word of options |
//! | `more` `offset N` `keep-whole` | fragment bits: more fragments, offset in 8 bytes, don't fragment |
//! | `total N` `length N` `header N` `version N` | what the header says, true or not: IP total length, IP header length in words, TCP header length in words, IP version |
//! | `type HEX` `vlan N` | Ethernet type; a VLAN tag |
//! | `cut N` `pad N` | the frame ends after N bytes; or is filled up to N |

use std::str::SplitWhitespace;

use anyhow::{Context as _, Result, bail, ensure};
use xlb_common::abi::{TCP, UDP};
use xlb_common::checksum::checksum;

use super::sample::{ROUTER_MAC, UPLINK_MAC, host_mac, pod_mac};

/// IP protocol number of ICMP (RFC 792).
pub const ICMP: u8 = 1;
/// A MAC that is nobody's here.
pub const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

/// What the text says.
#[derive(Clone, Debug)]
pub struct Spec {
    /// IP protocol number.
    pub protocol: u8,
    /// Source.
    pub source: ([u8; 4], u16),
    /// Destination.
    pub destination: ([u8; 4], u16),
    /// TCP flags.
    pub flags: u8,
    /// TTL.
    pub ttl: u8,
    /// Bytes of payload.
    pub data: usize,
    /// TCP acknowledgement number.
    pub acknowledged: u32,
    /// Source MAC.
    pub from: [u8; 6],
    /// Destination MAC.
    pub to: [u8; 6],
    /// UDP without a checksum.
    pub no_sum: bool,
    /// The checksum that the first two bytes of payload bring about.
    pub wanted_sum: Option<u16>,
    /// Words of IP options and of TCP options.
    pub options: (usize, usize),
    /// Fragment bits and offset.
    pub fragment: u16,
    /// Lies: IP total length, IP header length, TCP header length, IP version.
    pub lies: (Option<u16>, Option<u8>, Option<u8>, Option<u8>),
    /// Ethernet type.
    pub ether_type: u16,
    /// VLAN number.
    pub vlan: Option<u16>,
    /// Length of the frame, if not its own.
    pub frame_length: Option<usize>,
}

impl Spec {
    /// A packet of `protocol` between two ends, sent by the router to the uplink.
    #[must_use]
    pub const fn new(protocol: u8, source: ([u8; 4], u16), destination: ([u8; 4], u16)) -> Self {
        Self {
            protocol,
            source,
            destination,
            flags: 0,
            ttl: 64,
            data: 0,
            acknowledged: 0,
            from: ROUTER_MAC,
            to: UPLINK_MAC,
            no_sum: false,
            wanted_sum: None,
            options: (0, 0),
            fragment: 0,
            lies: (None, None, None, None),
            ether_type: 0x0800,
            vlan: None,
            frame_length: None,
        }
    }

    /// From text.
    pub fn parse(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace();
        let protocol = match next(&mut words)? {
            "tcp" => TCP,
            "udp" => UDP,
            "icmp" => ICMP,
            other => bail!("{other} is not a protocol"),
        };
        let mut spec = Self::new(protocol, endpoint(next(&mut words)?)?, endpoint(next(&mut words)?)?);
        while let Some(word) = words.next() {
            spec.read(word, &mut words).with_context(|| format!("reading `{word}` of `{text}`"))?;
        }
        Ok(spec)
    }

    fn read(&mut self, word: &str, words: &mut SplitWhitespace<'_>) -> Result<()> {
        match word {
            "ttl" => self.ttl = number(words)?,
            "data" => self.data = number(words)?,
            "ack" => self.acknowledged = number(words)?,
            "from" => self.from = mac(next(words)?)?,
            "to" => self.to = mac(next(words)?)?,
            "no-sum" => self.no_sum = true,
            "sum" => self.wanted_sum = Some(u16::from_str_radix(next(words)?, 16)?),
            "options" => self.options.0 = 1,
            "tcp-options" => self.options.1 = 1,
            "more" => self.fragment |= 0x2000,
            "keep-whole" => self.fragment |= 0x4000,
            "offset" => self.fragment |= number::<u16>(words)?,
            "total" => self.lies.0 = Some(number(words)?),
            "length" => self.lies.1 = Some(number(words)?),
            "header" => self.lies.2 = Some(number(words)?),
            "version" => self.lies.3 = Some(number(words)?),
            "type" => self.ether_type = u16::from_str_radix(next(words)?, 16)?,
            "vlan" => self.vlan = Some(number(words)?),
            "cut" | "pad" => self.frame_length = Some(number(words)?),
            letters => self.flags = flags(letters)?,
        }
        Ok(())
    }

    /// The frame.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut frame = [self.to, self.from].concat();
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend(self.ether_type.to_be_bytes());
        let transport = self.transport();
        frame.extend(self.ip_header(transport.len()));
        frame.extend(transport);
        if let Some(length) = self.frame_length {
            frame.resize(length, 0);
        }
        frame
    }

    fn ip_header(&self, payload: usize) -> Vec<u8> {
        let words = 5 + self.options.0;
        let total = self.lies.0.unwrap_or((words * 4 + payload) as u16);
        let first = self.lies.3.unwrap_or(4) << 4 | self.lies.1.unwrap_or(words as u8);
        let mut header = vec![first, 0];
        header.extend(total.to_be_bytes());
        header.extend([0x1c, 0x46]);
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol, 0, 0]);
        header.extend(self.source.0);
        header.extend(self.destination.0);
        // No-operation options (RFC 791).
        header.resize(words * 4, 1);
        let sum = checksum(0, &header);
        header[10..12].copy_from_slice(&sum);
        header
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = [self.source.1.to_be_bytes(), self.destination.1.to_be_bytes()].concat();
        let sum_at = match self.protocol {
            TCP => {
                let words = 5 + self.options.1;
                bytes.extend(1_000_u32.to_be_bytes());
                bytes.extend(self.acknowledged.to_be_bytes());
                bytes.extend([self.lies.2.unwrap_or(words as u8) << 4, self.flags, 0x20, 0, 0, 0, 0, 0]);
                bytes.resize(words * 4, 1);
                16
            }
            UDP => {
                bytes.extend(((8 + self.data) as u16).to_be_bytes());
                bytes.extend([0, 0]);
                6
            }
            _ => return vec![8, 0, 0xf7, 0xff, 0, 0, 0, 0],
        };
        let data_at = bytes.len();
        bytes.extend((0..self.data).map(|index| index as u8));
        self.complete(&mut bytes, sum_at, data_at);
        bytes
    }

    fn complete(&self, bytes: &mut [u8], sum_at: usize, data_at: usize) {
        if self.no_sum {
            return;
        }
        if let Some(wanted) = self.wanted_sum {
            // The sum is linear: the first word of payload takes up what is missing.
            bytes[data_at..data_at + 2].fill(0);
            let plain = !u16::from_be_bytes(self.sum(bytes));
            let missing = u32::from(!wanted) + u32::from(!plain);
            let word = (missing & 0xffff) + (missing >> 16);
            bytes[data_at..data_at + 2].copy_from_slice(&(word as u16).to_be_bytes());
            bytes[sum_at..sum_at + 2].copy_from_slice(&wanted.to_be_bytes());
            return;
        }
        let sum = match self.sum(bytes) {
            [0, 0] if self.protocol == UDP => [0xff, 0xff],
            sum => sum,
        };
        bytes[sum_at..sum_at + 2].copy_from_slice(&sum);
    }

    fn sum(&self, bytes: &[u8]) -> [u8; 2] {
        transport_sum(self.source.0, self.destination.0, self.protocol, bytes)
    }
}

/// The checksum over pseudo-header (RFC 9293 chapter 3.1) and segment. Zero if the segment contains a right one.
#[must_use]
pub fn transport_sum(source: [u8; 4], destination: [u8; 4], protocol: u8, segment: &[u8]) -> [u8; 2] {
    let [high, low] = (segment.len() as u16).to_be_bytes();
    let pseudo = [&source[..], &destination, &[0, protocol, high, low], segment].concat();
    checksum(0, &pseudo)
}

/// `ADDRESS:PORT`.
pub fn endpoint(text: &str) -> Result<([u8; 4], u16)> {
    let address: std::net::SocketAddrV4 = text.parse().with_context(|| format!("reading {text}"))?;
    Ok((address.ip().octets(), address.port()))
}

/// A MAC by its name.
pub fn mac(name: &str) -> Result<[u8; 6]> {
    let of_pod = |prefix| name.strip_prefix(prefix).and_then(|pod| pod.parse().ok());
    Ok(match name {
        "uplink" => UPLINK_MAC,
        "router" => ROUTER_MAC,
        "other" => OTHER_MAC,
        "all" => [0xff; 6],
        _ => match (of_pod("pod"), of_pod("host")) {
            (Some(pod), _) => pod_mac(pod),
            (_, Some(pod)) => host_mac(pod),
            _ => bail!("nobody has the MAC {name}"),
        },
    })
}

/// The letters of TCP's flags, lowest bit first.
pub const FLAG_LETTERS: &str = "FSRPAU";

fn flags(letters: &str) -> Result<u8> {
    letters.chars().try_fold(0, |flags, letter| {
        let bit = FLAG_LETTERS.find(letter).with_context(|| format!("{letter} is not a TCP flag"))?;
        Ok(flags | 1 << bit)
    })
}

fn next<'a>(words: &mut SplitWhitespace<'a>) -> Result<&'a str> {
    words.next().context("a word is missing")
}

/// The next word as a number.
pub fn number<N: TryFrom<u64>>(words: &mut SplitWhitespace<'_>) -> Result<N> {
    let word = next(words)?;
    let number: u64 = word.parse().with_context(|| format!("{word} is not a number"))?;
    ensure!(N::try_from(number).is_ok(), "{word} is too large");
    N::try_from(number).ok().context("too large")
}
