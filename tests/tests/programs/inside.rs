//! Clients inside: curl, dig and socat on the node and in a pod, in a cgroup of the test's own.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use xlb_common::Reason;
use xlb_tests::lab::{Cgroup, Lab, LabSpec, Namespace, Program, Version};
use xlb_tests::servers::{DNS_TARGET_PORT, HTTP_TARGET_PORT, until};

use crate::run::{run, who};
use crate::stage::{Served, Stage, Way, host};

const NAME: &str = "whoami.xlb.test";
const TEXT: &str = "nobody else";
const ECHO_TARGET_PORT: u16 = 7007;
const PORTS: [(&str, &str, u16, u16); 4] = [
    ("http", "TCP", 80, HTTP_TARGET_PORT),
    ("dns", "UDP", 53, DNS_TARGET_PORT),
    ("dns-tcp", "TCP", 53, DNS_TARGET_PORT),
    ("echo", "UDP", 7, ECHO_TARGET_PORT),
];

#[test]
fn curl_dig_and_socat_on_the_node_and_in_a_pod_are_served_by_the_vip_of_each_version() -> Result<()> {
    let cgroup = Cgroup::enter()?;
    let path = cgroup.path().display().to_string();
    let lab = Lab::new(LabSpec { pod_count: 2, dual_stack: true, ..LabSpec::default() })?;
    let service = Served { name: "all", ports: &PORTS, pods: 2, ..Served::default() };
    let way = Way { delivery: "direct", xdp: "off" };
    let mut stage = Stage::new(lab, way, &[service], &["--clients-inside", "on", "--cgroup", &path])?;
    stage.serve_http("")?;
    stage.serve_dns(&[(NAME, TEXT)])?;
    serve_echo(&mut stage)?;
    for version in Version::ALL {
        for place in [stage.lab.node(), stage.lab.pod(0)] {
            let before = stage.count(Reason::InsideServed)?;
            check(place, stage.vip(version, 0)).with_context(|| format!("{version:?}, {}", place.name()))?;
            ensure!(stage.count(Reason::InsideServed)? >= before + 4, "{}: somebody else served", place.name());
        }
    }
    Ok(())
}

fn check(place: &Namespace, vip: IpAddr) -> Result<()> {
    // What curl calls the remote end is what getpeername(2) says.
    let who = who(place, &format!("http://{}/", host(vip)), &[])?;
    ensure!(who.server == vip.to_string() && who.pod.starts_with("pod-"), "{who:?}");

    let at = format!("@{vip}");
    for protocol in ["+notcp", "+tcp"] {
        let answer = run(place, "dig", &[&at, NAME, "TXT", "+short", "+tries=1", "+time=20", protocol])?;
        ensure!(answer.trim() == format!("\"{TEXT}\""), "dig {protocol} printed {answer}");
    }

    // A socket that is not connected, and takes answers from nobody but the VIP; and one that is.
    let version = if vip.is_ipv4() { '4' } else { '6' };
    for kind in ["SENDTO", "CONNECT"] {
        let to = format!("UDP{version}-{}:{}:7,readbytes=6", kind, host(vip));
        let heard = run(place, "sh", &["-c", &format!("echo hello | socat -t 20 - {to}")])?;
        ensure!(heard == "hello\n", "socat {to} heard {heard:?}");
    }
    Ok(())
}

/// socat in each pod sends back what comes, over both versions.
fn serve_echo(stage: &mut Stage) -> Result<()> {
    for pod in stage.lab.pods() {
        let mut command = stage.lab.pod(pod).command("socat");
        command.args(["-d", "-d", "-d", &format!("UDP6-RECVFROM:{ECHO_TARGET_PORT},ipv6only=0,fork"), "PIPE"]);
        let program = Program::start(command, &stage.directory(pod)?.join("socat.log"))?;
        until(&program, "socat", || program.log().contains("starting recvfrom loop"))?;
        stage.programs.push(program);
    }
    Ok(())
}
