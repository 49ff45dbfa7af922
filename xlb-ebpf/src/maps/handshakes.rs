//! How many handshakes begin, and where that is told.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use xlb_common::abi::{UPLINKS_MAX, uplink_flags};
use xlb_common::hot::{HalfOpen, SHARE};

use super::UPLINKS;

#[map]
static HALF_OPEN: Array<HalfOpen> = Array::with_max_entries(1, 0);
#[map]
static BEGUN: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// Counts a handshake that begins: on this CPU, and together with others for all CPUs. The uplink's entry is written when it says
/// something else, and so read by other CPUs without waiting for this one.
#[inline(always)]
pub fn note_half_open(ifindex: u32) {
    let (Some(begun), Some(half_open)) = (BEGUN.get_ptr_mut(0), HALF_OPEN.get_ptr_mut(0)) else { return };
    // SAFETY: the first is this CPU's alone. Of the second each number is one of those that some CPU wrote; what is lost when
    // two write at once is a share of a count.
    let (begun, half_open) = unsafe { (&mut *begun, &mut *half_open) };
    *begun += 1;
    if *begun >= SHARE {
        *begun = 0;
        // SAFETY: the helper takes and touches nothing.
        half_open.note(SHARE.into(), unsafe { bpf_ktime_get_coarse_ns() });
    }
    let hot = if half_open.is_hot != 0 { uplink_flags::HOT } else { 0 };
    if let Some(uplink) = UPLINKS.get_ptr_mut(ifindex % UPLINKS_MAX) {
        // SAFETY: the agent replaces the entry as a whole; then a next handshake writes it again.
        unsafe {
            if (*uplink).hot != hot {
                (*uplink).hot = hot;
            }
        }
    }
}
