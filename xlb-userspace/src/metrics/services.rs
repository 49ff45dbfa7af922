//! Packets, bytes and new flows of each service.

use prometheus_client::registry::Registry;
use xlb_common::abi::ServiceStats;

use super::text::counters;
use crate::maps::stats::ServiceNumbers;

/// Each label of the services that have no series of their own. No object of Kubernetes can be called so (RFC 1123).
pub const OTHERS: &str = "_other";

type Name = [(&'static str, String); 5];

/// The numbers of services.
pub fn services(registry: &mut Registry, numbers: &ServiceNumbers) {
    let others = (
        ["namespace", "service", "port", "protocol", "family"].map(|label| (label, OTHERS.to_owned())),
        &numbers.others,
    );
    let own = numbers.own.iter().map(|(name, stats)| (labels(name), stats));
    let all: Vec<(Name, &ServiceStats)> = own.chain([others]).collect();
    let each = |label: &'static str, values: fn(&ServiceStats) -> [(&'static str, u64); 2]| {
        let series = |(name, stats): &(Name, &ServiceStats)| {
            values(stats).map(|(value, count)| (with(name, (label, value)), count))
        };
        all.iter().flat_map(series).collect::<Vec<_>>()
    };
    let help = "Packets between clients outside and the pods of a service";
    let packets = each("direction", |it| [("forward", it.packets_to_pods), ("return", it.packets_to_clients)]);
    counters(registry, "service_packets", help, packets);
    let help = "Bytes of these packets, from the IP header on";
    let bytes = each("direction", |it| [("forward", it.bytes_to_pods), ("return", it.bytes_to_clients)]);
    counters(registry, "service_bytes", help, bytes);
    let help = "Connections that pods accepted, UDP flows that began, and sockets of this node that were directed to an endpoint";
    let flows = each("client", |it| [("outside", it.new_flows), ("inside", it.inside_flows)]);
    counters(registry, "service_new_flows", help, flows);
}

/// The labels of a service, from the name that the maps keep: `namespace/name:port/udp/ipv6`, of which TCP, IPv4 and an
/// unnamed port are not written.
fn labels(name: &str) -> Name {
    let mut parts = name.split('/');
    let namespace = parts.next().unwrap_or_default();
    let (service, port) = parts.next().map_or(("", ""), |part| part.split_once(':').unwrap_or((part, "")));
    let rest: Vec<&str> = parts.collect();
    let either = |word: &'static str, other: &'static str| if rest.contains(&word) { word } else { other };
    let (protocol, family) = (either("udp", "tcp"), either("ipv6", "ipv4"));
    [("namespace", namespace), ("service", service), ("port", port), ("protocol", protocol), ("family", family)]
        .map(|(label, value)| (label, value.to_owned()))
}

fn with(name: &Name, (label, value): (&'static str, &str)) -> [(&'static str, String); 6] {
    let [a, b, c, d, e] = name.clone();
    [a, b, c, d, e, (label, value.to_owned())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::desired::{Family, Protocol, ServiceName};

    #[test]
    fn the_labels_say_what_the_name_says() {
        for (port, protocol, family) in [
            ("http", Protocol::Tcp, Family::V4),
            ("", Protocol::Tcp, Family::V6),
            ("dns", Protocol::Udp, Family::V4),
            ("udp", Protocol::Udp, Family::V6),
            ("udp", Protocol::Tcp, Family::V4),
        ] {
            let (namespace, service) = ("ipv6".to_owned(), "udp".to_owned());
            let name = ServiceName { namespace, name: service, port: port.into(), protocol, family };
            let expected = [
                "ipv6",
                "udp",
                port,
                if protocol == Protocol::Tcp { "tcp" } else { "udp" },
                if family == Family::V4 { "ipv4" } else { "ipv6" },
            ];
            assert_eq!(labels(&name.to_string()).map(|(_, value)| value), expected, "{name}");
        }
    }
}
