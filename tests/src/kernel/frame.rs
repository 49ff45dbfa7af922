//! Packets from text: `tcp 198.51.100.9:40000 203.0.113.1:80 S ttl 64 data 100`. Sums are made from scratch.
//!
//! | word | means |
//! |---|---|
//! | `tcp` `udp` `sctp` `icmp` | protocol; then source and destination, `ADDRESS:PORT` |
//! | letters of `FSRPAU` | TCP flags |
//! | `INIT` `INIT-ACK` ... `chunk N` | SCTP: the type of the packet's chunk; DATA if there is none |
//! | `ttl N` `data N` `ack N` | TTL or hop limit; bytes of payload; acknowledgement number |
//! | `from MAC` `to MAC` | `router` (from), `uplink` (to), `podN`, `hostN`, `other`, `all` |
//! | `no-sum` | UDP or SCTP without a checksum |
//! | `sum ffff` | payload such that the checksum is that |
//! | `options` `tcp-options` | one word of options |
//! | `option HEX` | an IPv4 option of these bytes |
//! | `extension N` | an IPv6 extension header of eight bytes and that number; several times: one behind the other |
//! | `routing T S` | an IPv6 routing header of type T with S segments left |
//! | `longer N` | the extension header before it has so many times eight bytes more |
//! | `units N` `names N` | that header says so of its length, or of what follows it, true or not |
//! | `more` `offset N` `keep-whole` | fragment bits: more fragments, offset in 8 bytes, don't fragment (IPv4) |
//! | `chunk-length N` `udp-length N` | what the chunk, or UDP's header, says of its length |
//! | `wrong-ip-sum` `wrong-transport-sum` | a bit of that sum is wrong |
//! | `total N` `length N` `header N` `version N` | what the header says, true or not: IPv4 total or IPv6 payload length, IPv4 header length in words, TCP header length in words, IP version |
//! | `type HEX` | Ethernet type |
//! | `vlan N` `provider N` | a VLAN tag, 802.1Q or 802.1ad, behind those before it |
//! | `cut N` `pad N` | the frame ends after N bytes; or is filled up to N |
//! | `echo` `echo-reply` | an ICMP echo request, and what answers it |
//! | `too-big quotes …`, and others of [`super::icmp`] | an ICMP error, and the packet that it is about |
//!
//! Any other frame is `bytes HEX` ([`frame`]).

use std::net::{IpAddr, SocketAddr};
use std::str::SplitWhitespace;

use anyhow::{Context as _, Result, bail, ensure};
use xlb_common::abi::{SCTP, TCP, UDP};

use super::headers;
use super::icmp::Message;
use super::sample::{ROUTER_2_MAC, ROUTER_MAC, UPLINK_2_MAC, UPLINK_MAC, host_mac, pod_mac};
use super::sctp::CHUNKS;

/// IP protocol number of ICMP (RFC 792).
pub const ICMP: u8 = 1;
/// IP protocol number of ICMPv6 (RFC 4443).
pub const ICMP_V6: u8 = 58;
/// Next header of an IPv6 routing header (RFC 8200 chapter 4.4).
pub const ROUTING: u8 = 43;
/// Next header of a fragment header (RFC 8200 chapter 4.5).
pub const FRAGMENT: u8 = 44;
/// Next header of an authentication header (RFC 4302).
pub const AUTHENTICATION: u8 = 51;
/// A MAC that is nobody's here.
pub const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

/// The frame that a text describes: a [`Spec`], or `bytes` and each of them.
pub fn frame(text: &str) -> Result<Vec<u8>> {
    match text.strip_prefix("bytes ") {
        Some(digits) => hex(digits),
        None => Ok(Spec::parse(text)?.build()),
    }
}

/// What the text says.
#[derive(Clone, Debug)]
pub struct Spec {
    /// IP protocol number.
    pub protocol: u8,
    /// Source.
    pub source: SocketAddr,
    /// Destination.
    pub destination: SocketAddr,
    /// TCP flags.
    pub flags: u8,
    /// Type of the SCTP packet's chunk.
    pub chunk: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Bytes of payload.
    pub data: usize,
    /// TCP acknowledgement number.
    pub acknowledged: u32,
    /// Source MAC.
    pub from: [u8; 6],
    /// Destination MAC.
    pub to: [u8; 6],
    /// UDP or SCTP without a checksum.
    pub no_sum: bool,
    /// The checksum that the first two bytes of payload bring about.
    pub wanted_sum: Option<u16>,
    /// Words of IP options and of TCP options.
    pub options: (usize, usize),
    /// An ICMP message that quotes a packet.
    pub message: Option<Message>,
    /// An ICMP echo request, or else its reply.
    pub echo: Option<Echo>,
    /// IPv4 options in front of them.
    pub ip_options: Vec<u8>,
    /// IPv6 extension headers.
    pub extensions: Vec<Extension>,
    /// IPv4's fragment bits and offset; IPv6 has a header for them, unless they are zero.
    pub fragment: u16,
    /// What the headers say instead of the truth.
    pub lies: Lies,
    /// Ethernet type.
    pub ether_type: u16,
    /// VLAN tags, the outer one first: type and control information.
    pub tags: Vec<[u8; 4]>,
    /// Length of the frame, if not its own.
    pub frame_length: Option<usize>,
}

/// An IPv6 extension header.
#[derive(Clone, Copy, Debug)]
pub struct Extension {
    /// Its number.
    pub kind: u8,
    /// Bytes beyond the first eight, in eights.
    pub units: u8,
    /// Of a routing header: its type, and the segments left.
    pub route: [u8; 2],
    /// What it says of its length instead of the truth.
    pub says: Option<u8>,
    /// What it says that follows it instead of the truth.
    pub names: Option<u8>,
}

impl Extension {
    /// The shortest of its kind.
    #[must_use]
    pub const fn new(kind: u8) -> Self {
        Self { kind, units: 0, route: [0; 2], says: None, names: None }
    }
}

/// An ICMP echo message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// Type 8, or 128 (RFC 4443 chapter 4.1).
    Request,
    /// Type 0, or 129.
    Reply,
}

/// Fields that need not be true.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lies {
    /// IPv4's total length, or IPv6's payload length.
    pub length: Option<u16>,
    /// Words of the IPv4 header.
    pub ip_words: Option<u8>,
    /// Length of the SCTP packet's chunk.
    pub chunk_length: Option<u16>,
    /// Words of the TCP header.
    pub tcp_words: Option<u8>,
    /// IP version.
    pub version: Option<u8>,
    /// Length of the datagram.
    pub udp_length: Option<u16>,
    /// Whether IPv4's header sum is wrong.
    pub ip_sum: bool,
    /// Whether the transport's sum is wrong.
    pub transport_sum: bool,
}

impl Spec {
    /// A packet of `protocol` between two ends, sent by the router to the uplink.
    #[must_use]
    pub fn new(protocol: u8, source: impl Into<SocketAddr>, destination: impl Into<SocketAddr>) -> Self {
        let (source, destination) = (source.into(), destination.into());
        Self {
            protocol,
            source,
            destination,
            flags: 0,
            chunk: 0,
            ttl: 64,
            data: 0,
            acknowledged: 0,
            from: ROUTER_MAC,
            to: UPLINK_MAC,
            no_sum: false,
            wanted_sum: None,
            options: (0, 0),
            message: None,
            echo: None,
            ip_options: Vec::new(),
            extensions: Vec::new(),
            fragment: 0,
            lies: Lies::default(),
            ether_type: if destination.is_ipv4() { 0x0800 } else { 0x86dd },
            tags: Vec::new(),
            frame_length: None,
        }
    }

    /// From text.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some((text, quote)) = text.split_once(" quotes ") {
            let (text, kind) = text.rsplit_once(' ').context("a word is missing")?;
            return Ok(Self { message: Some(Message::parse(kind, quote)?), ..Self::parse(text)? });
        }
        let mut words = text.split_whitespace();
        let protocol = match next(&mut words)? {
            "tcp" => TCP,
            "udp" => UDP,
            "sctp" => SCTP,
            "icmp" => ICMP,
            other => bail!("{other} is not a protocol"),
        };
        let mut spec = Self::new(protocol, endpoint(next(&mut words)?)?, endpoint(next(&mut words)?)?);
        if protocol == ICMP && spec.destination.is_ipv6() {
            spec.protocol = ICMP_V6;
        }
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
            "option" => self.ip_options.extend(hex(next(words)?)?),
            "extension" => self.extensions.push(Extension::new(number(words)?)),
            "routing" => {
                let route = [number(words)?, number(words)?];
                self.extensions.push(Extension { route, ..Extension::new(ROUTING) });
            }
            "longer" => self.last_extension()?.units = number(words)?,
            "units" => self.last_extension()?.says = Some(number(words)?),
            "names" => self.last_extension()?.names = Some(number(words)?),
            "more" => self.fragment |= 0x2000,
            "keep-whole" => self.fragment |= 0x4000,
            "offset" => self.fragment |= number::<u16>(words)?,
            "total" => self.lies.length = Some(number(words)?),
            "length" => self.lies.ip_words = Some(number(words)?),
            "header" => self.lies.tcp_words = Some(number(words)?),
            "version" => self.lies.version = Some(number(words)?),
            "udp-length" => self.lies.udp_length = Some(number(words)?),
            "wrong-ip-sum" => self.lies.ip_sum = true,
            "wrong-transport-sum" => self.lies.transport_sum = true,
            "type" => self.ether_type = u16::from_str_radix(next(words)?, 16)?,
            "vlan" | "provider" => self.tags.push(tag(word, number(words)?)),
            "echo" => self.echo = Some(Echo::Request),
            "echo-reply" => self.echo = Some(Echo::Reply),
            "chunk" => self.chunk = number(words)?,
            "chunk-length" => self.lies.chunk_length = Some(number(words)?),
            "cut" | "pad" => self.frame_length = Some(number(words)?),
            name if self.protocol == SCTP => self.chunk = chunk(name)?,
            letters => self.flags = flags(letters)?,
        }
        Ok(())
    }

    fn last_extension(&mut self) -> Result<&mut Extension> {
        self.extensions.last_mut().context("no extension header is before it")
    }

    /// The frame.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut frame = [self.to, self.from].concat();
        frame.extend(self.tags.iter().flatten());
        frame.extend(self.ether_type.to_be_bytes());
        let transport = headers::transport(self);
        frame.extend(self.ip_header(transport.len()));
        frame.extend(transport);
        if let Some(length) = self.frame_length {
            frame.resize(length, 0);
        }
        frame
    }

    fn ip_header(&self, payload: usize) -> Vec<u8> {
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                headers::ipv4(self, [source.octets(), destination.octets()], payload)
            }
            (source, destination) => {
                let octets = |address: IpAddr| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                };
                headers::ipv6(self, [source, destination].map(octets), payload)
            }
        }
    }
}

/// A VLAN tag with that control information, 802.1Q or, by the word `provider`, 802.1ad.
#[must_use]
pub fn tag(word: &str, control: u16) -> [u8; 4] {
    let [kind_a, kind_b] = if word == "provider" { [0x88, 0xa8] } else { [0x81, 0x00] };
    let [a, b] = control.to_be_bytes();
    [kind_a, kind_b, a, b]
}

fn hex(text: &str) -> Result<Vec<u8>> {
    text.as_bytes().chunks(2).map(|digits| Ok(u8::from_str_radix(str::from_utf8(digits)?, 16)?)).collect()
}

/// The text of a frame that has no other.
#[must_use]
pub fn as_bytes(frame: &[u8]) -> String {
    let digits: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("bytes {digits}")
}

/// `ADDRESS:PORT`.
pub fn endpoint(text: &str) -> Result<SocketAddr> {
    text.parse().with_context(|| format!("reading {text}"))
}

/// A MAC by its name.
pub fn mac(name: &str) -> Result<[u8; 6]> {
    let of_pod = |prefix| name.strip_prefix(prefix).and_then(|pod| pod.parse().ok());
    Ok(match name {
        "uplink" => UPLINK_MAC,
        "router" => ROUTER_MAC,
        "uplink2" => UPLINK_2_MAC,
        "router2" => ROUTER_2_MAC,
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

fn chunk(name: &str) -> Result<u8> {
    let known = CHUNKS.iter().find(|(known, _)| *known == name);
    known.map(|(_, kind)| *kind).with_context(|| format!("{name} is no SCTP chunk"))
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
