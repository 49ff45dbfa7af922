//! How packets reach a backend: straight to its veth, or through the host's stack.

use crate::node::Location;
use crate::plan::desired::Delivery;

/// What the operator says about delivery (`--delivery`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliveryChoice {
    /// Direct, unless a NetworkPolicy might have to see the packets.
    #[default]
    Auto,
    /// Direct wherever the pod has a veth, whatever NetworkPolicies say.
    Direct,
    /// Always through the stack.
    Stack,
}

/// How to deliver to a pod that was found there; none if it cannot be reached.
///
/// Direct delivery bypasses netfilter, where NetworkPolicies are usually enforced. Which pods a policy of the namespace
/// selects is not looked at, to be on the safe side.
pub fn delivery(location: &Location, choice: DeliveryChoice, ingress_is_restricted: bool) -> Option<Delivery> {
    let link = match location {
        Location::Unreachable(_) => return None,
        Location::Host | Location::Routed => return Some(Delivery::Stack(None)),
        Location::Link(link) => link.clone(),
    };
    let wants_direct = match choice {
        DeliveryChoice::Auto => !ingress_is_restricted,
        DeliveryChoice::Direct => true,
        DeliveryChoice::Stack => false,
    };
    Some(if wants_direct && link.is_veth { Delivery::Direct(link) } else { Delivery::Stack(Some(link)) })
}
