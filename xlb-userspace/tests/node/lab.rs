//! A node with a bridged and a routed pod, both dual-stack, each in a network namespace.

use std::fs::File;
use std::future::Future;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

/// Runs a test in the node's namespace, on a thread of its own; without root there is nothing to run.
pub fn in_lab<F: Future>(test: impl FnOnce(Arc<Lab>) -> F + Send + 'static) {
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
pub struct Lab {
    /// The node's namespace; the others have its name and their own behind it.
    pub node: String,
}

impl Lab {
    fn build() -> Arc<Self> {
        static BUILT: AtomicU32 = AtomicU32::new(0);
        let lab = Self { node: format!("xlbnode{}n{}", std::process::id(), BUILT.fetch_add(1, Ordering::Relaxed)) };
        let others = OTHERS.map(|other| format!("{}-{other}", lab.node));
        for namespace in others.iter().chain([&lab.node]) {
            run(&format!("ip netns add {namespace}"));
            run(&format!("ip netns exec {namespace} sysctl -qw {WITHOUT_DAD}"));
        }
        for line in NODE.lines().map(str::trim).filter(|line| !line.is_empty()) {
            lab.node(&line.replace("NODE", &lab.node));
        }
        for (pod, address, address_v6) in PODS {
            for line in POD.lines().map(str::trim).filter(|line| !line.is_empty()) {
                lab.pod(pod, &line.replace("ADDRESS_V6", address_v6).replace("ADDRESS", address));
            }
        }
        Arc::new(lab)
    }

    /// Runs a command in the node's namespace.
    pub fn node(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.node))
    }

    /// The same in another one.
    pub fn pod(&self, pod: &str, command: &str) -> String {
        run(&format!("ip netns exec {}-{pod} {command}", self.node))
    }

    /// The pod's namespace id as iproute2 finds it, which asks by name and not by link.
    pub fn netns_id(&self, pod: &str) -> i32 {
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

/// Addresses are there at once: nobody else could have them.
const WITHOUT_DAD: &str = "net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0";

const NODE: &str = "
    ip link set lo up
    ip link add eth0 address 02:00:00:00:00:02 type veth peer name eth0 netns NODE-neighbour
    ip netns exec NODE-neighbour ip link set eth0 up
    ip link set eth0 up
    ip address add 192.168.0.2/24 dev eth0
    ip address add fd00::2/64 dev eth0
    ip route add default via 192.168.0.1
    ip route add default via fe80::1 dev eth0
    ip route add 10.2.0.0/16 via 192.168.0.3
    ip route add fd00:2::/64 via fd00::3
    ip link add cni0 type bridge
    ip address add 10.1.1.1/24 dev cni0
    ip address add fd00:1:1::1/64 dev cni0
    ip link set cni0 up
    ip link add vbridged type veth peer name eth0 address 02:00:00:00:00:05 netns NODE-bridged
    ip link set vbridged master cni0 up
    ip link add vrouted type veth peer name eth0 address 02:00:00:00:00:70 netns NODE-routed
    ip link set vrouted up
    ip route add blackhole 10.1.3.64/26
    ip route add blackhole fd00:1:3::40/122
    ip route add 10.1.3.70 dev vrouted scope link
    ip route add fd00:1:3::70 dev vrouted
";

const PODS: [(&str, &str, &str); 2] =
    [("bridged", "10.1.1.5/24", "fd00:1:1::5/64"), ("routed", "10.1.3.70/32", "fd00:1:3::70/128")];

const POD: &str = "
    ip address add ADDRESS dev eth0
    ip address add ADDRESS_V6 dev eth0
    ip link set eth0 up
    ip route add default dev eth0
";

/// Runs a command; what it says. It must succeed.
pub fn run(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
