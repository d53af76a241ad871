//! When a recipient that could not be reached is tried again, and when it is given up.

use std::time::{Duration, SystemTime};

/// Growing intervals, then an end (RFC 5321 section 4.5.4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySchedule {
    /// Pause after the first attempt, the second, …; the last one repeats.
    pub intervals: Vec<Duration>,
    /// A message this old is given up at its next failure.
    pub expire: Duration,
    /// Each pause is drawn out by up to this part of it, so that a crowd disperses.
    pub jitter_percent: u32,
}

impl Default for RetrySchedule {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            intervals: [1, 5, 15, 30, 60, 120, 240].map(minutes).to_vec(),
            expire: minutes(5 * 24 * 60),
            jitter_percent: 10,
        }
    }
}

impl RetrySchedule {
    /// When to try again after a failure at `now`; `None` when the message is to be given up.
    /// `attempts` were made before this one; `random` is any number.
    pub fn next(
        &self,
        attempts: u32,
        received: SystemTime,
        now: SystemTime,
        random: u64,
    ) -> Option<SystemTime> {
        // A message from the future, after the clock was set back, is new.
        if now.duration_since(received).unwrap_or_default() >= self.expire {
            return None;
        }
        let place = usize::try_from(attempts).unwrap_or(usize::MAX);
        let pause = self.intervals.get(place).or(self.intervals.last());
        let pause = pause.copied().unwrap_or(Duration::from_secs(60));
        let spread = pause * self.jitter_percent.min(100) / 100;
        let drawn = spread.mul_f64((random % 1024) as f64 / 1024.0);
        // The last attempt falls on the end of the message's time, not long behind it.
        Some((now + pause + drawn).min(received.max(now - self.expire) + self.expire).max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds)
    }

    #[test]
    fn intervals_grow_then_repeat_then_end() {
        let schedule = RetrySchedule { jitter_percent: 0, ..RetrySchedule::default() };
        let pause = |attempts, now| {
            let next = schedule.next(attempts, at(0), at(now), 7)?;
            Some(next.duration_since(at(now)).unwrap().as_secs())
        };
        assert_eq!(pause(0, 0), Some(60));
        assert_eq!(pause(1, 60), Some(300));
        assert_eq!(pause(6, 9999), Some(14_400));
        assert_eq!(pause(u32::MAX, 9999), Some(14_400));
        let day = 86_400;
        assert_eq!(pause(40, 5 * day - 100), Some(100));
        assert_eq!(pause(40, 5 * day), None);
    }

    proptest! {
        #[test]
        fn the_next_attempt_is_in_bounds(
            attempts in any::<u32>(), age in 0u64..500_000, random in any::<u64>()
        ) {
            let schedule = RetrySchedule::default();
            if let Some(next) = schedule.next(attempts, at(0), at(age), random) {
                prop_assert!(next >= at(age) && next <= at(5 * 86_400));
                prop_assert!(age < 5 * 86_400);
                prop_assert!(next <= at(age + 14_400 + 1_440));
            } else {
                prop_assert!(age >= 5 * 86_400);
            }
        }
    }
}
