//! The node locator against the real kernel: a node with a bridged and a routed pod, both dual-stack, each in a network
//! namespace. Needs root.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

use xlb_userspace::node::{self, FamilyAddresses, Location, Netlink};

use self::lab::{in_lab, run};
use self::wait::{WAIT, settle, wait_for, wait_for_link};

#[path = "node/lab.rs"]
mod lab;
#[path = "node/wait.rs"]
mod wait;

const BRIDGED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 1, 5));
const BRIDGED_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 1, 0, 0, 0, 0, 5));
const ROUTED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 3, 70));
const ROUTED_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 3, 0, 0, 0, 0, 0x70));

#[test]
fn a_routed_pod_is_found_with_its_namespace_and_mac() {
    in_lab(|lab| async move {
        let (netlink, mut changes) = Netlink::open().unwrap();
        for pod in [ROUTED, ROUTED_V6] {
            netlink.provoke(pod).await.unwrap();

            let link = wait_for_link(&netlink, &mut changes, pod).await;

            assert_eq!((link.name.as_str(), link.is_veth), ("vrouted", true), "{pod}");
            assert_eq!(link.netns_id, Some(lab.netns_id("routed")), "{pod}");
            assert_eq!(link.pod_mac, Some([2, 0, 0, 0, 0, 0x70]), "{pod}");
        }
    });
}

#[test]
fn a_bridged_pod_is_found_once_provoked_and_outlives_its_fdb_entry() {
    for pod in [BRIDGED, BRIDGED_V6] {
        in_lab(move |lab| async move {
            let (netlink, mut changes) = Netlink::open().unwrap();
            let snapshot = netlink.snapshot().await.unwrap();
            assert!(snapshot.is_unlearned(pod), "{:?}", snapshot.locate(pod));
            netlink.provoke(pod).await.unwrap();

            let link = wait_for_link(&netlink, &mut changes, pod).await;

            assert_eq!((link.name.as_str(), link.is_veth), ("vbridged", true), "{pod}");
            assert_eq!(link.netns_id, Some(lab.netns_id("bridged")), "{pod}");
            assert_eq!(link.pod_mac, Some([2, 0, 0, 0, 0, 0x05]), "{pod}");

            lab.node("bridge link set dev vbridged learning off");
            lab.node("bridge fdb del 02:00:00:00:00:05 dev vbridged master");
            let snapshot = netlink.snapshot().await.unwrap();
            assert!(snapshot.is_unlearned(pod), "{pod}");
            let before = Location::Link(link);
            assert_eq!(snapshot.locate_again(pod, &before), before);

            lab.node("bridge link set dev vbridged learning on");
            netlink.provoke(pod).await.unwrap();
            assert_eq!(Location::Link(wait_for_link(&netlink, &mut changes, pod).await), before);

            lab.node("ip link del vbridged");
            let snapshot = netlink.snapshot().await.unwrap();
            assert!(matches!(snapshot.locate_again(pod, &before), Location::Unreachable(_)), "{pod}");
        });
    }
}

#[test]
fn both_addresses_of_a_dual_stack_pod_lead_to_the_same_link() {
    in_lab(|_| async {
        let (netlink, mut changes) = Netlink::open().unwrap();
        for (v4, v6) in [(BRIDGED, BRIDGED_V6), (ROUTED, ROUTED_V6)] {
            netlink.provoke(v6).await.unwrap();
            let by_v6 = wait_for_link(&netlink, &mut changes, v6).await;
            netlink.provoke(v4).await.unwrap();

            assert_eq!(wait_for_link(&netlink, &mut changes, v4).await, by_v6);
        }
    });
}

#[test]
fn addresses_without_a_pod_are_told_apart() {
    in_lab(|_| async {
        let (netlink, _changes) = Netlink::open().unwrap();
        let snapshot = netlink.snapshot().await.unwrap();

        let own = ["127.0.0.1", "::1", "192.168.0.2", "fd00::2", "10.1.1.1", "fd00:1:1::1"].map(address);
        assert_eq!(snapshot.addresses(), BTreeSet::from(own));
        for own in own {
            assert_eq!(snapshot.locate(own), Location::Host, "{own}");
        }
        for (other, sentence) in [
            ("10.2.0.9", "route to 10.2.0.0/16 leads via gateway 192.168.0.3 on eth0: a pod of another node"),
            ("fd00:2::9", "route to fd00:2::/64 leads via gateway fd00::3 on eth0: a pod of another node"),
            ("10.1.3.99", "10.1.3.99 is under the blackhole route to 10.1.3.64/26"),
            ("fd00:1:3::41", "fd00:1:3::41 is under the blackhole route to fd00:1:3::40/122"),
            ("10.9.0.1", "only the default route leads to 10.9.0.1"),
            ("fd00:9::1", "only the default route leads to fd00:9::1"),
        ] {
            assert_eq!(snapshot.locate(address(other)), Location::Unreachable(sentence.to_owned()));
        }
    });
}

#[test]
fn an_ipv6_address_is_the_nodes_from_the_end_of_its_detection_until_it_is_deprecated() {
    in_lab(|lab| async move {
        let (netlink, mut changes) = Netlink::open().unwrap();
        let own = address("fd00::7");
        lab.node("sysctl -qw net.ipv6.conf.eth0.accept_dad=1");
        lab.node("ip address add fd00::7/64 dev eth0");
        assert!(!netlink.snapshot().await.unwrap().has_address(own), "still tentative");

        wait_for(&netlink, &mut changes, |snapshot| snapshot.has_address(own).then_some(())).await;

        lab.node("ip address change fd00::7/64 dev eth0 preferred_lft 0");
        let snapshot = netlink.snapshot().await.unwrap();
        assert!(!snapshot.has_address(own));
        assert_eq!(snapshot.locate(own), Location::Host, "it still leads to the node");
    });
}

#[test]
fn the_primary_addresses_are_on_the_default_routes_link_wherever_it_is() {
    in_lab(|lab| async move {
        let (netlink, _changes) = Netlink::open().unwrap();
        let snapshot = netlink.snapshot().await.unwrap();
        assert_eq!(snapshot.primary_addresses(), pair("192.168.0.2", "fd00::2"));

        lab.node("ip route replace default via fe80::5 dev cni0");

        let snapshot = netlink.snapshot().await.unwrap();
        assert_eq!(snapshot.primary_addresses(), pair("192.168.0.2", "fd00:1:1::1"));
    });
}

#[test]
fn a_node_without_ipv6_finds_its_ipv4_pods_and_says_what_it_cannot_reach() {
    in_lab(|lab| async move {
        lab.node("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        let (netlink, mut changes) = Netlink::open().unwrap();
        netlink.provoke(ROUTED).await.unwrap();

        assert_eq!(wait_for_link(&netlink, &mut changes, ROUTED).await.name, "vrouted");

        let snapshot = netlink.snapshot().await.unwrap();
        assert!(snapshot.addresses().iter().all(IpAddr::is_ipv4));
        assert_eq!(snapshot.locate(ROUTED_V6), Location::Unreachable(format!("no route leads to {ROUTED_V6}")));
        let message = netlink.provoke(ROUTED_V6).await.unwrap_err().to_string();
        assert_eq!(message, format!("sending a datagram to {ROUTED_V6} port 9"));
    });
}

#[test]
fn the_pods_end_takes_xdp_frames_when_its_gro_is_on() {
    in_lab(|lab| async move {
        let (netlink, mut changes) = Netlink::open().unwrap();
        let (own, in_node) = (address("fd00::2"), address("10.1.9.9"));
        lab.node("ip link add vown type veth peer name vpeer");
        lab.node("ip link set vown up");
        lab.node("ip route add 10.1.9.9 dev vown");
        netlink.provoke(BRIDGED).await.unwrap();
        wait_for_link(&netlink, &mut changes, BRIDGED).await;
        let snapshot = netlink.snapshot().await.unwrap();
        for (setting, opposite, expected) in [("on", "off", true), ("off", "on", false)] {
            lab.pod("routed", &format!("ethtool -K eth0 gro {setting}"));
            lab.pod("bridged", &format!("ethtool -K eth0 gro {opposite}"));
            lab.node(&format!("ethtool -K vpeer gro {setting}"));

            let pods = [ROUTED, ROUTED_V6, BRIDGED, in_node, own];
            let mut pods = BTreeMap::from(pods.map(|pod| (pod, snapshot.locate(pod))));
            node::complete_with_xdp(&snapshot, &mut pods);

            for (pod, expected) in
                [(ROUTED, expected), (ROUTED_V6, expected), (BRIDGED, !expected), (in_node, expected)]
            {
                let Location::Link(link) = &pods[&pod] else { panic!("not a link: {pods:?}") };
                assert_eq!(link.takes_xdp_frames, expected, "{pod}, gro {setting}");
            }
            assert_eq!(pods[&own], Location::Host);
            assert_eq!(node::takes_xdp_frames(snapshot.link_by_name("vrouted").unwrap()), expected, "gro {setting}");
        }
    });
}

#[test]
fn a_pods_end_is_found_in_a_namespace_without_a_name() {
    in_lab(|lab| async move {
        let mut pod = Command::new("unshare").args(["-n", "sleep", "60"]).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let make = format!("ip link add vnameless type veth peer name eth0 netns {}", pod.id());
        lab.node(&make);
        run(&format!("nsenter -t {} -n ethtool -K eth0 gro on", pod.id()));
        let (netlink, _changes) = Netlink::open().unwrap();
        let snapshot = netlink.snapshot().await.unwrap();

        let takes = node::takes_xdp_frames(snapshot.link_by_name("vnameless").unwrap());

        pod.kill().and_then(|()| pod.wait()).unwrap();
        assert!(takes);
    });
}

#[test]
fn the_removal_of_a_link_is_heard() {
    in_lab(|lab| async move {
        let (netlink, mut changes) = Netlink::open().unwrap();
        settle(&mut changes).await;

        lab.node("ip link del vrouted");

        assert_eq!(tokio::time::timeout(WAIT, changes.next()).await, Ok(Some(())));
        assert!(netlink.snapshot().await.unwrap().link_by_name("vrouted").is_none());
    });
}

#[test]
fn a_new_route_or_address_of_either_family_is_heard() {
    in_lab(|lab| async move {
        let (_netlink, mut changes) = Netlink::open().unwrap();
        for command in [
            "ip route add 10.1.3.71 dev vrouted",
            "ip route add fd00:1:3::71 dev vrouted",
            "ip address add 192.168.7.1/32 dev lo",
            "ip address add fd00:7::1/128 dev lo",
        ] {
            settle(&mut changes).await;

            lab.node(command);

            assert_eq!(tokio::time::timeout(WAIT, changes.next()).await, Ok(Some(())), "{command}");
        }
    });
}

#[test]
fn a_flood_of_changes_is_heard_as_few_and_an_overflow_is_survived() {
    in_lab(|lab| async move {
        let (_netlink, mut changes) = Netlink::open().unwrap();
        settle(&mut changes).await;
        let batch: String =
            (0..8000).map(|n| format!("route add 10.99.{}.{}/32 dev eth0\n", n / 250, n % 250)).collect();
        let file = std::env::temp_dir().join(format!("{}.batch", lab.node));
        std::fs::write(&file, batch).unwrap();

        lab.node(&format!("ip -batch {}", file.display()));

        std::fs::remove_file(&file).unwrap();
        let heard = settle(&mut changes).await;
        assert!((1..10).contains(&heard), "{heard}");
        lab.node("ip link set eth0 mtu 1400");
        assert_eq!(tokio::time::timeout(WAIT, changes.next()).await, Ok(Some(())));
    });
}

#[test]
fn an_uplink_is_described_and_an_unknown_one_refused() {
    in_lab(|_| async {
        let (netlink, _changes) = Netlink::open().unwrap();

        let uplink = netlink.uplink("eth0").await.unwrap();

        assert_eq!((uplink.driver.as_str(), uplink.mtu, uplink.mac), ("veth", 1500, [2, 0, 0, 0, 0, 2]));
        assert_eq!(netlink.uplink_in(&netlink.snapshot().await.unwrap(), "eth0").unwrap(), uplink);
        let FamilyAddresses { v4, v6 } = pair("192.168.0.2", "fd00::2");
        assert_eq!((uplink.address_v4, uplink.address_v6), (v4, v6));
        let uplink = netlink.uplink("vrouted").await.unwrap();
        assert_eq!((uplink.address_v4, uplink.address_v6), (None, None), "it has link-local ones only");
        let message = netlink.uplink("ens3").await.unwrap_err().to_string();
        assert!(message.starts_with("no interface ens3 on this node; there are lo, "), "{message}");
        assert!(message.contains("eth0") && message.contains("cni0"), "{message}");
    });
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pair(v4: &str, v6: &str) -> FamilyAddresses {
    FamilyAddresses { v4: v4.parse().ok(), v6: v6.parse().ok() }
}
