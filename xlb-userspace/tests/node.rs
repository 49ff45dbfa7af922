//! The node locator against the real kernel: a node with a bridged and a routed pod, each in a network namespace. Needs
//! root.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use xlb_userspace::node::{self, Changes, Location, Netlink, PodLink, Snapshot};

const BRIDGED: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 5);
const ROUTED: Ipv4Addr = Ipv4Addr::new(10, 1, 3, 70);
const WAIT: Duration = Duration::from_secs(5);

#[test]
fn a_routed_pod_is_found_with_its_namespace_and_mac() {
    in_lab(|lab| async move {
        let (netlink, mut changes) = Netlink::open().unwrap();
        netlink.provoke(ROUTED).await.unwrap();

        let link = wait_for_link(&netlink, &mut changes, ROUTED).await;

        assert_eq!((link.name.as_str(), link.is_veth), ("vrouted", true));
        assert_eq!(link.netns_id, Some(lab.netns_id("routed")));
        assert_eq!(link.pod_mac, Some([2, 0, 0, 0, 0, 0x70]));
    });
}

#[test]
fn a_bridged_pod_is_found_once_provoked_and_outlives_its_fdb_entry() {
    in_lab(|lab| async move {
        let (netlink, mut changes) = Netlink::open().unwrap();
        let snapshot = netlink.snapshot().await.unwrap();
        assert!(snapshot.is_unlearned(BRIDGED), "{:?}", snapshot.locate(BRIDGED));
        netlink.provoke(BRIDGED).await.unwrap();

        let link = wait_for_link(&netlink, &mut changes, BRIDGED).await;

        assert_eq!((link.name.as_str(), link.is_veth), ("vbridged", true));
        assert_eq!(link.netns_id, Some(lab.netns_id("bridged")));
        assert_eq!(link.pod_mac, Some([2, 0, 0, 0, 0, 0x05]));

        lab.node("bridge link set dev vbridged learning off");
        lab.node("bridge fdb del 02:00:00:00:00:05 dev vbridged master");
        let snapshot = netlink.snapshot().await.unwrap();
        assert!(snapshot.is_unlearned(BRIDGED));
        let before = Location::Link(link);
        assert_eq!(snapshot.locate_again(BRIDGED, &before), before);

        lab.node("ip link del vbridged");
        let snapshot = netlink.snapshot().await.unwrap();
        assert!(matches!(snapshot.locate_again(BRIDGED, &before), Location::Unreachable(_)));
    });
}

#[test]
fn addresses_without_a_pod_are_told_apart() {
    in_lab(|_| async {
        let (netlink, _changes) = Netlink::open().unwrap();
        let snapshot = netlink.snapshot().await.unwrap();

        let own = Ipv4Addr::new(192, 168, 0, 2);
        assert_eq!(snapshot.locate(own), Location::Host);
        assert_eq!(snapshot.addresses(), [Ipv4Addr::LOCALHOST, own, Ipv4Addr::new(10, 1, 1, 1)].into());
        let sentence = "route to 10.2.0.0/16 leads via gateway 192.168.0.3 on eth0: a pod of another node";
        assert_eq!(snapshot.locate(Ipv4Addr::new(10, 2, 0, 9)), Location::Unreachable(sentence.to_owned()));
        let sentence = "10.1.3.99 is under the blackhole route to 10.1.3.64/26";
        assert_eq!(snapshot.locate(Ipv4Addr::new(10, 1, 3, 99)), Location::Unreachable(sentence.to_owned()));
    });
}

#[test]
fn the_pods_end_takes_xdp_frames_when_its_gro_is_on() {
    in_lab(|lab| async move {
        let (netlink, _changes) = Netlink::open().unwrap();
        let snapshot = netlink.snapshot().await.unwrap();
        for (setting, expected) in [("on", true), ("off", false)] {
            lab.pod("routed", &format!("ethtool -K eth0 gro {setting}"));

            let mut pods = BTreeMap::from([(ROUTED, snapshot.locate(ROUTED)), (Ipv4Addr::LOCALHOST, Location::Host)]);
            node::complete_with_xdp(&snapshot, &mut pods);

            let Location::Link(link) = &pods[&ROUTED] else { panic!("not a link: {pods:?}") };
            assert_eq!(link.takes_xdp_frames, expected, "gro {setting}");
            assert_eq!(pods[&Ipv4Addr::LOCALHOST], Location::Host);
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
        let message = netlink.uplink("ens3").await.unwrap_err().to_string();
        assert!(message.starts_with("no interface ens3 on this node; there are lo, "), "{message}");
        assert!(message.contains("eth0") && message.contains("cni0"), "{message}");
    });
}

async fn wait_for_link(netlink: &Netlink, changes: &mut Changes, pod: Ipv4Addr) -> PodLink {
    let found = async {
        loop {
            let snapshot: Snapshot = netlink.snapshot().await.unwrap();
            match snapshot.locate(pod) {
                Location::Link(link) if link.pod_mac.is_some() => return link,
                _ => changes.next().await.unwrap(),
            }
        }
    };
    tokio::time::timeout(WAIT, found).await.unwrap()
}

/// Takes the changes of the lab's own making until it is quiet; how many there were.
async fn settle(changes: &mut Changes) -> usize {
    let mut heard = 0;
    while tokio::time::timeout(Duration::from_secs(1), changes.next()).await.is_ok() {
        heard += 1;
    }
    heard
}

/// Runs a test in the node's namespace, on a thread of its own; without root there is nothing to run.
fn in_lab<F: Future>(test: impl FnOnce(Arc<Lab>) -> F + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let lab = Lab::build();
    let outcome = std::thread::spawn(move || {
        setns(File::open(format!("/run/netns/{}", lab.node)).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(lab.clone()));
        drop(lab);
    });
    if let Err(panic) = outcome.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The namespaces of a node, its pods and its neighbour; they go when it is dropped, also after a failure.
struct Lab {
    node: String,
}

impl Lab {
    fn build() -> Arc<Self> {
        static BUILT: AtomicU32 = AtomicU32::new(0);
        let lab = Self { node: format!("xlbnode{}n{}", std::process::id(), BUILT.fetch_add(1, Ordering::Relaxed)) };
        run(&format!("ip netns add {}", lab.node));
        for other in OTHERS {
            run(&format!("ip netns add {}-{other}", lab.node));
            lab.pod(other, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
        }
        for line in NODE.lines().map(str::trim).filter(|line| !line.is_empty()) {
            lab.node(&line.replace("NODE", &lab.node));
        }
        for (pod, address, gateway) in
            [("bridged", "10.1.1.5/24", "10.1.1.1"), ("routed", "10.1.3.70/32", "169.254.1.1")]
        {
            lab.pod(pod, &format!("ip address add {address} dev eth0"));
            lab.pod(pod, "ip link set eth0 up");
            lab.pod(pod, &format!("ip route replace {gateway} dev eth0 scope link"));
            lab.pod(pod, &format!("ip route add default via {gateway} dev eth0"));
        }
        Arc::new(lab)
    }

    fn node(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.node))
    }

    fn pod(&self, pod: &str, command: &str) -> String {
        run(&format!("ip netns exec {}-{pod} {command}", self.node))
    }

    /// The pod's namespace id as iproute2 finds it, which asks by name and not by link.
    fn netns_id(&self, pod: &str) -> i32 {
        let ids = self.node("ip netns list-id");
        let line = ids.lines().find(|line| line.contains(&format!("{}-{pod}", self.node))).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let others = OTHERS.iter().map(|other| format!("{}-{other}", self.node));
        for namespace in others.chain([self.node.clone()]) {
            let _ = Command::new("ip").args(["netns", "del", &namespace]).output();
        }
    }
}

const OTHERS: [&str; 3] = ["bridged", "routed", "neighbour"];

const NODE: &str = "
    ip link set lo up
    ip link add eth0 address 02:00:00:00:00:02 type veth peer name eth0 netns NODE-neighbour
    ip netns exec NODE-neighbour ip link set eth0 up
    ip link set eth0 up
    ip address add 192.168.0.2/24 dev eth0
    ip route add default via 192.168.0.1
    ip route add 10.2.0.0/16 via 192.168.0.3
    ip link add cni0 type bridge
    ip address add 10.1.1.1/24 dev cni0
    ip link set cni0 up
    ip link add vbridged type veth peer name eth0 address 02:00:00:00:00:05 netns NODE-bridged
    ip link set vbridged master cni0 up
    ip link add vrouted type veth peer name eth0 address 02:00:00:00:00:70 netns NODE-routed
    ip link set vrouted up
    ip route add blackhole 10.1.3.64/26
    ip route add 10.1.3.70 dev vrouted scope link
";

fn run(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
