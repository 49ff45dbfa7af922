//! What does not fit, in a sentence for the operator.

use super::Limits;
use super::desired::Refusal;

/// What stood in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Frontends,
    Services,
    SourceRanges,
    Slots,
    Members,
    Backends,
    /// Of clients inside.
    Endpoints,
    /// All 254 local indexes of a service are taken, some by backends that just left.
    LocalIndexes,
    /// More than 254 backends of one service.
    BackendsOfService,
}

/// Something that a limit keeps from being done.
pub(super) struct Shortage {
    pub(super) object: String,
    /// What is not done, for example `is not served`.
    pub(super) what: String,
    pub(super) limit: Limit,
}

impl Limit {
    /// Whether what this plan removes, or what rests since an earlier one, may make room.
    pub(super) fn may_pass(self, removes_something: bool, something_rests: bool) -> bool {
        match self {
            Self::BackendsOfService => false,
            Self::Frontends | Self::Services | Self::SourceRanges => removes_something,
            Self::Slots | Self::Members | Self::Backends | Self::Endpoints | Self::LocalIndexes => {
                removes_something || something_rests
            }
        }
    }

    fn reason(self, limits: &Limits) -> String {
        const FEWER: &str = "serve fewer Services on this node";
        let raise = |flag: &str| format!("{FEWER}, or raise {flag} (after `xlb cleanup`)");
        match self {
            Self::Frontends => {
                let advice = raise("--max-frontends");
                format!("the table of frontends is full ({} addresses and ports): {advice}", limits.frontends)
            }
            Self::Services => {
                let advice = raise("--max-frontends");
                format!("the table of services is full ({} Service ports): {advice}", limits.services)
            }
            Self::SourceRanges => {
                let ranges = limits.source_ranges;
                format!("the table of source ranges is full ({ranges} of a family): list fewer ranges, or wider ones")
            }
            Self::Slots => {
                let advice = raise("--max-slots");
                format!("no free part of the slot table ({} slots) is large enough: {advice}", limits.slots)
            }
            Self::Members => {
                format!("no free part of the member table ({} members) is large enough: {FEWER}", limits.members)
            }
            Self::Backends => {
                format!("the table of backends is full ({} pod ports): {}", limits.backends, raise("--max-backends"))
            }
            Self::Endpoints => {
                let endpoints = limits.endpoints;
                format!("no free part of the endpoint table ({endpoints} of a family) is large enough: {FEWER}")
            }
            Self::LocalIndexes => "backends that just left still have its places: it is tried again".into(),
            Self::BackendsOfService => {
                "a service has at most 254 backends on a node: spread its pods over more nodes".into()
            }
        }
    }
}

impl Shortage {
    pub(super) fn refusal(self, limits: &Limits) -> Refusal {
        Refusal { object: self.object, why: format!("{}, because {}", self.what, self.limit.reason(limits)) }
    }
}
