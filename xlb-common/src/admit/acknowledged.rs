//! Rule 9 by the client's word: the acknowledgement of the SYN-ACK of a pod whose sockets cannot be seen. Of a connection on which
//! nobody speaks it is all that shows it. Who has not seen the SYN-ACK does not know the number, so no flood of SYNs enters FLOWS.

use super::{admit_unseen, is_to};
use crate::family::Family;
use crate::parse::Parsed;
use crate::reason::Reason;
use crate::select::{Pick, backend_of};
use crate::tables::{FlowTable, Tables};

/// What is kept of the number that acknowledges a SYN-ACK: two of its bytes, in which each of the four counts; never zero.
#[inline(always)]
pub(super) const fn folded(acknowledged: u32) -> u16 {
    match (acknowledged ^ acknowledged >> 16) as u16 {
        0 => 1,
        folded => folded,
    }
}

/// A client's acknowledgement without payload admits the flow, if it is of the SYN-ACK that PENDING knows, and FLOWS does not have the
/// connection: then the reason says so. Any other goes where it was picked to go, and admits nothing.
#[inline(always)]
pub fn acknowledged<F: Family, T: Tables<F>>(tables: &T, parsed: &Parsed<F>, pick: Pick) -> Pick {
    let Ok(backend) = backend_of(tables, &pick) else { return pick };
    let key = F::flow_key(parsed.source.pair(), (F::from_stored(backend.address), backend.port));
    let number = folded(parsed.transport.segment().acknowledged);
    let Some(entry) = tables.flow_at(FlowTable::TcpPending, &key) else { return pick };
    if entry.syn_ack_number != number || entry.is_closed() || !is_to(&entry, parsed) {
        return pick;
    }
    if tables.flow_at(FlowTable::Tcp, &key).is_some_and(|known| !known.is_superseded()) {
        return pick;
    }
    admit_unseen(tables, &key, &entry);
    pick.because(Reason::ClientAcknowledged)
}

#[cfg(test)]
mod tests {
    use super::folded;

    #[test]
    fn each_byte_of_a_number_counts_and_none_is_kept_as_zero() {
        let number = 0x1234_5678;
        for byte in 0..4 {
            assert_ne!(folded(number), folded(number ^ 1 << (8 * byte)));
        }
        assert_eq!((folded(0), folded(0x4242_4242)), (1, 1));
    }
}
