//! Counters, one set for each CPU: no two write the same slot, so plain additions are enough.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use relay_common::layout::{self, RuleHits};
use relay_common::totals::{COUNTERS, Counter};
use relay_common::verdict::Verdict;

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

/// Notes that an entry decided a packet, by its rule.
#[inline(always)]
pub(crate) fn rule(verdict: &Verdict, now_s: u32) {
    let Some(entry) = verdict.entry() else { return };
    if let Some(slot) = RULE_HITS.get_ptr_mut(entry.rule) {
        // SAFETY: as above.
        unsafe {
            if matches!(verdict, Verdict::Observed(_)) {
                (*slot).observed += 1;
            } else {
                (*slot).hits += 1;
            }
            (*slot).last_s = i64::from(now_s);
        }
    }
}
