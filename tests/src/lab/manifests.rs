//! Manifests for `xlb run --manifests`: a directory to write them to, and ordinary Kubernetes objects as YAML.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use tempfile::TempDir;

/// A directory of manifests, removed when dropped.
pub struct Manifests {
    directory: TempDir,
}

impl Manifests {
    /// An empty directory.
    pub fn new() -> Result<Manifests> {
        let directory = tempfile::Builder::new().prefix("xlb-manifests-").tempdir().context("making a directory")?;
        Ok(Manifests { directory })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes or replaces a file. A reader sees the old text or the new one, never a part.
    pub fn write(&self, name: &str, yaml: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(self.path()).context("making a file")?;
        std::io::Write::write_all(&mut file, yaml.as_bytes()).with_context(|| format!("writing {name}"))?;
        file.persist(self.path().join(name)).with_context(|| format!("replacing {name}"))?;
        Ok(())
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) -> Result<()> {
        fs::remove_file(self.path().join(name)).with_context(|| format!("removing {name}"))
    }
}

/// A Service of type LoadBalancer.
#[derive(Clone, Debug, Default)]
pub struct ServiceSpec<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The name.
    pub name: &'a str,
    /// The addresses in `status.loadBalancer.ingress`. The Service has the IP versions that are among them.
    pub vips: &'a [IpAddr],
    /// Name, protocol and port of each port. The target port has the same name.
    pub ports: &'a [(&'a str, &'a str, u16)],
    /// Whether `externalTrafficPolicy` is `Local`; otherwise `Cluster`.
    pub local_policy: bool,
    /// Further fields of the spec, each a line of YAML: `sessionAffinity: ClientIP`.
    pub fields: &'a [&'a str],
}

/// The EndpointSlices of one Service: one for each IP version that its endpoints have.
#[derive(Clone, Debug)]
pub struct SliceSpec<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The Service; the slices are called `<service>-1`, and `<service>-ipv6-1`.
    pub service: &'a str,
    /// Name, protocol and port on the pods of each port.
    pub ports: &'a [(&'a str, &'a str, u16)],
    /// The endpoints.
    pub endpoints: &'a [EndpointSpec],
}

/// One endpoint with its conditions.
#[derive(Clone, Debug)]
pub struct EndpointSpec {
    /// The pod's address.
    pub ip: IpAddr,
    /// The node that the pod is on.
    pub node: String,
    /// The condition `ready`.
    pub ready: bool,
    /// The condition `serving`.
    pub serving: bool,
    /// The condition `terminating`.
    pub terminating: bool,
}

impl EndpointSpec {
    /// A ready endpoint on the lab's node, `node`.
    pub fn ready(ip: impl Into<IpAddr>) -> EndpointSpec {
        EndpointSpec { ip: ip.into(), node: "node".to_owned(), ready: true, serving: true, terminating: false }
    }

    /// An endpoint that shuts down but still serves what it has.
    pub fn terminating(ip: impl Into<IpAddr>) -> EndpointSpec {
        EndpointSpec { ready: false, terminating: true, ..EndpointSpec::ready(ip) }
    }
}

/// The Service as a YAML document.
pub fn service_yaml(spec: &ServiceSpec) -> String {
    let ServiceSpec { namespace, name, .. } = spec;
    let policy = if spec.local_policy { "Local" } else { "Cluster" };
    let mut yaml = format!(
        "apiVersion: v1\n\
         kind: Service\n\
         metadata:\n  name: {name}\n  namespace: {namespace}\n\
         spec:\n  type: LoadBalancer\n  externalTrafficPolicy: {policy}\n{}",
        cluster_addresses(spec.vips)
    );
    for field in spec.fields {
        let _ = writeln!(yaml, "  {field}");
    }
    yaml.push_str("  ports:\n");
    for (name, protocol, port) in spec.ports {
        let _ = write!(yaml, "  - name: {name}\n    protocol: {protocol}\n    port: {port}\n    targetPort: {name}\n");
    }
    yaml.push_str("status:\n  loadBalancer:\n    ingress:\n");
    for vip in spec.vips {
        let _ = writeln!(yaml, "    - ip: {vip}");
    }
    yaml
}

/// The Service's IP versions and its addresses inside of the cluster. IPv4 alone is written as people write it.
fn cluster_addresses(vips: &[IpAddr]) -> String {
    let has_ipv6 = vips.iter().any(IpAddr::is_ipv6);
    let (families, addresses) = match vips.iter().any(IpAddr::is_ipv4) {
        true if has_ipv6 => ("IPv4, IPv6", "10.96.0.10, 2001:db8:96::10"),
        false if has_ipv6 => ("IPv6", "2001:db8:96::10"),
        _ => return "  clusterIP: 10.96.0.10\n".to_owned(),
    };
    let first = addresses.split(',').next().unwrap_or_default();
    format!("  clusterIP: {first}\n  clusterIPs: [{addresses}]\n  ipFamilies: [{families}]\n")
}

/// The EndpointSlices as YAML documents.
pub fn slice_yaml(spec: &SliceSpec) -> String {
    let (ipv6, ipv4): (Vec<_>, Vec<_>) = spec.endpoints.iter().partition(|endpoint| endpoint.ip.is_ipv6());
    let slices = [("IPv4", "1", &ipv4), ("IPv6", "ipv6-1", &ipv6)];
    // A Service without endpoints has a slice that says so.
    let slices = slices.iter().filter(|(family, _, of)| !of.is_empty() || ipv6.is_empty() && *family == "IPv4");
    let slices: Vec<String> = slices.map(|(family, suffix, of)| one_slice_yaml(spec, family, suffix, of)).collect();
    slices.join("---\n")
}

fn one_slice_yaml(spec: &SliceSpec, family: &str, suffix: &str, endpoints: &[&EndpointSpec]) -> String {
    let SliceSpec { namespace, service, .. } = spec;
    let mut yaml = format!(
        "apiVersion: discovery.k8s.io/v1\n\
         kind: EndpointSlice\n\
         metadata:\n  name: {service}-{suffix}\n  namespace: {namespace}\n  \
         labels:\n    kubernetes.io/service-name: {service}\n\
         addressType: {family}\n\
         ports:\n"
    );
    for (name, protocol, port) in spec.ports {
        let _ = write!(yaml, "- name: {name}\n  protocol: {protocol}\n  port: {port}\n");
    }
    // An empty list needs its brackets: a bare key would be null.
    yaml.push_str(if endpoints.is_empty() { "endpoints: []\n" } else { "endpoints:\n" });
    for EndpointSpec { ip, node, ready, serving, terminating } in endpoints {
        let _ = write!(
            yaml,
            "- addresses: [{ip}]\n  nodeName: {node}\n  \
               conditions: {{ready: {ready}, serving: {serving}, terminating: {terminating}}}\n"
        );
    }
    yaml
}
