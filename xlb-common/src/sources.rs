//! Who may open a connection: a service's source ranges (`loadBalancerSourceRanges`).
//!
//! | client | packet | what becomes of it |
//! |---|---|---|
//! | inside a range | any | goes on |
//! | outside | of a flow that a pod accepted (TCP), or that is known at all (UDP) | goes on: narrowing the ranges cuts no connection |
//! | outside | any other | dropped, also where the service has no backend at all |

use crate::abi::{Frontend, frontend_flags};
use crate::family::Family;
use crate::parse::Parsed;
use crate::select::Choice;
use crate::tables::{FlowTable, Stage, Tables};

/// Whether the packet's source may open a connection. A frontend without ranges is open to everyone.
#[inline(always)]
pub fn may_open<F: Family, T: Tables<F>>(tables: &T, frontend: &Frontend, parsed: &Parsed<F>) -> bool {
    if !frontend.has(frontend_flags::SOURCE_RANGES) {
        return true;
    }
    let is_allowed = tables.is_allowed_source(frontend.service, parsed.source.0);
    tables.note(Stage::Source { is_allowed });
    is_allowed
}

/// Whether a flow map knows the packet's flow with this backend and service. A SYN for a closed flow opens a new one.
#[inline(always)]
pub fn is_accepted<F: Family, T: Tables<F>>(
    tables: &T,
    frontend: &Frontend,
    parsed: &Parsed<F>,
    choice: &Choice,
) -> bool {
    let key = F::flow_key(parsed.source, (F::from_stored(choice.backend.address), choice.backend.port));
    let (entry, opens) = match parsed.transport.tcp() {
        Some(tcp) => (tables.flow(FlowTable::Tcp, &key), tcp.is_syn()),
        None => {
            let entry = tables.flow(FlowTable::Udp, &key).or_else(|| tables.flow(FlowTable::UdpPending, &key));
            (entry, false)
        }
    };
    entry.is_some_and(|entry| {
        entry.backend == choice.id && entry.service == frontend.service && !(opens && entry.is_closed())
    })
}
