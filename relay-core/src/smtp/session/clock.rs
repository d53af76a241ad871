//! The deadlines of a session.

use std::time::{Duration, Instant};

use super::settings::SessionSettings;

/// What the client has to finish, and since when.
#[derive(Debug, Clone, Copy)]
enum Record {
    /// A command: the whole of it, however its octets trickle.
    Command { since: Instant },
    /// Content: some of it soon.
    Content { last: Instant },
}

/// The content of a message, all of which has to come at a minimum rate, in chunks too: the time
/// between those counts like the time in them.
#[derive(Debug, Clone, Copy)]
struct Message {
    since: Instant,
    received: u64,
}

impl Message {
    fn deadline(self, settings: &SessionSettings) -> Instant {
        let earned = Duration::from_secs(self.received / settings.data_rate_min.max(1));
        after(after(self.since, settings.data_timeout), earned)
    }
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
    /// The message whose content comes, between its chunks too.
    message: Option<Message>,
}

impl Clock {
    pub(super) fn new(settings: &SessionSettings, now: Instant) -> Self {
        Self {
            session_end: after(now, settings.session_timeout),
            record: Record::Command { since: now },
            message: None,
        }
    }

    /// The session now waits for a command.
    pub(super) fn command_begins(&mut self, now: Instant) {
        self.record = Record::Command { since: now };
    }

    /// The session now waits for content: that of a message that begins, or the next chunk of one.
    pub(super) fn content_begins(&mut self, now: Instant) {
        self.record = Record::Content { last: now };
        self.message.get_or_insert(Message { since: now, received: 0 });
    }

    /// No more content of this message comes.
    pub(super) fn message_ends(&mut self) {
        self.message = None;
    }

    /// Octets came.
    pub(super) fn octets(&mut self, count: usize, now: Instant) {
        if let Record::Content { last } = &mut self.record {
            *last = now;
        }
        // A chunk may come in one read with its command.
        if let Some(message) = &mut self.message {
            message.received = message.received.saturating_add(count as u64);
        }
    }

    pub(super) fn deadline(&self, settings: &SessionSettings) -> Instant {
        let record_end = match self.record {
            Record::Command { since } => after(since, settings.command_timeout),
            Record::Content { last } => after(last, settings.data_timeout),
        };
        let message_end = self.message.map(|message| message.deadline(settings));
        message_end.map_or(record_end, |end| end.min(record_end)).min(self.session_end)
    }
}
