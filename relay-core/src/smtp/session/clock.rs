//! The deadlines of a session.

use std::time::{Duration, Instant};

use super::settings::SessionSettings;

/// What the client has to finish, and since when.
#[derive(Debug, Clone, Copy)]
enum Record {
    /// A command: the whole of it, however its octets trickle.
    Command { since: Instant },
    /// Content: some of it soon, and all of it at a minimum rate.
    Content { since: Instant, last: Instant, received: u64 },
}

/// As far ahead as a deadline can be: longer ones, and those beyond the clock's range, are this.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

fn after(at: Instant, delay: Duration) -> Instant {
    at + delay.min(FOREVER)
}

#[derive(Debug)]
pub(super) struct Clock {
    session_end: Instant,
    record: Record,
}

impl Clock {
    pub(super) fn new(settings: &SessionSettings, now: Instant) -> Self {
        Self {
            session_end: after(now, settings.session_timeout),
            record: Record::Command { since: now },
        }
    }

    /// The session now waits for a command.
    pub(super) fn command_begins(&mut self, now: Instant) {
        self.record = Record::Command { since: now };
    }

    /// The session now waits for content.
    pub(super) fn content_begins(&mut self, now: Instant) {
        self.record = Record::Content { since: now, last: now, received: 0 };
    }

    /// Octets came.
    pub(super) fn octets(&mut self, count: usize, now: Instant) {
        if let Record::Content { last, received, .. } = &mut self.record {
            *last = now;
            *received = received.saturating_add(count as u64);
        }
    }

    pub(super) fn deadline(&self, settings: &SessionSettings) -> Instant {
        let record_end = match self.record {
            Record::Command { since } => after(since, settings.command_timeout),
            Record::Content { since, last, received } => {
                let earned = Duration::from_secs(received / settings.data_rate_min.max(1));
                let soon = after(last, settings.data_timeout);
                soon.min(after(after(since, settings.data_timeout), earned))
            }
        };
        record_end.min(self.session_end)
    }
}
