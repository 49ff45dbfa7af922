//! The self-test's golden packets, over its tables: what is told of each is what the hook's own run says.

use std::net::SocketAddr;
use std::time::UNIX_EPOCH;

use xlb_common::Reason;
use xlb_common::hook::Hook;
use xlb_common::memory::MemoryTables;
use xlb_common::memory::outcome::Outcome;
use xlb_common::memory::run::run;
use xlb_common::tables::Stage;

use super::{Place, Told, judge, pod_links};
use crate::maps::attach::FrontDoor;
use crate::maps::wanted::Wanted;
use crate::maps::watching::Arrived;
use crate::plan::Observed;
use crate::plan::observed::ObservedService;
use crate::selftest::{packets, table};
use crate::watch::event::{Direction, Event};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const IFINDEX: u32 = 1;

impl Told for MemoryTables {
    fn take_stages(&self) -> Vec<Stage> {
        self.stages.take()
    }
}

#[test]
fn what_is_told_of_a_packet_is_what_the_programs_do_with_it() {
    let (tables, observed) = (table::tables(MAC), observed());
    let mut told = 0;
    for step in packets::steps(&Wanted::of([FrontDoor::Tc], false), MAC) {
        let is_uplink = step.hook.is_ingress();
        let event = judge(arrived(step.frame.clone()), &place(is_uplink), &tables.clone(), &observed);
        let expected = done(&tables.clone(), is_uplink, &step.frame);
        let _ = run(&tables, step.hook, &step.frame, (IFINDEX, MAC));
        let Some(event) = event else {
            assert!(matches!(expected.reason, Some(Reason::NotOurs | Reason::NotAReply)), "{}: {expected}", step.name);
            continue;
        };
        assert_eq!(Some(event.reason), expected.reason, "{}", step.name);
        assert_eq!(event.after.as_deref().unwrap_or(&step.frame), expected.frame, "{}", step.name);
        told += 1;
    }
    assert!(told > 30, "{told}");
}

#[test]
fn an_event_names_service_backend_and_what_the_packet_becomes() {
    let (tables, observed) = (table::tables(MAC), observed());
    let steps = packets::steps(&Wanted::of([FrontDoor::Tc], false), MAC);
    let frame = |name: &str| steps.iter().find(|step| step.name == name).unwrap().frame.clone();
    let of = |packet, is_uplink| judge(arrived(packet), &place(is_uplink), &tables, &observed);
    let (client, vip, pod) = (at("198.51.100.9:40000"), at("203.0.113.10:80"), at("192.0.2.7:8080"));
    let came = of(frame("SYN over IPv4"), true).unwrap();
    assert_eq!(
        (came.direction, came.source, came.destination, came.becomes),
        (Direction::In, client, vip, Some((client, pod)))
    );
    assert_eq!((came.service.as_deref(), came.backend, came.flags.as_deref()), (Some("a/b:0"), Some(pod), Some("S")));
    let left = of(frame("reply to a SYN over IPv4"), false).unwrap();
    assert_eq!((left.direction, left.backend, left.becomes), (Direction::Out, Some(pod), Some((vip, client))));
    assert_eq!((left.service.as_deref(), left.reason), (Some("a/b:0"), Reason::RepliedHalfOpen));
    let echo = of(frame("ping over IPv4"), true).unwrap();
    assert_eq!((echo.verdict, echo.reason, echo.service), ("reply", Reason::EchoAnswered, None));
}

#[test]
fn a_tag_that_the_kernel_took_out_is_put_back_and_frames_for_others_are_none() {
    let (tables, observed) = (table::tables(MAC), observed());
    let frame = packets::steps(&Wanted::of([FrontDoor::Tc], false), MAC)[0].frame.clone();
    let tag = [0x81, 0, 0, 5];
    let tagged = |frame| Arrived { tag: Some(tag), ..arrived(frame) };
    let event: Event = judge(tagged(frame.clone()), &place(true), &tables, &observed).unwrap();
    assert_eq!(event.before[12..16], tag);
    assert_eq!(event.before.len(), frame.len() + 4);
    assert_eq!(event.reason, Reason::SlotOwner);
    let others = Arrived { is_for_other_host: true, ..arrived(frame) };
    assert_eq!(judge(others, &place(true), &tables, &observed), None);
    assert_eq!(judge(tagged(vec![2; 7]), &place(true), &tables, &observed), None, "no frame is that short");
}

#[test]
fn of_a_packet_that_was_not_copied_whole_is_told_what_is_told_of_the_whole() {
    let (tables, observed) = (table::tables(MAC), observed());
    let mut frame = packets::steps(&Wanted::of([FrontDoor::Tc], false), MAC)[0].frame.clone();
    // A payload that the IP header counts.
    frame.extend([1; 40]);
    let total = u16::try_from(frame.len() - 14).unwrap();
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    let whole = judge(arrived(frame.clone()), &place(true), &tables, &observed).unwrap();
    let copied = Arrived { bytes: frame[..60].to_vec(), ..arrived(frame.clone()) };
    let part = judge(copied, &place(true), &tables, &observed).unwrap();
    assert_eq!((part.reason, part.length, part.missing), (whole.reason, frame.len(), frame.len() - 60));
    assert_eq!(part.before, frame[..60]);
    assert_eq!(part.after.unwrap(), whole.after.unwrap()[..60]);
}

#[test]
fn links_of_backends_are_those_of_the_services_that_are_wanted() {
    let observed = observed();
    assert_eq!(pod_links(&observed, |_| true), [IFINDEX].into());
    assert_eq!(pod_links(&observed, |name| name == "a/b:1"), [IFINDEX].into(), "the only backend, without a slot");
    assert!(pod_links(&observed, |_| false).is_empty());
}

/// What the hook at the link does, and, with what it leaves to the host's stack, the one at the uplink's way out.
fn done(tables: &MemoryTables, is_uplink: bool, frame: &[u8]) -> Outcome {
    let by = |hook| run(tables, hook, frame, (IFINDEX, MAC));
    match by(if is_uplink { Hook::Tc } else { Hook::Pod }) {
        Outcome { reason: Some(Reason::ReplyLeftToStack), .. } => by(Hook::Egress),
        outcome => outcome,
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn arrived(bytes: Vec<u8>) -> Arrived {
    let length = bytes.len();
    Arrived { at: UNIX_EPOCH, ifindex: IFINDEX, is_for_other_host: false, tag: None, length, bytes }
}

fn place(is_uplink: bool) -> Place {
    Place { link: "eth0".into(), ifindex: IFINDEX, door: is_uplink.then_some(FrontDoor::Tc) }
}

/// What the agent would have read of the self-test's maps.
fn observed() -> Observed {
    use crate::maps::keys::Keys;
    let tables = table::tables(MAC);
    let mut observed = Observed::default();
    observed.frontends.extend(tables.v4.frontends.iter().map(|(key, frontend)| (key.endpoint(), *frontend)));
    observed.frontends.extend(tables.v6.frontends.iter().map(|(key, frontend)| (key.endpoint(), *frontend)));
    observed.vips.extend([(table::VIP.0.into(), 1), (table::VIP.1.into(), 1)]);
    for (&id, &backend) in &tables.backends {
        observed.backends.insert(id, backend);
    }
    for (&index, &member) in &tables.members {
        observed.members.insert(index, member);
    }
    for (_, frontend) in observed.frontends.iter() {
        let service = ObservedService {
            name: format!("a/b:{}", frontend.service),
            slots_base: frontend.slots_base,
            slots: frontend.slots,
            members_base: frontend.members_base,
            members: u32::from(frontend.members),
        };
        observed.services.insert(frontend.service, service);
    }
    observed
}
