//! The packet filter rules that kube-proxy and a CNI plugin leave on a node, with counters that tests can read.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::namespace::Namespace;

/// Loads the rules: drop what conntrack calls invalid, masquerade what pods send out. As in flannel's rules, not to groups:
/// the node itself reports its own to 224.0.0.22, from an address of the pods' network.
pub fn load(node: &Namespace, pod_network: &str) -> Result<()> {
    load_rules(node, &rules(pod_network))
}

/// Loads the rules of a Service with one endpoint. With externalTrafficPolicy Cluster kube-proxy masquerades the client.
pub fn serve(
    node: &Namespace,
    vip: impl Into<SocketAddr>,
    endpoint: impl Into<SocketAddr>,
    masquerades: bool,
) -> Result<()> {
    load_rules(node, &service_rules(vip.into(), endpoint.into(), masquerades))
}

fn load_rules(node: &Namespace, rules: &str) -> Result<()> {
    let mut nft = node
        .command("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting nft (package nftables)")?;
    let _ = nft.stdin.take().expect("stdin is piped").write_all(rules.as_bytes());
    let output = nft.wait_with_output().context("waiting for nft")?;
    ensure!(output.status.success(), "nft refused: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Packets that the named counter (`invalid`, `masqueraded`) has seen.
pub fn packets(node: &Namespace, counter: &str) -> Result<u64> {
    let text = node.output("nft", &["list", "counter", "ip", "kube-proxy", counter])?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets").skip(1);
    let packets = words.next().with_context(|| format!("no count in {text:?}"))?;
    packets.parse().with_context(|| format!("reading {packets:?} of counter {counter}"))
}

fn rules(pod_network: &str) -> String {
    format!(
        "table ip kube-proxy {{
            counter invalid {{ }}
            counter masqueraded {{ }}
            chain input {{
                type filter hook input priority filter;
                ct state invalid counter name invalid drop
            }}
            chain forward {{
                type filter hook forward priority filter;
                ct state invalid counter name invalid drop
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                ip saddr {pod_network} ip daddr != {{ {pod_network}, 224.0.0.0/4 }} counter name masqueraded masquerade
            }}
        }}"
    )
}

/// As in kube-proxy's nftables mode, only the first packet of a connection meets them; a table before is replaced.
fn service_rules(vip: SocketAddr, endpoint: SocketAddr, masquerades: bool) -> String {
    let (address, port, to) = (vip.ip(), vip.port(), endpoint.ip());
    let family = if vip.is_ipv6() { "ip6" } else { "ip" };
    let masquerade = if masquerades { format!("ct status dnat {family} daddr {to} masquerade") } else { String::new() };
    format!(
        "table {family} kube-proxy-service
        delete table {family} kube-proxy-service
        table {family} kube-proxy-service {{
            chain services {{
                type nat hook prerouting priority dstnat;
                {family} daddr {address} tcp dport {port} dnat to {endpoint}
            }}
            chain masquerading {{
                type nat hook postrouting priority srcnat;
                {masquerade}
            }}
        }}"
    )
}
