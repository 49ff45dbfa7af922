//! What is measured: ways into the pod, who counts there, and what the packets are.

use crate::bench::ways::{Mode, Way};

/// What packets are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Acknowledgements of one flow.
    OneFlow,
    /// SYNs, each of another client.
    NewFlows,
}

/// A way into the pod that `bench pps` measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The rows' name, before the traffic's.
    pub name: String,
    /// What the node does.
    pub by: By,
    /// Who counts and drops.
    pub sink: Sink,
    /// What part of the packets `xlb watch` copies meanwhile.
    pub watched: Option<&'static str>,
}

/// What the node does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// What it does for clients, too.
    Way(Way),
    /// No more than it takes, by XDP.
    BareXdp,
    /// The same by tc.
    BareTc,
}

/// Who counts and drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// XDP on the uplink: what is left is the cost of making packets.
    Uplink,
    /// tc ingress in the pod, which gets skbs as its stack does.
    Pod,
    /// XDP in the pod.
    PodByXdp,
}

const ROUTING: &str = "plain routing";
const BARE_XDP: &str = "bare XDP redirect";
const BARE_TC: &str = "bare tc redirect_peer";
const XLB_XDP: &str = "xlb by XDP";
const XLB_TC: &str = "xlb by tc";
/// What part of the packets is copied, and how the rows say so.
const WATCHED: [(&str, &str); 2] = [("1/1", "watched"), ("1/100", "watched 1/100")];

impl Traffic {
    /// Both.
    pub const ALL: [Traffic; 2] = [Traffic::OneFlow, Traffic::NewFlows];

    fn name(self) -> &'static str {
        match self {
            Traffic::OneFlow => "one flow",
            Traffic::NewFlows => "new flows",
        }
    }
}

impl Case {
    /// All, with so many Services.
    pub fn all(services: u32) -> Vec<Case> {
        let case = |name: &str, by, sink| Case { name: name.to_owned(), by, sink, watched: None };
        let [nftables, iptables] = [Way::Nftables(services), Way::Iptables(services)];
        let [tc, xdp] = [Mode::Direct, Mode::DirectByXdp].map(|mode| By::Way(Way::Xlb(mode, services)));
        let mut cases = vec![
            case("dropped by XDP on the uplink", By::Way(Way::Routing), Sink::Uplink),
            case(ROUTING, By::Way(Way::Routing), Sink::Pod),
            case("plain routing again", By::Way(Way::Routing), Sink::Pod),
            case("bare XDP redirect, counted by XDP", By::BareXdp, Sink::PodByXdp),
            case(BARE_XDP, By::BareXdp, Sink::Pod),
            case(BARE_TC, By::BareTc, Sink::Pod),
            case(&nftables.name(), By::Way(nftables), Sink::Pod),
            case(&iptables.name(), By::Way(iptables), Sink::Pod),
            case("xlb by XDP, counted by XDP", xdp, Sink::PodByXdp),
            case(XLB_XDP, xdp, Sink::Pod),
            case(XLB_TC, tc, Sink::Pod),
        ];
        for ((name, by), (part, said)) in
            [(XLB_XDP, xdp), (XLB_TC, tc)].iter().flat_map(|way| WATCHED.map(|it| (*way, it)))
        {
            cases.push(Case { watched: Some(part), ..case(&format!("{name}, {said}"), by, Sink::Pod) });
        }
        cases
    }

    /// The name of the row with this traffic.
    pub fn row(&self, traffic: Traffic) -> String {
        row(&self.name, traffic)
    }

    /// Whether the others are compared with it.
    pub fn is_plain(&self) -> bool {
        self.name == ROUTING
    }

    /// Whether the pod's device has to take frames.
    pub fn needs_pod_gro(&self) -> bool {
        matches!(self.by, By::BareXdp | By::Way(Way::Xlb(Mode::DirectByXdp, _)))
    }

    /// Whether a packet of this traffic walks through rules for every Service.
    pub fn is_slow(&self, traffic: Traffic) -> bool {
        matches!(self.by, By::Way(Way::Iptables(_))) && traffic == Traffic::NewFlows
    }
}

/// The ratios that the targets P5a and P5b are about, and what watching costs: a row's name, and the two rows that it compares.
pub fn ratios(services: u32) -> Vec<(String, String, String)> {
    let [nftables, iptables] = [Way::Nftables(services).name(), Way::Iptables(services).name()];
    let of = |target: &str, traffic: Traffic, above: &str, below: &str| {
        (format!("{target}: {above} over {below}"), row(above, traffic), row(below, traffic))
    };
    let one_flow = [
        (XLB_XDP, BARE_XDP),
        (XLB_TC, BARE_TC),
        (XLB_XDP, ROUTING),
        (XLB_TC, ROUTING),
        (XLB_XDP, &nftables),
        (XLB_TC, &nftables),
    ];
    let new_flows = [(XLB_XDP, &nftables), (XLB_TC, &nftables), (XLB_XDP, &iptables), (XLB_TC, &iptables)];
    let one_flow = one_flow.into_iter().map(|(above, below)| of("P5a", Traffic::OneFlow, above, below));
    let new_flows = new_flows.into_iter().map(|(above, below)| of("P5b", Traffic::NewFlows, above, below));
    let watched =
        [XLB_XDP, XLB_TC].into_iter().flat_map(|name| WATCHED.map(|(_, said)| (format!("{name}, {said}"), name)));
    let watched = watched.map(|(above, below)| of("watch", Traffic::OneFlow, &above, below));
    one_flow.chain(new_flows).chain(watched).collect()
}

fn row(name: &str, traffic: Traffic) -> String {
    format!("{}: {name}", traffic.name())
}
