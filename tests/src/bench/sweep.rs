//! `xlb-bench sweep`: what a walk through a full flow map costs, without its rests.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use xlb_common::abi::flow_flags::{SUPERSEDED, UNSEEN};
use xlb_common::abi::{Backend, FlowEntry, FlowKeyV4, FlowKeyV6, NETNS_HOST, ProofQuestion, TCP, backend_flags};
use xlb_common::tables::{FlowTable, Proof};
use xlb_userspace::ageing::rules::Setting;
use xlb_userspace::ageing::sweep::{Gone, Swept, World, backends_by_socket, sweep};
use xlb_userspace::ageing::{Pressure, Timeouts};
use xlb_userspace::maps::load::load_once;
use xlb_userspace::maps::object::Sizes;

use super::report::{Report, Row};
use crate::kernel::dataplane::object_path;
use crate::kernel::flow_map::{Writer, flow_map};

const POD: [u8; 4] = [10, 1, 0, 5];
const POD_PORT: [u8; 2] = [31, 144];
/// What the programs would write now; a walk just after that finds nothing idle.
const NOW: u32 = 1_000_000;

/// What the map holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Flows that are judged by their entry, and stay.
    Kept,
    /// Flows for which the pod's kernel is asked, which has none of them; they stay here.
    Asked,
    /// Flows that are over.
    Removed,
}

/// Measures walks through maps with so many flows.
pub fn measure(flows: u32, rounds: usize) -> Result<Report> {
    let asking = Asking::load()?;
    let name = |what: &str| format!("{what}, {flows} flows");
    let mut rows = ["an empty map of that size", "judged by their entries", "the pod's kernel asked", "removed"]
        .map(|what| Row { name: name(what), unit: "ms", rounds: Vec::new(), baseline: None });
    for _ in 0..rounds {
        for (row, kind) in rows.iter_mut().zip([None, Some(Kind::Kept), Some(Kind::Asked), Some(Kind::Removed)]) {
            row.rounds.push(walk(flows, kind, &asking)?.as_secs_f64() * 1000.0);
        }
    }
    Ok(Report { rows: rows.into() })
}

fn walk(flows: u32, kind: Option<Kind>, asking: &Asking) -> Result<Duration> {
    // The kernel's LRU keeps some entries for each CPU.
    let (mut map, mut writer) = flow_map(flows + flows / 16 + 1024)?;
    let (other, _) = flow_map(1)?;
    if let Some(kind) = kind {
        fill(&mut writer, flows, kind)?;
    }
    let mut address = [0; 16];
    address[..4].copy_from_slice(&POD);
    let flags = backend_flags::IN_USE;
    let pod = Backend {
        address,
        port: POD_PORT,
        protocol: TCP,
        family: 4,
        flags,
        netns_id: NETNS_HOST,
        ..Backend::default()
    };
    let backends = backends_by_socket([pod]);
    let setting = Setting { timeouts: Timeouts::default(), pressure: Pressure::Critical, now: NOW };
    let begun = Instant::now();
    let swept = sweep((FlowTable::Tcp, &mut map, &other), (&backends, &mut Gone::default()), &setting, 0, asking)?;
    let took = begun.elapsed();
    check(flows, kind, &swept)?;
    Ok(took)
}

fn fill(writer: &mut Writer, flows: u32, kind: Kind) -> Result<()> {
    let flags = match kind {
        Kind::Kept => UNSEEN,
        Kind::Asked => 0,
        Kind::Removed => SUPERSEDED,
    };
    let entry = FlowEntry { flags, last_seen: NOW, vip_port: [0, 80], ..FlowEntry::default() };
    for number in 0..flows {
        let key = FlowKeyV4 { client: number.to_be_bytes(), pod: POD, client_port: [40, 0], pod_port: POD_PORT };
        writer.write(key, entry)?;
    }
    Ok(())
}

/// That the walk did what is measured.
fn check(flows: u32, kind: Option<Kind>, swept: &Swept) -> Result<()> {
    let flows = u64::from(flows);
    let expected = match kind {
        None => (0, 0, 0),
        Some(Kind::Kept) => (flows, 0, flows),
        Some(Kind::Asked) => (flows, flows, flows),
        Some(Kind::Removed) => (flows, 0, 0),
    };
    ensure!((swept.seen, swept.asked, swept.left()) == expected, "the walk did {swept:?}");
    Ok(())
}

/// Asks this kernel, and takes each answer for that of a connection.
struct Asking(Ebpf);

impl Asking {
    fn load() -> Result<Self> {
        let mut loader = EbpfLoader::new();
        for shape in Sizes::default().maps() {
            loader.map_max_entries(shape.name, shape.entries.min(16));
        }
        let mut object = loader.load_file(object_path("xlb-ebpf.o")).context("making the maps")?;
        load_once(&mut object, "prove")?;
        Ok(Self(object))
    }
}

impl World for Asking {
    fn ask(&self, netns_id: i32, family: u8, flow: FlowKeyV6) -> Result<Proof> {
        let question = ProofQuestion { ethernet: [0; 16], flow, netns_id, family: family.into() };
        let options = TestRunOptions { data_in: Some(bytemuck::bytes_of(&question)), ..TestRunOptions::new() };
        let program: &SchedClassifier = self.0.program("prove").context("no program prove")?.try_into()?;
        program.test_run(options).context("asking this kernel")?;
        Ok(Proof::Owned)
    }

    fn rest(&self, _duration: Duration) -> bool {
        true
    }
}
