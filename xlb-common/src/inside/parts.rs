//! Parts of a service's endpoints, one after the other in the array: those of the whole cluster that are usable, those that
//! linger, and those of this node for clients in pods.

use super::{InsideTables, Peer};
use crate::abi::{Inside, inside_flags};
use crate::family::Family;

/// Steps of a search in a part: enough for all that `ENDPOINTS_V4` holds.
const SEARCH_STEPS: u32 = 19;
const _: () = assert!(crate::abi::ENDPOINTS_MAX < 1 << SEARCH_STEPS);

/// A part: the index of its first endpoint, and how many there are, in order.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    base: u32,
    pub(crate) count: u32,
}

/// The part out of which a client gets its endpoint.
#[inline(always)]
pub(crate) fn usable(service: &Inside, is_in_pod: bool) -> Part {
    if is_in_pod && service.flags & inside_flags::LOCAL_FOR_PODS != 0 { local(service) } else { cluster(service) }
}

/// Whether an endpoint is in any part: it serves.
#[inline(always)]
pub(crate) fn serves<F: Family, T: InsideTables<F>>(tables: &T, service: &Inside, endpoint: &Peer<F>) -> bool {
    has(tables, cluster(service), endpoint)
        || has(tables, lingering(service), endpoint)
        || has(tables, local(service), endpoint)
}

/// One endpoint of a part.
#[inline(always)]
pub(crate) fn any<F: Family, T: InsideTables<F>>(tables: &T, part: Part, random: u32) -> Option<Peer<F>> {
    at(tables, part, ((u64::from(random) * u64::from(part.count)) >> 32) as u32)
}

/// The endpoint of a part with this number. An entry that was never written has port zero.
#[inline(always)]
pub(crate) fn at<F: Family, T: InsideTables<F>>(tables: &T, part: Part, number: u32) -> Option<Peer<F>> {
    tables.endpoint(part.base.wrapping_add(number)).filter(|&(_, port)| port != [0; 2])
}

/// Whether an endpoint is in a part.
#[inline(never)]
pub(crate) fn has<F: Family, T: InsideTables<F>>(tables: &T, part: Part, wanted: &Peer<F>) -> bool {
    let wanted = order::<F>(*wanted);
    let (mut low, mut high) = (0, part.count);
    for _ in 0..SEARCH_STEPS {
        if low >= high {
            break;
        }
        let middle = low + (high - low) / 2;
        let Some(found) = tables.endpoint(part.base.wrapping_add(middle)).map(order::<F>) else { break };
        if found == wanted {
            return true;
        }
        if found < wanted { low = middle + 1 } else { high = middle }
    }
    false
}

/// A number that orders peers as their addresses and ports do.
#[inline(always)]
pub(crate) fn order<F: Family>((address, port): Peer<F>) -> (u128, u16) {
    (u128::from_be_bytes(F::to_stored(address)), u16::from_be_bytes(port))
}

#[inline(always)]
fn cluster(service: &Inside) -> Part {
    Part { base: service.endpoints_base, count: service.endpoints }
}

#[inline(always)]
fn lingering(service: &Inside) -> Part {
    Part { base: service.endpoints_base.wrapping_add(service.endpoints), count: service.lingering }
}

#[inline(always)]
fn local(service: &Inside) -> Part {
    Part { base: lingering(service).base.wrapping_add(service.lingering), count: service.local }
}
