//! How long a ban lasts: longer for who comes back.

use std::time::{Duration, SystemTime};

use super::BanPolicy;

/// The length of the next ban after so many that still count. A policy without steps bans for ten
/// minutes: a ban always ends.
pub fn duration(policy: &BanPolicy, previous_bans: u32) -> Duration {
    let step = usize::try_from(previous_bans).unwrap_or(usize::MAX);
    let last = policy.ladder.len().saturating_sub(1);
    policy.ladder.get(step.min(last)).copied().unwrap_or(Duration::from_secs(600))
}

/// How many of these bans (by their end, in order) still count: those since the last pause of
/// [`BanPolicy::forget_after`]. An end that is yet to come counts.
pub fn counted(policy: &BanPolicy, ends: &[SystemTime], now: SystemTime) -> u32 {
    let mut count: u32 = 0;
    let mut later = now;
    for &end in ends.iter().rev() {
        if later.duration_since(end).is_ok_and(|pause| pause > policy.forget_after) {
            break;
        }
        count = count.saturating_add(1);
        later = end;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ban_is_longer_up_to_the_last_step() {
        let policy = BanPolicy::default();
        let minutes = |bans| duration(&policy, bans).as_secs() / 60;
        assert_eq!([0, 1, 2, 3, u32::MAX].map(minutes), [10, 60, 1440, 1440, 1440]);
        let empty = BanPolicy { ladder: Vec::new(), ..policy };
        assert_eq!(duration(&empty, 5), Duration::from_secs(600));
    }

    #[test]
    fn a_long_pause_is_forgiven() {
        let policy = BanPolicy::default();
        let day = |n: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * n);
        assert_eq!(counted(&policy, &[], day(100)), 0);
        assert_eq!(counted(&policy, &[day(99), day(101)], day(100)), 2);
        assert_eq!(counted(&policy, &[day(80), day(95), day(99)], day(100)), 2);
        assert_eq!(counted(&policy, &[day(80), day(85)], day(100)), 0);
    }
}
