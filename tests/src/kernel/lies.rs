//! What the headers of a random packet must not say: each class of malformed packet, by chance.

use xlb_common::abi::{SCTP, TCP, UDP};

use super::frame::{Extension, Spec};
use super::random::Random;

/// Lengths around those of the headers, and far from them.
const LENGTHS: [u16; 20] = [0, 1, 4, 7, 8, 9, 12, 19, 20, 21, 27, 28, 32, 39, 40, 41, 60, 100, 0x7fff, 0xffff];
/// Next headers: those that are walked over, those that are served, and others.
const NEXT_HEADERS: [u8; 14] = [0, 6, 17, 43, 44, 50, 51, 58, 59, 60, 132, 135, 139, 255];
/// Fragment bits and offset in 8 bytes, as in IPv4: first, first and only, later, inside a TCP header, at the end of the longest
/// datagram and beyond, with all bits.
const PLACES: [u16; 10] = [0x2000, 0x2001, 0x2002, 0x0001, 0x0003, 0x1ffe, 0x1fff, 0x3fff, 0xffff, 0xa000];
/// Extension headers of a bomb: more than are walked over.
const BOMB_MAX: usize = 40;
/// Bytes of payload of a packet with many or long headers: a test-run takes less than a page.
const DATA_MAX: usize = 100;
/// Bytes of IPv4 options.
const OPTIONS_MAX: usize = 40;

/// One header says what is not so, or there are more headers than anybody needs.
pub fn tell(random: &mut Random, spec: &mut Spec) {
    let length = Some(random.pick(&LENGTHS));
    match random.below(12) {
        0 => spec.lies.length = length,
        1 => spec.lies.ip_words = Some(random.below(16) as u8),
        2 => spec.lies.version = Some(random.below(16) as u8),
        3 => tell_of_transport(random, spec),
        4 => spec.lies.ip_sum = true,
        5 | 6 => spec.lies.transport_sum = true,
        7 => explode(random, spec),
        8 => tell_of_extension(random, spec),
        9 => tell_of_options(random, spec),
        10 => spec.fragment = random.pick(&PLACES),
        // Just less or more than there is: the data, or the last bytes of a header.
        _ => {
            let whole = spec.build().len();
            let headers = if spec.destination.is_ipv4() { 14 } else { 54 };
            spec.lies.length =
                Some((whole.saturating_sub(headers) as u16).wrapping_add(random.below(9) as u16).wrapping_sub(4));
        }
    }
}

fn tell_of_transport(random: &mut Random, spec: &mut Spec) {
    match spec.protocol {
        TCP => spec.lies.tcp_words = Some(random.below(16) as u8),
        UDP => spec.lies.udp_length = Some(random.pick(&LENGTHS)),
        SCTP => spec.lies.chunk_length = Some(random.pick(&LENGTHS)),
        _ => spec.lies.length = Some(random.pick(&LENGTHS)),
    }
}

/// Many extension headers, or long ones, or one kind that leads to itself again and again.
fn explode(random: &mut Random, spec: &mut Spec) {
    spec.data = spec.data.min(DATA_MAX);
    let kinds = random.pick(&[&[60][..], &[0], &[43], &[51], &[44], &[0, 60, 43, 51]]);
    let units = random.pick(&[0, 0, 0, 1, 4]);
    let count = 1 + random.below(if units == 0 { BOMB_MAX } else { 4 });
    let extension = |random: &mut Random| Extension { units, route: [2, 0], ..Extension::new(random.pick(kinds)) };
    spec.extensions = (0..count).map(|_| extension(random)).collect();
}

/// Its length, or what follows it. IPv4 has none.
fn tell_of_extension(random: &mut Random, spec: &mut Spec) {
    if spec.extensions.is_empty() {
        spec.extensions.push(Extension { route: [2, 0], ..Extension::new(random.pick(&[0, 43, 44, 51, 60])) });
    }
    let at = random.below(spec.extensions.len());
    if random.one_in(2) {
        spec.extensions[at].says = Some(random.pick(&[0, 1, 2, 31, 32, 127, 255]));
    } else {
        spec.extensions[at].names = Some(random.pick(&NEXT_HEADERS));
    }
}

/// Any bytes. IPv6 has none.
fn tell_of_options(random: &mut Random, spec: &mut Spec) {
    let kinds = [0, 1, 7, 68, 131, 137, 148, 255];
    let byte =
        |random: &mut Random| if random.one_in(2) { random.pick(&kinds) } else { random.below(OPTIONS_MAX + 2) as u8 };
    spec.options.0 = 0;
    spec.ip_options = (0..=random.below(OPTIONS_MAX)).map(|_| byte(random)).collect();
}
