//! An inspection as text.

use std::fmt::Write;

use xlb_common::Reason;

use crate::cli::Section;
use crate::cli::inspection::{InsideView, Inspection, ServiceView, TrafficView};

/// The section as lines.
#[must_use]
pub fn text(inspection: &Inspection, section: Section) -> String {
    let parts: &[fn(&Inspection) -> String] = match section {
        Section::Services => &[services, vips],
        Section::Backends => &[backends],
        Section::Flows => &[flows],
        Section::All | Section::Metrics => &[agent, services, vips, backends, flow_summary, counters, refusals],
    };
    parts.iter().map(|part| part(inspection)).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn agent(inspection: &Inspection) -> String {
    let Some(agent) = &inspection.agent else { return "agent      never reported\n".into() };
    let state = if agent.is_running { "running" } else { "not running: the maps serve on" };
    let mut text =
        format!("agent      {state}, pid {}, version {}, node {}\n", agent.pid, agent.version, agent.node_name);
    for uplink in &agent.uplinks {
        let _ = writeln!(text, "uplink     {uplink}");
    }
    text
}

fn services(inspection: &Inspection) -> String {
    inspection.services.iter().map(service).collect()
}

fn service(service: &ServiceView) -> String {
    let mut text = format!("service    {}\n", service.name);
    let _ = writeln!(text, "  vip      {}", service.frontends.join(", "));
    if let Some(sources) = &service.sources {
        let ranges = if sources.ranges.is_empty() { "nobody".into() } else { sources.ranges.join(", ") };
        let _ = writeln!(text, "  open to  {ranges} (at {})", sources.frontends.join(", "));
    }
    if !service.handed_over.is_empty() {
        let _ = writeln!(
            text,
            "  handover older connections may be with the host's stack ({})",
            service.handed_over.join(", ")
        );
    }
    if let Some(affinity_s) = service.affinity_s {
        let _ = writeln!(text, "  affinity by client for {affinity_s} s");
    }
    if service.backends.iter().all(|share| share.slots == 0) && service.slots != 0 {
        let _ = writeln!(text, "  backends none takes new connections: {}", service.when_empty);
    }
    for share in &service.backends {
        let part = match service.slots {
            0 => "the only one".into(),
            slots => format!("{} of {slots} slots, {} owned before", share.slots, share.former_slots),
        };
        let _ = writeln!(text, "  backend  {:<21} {part}", share.address.to_string());
    }
    if let Some(inside) = &service.inside {
        let _ = writeln!(text, "  inside   {}", clients_inside(inside));
    }
    if let Some(traffic) = &service.traffic {
        let _ = writeln!(text, "  traffic  {}", counted(traffic));
    }
    text
}

fn vips(inspection: &Inspection) -> String {
    let mut text = String::new();
    for vip in &inspection.vips {
        let state = match (vip.is_usable, vip.answers_echo) {
            (_, true) => "answers ping",
            (true, false) => "does not answer ping (--vip-echo off)",
            (false, false) => "does not answer ping: no usable pod on this node",
        };
        let _ = writeln!(text, "vip        {:<21} {state}; ports of no service: {}", vip.address, inspection.unowned);
    }
    text
}

fn counted(traffic: &TrafficView) -> String {
    let TrafficView { packets_to_pods, bytes_to_pods, packets_to_clients, bytes_to_clients, .. } = traffic;
    let TrafficView { new_flows, inside_flows, .. } = traffic;
    format!(
        "{packets_to_pods} packets ({bytes_to_pods} bytes) to pods, {packets_to_clients} ({bytes_to_clients}) back, \
         {new_flows} new flows, {inside_flows} of clients inside"
    )
}

fn clients_inside(inside: &InsideView) -> String {
    let lingering = match inside.lingering {
        0 => String::new(),
        lingering => format!(", {lingering} more keep what they have"),
    };
    let for_pods = match inside.for_pods {
        None => String::new(),
        Some(0) => ", but in pods they are refused: no endpoint is usable on this node".into(),
        Some(local) => format!(", in pods {local} of this node"),
    };
    match inside.endpoints {
        0 => format!("clients on this node are refused: no endpoint is usable in the cluster{lingering}"),
        endpoints => format!("clients on this node reach {endpoints} endpoints of the cluster{for_pods}{lingering}"),
    }
}

fn backends(inspection: &Inspection) -> String {
    let mut text = String::new();
    for backend in &inspection.backends {
        let link = backend.interface.as_deref().unwrap_or("no link of its own");
        let sockets = if backend.netns_id.is_some() { "" } else { ", sockets hidden" };
        let address = backend.address.to_string();
        let _ = writeln!(text, "backend    {address:<21} {} {} by {link}{sockets}", backend.protocol, backend.delivery);
    }
    text
}

fn flows(inspection: &Inspection) -> String {
    let mut text = String::new();
    for flow in &inspection.flows {
        let seen = flow.port_at_pod.map_or_else(String::new, |port| format!(", seen there from port {port}"));
        let _ = writeln!(
            text,
            "flow       {} {:<8} {} > {} at {} ({}, {}{seen})",
            flow.protocol, flow.state, flow.client, flow.vip, flow.pod, flow.delivery, flow.uplink
        );
    }
    text
}

fn flow_summary(inspection: &Inspection) -> String {
    let of = |state| inspection.flows.iter().filter(|flow| flow.state == state).count();
    format!("flows      {} accepted, {} pending, {} closed\n", of("accepted"), of("pending"), of("closed"))
}

fn counters(inspection: &Inspection) -> String {
    let mut text = String::new();
    for reason in Reason::ALL {
        if let Some(count) = inspection.counters.get(reason.label()) {
            let _ = writeln!(text, "{count:>10} {:<20} {}", reason.label(), reason.sentence());
        }
    }
    text
}

fn refusals(inspection: &Inspection) -> String {
    let all = inspection.refusals.iter().chain(&inspection.waiting);
    all.map(|refusal| format!("warning    {}: {}\n", refusal.object, refusal.why)).collect()
}
