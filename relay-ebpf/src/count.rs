//! Counters, one set for each CPU: no two write the same slot, so plain additions are enough.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use relay_common::layout::{self, RuleHits};
use relay_common::totals::{COUNTERS, Counter};

#[map]
static TOTALS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);
#[map]
static RULE_HITS: PerCpuArray<RuleHits> = PerCpuArray::with_max_entries(layout::RULES, 0);

#[inline(always)]
pub(crate) fn packet(counter: Counter) {
    if let Some(count) = TOTALS.get_ptr_mut(counter.index()) {
        // SAFETY: the slot is this CPU's own, and a map's value lives as long as the program.
        unsafe { *count += 1 };
    }
}

/// Notes that an entry of this rule decided a packet.
#[inline(always)]
pub(crate) fn rule(rule: u32, now_s: u32) {
    if let Some(slot) = RULE_HITS.get_ptr_mut(rule) {
        // SAFETY: as above.
        unsafe {
            (*slot).hits += 1;
            (*slot).last_s = u64::from(now_s);
        }
    }
}
