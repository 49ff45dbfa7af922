//! What the operator lets Services have: which externalIPs, whose load balancers.

use std::net::IpAddr;

use ipnet::IpNet;

use super::objects::{Service, ServiceType};

/// What the operator says about addresses of Services. The default: no externalIP, every class, no `ipMode: Proxy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Where externalIPs may lie (`--external-ip-cidrs`). Whoever may write a Service may claim any address as an
    /// externalIP (CVE-2020-8554), so what is not listed is refused.
    pub external_ip_cidrs: Vec<IpNet>,
    /// The classes that xlb serves (`--load-balancer-class`); empty: every class, and Services without one.
    pub load_balancer_classes: Vec<String>,
    /// Whether addresses with `ipMode: Proxy` are served too (`--ip-mode-proxy`).
    pub ip_mode_proxy: bool,
    /// Whether a family of which a Service lists no source range, but one of the other family, is closed
    /// (`--source-ranges-fail-closed`) instead of open, as with kube-proxy.
    pub source_ranges_fail_closed: bool,
}

/// How far the operator trusts an externalIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is listed as a single address: whatever else has it, a Service may.
    Single,
    /// It lies in a wider range: a Service may have it if nothing else in the cluster does.
    Range,
    /// It is not listed.
    None,
}

impl Policy {
    /// The ingress addresses of a Service that xlb may serve. A Service that is not of type LoadBalancer has some only
    /// for the moment until its status is cleared (semantics 1.3), and no class.
    pub fn ingress_ips<'a>(&self, service: &'a Service) -> impl Iterator<Item = IpAddr> + 'a {
        let is_ours = self.serves_class(service.load_balancer_class.as_deref());
        let proxied = if self.ip_mode_proxy { service.proxy_vips.as_slice() } else { &[] };
        let ingress = service.vips.iter().chain(proxied).copied();
        ingress.filter(move |_| is_ours)
    }

    /// The externalIPs of a Service that xlb looks at: a load balancer's class stands for the whole Service.
    pub fn external_ips<'a>(&self, service: &'a Service) -> &'a [IpAddr] {
        let is_foreign = service.service_type == ServiceType::LoadBalancer
            && !self.serves_class(service.load_balancer_class.as_deref());
        if is_foreign { &[] } else { &service.external_ips }
    }

    /// How far an externalIP is trusted.
    pub fn trust(&self, external_ip: IpAddr) -> Trust {
        let mut trust = Trust::None;
        for cidr in self.external_ip_cidrs.iter().filter(|cidr| cidr.contains(&external_ip)) {
            if cidr.prefix_len() == cidr.max_prefix_len() {
                return Trust::Single;
            }
            trust = Trust::Range;
        }
        trust
    }

    /// Whether load balancers of this class are xlb's.
    pub fn serves_class(&self, class: Option<&str>) -> bool {
        let classes = &self.load_balancer_classes;
        classes.is_empty() || class.is_some_and(|class| classes.iter().any(|listed| listed == class))
    }
}
