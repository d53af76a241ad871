//! How many bans there may be: a flood of bans is more likely a fault of ours than of the world.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use thiserror::Error;

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapSettings {
    /// Bans that may start within any minute.
    pub new_per_minute_max: u32,
    /// Bans in force at once.
    pub live_max: usize,
}

impl Default for CapSettings {
    fn default() -> Self {
        Self { new_per_minute_max: 600, live_max: 100_000 }
    }
}

/// The cap that a ban ran into. The source is still refused in SMTP; only the kernel is spared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CapReached {
    #[error("{0} bans started within a minute, which is all that may")]
    NewPerMinute(u32),
    #[error("{0} bans are in force, which is all that may be")]
    Live(usize),
}

/// Counts new bans over a sliding minute.
#[derive(Clone, Debug)]
pub struct Caps {
    settings: CapSettings,
    /// When the bans of the last minute started; never longer than the cap.
    started: VecDeque<Instant>,
}

impl Caps {
    pub fn new(settings: CapSettings) -> Self {
        Self { settings, started: VecDeque::new() }
    }

    /// Counts one more ban, unless a cap says no. `live`: the bans in force without it.
    pub fn admit(&mut self, live: usize, now: Instant) -> Result<(), CapReached> {
        while self.started.front().is_some_and(|&s| now.saturating_duration_since(s) >= MINUTE) {
            self.started.pop_front();
        }
        if live >= self.settings.live_max {
            return Err(CapReached::Live(self.settings.live_max));
        }
        let max = self.settings.new_per_minute_max;
        if self.started.len() >= usize::try_from(max).unwrap_or(usize::MAX) {
            return Err(CapReached::NewPerMinute(max));
        }
        self.started.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)] // an Instant has no other beginning; only distances count
    fn the_minute_slides() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut caps = Caps::new(CapSettings { new_per_minute_max: 2, live_max: 10 });
        assert_eq!(caps.admit(0, at(0)), Ok(()));
        assert_eq!(caps.admit(1, at(30)), Ok(()));
        assert_eq!(caps.admit(2, at(59)), Err(CapReached::NewPerMinute(2)));
        assert_eq!(caps.admit(2, at(60)), Ok(()));
        assert_eq!(caps.admit(3, at(61)), Err(CapReached::NewPerMinute(2)));
        assert_eq!(caps.admit(10, at(500)), Err(CapReached::Live(10)));
        assert_eq!(caps.admit(9, at(500)), Ok(()));
    }
}
