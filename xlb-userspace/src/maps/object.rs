//! The BPF object: embedded in this binary, loaded once per agent, its maps pinned or found pinned.

use anyhow::{Context, Result, bail};
use aya::maps::MapData;
use aya::{Ebpf, EbpfLoader};
use xlb_common::abi;
use xlb_common::hook::JUMPS_MAX;
use xlb_common::links::{self, Job};

use crate::maps::pins::PinDirectory;

/// Made by `cargo xtask build-ebpf`.
pub static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/xlb-ebpf.o"));

/// Services with numbers of their own, unless the operator says otherwise: six series each are what a node may well have.
const COUNTED_SERVICES: u32 = 1_000;

/// Most entries of maps that are made for a self-test.
const PRIVATE_ENTRIES_MAX: u32 = 1_024;

/// Maps to whose entries others refer by number, and those that say which pod has which. One of them that was made anew would number
/// other pods, or the same ones otherwise.
pub const REFERRED_TO: [&str; 8] =
    ["BACKENDS", "BACKEND_IDS_V4", "BACKEND_IDS_V6", "ENDPOINTS_V4", "ENDPOINTS_V6", "MEMBERS", "SERVICES", "SLOTS"];

/// Bytes of the prefix length that begins each key of an LPM trie.
const PREFIX: usize = 4;

/// Most entries of the maps that an operator may size.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// `FRONTENDS_V4`, `INSIDE_V4` and `SERVICES`.
    pub frontends: u32,
    /// `SLOTS`.
    pub slots: u32,
    /// `BACKENDS`, `BACKEND_IDS_V4` and `SOLE_FRONTENDS_V4`.
    pub backends: u32,
    /// `FLOWS_V4`, accepted TCP connections.
    pub flows: u32,
    /// Services with numbers of their own in `SERVICE_STATS`, whose size is fixed; zero: no service is counted.
    pub counted_services: u32,
    /// `FRAGMENTS_V4` and `FRAGMENTS_V6`.
    pub fragments: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            frontends: abi::FRONTENDS_MAX,
            slots: abi::SLOTS_MAX,
            backends: abi::BACKENDS_MAX,
            flows: abi::FLOWS_MAX,
            counted_services: COUNTED_SERVICES,
            fragments: abi::FRAGMENTS_MAX,
        }
    }
}

impl Sizes {
    /// Entries of a map of flows that has so many by default: in proportion to [`Sizes::flows`] where that is more, else the default,
    /// but no more than [`Sizes::flows`].
    fn grown(&self, default: u32) -> u32 {
        let in_proportion = u64::from(default) * u64::from(self.flows) / u64::from(abi::FLOWS_MAX);
        u32::try_from(in_proportion).unwrap_or(u32::MAX).max(default.min(self.flows))
    }

    /// Entries of `PLACES_V4`, and as many of `PLACES_V6`: every second frontend is found without a hash map.
    fn places(&self) -> u32 {
        (self.frontends / (abi::FRONTENDS_MAX / abi::PLACES_MAX)).max(1)
    }

    /// Every map of the object with its number of entries, key bytes and value bytes; pinned under its own name.
    #[must_use]
    pub fn maps(&self) -> Vec<MapShape> {
        let (endpoint, endpoint_v6) = (size_of::<abi::EndpointKeyV4>(), size_of::<abi::EndpointKeyV6>());
        let (flow, flow_v6) = (size_of::<abi::FlowKeyV4>(), size_of::<abi::FlowKeyV6>());
        let (client, client_v6) = (size_of::<abi::SourceKeyV4>(), size_of::<abi::SourceKeyV6>());
        let entry = size_of::<abi::FlowEntry>();
        let (inside_flow, link_flow) = (size_of::<abi::InsideFlowKey>(), size_of::<abi::LinkFlowKey>());
        let shape = |name, entries, key, value| MapShape { name, entries, key, value };
        vec![
            shape("FRONTENDS_V4", self.frontends, endpoint, size_of::<abi::Frontend>()),
            shape("DIRECTORY_V4", abi::DIRECTORY_WORDS, 4, 8),
            shape("DIRECTORY_V6", abi::DIRECTORY_WORDS, 4, 8),
            shape("PLACES_V4", self.places(), 4, size_of::<abi::PlaceV4>()),
            shape("PLACES_V6", self.places(), 4, size_of::<abi::PlaceV6>()),
            shape("SERVICES", self.frontends, 4, size_of::<abi::ServiceRecord>()),
            shape("SLOTS", self.slots, 4, 8),
            shape("MEMBERS", abi::MEMBERS_MAX, 4, size_of::<abi::Member>()),
            shape("BACKENDS", self.backends, 4, size_of::<abi::Backend>()),
            shape("BACKEND_IDS_V4", self.backends, endpoint, 4),
            shape("SOLE_FRONTENDS_V4", self.backends, endpoint, size_of::<abi::SoleFrontend>()),
            shape("SOLE_FRONTENDS_V6", self.backends, endpoint_v6, size_of::<abi::SoleFrontend>()),
            shape("FLOWS_V4", self.flows, flow, entry),
            shape("PENDING_V4", self.grown(abi::PENDING_MAX), flow, entry),
            shape("UDP_FLOWS_V4", self.grown(abi::UDP_FLOWS_MAX), flow, entry),
            shape("UDP_PENDING_V4", self.grown(abi::UDP_PENDING_MAX), flow, entry),
            shape("SCTP_FLOWS_V4", self.grown(abi::SCTP_FLOWS_MAX), flow, entry),
            shape("SCTP_PENDING_V4", self.grown(abi::SCTP_PENDING_MAX), flow, entry),
            shape("VIPS_V4", self.frontends, 4, 4),
            shape("VIPS_V6", self.frontends, 16, 4),
            shape("FRONTENDS_V6", self.frontends, endpoint_v6, size_of::<abi::Frontend>()),
            shape("BACKEND_IDS_V6", self.backends, endpoint_v6, 4),
            shape("FLOWS_V6", self.grown(abi::FLOWS_V6_MAX), flow_v6, entry),
            shape("PENDING_V6", self.grown(abi::PENDING_MAX), flow_v6, entry),
            shape("UDP_FLOWS_V6", self.grown(abi::UDP_FLOWS_V6_MAX), flow_v6, entry),
            shape("UDP_PENDING_V6", self.grown(abi::UDP_FLOWS_V6_MAX), flow_v6, entry),
            shape("SCTP_FLOWS_V6", self.grown(abi::SCTP_FLOWS_MAX), flow_v6, entry),
            shape("SCTP_PENDING_V6", self.grown(abi::SCTP_PENDING_MAX), flow_v6, entry),
            shape("SOURCE_RANGES_V4", abi::SOURCE_RANGES_MAX, PREFIX + client, 4),
            shape("SOURCE_RANGES_V6", abi::SOURCE_RANGES_MAX, PREFIX + client_v6, 4),
            shape("PINS_V4", abi::PINS_MAX, flow, size_of::<abi::Member>()),
            shape("PINS_V6", abi::PINS_MAX, flow_v6, size_of::<abi::Member>()),
            shape("AFFINITY_V4", abi::AFFINITY_MAX, client, size_of::<abi::AffinityEntry>()),
            shape("AFFINITY_V6", abi::AFFINITY_MAX, client_v6, size_of::<abi::AffinityEntry>()),
            shape("FRAGMENTS_V4", self.fragments, size_of::<abi::FragmentKeyV4>(), size_of::<abi::FragmentEntry>()),
            shape("FRAGMENTS_V6", self.fragments, size_of::<abi::FragmentKeyV6>(), size_of::<abi::FragmentEntry>()),
            shape("INSIDE_V4", self.frontends, endpoint, size_of::<abi::Inside>()),
            shape("INSIDE_V6", self.frontends, endpoint_v6, size_of::<abi::Inside>()),
            shape("ENDPOINTS_V4", abi::ENDPOINTS_MAX, 4, endpoint),
            shape("ENDPOINTS_V6", abi::ENDPOINTS_MAX, 4, endpoint_v6),
            shape(
                "INSIDE_AFFINITY",
                abi::INSIDE_AFFINITY_MAX,
                size_of::<abi::InsideAffinityKey>(),
                size_of::<abi::InsideAffinity>(),
            ),
            shape("INSIDE_FLOWS", abi::INSIDE_FLOWS_MAX, inside_flow, size_of::<abi::InsideFlow>()),
            shape("INSIDE_UDP_FLOWS", abi::INSIDE_UDP_FLOWS_MAX, inside_flow, size_of::<abi::InsideFlow>()),
            shape("NETNS_ADDRESSES", abi::NETNS_ADDRESSES_MAX, size_of::<abi::NetnsAddressKey>(), 16),
            shape("REASONS", xlb_common::Reason::COUNT as u32, 4, 8),
            shape("SERVICE_STATS", abi::SERVICE_STATS_MAX, 4, size_of::<abi::ServiceStats>()),
            shape("LINK_FLOWS", abi::LINK_FLOWS_MAX, link_flow, size_of::<abi::InsideFlow>()),
            shape("LINK_UDP_FLOWS", abi::LINK_UDP_FLOWS_MAX, link_flow, size_of::<abi::InsideFlow>()),
            shape("LINK_AFFINITY", abi::LINK_AFFINITY_MAX, client_v6, size_of::<abi::InsideAffinity>()),
            shape("CLIENT_LINKS", abi::CLIENT_LINKS_MAX, 4, 4),
            shape(links::JUMPS, Job::ALL.len() as u32, 4, 4),
            shape("CONFIG", 1, 4, size_of::<abi::Config>()),
            shape("JUMPS_TC", JUMPS_MAX, 4, 4),
            shape("JUMPS_XDP", JUMPS_MAX, 4, 4),
            shape("UPLINKS", abi::UPLINKS_MAX, 4, size_of::<abi::Uplink>()),
            shape("WAYS", abi::WAYS_MAX, size_of::<abi::WayKey>(), size_of::<abi::Way>()),
        ]
    }
}

/// What a map must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapShape {
    /// Its name, also that of its pin.
    pub name: &'static str,
    /// Most entries.
    pub entries: u32,
    /// Bytes of a key.
    pub key: usize,
    /// Bytes of a value.
    pub value: usize,
}

/// What the programs are told before the verifier reads them, which then removes what they do not need.
#[derive(Clone, Copy, Debug)]
pub struct Globals {
    /// Services with numbers of their own; zero: no service is counted.
    pub counted_services: u32,
    /// The cookie of the node's own network namespace.
    pub node_netns: u64,
}

/// Opens the object over the pinned maps, which are taken over with what they hold; those that are missing are made. No
/// program is loaded yet.
///
/// # Errors
/// When the object cannot be read, or the kernel refuses a map.
pub fn open(bytes: &[u8], pins: &PinDirectory, sizes: &Sizes, node_netns: u64) -> Result<Ebpf> {
    let globals = Globals { counted_services: sizes.counted_services, node_netns };
    let log_level = programs_log_level();
    let mut loader = loader(&globals, &log_level);
    for shape in sizes.maps() {
        loader.map_max_entries(shape.name, shape.entries).map_pin_path(shape.name, pins.map(shape.name));
    }
    loader.load(bytes).context("creating the maps of xlb: is there memory for --max-flows?")
}

/// The same over small maps that nobody else has, and that go with the object.
///
/// # Errors
/// As for [`open`].
pub fn open_private(bytes: &[u8], globals: Globals) -> Result<Ebpf> {
    let mut loader = loader(&globals, &0);
    for shape in Sizes::default().maps() {
        loader.map_max_entries(shape.name, shape.entries.min(PRIVATE_ENTRIES_MAX));
    }
    loader.load(bytes).context("creating the maps of a self-test")
}

fn loader<'a>(globals: &'a Globals, log_level: &'a u8) -> EbpfLoader<'a> {
    let mut loader = EbpfLoader::new();
    loader.override_global("AYA_LOG_LEVEL", log_level, true);
    loader.override_global("COUNTED_SERVICES", &globals.counted_services, true);
    loader.override_global("NODE_NETNS", &globals.node_netns, true);
    loader
}

/// Gives back to the kernel what was freed: to read the object and load its programs takes some 190 MiB, and the first look at
/// the cluster much, too. glibc keeps it, and nothing later needs as much.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes no pointer, and may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the programs may log; the verifier removes what they may not. They have debug lines only.
fn programs_log_level() -> u8 {
    if log::max_level() >= log::Level::Debug { log::Level::Debug as u8 } else { 0 }
}

/// Whether the pinned maps are as this agent wants them: aya takes a pinned map as it is, and makes one that is missing.
///
/// # Errors
/// When one has another shape, or is gone and cannot be made anew.
pub fn check_pinned(pins: &PinDirectory, sizes: &Sizes) -> Result<()> {
    check_none_is_gone(pins)?;
    sizes.maps().iter().try_for_each(|shape| check_shape(pins, shape))
}

/// The first link is pinned after all maps are: where there are links, a map that is missing was taken away.
fn check_none_is_gone(pins: &PinDirectory) -> Result<()> {
    let gone = REFERRED_TO.iter().map(|name| pins.map(name)).find(|path| !path.exists());
    let Some(path) = gone.filter(|_| !pins.pinned_links().is_empty()) else { return Ok(()) };
    bail!(
        "the pin {} is gone, and flows that are left would go by numbers to other pods: the attached programs serve on; begin \
         anew with `xlb cleanup --bpffs-dir {}` (its flows end)",
        path.display(),
        pins.root().display()
    )
}

fn check_shape(pins: &PinDirectory, shape: &MapShape) -> Result<()> {
    let path = pins.map(shape.name);
    if !path.exists() {
        return Ok(());
    }
    let pinned = MapData::from_pin(&path).with_context(|| format!("opening the pinned map {}", path.display()))?;
    let info = pinned.info().with_context(|| format!("reading the shape of {}", path.display()))?;
    let found = (info.max_entries(), info.key_size() as usize, info.value_size() as usize);
    if found != (shape.entries, shape.key, shape.value) {
        bail!(
            "the pinned map {} has {} entries of {}+{} bytes, this xlb wants {} of {}+{}: start it with the sizes it had, \
             or begin anew with `xlb cleanup --bpffs-dir {}` (its flows end)",
            shape.name,
            found.0,
            found.1,
            found.2,
            shape.entries,
            shape.key,
            shape.value,
            pins.root().display()
        );
    }
    Ok(())
}
