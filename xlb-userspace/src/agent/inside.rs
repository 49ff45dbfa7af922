//! What the operator wants of clients inside: processes of this node, and of pods on it.

use crate::plan::desired::Desired;

/// Whether they are served, and with which endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ClientsInside {
    /// All get the endpoints of the whole cluster.
    #[default]
    On,
    /// None is served.
    Off,
    /// The node's own processes get the endpoints of the whole cluster, pods those that clients outside get: kube-proxy's
    /// way where it does not detect local traffic.
    ExternalPolicy,
}

impl ClientsInside {
    /// Whether any is.
    #[must_use]
    pub fn are_served(self) -> bool {
        self != Self::Off
    }

    /// Takes away what they shall not get.
    pub fn narrow(self, desired: &mut Desired) {
        for service in desired.services.values_mut() {
            match self {
                Self::On => service.inside.iter_mut().for_each(|inside| inside.local = None),
                Self::Off => service.inside = None,
                Self::ExternalPolicy => {}
            }
        }
    }
}
