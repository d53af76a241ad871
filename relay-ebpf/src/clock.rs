//! The clock that counts on while the machine sleeps, as userspace's CLOCK_BOOTTIME does.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

/// A tick of the kernel's timer, and the second that the clock showed in it, of this CPU.
#[map]
static TICK: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

const NS_PER_S: u64 = 1_000_000_000;

#[inline(always)]
pub(crate) fn boot_ns() -> u64 {
    // SAFETY: the helper takes nothing and touches nothing.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The second, as it was when the running tick began or later: no more than some milliseconds old.
/// A flood's packets share one reading of the clock, which costs as much as a lookup does.
#[inline(always)]
pub(crate) fn boot_s() -> u32 {
    // SAFETY: as above; it is a load.
    let tick = unsafe { bpf_jiffies64() };
    let Some(read) = TICK.get_ptr_mut(0) else { return (boot_ns() / NS_PER_S) as u32 };
    // SAFETY: the slot is this CPU's own, and a map's value lives as long as the program.
    let [of_tick, second] = unsafe { &mut *read };
    if *of_tick != tick {
        *second = boot_ns() / NS_PER_S;
        *of_tick = tick;
    }
    *second as u32
}
