//! Who may open a connection: a service's source ranges (`loadBalancerSourceRanges`).
//!
//! | client | packet | what becomes of it |
//! |---|---|---|
//! | inside a range | any | goes on |
//! | outside | of a flow that a pod accepted (TCP, SCTP), or that is known at all (UDP) | goes on: narrowing the ranges cuts no connection, also where another Service took the frontend over |
//! | outside | that may be of a connection which the host's stack has | left to the stack |
//! | outside | any other | dropped, also where the service has no backend at all |

use crate::abi::{Backend, Frontend};
use crate::family::Family;
use crate::parse::{Endpoint, Parsed};
use crate::reason::Reason;
use crate::select::{Pick, backend_of};
use crate::tables::{FlowTable, Stage, Tables};

/// Whether a packet of a service with source ranges may go where it was picked to go.
#[inline(never)]
pub fn admit<F: Family, T: Tables<F>>(tables: &T, frontend: &Frontend, parsed: &Parsed<F>, pick: Pick) -> bool {
    if pick.reason() == Reason::LeftToFormer {
        return true;
    }
    let is_allowed = tables.is_allowed_source(frontend.service, parsed.source.0);
    tables.note(Stage::Source { is_allowed });
    is_allowed || backend_of(tables, &pick).is_ok_and(|backend| is_accepted(tables, parsed, pick, &backend))
}

/// Whether a flow map knows the packet's flow with this backend and VIP. A SYN for a closed flow opens a new one.
#[inline(always)]
fn is_accepted<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, pick: Pick, backend: &Backend) -> bool {
    let key = F::flow_key(parsed.source.pair(), (F::from_stored(backend.address), backend.port));
    let (transport, opens) = (parsed.transport, parsed.transport.is_syn());
    let entry = match (transport.tcp(), transport.sctp()) {
        (Some(_), _) => tables.flow(FlowTable::Tcp, &key),
        (_, Some(_)) => tables.flow(FlowTable::Sctp, &key),
        _ => tables.flow(FlowTable::Udp, &key).or_else(|| tables.flow(FlowTable::UdpPending, &key)),
    };
    let Endpoint(vip, port) = parsed.destination;
    entry.is_some_and(|entry| {
        let is_its_vip = entry.vip == F::to_stored(vip) && entry.vip_port == port;
        u32::from(entry.backend) == pick.reference().0 && is_its_vip && !(opens && entry.is_closed())
    })
}
