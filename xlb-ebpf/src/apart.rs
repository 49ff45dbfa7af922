//! Functions that the verifier walks through by themselves, once, whatever calls them (decision 30). By the object's BTF they are
//! global: of what they are given the kernel knows the types, and that a pointer may be null; of their answer it knows
//! nothing, so that what follows a call is walked through once as well.
//!
//! Their signatures are those of C, and the kernel reads them from the BTF. An argument that a function does not use would not
//! be given to it: what needs no context has none.

use core::ffi::c_void;
use core::ptr::null_mut;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::programs::{SockAddrContext, SockOpsContext, TcContext, XdpContext};
use xlb_common::abi::Frontend;
use xlb_common::admit::acknowledged;
use xlb_common::handover::pick_by_entry;
use xlb_common::hot::is_to_relearn;
use xlb_common::opening::{Opening, note_opening};
use xlb_common::parse::Parsed;
use xlb_common::path::Arrival;
use xlb_common::select::{Pick, pick_by_asking, pick_unclaimed};
use xlb_common::{Reason, V4, V6, sources};

use crate::maps::{FamilyMaps, Maps};

/// What few packets need: in functions apart for the contexts that have them, in place for the others.
pub trait Apart<F: FamilyMaps>: EbpfContext + Sized {
    /// [`pick_by_asking`].
    #[inline(always)]
    fn ask_owners(&self, frontend: &Frontend, parsed: &Parsed<F>, is_by_client: bool) -> Pick {
        pick_by_asking::<F, _, false>(&Maps::of(self), frontend, parsed, is_by_client)
    }

    /// [`pick_unclaimed`].
    #[inline(always)]
    fn search_owner(&self, frontend: &Frontend, parsed: &Parsed<F>, waiting: Pick) -> Pick {
        pick_unclaimed::<F, _, false>(&Maps::of(self), frontend, parsed, waiting)
    }

    /// [`pick_by_entry`].
    #[inline(always)]
    fn ask_entries(&self, frontend: &Frontend, parsed: &Parsed<F>) -> Pick {
        pick_by_entry(&Maps::of(self), frontend, parsed)
    }

    /// [`sources::admit`].
    #[inline(always)]
    fn admit_source(&self, frontend: &Frontend, parsed: &Parsed<F>, pick: Pick) -> Result<(), Reason> {
        sources::admit::<F, _, false>(&Maps::of(self), frontend, parsed, pick)
    }

    /// [`is_to_relearn`].
    #[inline(always)]
    fn is_to_relearn(&self, parsed: &Parsed<F>, pick: Pick) -> bool {
        is_to_relearn(&Maps::of(self), parsed, pick)
    }

    /// [`acknowledged`].
    #[inline(always)]
    fn hear_client(&self, parsed: &Parsed<F>, pick: Pick) -> Pick {
        acknowledged(&Maps::of(self), parsed, pick)
    }

    /// [`note_opening`].
    #[inline(always)]
    fn open(&self, opening: &Opening<F>) -> Result<bool, Reason> {
        note_opening(&Maps::of(self), opening)
    }
}

impl<F: FamilyMaps> Apart<F> for SockOpsContext {}
impl<F: FamilyMaps> Apart<F> for SockAddrContext {}

/// A context of no program.
struct Nothing;

impl EbpfContext for Nothing {
    fn as_ptr(&self) -> *mut c_void {
        null_mut()
    }
}

impl<F: FamilyMaps> Apart<F> for Nothing {}

/// What a function answers to a null pointer, which nobody gives it: no backend, and a reason.
const STALE: u64 = Pick::none(Reason::StaleReference).to_number();
/// [`number`] of what has no reason: above all reasons' numbers.
const GOOD: u64 = 1 << 16;

#[inline(always)]
const fn number(verdict: Result<bool, Reason>) -> u64 {
    match verdict {
        Ok(answer) => GOOD + answer as u64,
        Err(reason) => reason as u64,
    }
}

#[inline(always)]
fn verdict(number: u64) -> Result<bool, Reason> {
    if number & GOOD != 0 && number >> 17 == 0 { Ok(number & 1 != 0) } else { Err(Reason::of_number(number as u16)) }
}

/// A global function of the object. What it is given by reference is there in its body.
macro_rules! global {
    (fn $name:ident($($by_value:ident: $type:ty),*; $($reference:ident: &$target:ty),+) $body:block) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $name($($reference: *const $target,)+ $($by_value: $type),*) -> u64 {
            // SAFETY: what [`Apart`] gives outlives the call; it alone calls this.
            $(let Some($reference) = (unsafe { $reference.as_ref() }) else { return STALE };)+
            $body
        }
    };
}

macro_rules! functions {
    ($context:ty, $raw:ty, $pointer:ident, $family:ty: $owners:ident, $search:ident, $entries:ident, $relearn:ident, $open:ident, $source:ident, $hear:ident) => {
        global!(fn $owners(ctx: *mut $raw, is_by_client: u64; frontend: &Frontend, parsed: &Parsed<$family>) {
            let (ctx, is_by_client) = (<$context>::new(ctx), is_by_client != 0);
            pick_by_asking::<$family, _, false>(&Maps::of(&ctx), frontend, parsed, is_by_client).to_number()
        });
        global!(fn $search(ctx: *mut $raw, waiting: u64; frontend: &Frontend, parsed: &Parsed<$family>) {
            let (ctx, waiting) = (<$context>::new(ctx), Pick::of_number(waiting));
            pick_unclaimed::<$family, _, false>(&Maps::of(&ctx), frontend, parsed, waiting).to_number()
        });
        global!(fn $entries(ctx: *mut $raw; frontend: &Frontend, parsed: &Parsed<$family>) {
            pick_by_entry(&Maps::of(&<$context>::new(ctx)), frontend, parsed).to_number()
        });
        global!(fn $relearn(ctx: *mut $raw, pick: u64; parsed: &Parsed<$family>) {
            number(Ok(is_to_relearn(&Maps::of(&<$context>::new(ctx)), parsed, Pick::of_number(pick))))
        });
        global!(fn $open(ctx: *mut $raw, service: u32, pick: u64; parsed: &Parsed<$family>, arrival: &Arrival) {
            let opening = Opening { service, parsed, pick: Pick::of_number(pick), arrival };
            number(note_opening(&Maps::of(&<$context>::new(ctx)), &opening))
        });

        impl Apart<$family> for $context {
            #[inline(always)]
            fn ask_owners(&self, frontend: &Frontend, parsed: &Parsed<$family>, is_by_client: bool) -> Pick {
                Pick::of_number($owners(frontend, parsed, $pointer(self), is_by_client.into()))
            }

            #[inline(always)]
            fn search_owner(&self, frontend: &Frontend, parsed: &Parsed<$family>, waiting: Pick) -> Pick {
                Pick::of_number($search(frontend, parsed, $pointer(self), waiting.to_number()))
            }

            #[inline(always)]
            fn ask_entries(&self, frontend: &Frontend, parsed: &Parsed<$family>) -> Pick {
                Pick::of_number($entries(frontend, parsed, $pointer(self)))
            }

            #[inline(always)]
            fn admit_source(&self, frontend: &Frontend, parsed: &Parsed<$family>, pick: Pick) -> Result<(), Reason> {
                verdict($source(frontend, parsed, pick.to_number())).map(drop)
            }

            #[inline(always)]
            fn is_to_relearn(&self, parsed: &Parsed<$family>, pick: Pick) -> bool {
                verdict($relearn(parsed, $pointer(self), pick.to_number())) == Ok(true)
            }

            #[inline(always)]
            fn hear_client(&self, parsed: &Parsed<$family>, pick: Pick) -> Pick {
                Pick::of_number($hear(parsed, pick.to_number()))
            }

            #[inline(always)]
            fn open(&self, opening: &Opening<$family>) -> Result<bool, Reason> {
                let Opening { service, parsed, pick, arrival } = *opening;
                verdict($open(parsed, arrival, $pointer(self), service, pick.to_number()))
            }
        }
    };
}

#[inline(always)]
fn skb(ctx: &TcContext) -> *mut __sk_buff {
    ctx.skb.skb
}

#[inline(always)]
fn frame(ctx: &XdpContext) -> *mut xdp_md {
    ctx.ctx
}

global!(fn source_v4(pick: u64; frontend: &Frontend, parsed: &Parsed<V4>) {
    number(sources::admit::<_, _, false>(&Maps::of(&Nothing), frontend, parsed, Pick::of_number(pick)).map(|()| false))
});
global!(fn source_v6(pick: u64; frontend: &Frontend, parsed: &Parsed<V6>) {
    number(sources::admit::<_, _, false>(&Maps::of(&Nothing), frontend, parsed, Pick::of_number(pick)).map(|()| false))
});
global!(fn hear_v4(pick: u64; parsed: &Parsed<V4>) {
    acknowledged(&Maps::of(&Nothing), parsed, Pick::of_number(pick)).to_number()
});
global!(fn hear_v6(pick: u64; parsed: &Parsed<V6>) {
    acknowledged(&Maps::of(&Nothing), parsed, Pick::of_number(pick)).to_number()
});
functions!(TcContext, __sk_buff, skb, V4: tc_owners_v4, tc_search_v4, tc_entries_v4, tc_relearn_v4, tc_open_v4, source_v4, hear_v4);
functions!(TcContext, __sk_buff, skb, V6: tc_owners_v6, tc_search_v6, tc_entries_v6, tc_relearn_v6, tc_open_v6, source_v6, hear_v6);
functions!(XdpContext, xdp_md, frame, V4: xdp_owners_v4, xdp_search_v4, xdp_entries_v4, xdp_relearn_v4, xdp_open_v4, source_v4, hear_v4);
functions!(XdpContext, xdp_md, frame, V6: xdp_owners_v6, xdp_search_v6, xdp_entries_v6, xdp_relearn_v6, xdp_open_v6, source_v6, hear_v6);
