//! What to do about packets that come to nothing. `docs/OPERATING.md` says more of each.

use xlb_common::Reason;

/// What an operator does about it; none: it is as it should be, or nothing can be done here.
#[must_use]
pub fn advice(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::EmptyDropped => "stop announcing the VIP from this node, or look why its pods here are not ready",
        Reason::EmptyRejected | Reason::InsideRejected | Reason::LinkRejected => {
            "look why no pod of the Service is ready"
        }
        Reason::RejectSuppressed => "as for empty_rejected: these are beyond 1 000 refusals a second and CPU",
        Reason::SourceNotAllowed | Reason::InsideNotAllowed | Reason::LinkNotAllowed => {
            "add the client's range to loadBalancerSourceRanges, if it should be served"
        }
        Reason::InsideNotLocal | Reason::LinkNotLocal => {
            "say --clients-inside on, if pods should reach the endpoints of other nodes"
        }
        Reason::VipLooped => {
            "a few are scanners; many, beside empty_passed, mean a Service without a pod here and no kube-proxy"
        }
        Reason::UnownedDropped | Reason::UnownedRejected => "the operator's choice (--vip-unowned)",
        Reason::EchoSuppressed => "more than 1 000 pings a second and CPU: who sends them?",
        Reason::PortInUse | Reason::PortsTaken => {
            "let the client's kernel choose its ports, or give the VIPs different pods or pod ports"
        }
        Reason::OtherFrontend => "smaller datagrams, or another port for each VIP",
        Reason::StaleReference => "report it if it grows: an agent is missing, or xlb has a bug",
        Reason::LinkNotReady => "has the pod's link changed? the agent follows within seconds",
        Reason::TagsNotMoved => "memory is short",
        Reason::ReplyNotCut => "give the pods the uplink's MTU",
        Reason::ReplyUplinkGone => "mend the uplink, or add a gateway by another one",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_advice_for_every_way_to_come_to_nothing() {
        let without = Reason::ALL.iter().filter(|reason| reason.is_drop() && advice(**reason).is_none());
        assert_eq!(without.collect::<Vec<_>>(), [] as [&Reason; 0]);
    }
}
