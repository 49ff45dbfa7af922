//! A large file by curl, there and back, over hops that take smaller packets than both ends do.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use xlb_common::Reason;
use xlb_tests::lab::{Lab, Namespace, Pattern, Version};

use crate::counts::check_sums;
use crate::http::SERVICE;
use crate::run::{curl, run};
use crate::stage::{Stage, host};

/// What nginx needs for it; `FILES` is the pod's directory.
pub const LOCATIONS: &str = "location = /file { alias FILES/../file; }
        location /upload/ { root FILES; dav_methods PUT; create_full_put_path on; client_max_body_size 100m; }";

const FILE_BYTES: u64 = 24_000_000;

/// Writes the file. It shows its own positions, so that lost, repeated or exchanged parts are seen.
pub fn prepare(stage: &Stage) -> Result<()> {
    let path = stage.files.path().join("file");
    let mut file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    let mut pattern = Pattern::default();
    while pattern.position() < FILE_BYTES {
        file.write_all(pattern.next(FILE_BYTES - pattern.position()))?;
    }
    Ok(())
}

/// The file comes and goes whole, and both ends learn how small packets have to be.
pub fn check(stage: &Stage, version: Version) -> Result<()> {
    let mtu = if version == Version::V4 { 1000 } else { 1280 };
    make_hops_small(&stage.lab, version, mtu)?;
    let (client, other, vip) = (stage.lab.client(0), stage.lab.client(1), stage.vip(version, SERVICE));
    let (file, loaded) = (stage.files.path().join("file"), stage.files.path().join("loaded"));
    let told = stage.count(Reason::ErrorDelivered)?;

    let pod = transfer(client, &format!("http://{}/file", host(vip)), "--output", &loaded)?;
    ensure!(are_equal(&loaded, &file)?, "the download differs");
    let client_address = stage.lab.client_address_in(version, 0);
    let learnt = learnt_mtu(stage.lab.pod(pod), client_address)?;
    ensure!(learnt == Some(mtu), "pod {pod} has learnt {learnt:?} as the MTU");
    ensure!(stage.count(Reason::ErrorDelivered)? > told, "xlb told no pod of the small hop");
    check_sums(stage.lab.pod(pod))?;

    // By another client: towards the first, a pod that has learnt asks for small segments from the start (tcp_advertise_mss).
    let pod = transfer(other, &format!("http://{}/upload/{version:?}", host(vip)), "--upload-file", &file)?;
    ensure!(are_equal(&stage.directory(pod)?.join(format!("upload/{version:?}")), &file)?, "the upload differs");
    let learnt = learnt_mtu(other, vip)?;
    ensure!(learnt == Some(mtu), "the client has learnt {learnt:?} as the MTU");
    check_sums(stage.lab.pod(pod))?;
    check_sums(client)?;
    check_sums(other)
}

/// The router's way to the clients, and its way to the VIPs: that one by a route, as the link is the node's, too.
fn make_hops_small(lab: &Lab, version: Version, mtu: u32) -> Result<()> {
    lab.router().ip(&format!("link set clients mtu {mtu}"))?;
    let (uplink, vip) = (lab.uplink(0), lab.vip_in(version, SERVICE));
    let (node, length) = match version {
        Version::V4 => (IpAddr::from(uplink.node_address), 32),
        Version::V6 => (uplink.node_address_v6.into(), 128),
    };
    lab.router().ip(&format!("route replace {vip}/{length} via {node} mtu lock {mtu}"))
}

/// Lets curl load a file up or down. Returns the pod.
fn transfer(client: &Namespace, url: &str, direction: &str, file: &Path) -> Result<usize> {
    let file = file.display().to_string();
    let text = curl(client, &["--write-out", "%header{x-pod}", direction, &file, url])?;
    let pod = text.trim().strip_prefix("pod-").with_context(|| format!("curl printed {text:?}"))?;
    Ok(pod.parse()?)
}

fn are_equal(file: &Path, other: &Path) -> Result<bool> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    Ok(read(file)? == read(other)?)
}

/// What a kernel knows of the way to an address.
fn learnt_mtu(place: &Namespace, address: IpAddr) -> Result<Option<u32>> {
    let route = run(place, "ip", &["route", "get", &address.to_string()])?;
    Ok(route.split_whitespace().skip_while(|word| *word != "mtu").nth(1).and_then(|mtu| mtu.parse().ok()))
}
