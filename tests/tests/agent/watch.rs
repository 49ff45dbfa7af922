//! `xlb watch`, `xlb capture` and `xlb explain --next`: what they say of real packets is what the programs counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use serde_json::Value;
use xlb_common::Reason;
use xlb_common::watched::QUEUE_BYTES;
use xlb_tests::lab::{LabSpec, LineClient, Watch, udp_ask, xlb_binary};

use crate::command::xlb;
use crate::pcapng::{Packet, read};
use crate::stage::{LATER, Stage, full_name, service, socket};

/// How long a watch may go on, if what it should see does not come.
const AT_MOST: &str = "30s";

#[test]
fn every_packet_of_a_connection_is_told_as_it_was_counted() -> Result<()> {
    let ways = [
        (&[][..], false),
        (&["--delivery", "stack"], false),
        (&["--xdp", "generic"], false),
        (&["--xdp", "native"], true),
        // Its pods take no frames: all is left to tc.
        (&["--xdp", "native"], false),
    ];
    for (arguments, pod_gro) in ways {
        println!("{arguments:?}, pods with GRO: {pod_gro}");
        let stage = Stage::with(LabSpec { pod_count: 2, pod_gro, ..LabSpec::default() }, arguments)?;
        stage.who(0)?;
        let before = counters(&stage)?;
        let mut watch = Watch::start(&stage.lab, &["watch", "-o", "json"])?;
        let mut client = LineClient::connect(stage.lab.client(0), stage.vip(0))?;
        let identity = client.identity()?;
        let address = client.local_address()?;
        drop(client);
        let (vip, pod) = (SocketAddr::from(stage.vip(0)).to_string(), identity.local.to_string());
        // Both sides' FINs are the last but one.
        let events = watch.until(|events| {
            ["in", "out"].iter().all(|way| events.iter().any(|it| it["direction"] == *way && flags(it).contains('F')))
        })?;
        watch.end()?;
        let after = counters(&stage)?;
        let first = &events[0];
        assert_eq!((first["flags"].as_str(), first["direction"].as_str()), (Some("S"), Some("in")), "{first:#}");
        assert_eq!(first["link"], "eth0");
        for event in &events {
            let (client, other) = match event["direction"] == "in" {
                true => ("source", "destination"),
                false => ("destination", "source"),
            };
            assert_eq!(event[client], address.to_string(), "{event:#}");
            assert_eq!(event["service"], full_name("web"), "{event:#}");
            assert_eq!(event["backend"], pod, "{event:#}");
            assert_eq!(event["verdict"], "forward", "{event:#}");
            let becomes =
                if other == "destination" { [&address.to_string(), &pod] } else { [&vip, &address.to_string()] };
            assert_eq!(event["becomes"], serde_json::json!(becomes), "{event:#}");
            assert_eq!(event[other], if other == "destination" { &vip } else { &pod }.as_str());
        }
        let (told, before, after) = (by_reason(&events), replies_as_one(before), replies_as_one(after));
        for (reason, count) in &told {
            let counted = after.get(reason).unwrap_or(&0) - before.get(reason).unwrap_or(&0);
            // The connection's last packets may have come after the end.
            assert!(counted >= *count && counted <= count + 2, "{reason}: {count} told, {counted} counted");
        }
        assert!(told.keys().eq(["replied", "slot_owner"]), "{told:?}");
    }
    Ok(())
}

#[test]
fn only_what_the_filters_take_is_told() -> Result<()> {
    let mut stage = Stage::up()?;
    stage.manifests.write("none.yaml", &service(&stage.lab, "none", 1, &[]))?;
    stage
        .manifests
        .write("dns.yaml", &service(&stage.lab, "dns", 2, &[0]).replace("protocol: TCP", "protocol: UDP"))?;
    stage.lab.serve_udp(0, 8080)?;
    stage.until(|maps| maps["services"].to_string().contains("default/dns:http/udp"));
    stage.until(|maps| maps["services"].to_string().contains("default/none:http"));
    let mut watches = Vec::new();
    let client = stage.lab.client_address(0).to_string();
    for (arguments, service) in [
        (vec!["--service", "default/dns"], "default/dns:http/udp"),
        (vec!["--service", "web"], "default/web:http"),
        (vec!["--reason", "empty_passed,empty_dropped,empty_rejected"], "default/none:http"),
        (vec!["--client", &client, "--reason", "slot_owner"], "default/web:http"),
    ] {
        let all = [&["watch", "-o", "json", "-n", "1", "--for", AT_MOST], &arguments[..]].concat();
        watches.push((Watch::start(&stage.lab, &all)?, service));
    }
    let mut other = Watch::start(&stage.lab, &["watch", "-o", "json", "--client", "192.0.2.77/32"])?;
    // Nobody answers, or it is refused.
    let _ = LineClient::connect(stage.lab.client(0), stage.vip(1));
    udp_ask(stage.lab.client(0), stage.vip(2), "who", LATER)?;
    stage.who(0)?;
    for (watch, service) in &mut watches {
        let event = watch.event()?.with_context(|| format!("nothing was told of {service}"))?;
        assert_eq!(event["service"], *service, "{event:#}");
        assert_eq!(watch.event()?, None, "-n 1 is one");
    }
    other.interrupt()?;
    assert_eq!(other.event()?, None, "that client said nothing");
    Ok(())
}

#[test]
fn a_sample_is_a_part_and_lines_are_for_people() -> Result<()> {
    let stage = Stage::up()?;
    let mut all = Watch::start(&stage.lab, &["watch"])?;
    let mut some = Watch::start(&stage.lab, &["watch", "--sample", "1/10"])?;
    LineClient::connect(stage.lab.client(0), stage.vip(0))?.download(2_000_000)?;
    // An interrupt ends it at once, whatever waits: until the connection's end for the one, until there is any for the other.
    let all = all.lines_until(|line| line.contains(" in  tcp ") && line.contains("[F.]"))?;
    let first = some.lines_until(|_| true)?;
    some.interrupt()?;
    let some = [first, some.lines()?].concat();
    let parts = [" eth0 in  tcp ", " [S] forward: slot_owner default/web:http -> "];
    assert!(all.iter().any(|line| parts.iter().all(|part| line.contains(part))), "{}", all[..4].join("\n"));
    assert!(all.iter().any(|line| line.contains(" out tcp ") && line.contains(" as 203.0.113.10:80")));
    assert!(some.len() * 2 < all.len(), "{} of {}", some.len(), all.len());
    Ok(())
}

#[test]
fn packets_that_find_no_room_are_counted() -> Result<()> {
    let stage = Stage::up()?;
    let mut watch = Watch::start(&stage.lab, &["watch", "--client", "192.0.2.77"])?;
    watch.pause()?;
    LineClient::connect(stage.lab.client(0), stage.vip(0))?.download(u64::from(QUEUE_BYTES) * 3)?;
    watch.go_on()?;
    let warning = watch.warning()?;
    assert!(warning.contains("some are missing: say --sample 1/10"), "{warning}");
    let said = watch.end()?;
    let lost = said.split_once(" packets are missing").map(|(number, _)| number.parse());
    assert!(matches!(lost, Some(Ok(1_u64..))), "{said}");
    Ok(())
}

#[test]
fn a_mistake_in_a_filter_is_a_sentence() -> Result<()> {
    let stage = Stage::up()?;
    xlb(&stage.lab, &["watch", "--service", "default/wep"])?
        .is_refused_with(&["no service on this node is called default/wep", "the nearest is default/web:http"]);
    for (arguments, parts) in [
        (["--reason", "slot_ownr"], ["no reason slot_ownr", "slot_owner"]),
        (["--sample", "0"], ["expected one packet of how many", "1/100"]),
        (["--client", "198.51.100.300"], ["expected an address or a range", "198.51.100.300"]),
        (["--for", "5"], ["expected a time", "90s"]),
    ] {
        let ended = xlb(&stage.lab, &[&["watch"], &arguments[..]].concat())?;
        assert_eq!(ended.code, Some(2), "{}", ended.text);
        ended.says(&parts);
    }
    let ended = xlb(&stage.lab, &["watch", "--bpffs-dir", "/sys/fs/bpf/xlb-none"])?;
    ended.is_refused_with(&["opening the pinned map"]);
    Ok(())
}

#[test]
fn the_next_packets_are_explained_as_they_come() -> Result<()> {
    let stage = Stage::up()?;
    let silent = xlb(&stage.lab, &["explain", "--next", "1", "--for", "1s"])?;
    silent.is_refused_with(&["no packet for an address that is served came", "xlb doctor"]);
    let mut watch = Watch::start(&stage.lab, &["explain", "--next", "3"])?;
    let mut held = stage.hold(0)?;
    held.answers()?;
    let told = watch.lines()?.join("\n");
    assert_eq!(told.matches("packet     tcp ").count(), 3, "{told}");
    let pod = socket(&stage.lab, held.server.trim_start_matches("pod-").parse()?);
    for part in [
        "[S], from a client by eth0",
        "frontend   default/web:http: 251 slots",
        "\nslot ",
        "(slot_owner)",
        "from a pod by veth",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    assert!(told.contains(&format!("backend    {pod}, direct by veth")), "{told}");
    let both = xlb(&stage.lab, &["explain", "--next", "1", "--src", "198.51.100.10:1"])?;
    assert_eq!(both.code, Some(2), "{}", both.text);
    Ok(())
}

#[test]
fn a_capture_has_each_packet_before_and_after_translation() -> Result<()> {
    let stage = Stage::up()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("web.pcapng");
    let file = path.display().to_string();
    let mut watch = Watch::start(&stage.lab, &["capture", "--service", "default/web", "-w", &file, "--for", AT_MOST])?;
    let mut client = LineClient::connect(stage.lab.client(0), stage.vip(0))?;
    let identity = client.identity()?;
    let address = client.local_address()?;
    drop(client);
    let is_whole =
        |packets: &[Packet]| packets.iter().filter(|it| it.interface == 0 && it.tcp_flags() & 1 != 0).count() >= 2;
    let so_far = || read(&std::fs::read(&path).ok()?).ok();
    xlb_tests::lab::wait_for(LATER, || so_far().filter(|packets| is_whole(packets))).context("both FINs are in it")?;
    watch.interrupt()?;
    assert!(watch.rest()?.contains(&format!("in {file}: interrupted")));
    let packets = read(&std::fs::read(&path)?)?;
    let [before, after] = [0, 1].map(|interface| packets.iter().filter(move |it| it.interface == interface));
    assert_eq!(before.clone().count(), after.clone().count(), "each packet of an open service is translated");
    let vip = SocketAddr::from(stage.vip(0));
    for (before, after) in before.zip(after) {
        let ends = [before, after].map(|packet| packet.ends());
        let expected = match ends[0].0 == address {
            true => [(address, vip), (address, identity.local)],
            false => [(identity.local, address), (vip, address)],
        };
        assert_eq!(ends, expected);
        assert_eq!(before.at_ns, after.at_ns);
        assert_eq!(before.comment, after.comment);
        assert!(before.comment.contains("service default/web:http; backend"), "{}", before.comment);
        assert_eq!(before.bytes[52..], after.bytes[52..], "behind the checksum nothing changes");
    }
    assert!(packets[0].comment.starts_with("xlb slot_owner: "), "{}", packets[0].comment);
    Ok(())
}

#[test]
fn a_capture_is_bounded_and_what_stands_in_its_way_is_said() -> Result<()> {
    let stage = Stage::up()?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let small = path("small.pcapng");
    let mut watch = Watch::start(&stage.lab, &["capture", "-w", &small, "--max-size", "20K", "--for", AT_MOST])?;
    LineClient::connect(stage.lab.client(0), stage.vip(0))?.download(1_000_000)?;
    assert!(watch.rest()?.contains("it is as large as --max-size says"));
    let length = std::fs::metadata(&small)?.len();
    assert!(length <= 20 << 10, "{length}");
    assert!(!read(&std::fs::read(&small)?)?.is_empty());
    xlb(&stage.lab, &["capture", "-w", &small])?.is_refused_with(&[&small, "is there already", "--force"]);
    let nowhere = path("none/x.pcapng");
    xlb(&stage.lab, &["capture", "-w", &nowhere])?.is_refused_with(&[&nowhere, "No such file"]);
    let short = path("short.pcapng");
    let ended = xlb(&stage.lab, &["capture", "-w", &short, "--for", "1s"])?;
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    ended.says(&["0 packets", "the time is over"]);
    assert_eq!(read(&std::fs::read(&short)?)?.len(), 0);
    Ok(())
}

/// The file system is a small one that only the command sees.
#[test]
fn on_a_full_disk_a_capture_ends_and_what_is_written_can_be_read() -> Result<()> {
    let stage = Stage::up()?;
    let folder = tempfile::tempdir()?;
    let (disk, kept) = (folder.path().join("disk"), folder.path().join("kept.pcapng"));
    std::fs::create_dir(&disk)?;
    let script = format!(
        "mount -t tmpfs -o size=64k none {0} && {1} capture -w {0}/x.pcapng --for {AT_MOST} --bpffs-dir {2}; \
         echo ended with $? >&2; cp {0}/x.pcapng {3}",
        disk.display(),
        xlb_binary().display(),
        stage.lab.pin_directory().display(),
        kept.display()
    );
    let mut command = stage.lab.node().command("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    let mut watch = Watch::of(command)?;
    watch.until_listening()?;
    LineClient::connect(stage.lab.client(0), stage.vip(0))?.download(1_000_000)?;
    let said = watch.rest()?;
    for part in ["writing a packet to", "No space left on device", "can be read", "ended with 1"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert!(!read(&std::fs::read(&kept)?)?.is_empty());
    Ok(())
}

/// Packets by what was counted of them.
fn counters(stage: &Stage) -> Result<BTreeMap<String, u64>> {
    Ok(serde_json::from_value(stage.agent.inspect()?["counters"].clone())?)
}

/// Whether a flow is half open, accepted or closed may change between the packet and the look at it.
fn replies_as_one(counts: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let mut as_one = BTreeMap::new();
    for (reason, count) in counts {
        let reason = if reason.starts_with("replied") { "replied".into() } else { reason };
        *as_one.entry(reason).or_default() += count;
    }
    as_one
}

fn by_reason(events: &[Value]) -> BTreeMap<String, u64> {
    let mut reasons = BTreeMap::new();
    for reason in events.iter().filter_map(|event| event["reason"].as_str()) {
        assert!(Reason::ALL.iter().any(|known| known.label() == reason), "{reason}");
        *reasons.entry(reason.to_owned()).or_default() += 1;
    }
    replies_as_one(reasons)
}

pub fn flags(event: &Value) -> &str {
    event["flags"].as_str().unwrap_or_default()
}
