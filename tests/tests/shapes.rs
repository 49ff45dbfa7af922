//! Packets of other shapes, in ordinary memory: what holds for each tag, option and extension header.

use xlb_common::abi::SCTP;
use xlb_common::checksum::{Difference, TransportChange};
use xlb_common::memory::MemoryTables;
use xlb_common::packet::{BytePacket, Packet};
use xlb_common::path::{self, Arrival, Door};
use xlb_common::{Disposition, Reason};
use xlb_tests::kernel::frame::{ICMP, ICMP_V6, Spec};
use xlb_tests::kernel::headers::Layout;
use xlb_tests::kernel::outcome::{Hook, Outcome, Verdict};
use xlb_tests::kernel::pieces::{is_fragment, split};
use xlb_tests::kernel::random::{Random, seed};
use xlb_tests::kernel::{flows, generate, host, rows, sample};

const PACKETS: usize = 4_000;
const TC: Arrival = Arrival::at(Door::Tc, sample::UPLINK);

/// One packet of each shape.
const SHAPES: [&str; 5] = [
    "tcp 198.51.100.9:40000 203.0.113.1:80 S vlan 7",
    "tcp 198.51.100.9:40000 203.0.113.1:80 S provider 9 vlan 7 option 070b04000000000000000001",
    "tcp 198.51.100.9:40000 203.0.113.1:80 S option 4408050000000000",
    "tcp [2001:db8:100::9]:40000 [2001:db8:113::1]:80 S provider 9 vlan 7",
    "tcp [2001:db8:100::9]:40000 [2001:db8:113::1]:80 S vlan 7 extension 0 extension 60 routing 2 0 longer 2 extension 51",
];

#[test]
fn a_packet_of_any_shape_that_ends_inside_its_headers_is_left_alone() {
    let tables = sample::tables();
    for text in SHAPES {
        let frame = frame(text);
        for length in 0..frame.len() {
            let mut cut = frame[..length].to_vec();
            let verdict = path::ingress(&mut BytePacket(&mut cut), &tables, TC);
            assert_eq!(
                (verdict.err(), &cut[..]),
                (Some(Reason::Truncated), &frame[..length]),
                "{length} bytes of {text}"
            );
        }
    }
}

#[test]
fn every_byte_of_a_header_may_be_anything() {
    let tables = sample::tables();
    for text in SHAPES {
        let frame = frame(text);
        for at in 0..frame.len() {
            for value in 0..=255 {
                let mut bent = frame.clone();
                bent[at] = value;
                let before = bent.clone();
                let outcome = host::run(&tables, Hook::Tc, &bent);
                let may_change =
                    |reason: Reason| [Disposition::Forward, Disposition::Reply].contains(&reason.disposition());
                assert!(
                    outcome.reason.is_some_and(may_change) || outcome.frame == before,
                    "{text} with {value} at {at}: {:?}",
                    outcome.reason
                );
            }
        }
    }
}

#[test]
fn a_tagged_packet_fares_as_it_does_without_its_tags() {
    let (mut random, tables, tables_of_tagged) = (Random::new(seed()), sample::tables(), sample::tables());
    let mut served = 0;
    for number in 0..PACKETS {
        if number % 100 == 0 {
            let flows = generate::flows(&mut random, &tables);
            for tables in [&tables, &tables_of_tagged] {
                flows::set(tables, &flows);
                tables.stages.borrow_mut().clear();
            }
        }
        let plain = generate::packet(&mut random, Hook::Tc);
        if plain.get(12..14).is_none_or(|kind| matches!(kind, [0x81, 0x00] | [0x88, 0xa8])) {
            continue;
        }
        let tags = random.pick(&[&[0x81, 0, 0xe0, 7][..], &[0x88, 0xa8, 0, 9, 0x81, 0, 0, 7]]);
        let with_tags = |frame: &[u8]| [&frame[..12], tags, &frame[12..]].concat();
        if is_of_another_kind(&plain) {
            let outcome = host::run(&tables_of_tagged, Hook::Tc, &with_tags(&plain));
            assert_eq!((outcome.verdict, &outcome.frame), (Verdict::Pass, &with_tags(&plain)), "{outcome:?}");
            continue;
        }
        // The tags are part of what is remembered.
        flows::set(&tables_of_tagged, &flows::of(&tables));
        let expected = host::run(&tables, Hook::Tc, &plain);
        let outcome = host::run(&tables_of_tagged, Hook::Tc, &with_tags(&plain));
        assert_eq!((outcome.verdict, kind(&outcome)), (expected.verdict, kind(&expected)), "{plain:02x?}");
        match expected.verdict {
            Verdict::Pass => assert_eq!(outcome.frame, with_tags(&expected.frame)),
            Verdict::Redirect if !expected.reason.is_some_and(Reason::refuses) => {
                assert_eq!(outcome.frame, expected.frame);
                served += 1;
            }
            Verdict::Redirect | Verdict::Drop => {}
        }
    }
    assert!(served > PACKETS / 20, "only {served} of {PACKETS} were handed to a pod");
}

#[test]
fn a_reply_regains_its_clients_tags() {
    let tables = sample::tables();
    for tags in ["vlan 7", "provider 4095", "vlan 57344", "provider 9 vlan 7", "vlan 9 vlan 7"] {
        flows::set(&tables, &flows::Flows::default());
        let mut bytes = frame(&format!("tcp 198.51.100.9:40000 203.0.113.1:80 S {tags}"));
        path::ingress(&mut BytePacket(&mut bytes), &tables, TC).expect("the SYN is served");
        let mut answer = frame("tcp 10.244.1.1:8080 198.51.100.9:40000 SA from pod1 to host1");
        path::egress::<_, _, true>(&mut BytePacket(&mut answer), &tables).expect("the answer is a reply");
        let expected = frame(&format!("tcp 203.0.113.1:80 198.51.100.9:40000 SA ttl 63 from uplink to router {tags}"));
        assert_eq!(answer, expected, "{tags}");
    }
}

#[test]
fn a_packet_whose_tags_cannot_be_moved_is_dropped() -> anyhow::Result<()> {
    let tables = sample::tables();
    let mut bytes = frame(SHAPES[0]);
    assert_eq!(path::ingress(&mut Stuck(BytePacket(&mut bytes)), &tables, TC).err(), Some(Reason::TagsNotMoved));
    let flow = rows::flow("flow 198.51.100.9:40000 10.244.1.1:8080 vip 203.0.113.1:80 vlan 7", &tables)?;
    flows::set(&tables, &[flow].into());
    let mut bytes = frame("tcp 10.244.1.1:8080 198.51.100.9:40000 PA from pod1 to host1");
    assert_eq!(
        path::egress::<_, _, true>(&mut Stuck(BytePacket(&mut bytes)), &tables).err(),
        Some(Reason::TagsNotMoved)
    );
    Ok(())
}

/// The kernel keeps the outer tag of what it received beside the packet.
#[test]
fn a_tag_beside_the_packet_counts_as_one_in_it() {
    for tags in ["vlan 7", "provider 9 vlan 7"] {
        let (in_line, beside) = (sample::tables(), sample::tables());
        let tagged = frame(&format!("tcp 198.51.100.9:40000 203.0.113.1:80 S {tags}"));
        assert_eq!(host::run(&in_line, Hook::Tc, &tagged).reason, Some(Reason::SoleBackend), "{tags}");
        let mut bytes = [&tagged[..12], &tagged[16..]].concat();
        let mut packet =
            Beside { bytes: BytePacket(&mut bytes), tag: [tagged[12], tagged[13], tagged[14], tagged[15]] };
        path::ingress(&mut packet, &beside, TC).expect("the SYN is served");
        assert_eq!(flows::of(&beside), flows::of(&in_line), "{tags}");
    }
}

#[test]
fn with_a_tag_beside_it_a_packet_has_one_more_at_most() {
    let tables: MemoryTables = sample::tables();
    let mut bytes = frame("tcp 198.51.100.9:40000 203.0.113.1:80 S vlan 8 vlan 7");
    let mut packet = Beside { bytes: BytePacket(&mut bytes), tag: [0x81, 0, 0, 9] };
    assert_eq!(path::ingress(&mut packet, &tables, TC).err(), Some(Reason::NotIp));
    let mut bytes = frame("tcp 10.244.1.1:8080 198.51.100.9:40000 SA from pod1 to host1");
    let mut packet = Beside { bytes: BytePacket(&mut bytes), tag: [0x81, 0, 0, 9] };
    assert_eq!(path::egress::<_, _, true>(&mut packet, &tables).err(), Some(Reason::NotIp), "of a pod");
}

#[test]
fn a_later_fragment_of_a_reply_regains_the_tags_of_its_flow() {
    let tables = sample::tables();
    let flow = "udp-flow 198.51.100.9:40000 10.244.1.1:5353 vip 203.0.113.1:53 provider 100 vlan 7";
    flows::set(&tables, &[rows::flow(flow, &tables).expect("a flow")].into());
    for piece in split(&frame("udp 10.244.1.1:5353 198.51.100.9:40000 data 900"), 400, 7) {
        let outcome = host::run(&tables, Hook::Pod, &piece);
        assert_eq!(outcome.verdict, Verdict::Redirect, "{outcome:?}");
        assert_eq!(outcome.frame[12..16], [0x81, 0, 0, 7], "the inner one, the outer beside it: {outcome:?}");
    }
}

/// Packets that are served without tags, and not with them.
fn is_of_another_kind(frame: &[u8]) -> bool {
    let is_other = |layout: Layout| matches!(frame[layout.protocol_at], ICMP | ICMP_V6 | SCTP);
    is_fragment(frame) || Layout::of(frame).is_some_and(is_other)
}

/// Why it came out so. Headers may have several faults, and which of them is seen first does not matter.
fn kind(outcome: &Outcome) -> Option<Reason> {
    use Reason::{ExtensionHeaders, Fragment, Icmp, IpOptions, Malformed, OtherProtocol, Sctp, Truncated};
    let faults = [ExtensionHeaders, Fragment, Icmp, IpOptions, OtherProtocol, Sctp, Truncated];
    outcome.reason.map(|reason| if faults.contains(&reason) { Malformed } else { reason })
}

/// A packet whose tags stay where they are.
struct Stuck<'a>(BytePacket<'a>);

impl Packet for Stuck<'_> {
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.load(at)
    }

    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        self.0.store(at, bytes)
    }

    fn follow(&mut self, at: usize, change: TransportChange) -> Option<()> {
        self.0.follow(at, change)
    }

    fn note_change(&mut self, change: Difference) {
        self.0.note_change(change);
    }

    fn renew(&mut self, length: usize) -> Option<()> {
        self.0.renew(length)
    }

    fn length(&self) -> u32 {
        self.0.length()
    }
}

/// A packet with its outer tag beside it.
struct Beside<'a> {
    bytes: BytePacket<'a>,
    tag: [u8; 4],
}

impl Packet for Beside<'_> {
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.bytes.load(at)
    }

    fn store<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> Option<()> {
        self.bytes.store(at, bytes)
    }

    fn follow(&mut self, at: usize, change: TransportChange) -> Option<()> {
        self.bytes.follow(at, change)
    }

    fn note_change(&mut self, change: Difference) {
        self.bytes.note_change(change);
    }

    fn renew(&mut self, length: usize) -> Option<()> {
        self.bytes.renew(length)
    }

    fn length(&self) -> u32 {
        self.bytes.length()
    }

    fn has_tag_beside(&self) -> bool {
        true
    }

    fn tag_beside(&self) -> [u8; 4] {
        self.tag
    }

    fn untag(&mut self, in_line: u32) -> Option<()> {
        self.bytes.untag(in_line)
    }
}

fn frame(text: &str) -> Vec<u8> {
    Spec::parse(text).expect("a packet").build()
}
