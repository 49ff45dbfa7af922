//! What the operator lets Services have: which externalIPs, whose load balancers.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::objects::{Service, ServiceType};

/// What the operator says about addresses of Services. The default: no externalIP, every class, no `ipMode: Proxy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Where externalIPs may lie (`--external-ip-cidrs`). Whoever may write a Service may claim any address as an
    /// externalIP (CVE-2020-8554), so what is not listed is refused.
    pub external_ip_cidrs: Vec<Cidr>,
    /// The classes that xlb serves (`--load-balancer-class`); empty: every class, and Services without one.
    pub load_balancer_classes: Vec<String>,
    /// Whether addresses with `ipMode: Proxy` are served too (`--ip-mode-proxy`).
    pub ip_mode_proxy: bool,
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
        for cidr in self.external_ip_cidrs.iter().filter(|cidr| cidr.contains(external_ip)) {
            if cidr.is_single() {
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

/// A range of addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix_bits: u32,
}

impl Cidr {
    /// The range that holds just this address.
    pub fn single(address: IpAddr) -> Self {
        Self { address, prefix_bits: bits(address).1 }
    }

    /// Whether it is a range of IPv4 addresses.
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether it holds just one address.
    pub fn is_single(&self) -> bool {
        self.prefix_bits == bits(self.address).1
    }

    /// Whether the address is in the range. Bits of the range beyond its prefix do not count.
    pub fn contains(&self, address: IpAddr) -> bool {
        let ((own, width), (other, other_width)) = (bits(self.address), bits(address));
        width == other_width && (own ^ other).checked_shr(width - self.prefix_bits).unwrap_or(0) == 0
    }
}

impl FromStr for Cidr {
    type Err = String;

    /// An address is the range that holds just this address.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("found {text:?}, expected an address or a range such as 192.0.2.0/24");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| expected())?;
        let Some(prefix) = prefix else { return Ok(Self::single(address)) };
        let prefix_bits = prefix.parse().ok().filter(|prefix_bits| *prefix_bits <= bits(address).1);
        Ok(Self { address, prefix_bits: prefix_bits.ok_or_else(expected)? })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

/// The address as a number, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u32::from(address).into(), 32),
        IpAddr::V6(address) => (address.into(), 128),
    }
}
