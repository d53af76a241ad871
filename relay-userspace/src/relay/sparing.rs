//! Log lines about what strangers can cause as often as they like: some a minute, and how many were
//! left out. Counters count them all.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lines a minute.
const LINES_MAX: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);

/// A budget of log lines, for one kind of line.
#[derive(Debug, Default)]
pub struct Sparing(Mutex<Budget>);

#[derive(Debug, Default)]
struct Budget {
    since: Option<Instant>,
    written: u32,
    left_out: u64,
}

impl Sparing {
    /// Whether a line may be written now: the number of those that were left out since the last
    /// one.
    pub fn permit(&self, now: Instant) -> Option<u64> {
        let mut budget = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |since| now.saturating_duration_since(since) >= MINUTE;
        if budget.since.is_none_or(over) {
            budget.since = Some(now);
            budget.written = 0;
        }
        if budget.written >= LINES_MAX {
            budget.left_out += 1;
            return None;
        }
        budget.written += 1;
        Some(std::mem::take(&mut budget.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_writes_some_lines_a_minute_and_says_how_many_it_did_not() {
        let (lines, start) = (Sparing::default(), Instant::now());
        let written = (0..1000).filter(|_| lines.permit(start).is_some()).count();
        assert_eq!(written, LINES_MAX as usize);
        assert_eq!(lines.permit(start + MINUTE), Some(1000 - u64::from(LINES_MAX)));
        assert_eq!(lines.permit(start + MINUTE), Some(0));
    }
}
