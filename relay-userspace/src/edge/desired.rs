//! From rows to the one entry that the kernel holds for a prefix. Pure.
//!
//! Several sources may speak about one prefix (an administrator for ever, a ban for ten minutes),
//! and the kernel holds one entry for it. Where one row says all that the others say, it is taken.
//! Otherwise the scopes are united, and the entry ends when the *first* of the rows ends: the merge
//! is made anew at that time, and if the daemon is dead by then, too little is closed, never too
//! much.
//!
//! Rows that are only observed are merged apart from those that are enforced, and have no say in
//! what these close, or until when. The entry of both counts by the rule that is enforced.

use std::cmp::Reverse;

use ipnet::IpNet;
use relay_common::entry::{Entry, Reason, Scope};

use super::clock::Now;

/// What one row says about its prefix. There may be millions of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is closed.
    pub scope: Scope,
    /// What is only counted.
    pub observed: Scope,
    pub reason: Reason,
    /// Counter slot of the row's rule.
    pub rule: u32,
    /// Second since 1970 from which the row is dead, with "never" as the latest of all.
    ends_s: u64,
}

const NEVER: u64 = u64::MAX;

impl Claim {
    /// The claim of one row.
    pub fn of_row(
        scope: Scope,
        observe: bool,
        reason: Reason,
        rule: u32,
        expires_s: Option<u64>,
    ) -> Self {
        let (scope, observed) = if observe { (Scope::NONE, scope) } else { (scope, Scope::NONE) };
        Self { scope, observed, reason, rule, ends_s: expires_s.unwrap_or(NEVER) }
    }

    /// All that it speaks about.
    pub fn speaks(&self) -> Scope {
        self.scope.union(self.observed)
    }

    pub(super) fn is_live(&self, wall_s: u64) -> bool {
        self.ends_s == NEVER || wall_s < self.ends_s
    }

    /// Second since 1970 from which the row is dead; `None` = never.
    pub fn expires_s(&self) -> Option<u64> {
        (self.ends_s != NEVER).then_some(self.ends_s)
    }

    /// The last second since 1970 in which it is in force: what allows must be live then.
    pub(super) fn last_s(&self) -> u64 {
        last_s(self.expires_s())
    }

    /// The entry for the maps at this instant; `None` once it is over.
    ///
    /// Wall time becomes boot time here, so the answer holds only until somebody sets the clock.
    /// It is rounded down, but never to the second that is running.
    pub fn entry(&self, prefix: IpNet, now: Now) -> Option<Entry> {
        Some(Entry {
            expires_s: boot_expiry_s(self.expires_s(), now)?,
            rule: self.rule,
            reason: self.reason as u8,
            scope: self.scope,
            observed: self.observed,
            prefix_len: prefix.prefix_len(),
        })
    }
}

/// The last second before an end; of what never ends, the latest of all.
pub(super) fn last_s(expires_s: Option<u64>) -> u64 {
    expires_s.map_or(NEVER, |end_s| end_s.saturating_sub(1))
}

/// Second on CLOCK_BOOTTIME for an expiry in wall time: 0 for never, `None` when it has passed.
pub fn boot_expiry_s(expires_s: Option<u64>, now: Now) -> Option<u32> {
    let Some(expires_s) = expires_s else { return Some(0) };
    let left_ms = expires_s.saturating_mul(1000).checked_sub(now.wall_ms).filter(|&ms| ms > 0)?;
    let at_s = now.boot_ms.saturating_add(left_ms) / 1000;
    let at_s = u32::try_from(at_s).unwrap_or(u32::MAX);
    Some(at_s.max(now.boot_s().saturating_add(1)))
}

/// The one claim that stands for all live rows of a prefix; `None` when none is live.
pub fn merge(rows: &[Claim], wall_s: u64) -> Option<Claim> {
    let enforced = merge_by(rows, wall_s, |row| row.scope);
    let observed = merge_by(rows, wall_s, |row| row.observed);
    let (Some(enforced), Some(observed)) = (&enforced, &observed) else {
        return enforced.or(observed);
    };
    Some(Claim { observed: observed.observed.without(enforced.scope), ..*enforced })
}

/// Merges the live rows of which `said` is not empty.
fn merge_by(rows: &[Claim], wall_s: u64, said: fn(&Claim) -> Scope) -> Option<Claim> {
    let live = || rows.iter().filter(|row| row.is_live(wall_s) && said(row) != Scope::NONE);
    let last_end = live().map(|row| row.ends_s).max()?;
    let scope = live().fold(Scope::NONE, |all, row| all.union(row.scope));
    let observed = live().fold(Scope::NONE, |all, row| all.union(row.observed));
    let all = Claim { scope, observed, ..*live().next()? };
    // Among equals the order of rows must not matter, or two merges would differ.
    let dominant = live()
        .filter(|row| said(row).contains(said(&all)) && row.ends_s == last_end)
        .min_by_key(|row| (row.reason, row.rule));
    if let Some(row) = dominant {
        return Some(*row);
    }
    let longest = live().min_by_key(|row| (Reverse(row.ends_s), row.reason, row.rule))?;
    let ends_s = live().map(|row| row.ends_s).min()?;
    Some(Claim { scope, observed, ends_s, ..*longest })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim() -> impl Strategy<Value = Claim> {
        let observe = prop::bool::weighted(0.3);
        (1u8..16, observe, 0usize..Reason::ALL.len(), 1u32..6, prop::option::of(0u64..40)).prop_map(
            |(bits, observe, reason, rule, expires_s)| {
                Claim::of_row(Scope::from_bits(bits), observe, Reason::ALL[reason], rule, expires_s)
            },
        )
    }

    fn observed_at(rows: &[Claim], wall_s: u64) -> Scope {
        rows.iter()
            .filter(|row| row.is_live(wall_s))
            .fold(Scope::NONE, |all, row| all.union(row.observed))
    }

    fn union_at(rows: &[Claim], wall_s: u64) -> Scope {
        rows.iter()
            .filter(|row| row.is_live(wall_s))
            .fold(Scope::NONE, |all, row| all.union(row.scope))
    }

    proptest! {
        #[test]
        fn a_merge_says_now_what_its_rows_say_and_later_never_more(
            rows in prop::collection::vec(claim(), 0..6),
            now in 0u64..40,
        ) {
            let merged = merge(&rows, now);
            prop_assert_eq!(
                merged.as_ref().map_or(Scope::NONE, |m| m.scope),
                union_at(&rows, now)
            );
            // The daemon dies here; the kernel goes on with this one entry.
            for later in now..50 {
                let closed = merged.as_ref().filter(|m| m.is_live(later));
                let closed = closed.map_or(Scope::NONE, |m| m.scope);
                prop_assert!(union_at(&rows, later).contains(closed), "over-blocks at {}", later);
            }
        }

        #[test]
        fn merging_anew_at_each_end_closes_exactly_the_union(
            rows in prop::collection::vec(claim(), 0..6),
        ) {
            let mut held = merge(&rows, 0);
            for wall_s in 0..50 {
                if rows.iter().any(|row| row.expires_s() == Some(wall_s)) {
                    held = merge(&rows, wall_s);
                }
                let closed = held.as_ref().filter(|m| m.is_live(wall_s));
                prop_assert_eq!(
                    closed.map_or(Scope::NONE, |m| m.scope),
                    union_at(&rows, wall_s)
                );
            }
        }

        /// Observed rows change nothing about what is closed, and until when.
        #[test]
        fn what_is_observed_neither_closes_nor_opens(
            rows in prop::collection::vec(claim(), 0..6),
            now in 0u64..40,
        ) {
            let enforced: Vec<Claim> =
                rows.iter().filter(|row| row.scope != Scope::NONE).copied().collect();
            let alone = merge(&enforced, now);
            let merged = merge(&rows, now);
            let closes = |claim: &Option<Claim>| {
                let claim = claim.as_ref().filter(|claim| claim.scope != Scope::NONE)?;
                Some((claim.scope, claim.ends_s, claim.reason, claim.rule))
            };
            prop_assert_eq!(closes(&merged), closes(&alone));
            let closed = alone.map_or(Scope::NONE, |claim| claim.scope);
            prop_assert_eq!(
                merged.map_or(Scope::NONE, |claim| claim.observed),
                observed_at(&rows, now).without(closed)
            );
        }

        #[test]
        fn the_order_of_rows_does_not_matter(
            rows in prop::collection::vec(claim(), 0..6).prop_shuffle(),
            now in 0u64..40,
        ) {
            let mut sorted = rows.clone();
            sorted.sort_by_key(|row| {
                (row.rule, row.reason, row.scope.bits(), row.observed.bits(), row.ends_s)
            });
            prop_assert_eq!(merge(&rows, now), merge(&sorted, now));
        }

        #[test]
        fn boot_expiry_is_at_most_a_second_early_and_never_late(
            wall_ms in 0u64..10_000_000,
            boot_ms in 0u64..10_000_000,
            expires_s in 0u64..20_000,
        ) {
            let now = Now { wall_ms, boot_ms };
            let left_ms = (expires_s * 1000).saturating_sub(wall_ms);
            match boot_expiry_s(Some(expires_s), now) {
                None => prop_assert_eq!(left_ms, 0),
                Some(at) => {
                    let end_ms = boot_ms + left_ms;
                    prop_assert!(at > now.boot_s());
                    prop_assert!(u64::from(at) * 1000 + 999 >= end_ms);
                    prop_assert!(u64::from(at) * 1000 <= end_ms || at == now.boot_s() + 1);
                }
            }
        }
    }

    #[test]
    fn a_claim_for_ever_is_zero_and_one_far_off_does_not_wrap() {
        let now = Now { wall_ms: 1_800_000_000_000, boot_ms: 5_000 };
        assert_eq!(boot_expiry_s(None, now), Some(0));
        assert_eq!(boot_expiry_s(Some(u64::MAX), now), Some(u32::MAX));
    }
}
