//! Services for people.

use std::fmt::Write;

use super::{InsideView, ServiceView, TrafficView};
use crate::cli::table::Table;
use crate::cli::vips::{self, VipView};

/// A row for each service, and below them the VIPs.
pub fn table(services: &[ServiceView], vips: &[VipView], is_wide: bool) -> String {
    let mut columns = vec!["SERVICE", "VIP", "BACKENDS", "SLOTS", "NEW-FLOWS", "PACKETS-IN", "PACKETS-OUT"];
    if is_wide {
        columns.extend(["BYTES-IN", "BYTES-OUT", "INSIDE-FLOWS", "OPEN-TO", "AFFINITY", "WHEN-EMPTY", "HANDOVER"]);
    }
    let mut table = Table::new(&columns);
    for service in services {
        let more = if is_wide { wide(service) } else { Vec::new() };
        table.add(row(service).into_iter().chain(more));
    }
    let vips = vips::table(vips);
    [table.text(), vips].join("\n")
}

fn row(service: &ServiceView) -> [String; 7] {
    let takers = service.backends.iter().filter(|share| service.takes_new(share)).count();
    let backends = match service.backends.len() - takers {
        0 => takers.to_string(),
        lingering => format!("{takers} (+{lingering} lingering)"),
    };
    let traffic = |number: fn(&TrafficView) -> u64| service.traffic.as_ref().map(number).map(|n| n.to_string());
    [
        service.name.clone(),
        service.frontends.join(","),
        backends,
        service.slots.to_string(),
        traffic(|it| it.new_flows).unwrap_or_default(),
        traffic(|it| it.packets_to_pods).unwrap_or_default(),
        traffic(|it| it.packets_to_clients).unwrap_or_default(),
    ]
}

fn wide(service: &ServiceView) -> Vec<String> {
    let traffic = |number: fn(&TrafficView) -> u64| service.traffic.as_ref().map(number).map(|n| n.to_string());
    let open_to = service.sources.as_ref().map_or_else(|| "all".into(), |sources| sources.ranges.join(","));
    vec![
        traffic(|it| it.bytes_to_pods).unwrap_or_default(),
        traffic(|it| it.bytes_to_clients).unwrap_or_default(),
        traffic(|it| it.inside_flows).unwrap_or_default(),
        if open_to.is_empty() { "nobody".into() } else { open_to },
        service.affinity_s.map(|seconds| format!("{seconds}s")).unwrap_or_default(),
        service.when_empty.into(),
        service.handed_over.join(","),
    ]
}

/// One service with all that is known of it.
pub fn one(service: &ServiceView) -> String {
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
    if !service.backends.iter().any(|share| service.takes_new(share)) {
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
