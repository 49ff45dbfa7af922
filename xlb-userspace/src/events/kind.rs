//! What a refusal is about. A refusal is two sentences for people; here they are sorted, in one place.

use crate::model::ObjectName;
use crate::plan::desired::Refusal;

/// What a refusal is about: label of a metric and reason of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalKind {
    /// An externalIP that the operator does not allow, or that something else has.
    ExternalIp,
    /// Two Services want one address, protocol and port.
    Contested,
    /// Source ranges that hold none of a VIP's IP version, or cannot be read.
    SourceRanges,
    /// A table or a Service is full.
    Capacity,
    /// A health port that cannot be opened.
    HealthPort,
    /// An endpoint that this node cannot reach, or not in the way that was asked for.
    Endpoint,
    /// A part of an object that cannot be read.
    Unreadable,
    /// Anything else about a Service.
    Service,
    /// The API server cannot be followed, or a manifest cannot be read.
    Source,
    /// An uplink, a pod's link, or this node.
    Node,
    /// The configuration: a file with a mistake, or a setting that needs a restart.
    Configuration,
    /// The agent's own programs: those of before serve, or tc in the place of XDP.
    Programs,
}

impl RefusalKind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::ExternalIp,
        Self::Contested,
        Self::SourceRanges,
        Self::Capacity,
        Self::HealthPort,
        Self::Endpoint,
        Self::Unreadable,
        Self::Service,
        Self::Source,
        Self::Node,
        Self::Configuration,
        Self::Programs,
    ];

    /// What this refusal is about.
    #[must_use]
    pub fn of(refusal: &Refusal) -> Self {
        let (subject, why) = (refusal.object.split(' ').next().unwrap_or_default(), refusal.why.as_str());
        let says = |part: &str| why.contains(part);
        match subject {
            "program" | "programs" => Self::Programs,
            "configuration" => Self::Configuration,
            _ if says("because the table of") || says("because no free part") || says("endpoints on one node") => {
                Self::Capacity
            }
            _ if says("255 backends on a node") => Self::Capacity,
            _ if says("this part is left out") => Self::Unreadable,
            "flows" => Self::Capacity,
            "Service" if why.starts_with("externalIP ") => Self::ExternalIp,
            "Service" if why.starts_with("health check port ") => Self::HealthPort,
            "Service" if says("has the same address, protocol and port") => Self::Contested,
            "Service" if says("loadBalancerSourceRanges") => Self::SourceRanges,
            "Service" => Self::Service,
            "endpoint" => Self::Endpoint,
            "uplink" | "backend" | "node" => Self::Node,
            _ => Self::Source,
        }
    }

    /// As a label's value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ExternalIp => "external_ip",
            Self::Contested => "contested",
            Self::SourceRanges => "source_ranges",
            Self::Capacity => "capacity",
            Self::HealthPort => "health_port",
            Self::Endpoint => "endpoint",
            Self::Unreadable => "unreadable",
            Self::Service => "service",
            Self::Source => "source",
            Self::Node => "node",
            Self::Configuration => "configuration",
            Self::Programs => "programs",
        }
    }

    /// As the reason of an event.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::ExternalIp => "ExternalIPRefused",
            Self::Contested => "FrontendContested",
            Self::SourceRanges => "SourceRangesRefused",
            Self::Capacity => "CapacityReached",
            // The name that kube-proxy gives it.
            Self::HealthPort => "FailedToStartServiceHealthcheck",
            Self::Endpoint => "EndpointUnreachable",
            Self::Unreadable => "FieldUnreadable",
            Self::Service => "NotServed",
            Self::Source => "SourceFailing",
            Self::Node => "NodeFailing",
            Self::Configuration => "ConfigurationRefused",
            Self::Programs => "ProgramsRefused",
        }
    }
}

/// The Service that a refusal is about: `Service ns/name`, the same with a port (`ns/name:port/udp`), or `endpoint … of
/// ns/name`.
#[must_use]
pub fn service_of(refusal: &Refusal) -> Option<ObjectName> {
    let words: Vec<&str> = refusal.object.split(' ').collect();
    let name = match words[..] {
        ["Service", name] | ["endpoint", _, "of", name] => name,
        _ => return None,
    };
    let (namespace, name) = name.split_once('/')?;
    let name = name.split([':', '/']).next()?;
    let is_whole = !namespace.is_empty() && !name.is_empty();
    is_whole.then(|| ObjectName { namespace: namespace.into(), name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures::{self, endpoints, model, node, slice};
    use crate::model::objects::{Endpoint, Object, Service};
    use crate::model::{DeliveryChoice, Policy, desired};
    use crate::plan::{Limits, Observed, plan};

    /// The refusals that the agent really makes of these objects.
    fn refusals(objects: impl IntoIterator<Item = Object>) -> Vec<Refusal> {
        let desired = desired(&Policy::default(), &model(objects), &node(), DeliveryChoice::Auto);
        let limits = Limits { frontends: 1, ..Limits::default() };
        let planned = plan(&desired, &Observed::default(), &limits, 0);
        [desired.refusals, planned.refusals, planned.waiting].concat()
    }

    fn kinds(objects: impl IntoIterator<Item = Object>) -> Vec<(RefusalKind, Option<String>)> {
        let kind = |refusal: &Refusal| (RefusalKind::of(refusal), service_of(refusal).map(|name| name.to_string()));
        refusals(objects).iter().map(kind).collect()
    }

    #[test]
    fn real_refusals_are_sorted_by_what_they_are_about() {
        let web = || Some("default/web".to_owned());
        let plain = fixtures::service;
        let outside = Service { external_ips: vec!["198.51.100.7".parse().unwrap()], vips: vec![], ..plain() };
        assert_eq!(kinds([outside.into()]), [(RefusalKind::ExternalIp, web())]);
        let second = Service { name: fixtures::name("web"), created_s: Some(9), ..plain() };
        let first = Service { name: fixtures::name("api"), created_s: Some(1), ..plain() };
        assert_eq!(kinds([first.into(), second.into()]), [(RefusalKind::Contested, web())]);
        let other_version = Some(["2001:db8::/32".parse().unwrap()].into());
        let ranges = Service { source_ranges: other_version, ..plain() };
        assert_eq!(kinds([ranges.into()]), [(RefusalKind::SourceRanges, web())]);
        let six = Service { vips: vec!["2001:db8::10".parse().unwrap()], ..plain() };
        assert_eq!(kinds([six.into()]), [(RefusalKind::Service, web())]);
        let own = Service { vips: vec!["192.168.0.2".parse().unwrap()], ..plain() };
        assert_eq!(kinds([own.into()]), [(RefusalKind::Service, web())]);
        let nowhere: Vec<Endpoint> = endpoints("10.9.0.9");
        assert_eq!(kinds([plain().into(), slice("s", &nowhere).into()]), [(RefusalKind::Endpoint, web())]);
        let two = Service { vips: ["192.0.2.10", "192.0.2.11"].map(|vip| vip.parse().unwrap()).to_vec(), ..plain() };
        assert_eq!(kinds([two.into()]).last(), Some(&(RefusalKind::Capacity, web())));
    }

    #[test]
    fn the_service_is_found_whatever_follows_its_name() {
        let service = |object: &str| {
            service_of(&Refusal { object: object.into(), why: String::new() }).map(|name| name.to_string())
        };
        for (object, expected) in [
            ("Service shop/web", Some("shop/web")),
            ("Service shop/web:http", Some("shop/web")),
            ("Service shop/dns/udp", Some("shop/dns")),
            ("Service shop/dns:dns/udp", Some("shop/dns")),
            ("Service shop/dns:dns/udp/ipv6", Some("shop/dns")),
            ("Service shop/web/ipv6", Some("shop/web")),
            ("endpoint 10.1.0.5 of shop/web", Some("shop/web")),
            ("services", None),
            ("uplink eth0", None),
            ("web.yaml, document 3", None),
        ] {
            assert_eq!(service(object).as_deref(), expected, "{object}");
        }
    }
}
