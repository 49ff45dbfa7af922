//! A strict reader of capture files (draft-ietf-opsawg-pcapng): what Wireshark would refuse is an error.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};

/// A packet in a file.
#[derive(Debug)]
pub struct Packet {
    /// Number of its interface.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub at_ns: u64,
    /// What was kept of it.
    pub bytes: Vec<u8>,
    /// Its comment.
    pub comment: String,
}

impl Packet {
    /// Source and destination of an IPv4 packet with ports.
    pub fn ends(&self) -> (SocketAddr, SocketAddr) {
        let port = |at: usize| u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        let address = |at: usize| <[u8; 4]>::try_from(&self.bytes[at..at + 4]).expect("four bytes").into();
        (SocketAddr::new(address(26), port(34)), SocketAddr::new(address(30), port(36)))
    }

    /// Flags of a TCP segment over IPv4.
    pub fn tcp_flags(&self) -> u8 {
        if self.bytes[23] == 6 { self.bytes[47] } else { 0 }
    }
}

/// All packets of a file with two interfaces, whose names say before and after.
pub fn read(file: &[u8]) -> Result<Vec<Packet>> {
    let mut rest = file;
    let (mut packets, mut interfaces) = (Vec::new(), Vec::new());
    let mut is_first = true;
    while !rest.is_empty() {
        let (kind, body, behind) = block(rest)?;
        ensure!(is_first == (kind == 0x0a0d_0d0a), "a file begins with its section");
        match kind {
            0x0a0d_0d0a => section(body)?,
            1 => interfaces.push(interface(body)?),
            6 => packets.push(packet(body, interfaces.len())?),
            other => bail!("block type {other}"),
        }
        (rest, is_first) = (behind, false);
    }
    ensure!(interfaces == ["before xlb", "after xlb"], "{interfaces:?}");
    Ok(packets)
}

fn block(rest: &[u8]) -> Result<(u32, &[u8], &[u8])> {
    let length = number(rest, 4)? as usize;
    ensure!(
        length.is_multiple_of(4) && length >= 12 && length <= rest.len(),
        "a block of {length} bytes of {}",
        rest.len()
    );
    ensure!(number(rest, length - 4)? as usize == length, "a block's lengths differ");
    Ok((number(rest, 0)?, &rest[8..length - 4], &rest[length..]))
}

fn number(bytes: &[u8], at: usize) -> Result<u32> {
    let four = bytes.get(at..at + 4).context("a block is cut short")?;
    Ok(u32::from_ne_bytes(four.try_into()?))
}

fn section(body: &[u8]) -> Result<()> {
    ensure!(number(body, 0)? == 0x1a2b_3c4d && body[4..8] == [1_u16.to_ne_bytes(), [0; 2]].concat(), "version 1.0");
    options(&body[16..]).map(drop)
}

fn interface(body: &[u8]) -> Result<String> {
    ensure!(body[..2] == 1_u16.to_ne_bytes(), "the link type is Ethernet");
    let options = options(&body[8..])?;
    let of = |code| options.iter().find(|(found, _)| *found == code).map(|(_, value)| value.clone());
    ensure!(of(9) == Some(vec![9]), "times are in nanoseconds");
    Ok(String::from_utf8(of(2).context("an interface has a name")?)?)
}

fn packet(body: &[u8], interfaces: usize) -> Result<Packet> {
    let interface = number(body, 0)?;
    ensure!((interface as usize) < interfaces, "interface {interface} was not told of");
    let (kept, original) = (number(body, 12)? as usize, number(body, 16)? as usize);
    ensure!(kept <= original && kept <= body.len() - 20, "{kept} bytes are kept of {original}");
    let options = options(&body[20 + kept.next_multiple_of(4)..])?;
    let comment = options.into_iter().find(|(code, _)| *code == 1).context("a packet has a comment")?;
    Ok(Packet {
        interface,
        at_ns: u64::from(number(body, 4)?) << 32 | u64::from(number(body, 8)?),
        bytes: body[20..20 + kept].to_vec(),
        comment: String::from_utf8(comment.1)?,
    })
}

/// They end with one of code zero, at the end.
fn options(bytes: &[u8]) -> Result<Vec<(u16, Vec<u8>)>> {
    let mut rest = bytes;
    let mut options = Vec::new();
    loop {
        let [a, b, c, d, behind @ ..] = rest else { bail!("options end without an end") };
        let (code, length) = (u16::from_ne_bytes([*a, *b]), usize::from(u16::from_ne_bytes([*c, *d])));
        if code == 0 {
            ensure!(length == 0 && behind.is_empty(), "behind the end of options is more");
            return Ok(options);
        }
        let value = behind.get(..length).context("an option is cut short")?;
        options.push((code, value.to_vec()));
        rest = behind.get(length.next_multiple_of(4)..).context("an option is not padded")?;
    }
}
