//! What a lab needs so that clients hear what the programs answer by themselves: refusals, resets, echo replies.

use anyhow::{Context, Result};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use xlb_tests::kernel::dataplane::object_path;
use xlb_tests::kernel::kernel_maps::{FLOW_MAPS_V4, FLOW_MAPS_V6};
use xlb_tests::lab::Lab;

/// The router's end of the first client's link.
const CLIENT_PORT: &str = "client0";
/// Small maps load faster.
const FLOWS_MAX: u32 = 1024;

/// A veth wakes its other end for what XDP answers only if that has an XDP program, too; GRO, with which it would take the
/// frames, is not enough (drivers/net/veth.c, veth_xdp_flush). This one passes everything, for as long as it is attached.
pub fn take_frames(lab: &Lab) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for map in FLOW_MAPS_V4.into_iter().chain(FLOW_MAPS_V6) {
        loader.map_max_entries(map, FLOWS_MAX);
    }
    let mut object = loader.load_file(object_path("xlb-bench.o")).context("loading the object of the bench")?;
    let program: &mut Xdp = object.program_mut("empty").context("the object has no program empty")?.try_into()?;
    program.load().context("loading a program that passes frames")?;
    let device = &lab.uplink(0).router_device;
    lab.router().run(|| program.attach(device, XdpMode::Driver)).context("attaching it to the router")?;
    Ok(object)
}

/// Lets a thread receive for the client. Else the answer is there before connect(2) lets go of its socket, as all of the lab
/// may be one softirq, and the client's kernel drops it (tcp_v6_err; TcpExtLockDroppedIcmps). A veth leaves the receiving to
/// that thread only where its other end segments in software (drivers/net/veth.c, veth_skb_is_eligible_for_gro).
pub fn answer_apart(lab: &Lab) -> Result<()> {
    let client = lab.client(0);
    lab.router().output("ethtool", &["-K", CLIENT_PORT, "tso", "off"])?;
    client.output("ethtool", &["-K", "eth0", "gro", "on"])?;
    client.output("ip", &["netns", "exec", client.name(), "sh", "-c", "echo 1 > /sys/class/net/eth0/threaded"])?;
    Ok(())
}
