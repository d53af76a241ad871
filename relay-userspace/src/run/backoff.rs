//! How long to wait before a crashed daemon is started again.

use std::time::{Duration, Instant};

/// Doubles the wait after each crash, and forgets crashes after a quiet time.
#[derive(Debug)]
pub(super) struct Backoff {
    wait: Duration,
    last: Option<Instant>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(200);
    const LONGEST: Duration = Duration::from_secs(30);
    const QUIET: Duration = Duration::from_secs(60);

    pub(super) fn new() -> Self {
        Self { wait: Self::FIRST, last: None }
    }

    /// How long to wait before the next start, after a crash at `now`.
    pub(super) fn after_crash(&mut self, now: Instant) -> Duration {
        if self.last.is_some_and(|last| now.duration_since(last) > Self::QUIET) {
            self.wait = Self::FIRST;
        }
        self.last = Some(now);
        let wait = self.wait;
        self.wait = (wait * 2).min(Self::LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crashes_are_answered_ever_more_slowly_and_forgotten_in_time() {
        let mut backoff = Backoff::new();
        let start = Instant::now();
        assert_eq!(backoff.after_crash(start), Backoff::FIRST);
        assert_eq!(backoff.after_crash(start), Backoff::FIRST * 2);
        for _ in 0..20 {
            backoff.after_crash(start);
        }
        assert_eq!(backoff.after_crash(start), Backoff::LONGEST);
        assert_eq!(backoff.after_crash(start + Duration::from_secs(61)), Backoff::FIRST);
    }
}
