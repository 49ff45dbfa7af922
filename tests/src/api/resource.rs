//! The kinds that the test API server keeps.

/// One kind of object, and what the API promises about it.
#[derive(Debug)]
pub struct Resource {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// Name in paths and in RBAC rules.
    pub plural: &'static str,
    /// Name in objects.
    pub kind: &'static str,
    /// Whether its objects live in namespaces.
    pub is_namespaced: bool,
    /// Whether `/status` is written apart from the rest.
    pub has_status: bool,
    /// Whether a PUT without a resourceVersion overwrites; otherwise it is refused with 422.
    pub has_unconditional_update: bool,
    /// Field selectors beyond metadata.name and metadata.namespace: the field and its JSON pointer.
    pub fields: &'static [(&'static str, &'static str)],
}

impl Resource {
    /// `v1`, or `group/version`.
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// The resource that a path names.
    pub fn in_path(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        RESOURCES.iter().find(|r| r.group == group && r.version == version && r.plural == plural)
    }

    /// The resource of an object.
    pub fn of_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
        RESOURCES.iter().find(|r| r.kind == kind && r.api_version() == api_version)
    }
}

const PLAIN: Resource = Resource {
    group: "",
    version: "v1",
    plural: "",
    kind: "",
    is_namespaced: true,
    has_status: false,
    has_unconditional_update: true,
    fields: &[],
};

/// Every kind that the server knows.
pub static RESOURCES: [Resource; 7] = [
    Resource {
        plural: "services",
        kind: "Service",
        has_status: true,
        fields: &[("spec.type", "/spec/type"), ("spec.clusterIP", "/spec/clusterIP")],
        ..PLAIN
    },
    Resource { group: "discovery.k8s.io", plural: "endpointslices", kind: "EndpointSlice", ..PLAIN },
    Resource {
        plural: "nodes",
        kind: "Node",
        is_namespaced: false,
        has_status: true,
        fields: &[("spec.unschedulable", "/spec/unschedulable")],
        ..PLAIN
    },
    Resource { group: "networking.k8s.io", plural: "networkpolicies", kind: "NetworkPolicy", ..PLAIN },
    Resource {
        plural: "events",
        kind: "Event",
        fields: &[
            ("involvedObject.kind", "/involvedObject/kind"),
            ("involvedObject.name", "/involvedObject/name"),
            ("involvedObject.namespace", "/involvedObject/namespace"),
            ("reason", "/reason"),
            ("type", "/type"),
        ],
        ..PLAIN
    },
    Resource { plural: "namespaces", kind: "Namespace", is_namespaced: false, has_status: true, ..PLAIN },
    Resource {
        group: "coordination.k8s.io",
        plural: "leases",
        kind: "Lease",
        has_unconditional_update: false,
        ..PLAIN
    },
];
