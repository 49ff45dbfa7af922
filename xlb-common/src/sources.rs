//! Who may open a connection: a service's source ranges (`loadBalancerSourceRanges`).
//!
//! | client | packet | what becomes of it |
//! |---|---|---|
//! | inside a range | any | goes on |
//! | outside | of a flow that a pod accepted (TCP, SCTP), or that is known at all (UDP) | goes on: narrowing the ranges cuts no connection, also where another Service took the frontend over |
//! | outside | that may be of a connection which the host's stack has | left to the stack |
//! | outside | any other | dropped, also where the service has no backend at all |

use crate::abi::{Backend, FlowEntry, Frontend};
use crate::admit::{is_to, newest_udp};
use crate::family::Family;
use crate::parse::Parsed;
use crate::reason::Reason;
use crate::select::{Pick, backend_of};
use crate::tables::{FlowTable, Stage, Tables};
use crate::twin::{SeatKind, seat};

/// Whether a packet of a service with source ranges may go where it was picked to go; why not.
#[inline(always)]
pub fn admit<F: Family, T: Tables<F>, const TWINS: bool>(
    tables: &T,
    frontend: &Frontend,
    parsed: &Parsed<F>,
    pick: Pick,
) -> Result<(), Reason> {
    if matches!(pick.reason(), Reason::LeftToFormer | Reason::OtherFrontend) {
        return Ok(());
    }
    let is_allowed = tables.is_allowed_source(frontend.service, parsed.source.0);
    tables.note(Stage::Source { is_allowed });
    if is_allowed {
        return Ok(());
    }
    let Ok(backend) = backend_of(tables, &pick) else { return Err(Reason::SourceNotAllowed) };
    if parsed.transport.is_udp() {
        return is_known::<F, T, TWINS>(tables, parsed, pick, &backend);
    }
    if is_accepted(tables, parsed, pick, &backend) { Ok(()) } else { Err(Reason::SourceNotAllowed) }
}

/// Whether a flow map knows the datagram's flow with this backend and VIP, as what it found last.
#[inline(always)]
fn is_known<F: Family, T: Tables<F>, const TWINS: bool>(
    tables: &T,
    parsed: &Parsed<F>,
    pick: Pick,
    backend: &Backend,
) -> Result<(), Reason> {
    let known_with = if TWINS {
        let seat = seat(tables, &parsed.source, &parsed.destination, backend);
        (seat.kind == SeatKind::Own).then_some(seat.backend)
    } else {
        let key = F::flow_key(parsed.source.pair(), (F::from_stored(backend.address), backend.port));
        match newest_udp(tables, &key) {
            Some(entry) if !is_to(&entry, parsed) => return Err(Reason::OtherFrontend),
            known => known.map(|entry| entry.backend),
        }
    };
    match known_with {
        Some(backend) if u32::from(backend) == pick.reference().0 => Ok(()),
        _ => Err(Reason::SourceNotAllowed),
    }
}

/// Whether a flow map knows the packet's flow with this backend and VIP. A SYN for a closed flow opens a new one; other late
/// packets of one find it where it has moved to.
#[inline(always)]
fn is_accepted<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, pick: Pick, backend: &Backend) -> bool {
    let key = F::flow_key(parsed.source.pair(), (F::from_stored(backend.address), backend.port));
    let (transport, opens) = (parsed.transport, parsed.transport.is_syn());
    let table = if transport.is_sctp() { FlowTable::Sctp } else { FlowTable::Tcp };
    let is_its = |entry: &FlowEntry| {
        u32::from(entry.backend) == pick.reference().0 && is_to(entry, parsed) && !(opens && entry.is_closed())
    };
    let has_moved = || {
        let entry = tables.flow_at(FlowTable::TcpPending, &key);
        table == FlowTable::Tcp && entry.is_some_and(|entry| entry.is_closed() && is_its(&entry))
    };
    tables.flow_at(table, &key).is_some_and(|entry| is_its(&entry)) || has_moved()
}
