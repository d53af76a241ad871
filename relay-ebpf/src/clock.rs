//! The clock that counts on while the machine sleeps, as userspace's CLOCK_BOOTTIME does.

use aya_ebpf::helpers::bpf_ktime_get_boot_ns;

#[inline(always)]
pub(crate) fn boot_ns() -> u64 {
    // SAFETY: the helper takes nothing and touches nothing.
    unsafe { bpf_ktime_get_boot_ns() }
}
