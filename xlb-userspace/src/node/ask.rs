//! A question to the kernel over a netlink family that no library here speaks, and attributes in its answers.

use std::io;

use anyhow::{Context, Result, bail};
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use rtnetlink::sys::{Socket, SocketAddr};

/// `struct nlmsghdr`, in bytes.
const HEADER: usize = 16;
/// `NLMSG_ERROR` and `NLMSG_DONE` (include/uapi/linux/netlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// What an attribute's type says beside its number: that it is nested, that it is in network byte order.
const TYPE_FLAGS: u16 = 0xc000;

/// Sends one request and returns the bodies of all messages of the answer, behind their headers. With `is_list` the kernel
/// answers with as many as there are.
pub(super) fn ask(family: isize, kind: u16, is_list: bool, body: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut socket = Socket::new(family).context("opening a netlink socket")?;
    socket.bind_auto().context("binding a netlink socket")?;
    let flags = NLM_F_REQUEST | if is_list { NLM_F_DUMP } else { 0 };
    socket.send_to(&request(kind, flags, body), &SocketAddr::new(0, 0), 0).context("asking the kernel")?;
    let mut bodies = Vec::new();
    loop {
        let (answer, _) = socket.recv_from_full().context("hearing the kernel's answer")?;
        for message in messages(&answer) {
            match message {
                (DONE, _) => return Ok(bodies),
                (ERROR, body) => match body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code)) {
                    0 => return Ok(bodies),
                    code => bail!(io::Error::from_raw_os_error(code.saturating_neg())),
                },
                (_, body) => bodies.push(body.to_vec()),
            }
        }
        if !is_list {
            return Ok(bodies);
        }
    }
}

fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes().into_iter().chain(flags.to_ne_bytes()));
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

fn messages(answer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = answer;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*rest.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes([*rest.get(4)?, *rest.get(5)?]);
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The attributes in a part of a message, with their types.
pub(super) fn attributes(part: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = part;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes([*rest.get(2)?, *rest.get(3)?]) & !TYPE_FLAGS;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub(super) fn attribute(part: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(part).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A text that ends in a zero byte.
pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// An attribute, to be sent.
pub(super) fn written(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_are_written_and_a_short_rest_ends_them() {
        let part = [written(1, b"kube-proxy\0"), written(0x8003, &[7; 4])].concat();
        assert_eq!(attribute(&part, 1).map(text), Some("kube-proxy".into()));
        assert_eq!(attribute(&part, 3), Some(&[7; 4][..]), "flags are no part of the type");
        assert_eq!(attributes(&part[..part.len() - 1]).count(), 1);
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0, "an attribute is no shorter than its header");
    }

    #[test]
    fn messages_of_one_answer_are_told_apart() {
        let answer = [request(20, 0, &[1; 6]), vec![0; 2], request(DONE, 0, &[0; 4])].concat();
        let found: Vec<_> = messages(&answer).collect();
        assert_eq!(found, [(20, &[1_u8; 6][..]), (DONE, &[0; 4])]);
    }
}
