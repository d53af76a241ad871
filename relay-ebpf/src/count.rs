//! What rules did to packets: a slot for each CPU, as in `cpu`.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use relay_common::layout::{self, RuleHits};

#[map]
static RULE_HITS: PerCpuArray<RuleHits> = PerCpuArray::with_max_entries(layout::RULES, 0);

/// A packet that an entry of the rule decided.
#[inline(always)]
pub(crate) fn hit(rule: u32, now_s: u32) {
    count(rule, now_s, |slot| slot.hits += 1);
}

/// A packet that it would have dropped, were it not under observation.
#[inline(always)]
pub(crate) fn observed(rule: u32, now_s: u32) {
    count(rule, now_s, |slot| slot.observed += 1);
}

#[inline(always)]
fn count(rule: u32, now_s: u32, once: impl FnOnce(&mut RuleHits)) {
    if let Some(slot) = RULE_HITS.get_ptr_mut(rule) {
        // SAFETY: the slot is this CPU's own, and a map's value lives as long as the program.
        let slot = unsafe { &mut *slot };
        once(slot);
        slot.last_s = i64::from(now_s);
    }
}
