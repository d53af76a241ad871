//! When a feed is refreshed: at intervals, when an administrator asks, and after a failure sooner.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::accept::{Done, How, Job, Task};
use super::meta::Meta;
use super::requests::FeedReply;
use super::work::Order;
use super::{Busy, Slot};
use crate::config::{Feed, FeedSource};
use crate::control::api::{Code, FeedAnswer, FeedOutcome, Problem};
use crate::edge::clock::Now;
use crate::edge::filter::Filter;
use crate::edge::state::Edge;

/// How soon a failed refresh is tried again; twice as late after each further failure, and never
/// later than the next one would come.
const RETRY_AFTER: Duration = Duration::from_secs(300);
/// How often the owner looks whether a refresh has ended, while one is under way.
const LOOK_FOR_ENDED: Duration = Duration::from_millis(20);

/// When the first refresh after a start is due. A file costs a look; the network is not asked
/// before its time, however often the edge is started.
pub(super) fn first_ms(feed: &Feed, meta: &Meta, now: Now) -> u64 {
    match (&feed.source, &meta.content) {
        (FeedSource::Https(_), Some(content)) if meta.source == super::meta::source_of(feed) => {
            let ago_s = now.wall_s().saturating_sub(content.refreshed_s);
            let left_s = feed.refresh.as_secs().saturating_sub(ago_s);
            now.boot_ms.saturating_add(left_s.saturating_mul(1000))
        }
        _ => now.boot_ms,
    }
}

impl Slot {
    fn schedule(&mut self, failed: bool, now: Now) {
        let pause = if failed {
            self.failures = self.failures.saturating_add(1);
            let doubled = self.failures.saturating_sub(1).min(16);
            RETRY_AFTER.saturating_mul(1 << doubled).min(self.feed.refresh)
        } else {
            self.failures = 0;
            self.feed.refresh
        };
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.due_ms = now.boot_ms.saturating_add(pause_ms);
    }
}

impl<F: Filter> Edge<F> {
    /// Reads the files that are due.
    pub(super) fn refresh_due(&mut self, now: Now) {
        for at in 0..self.feeds.slots.len() {
            let slot = &self.feeds.slots[at];
            if slot.is_due(now) && matches!(slot.feed.source, FeedSource::File(_)) {
                self.refresh_slot(at, Task::Read, None, now);
            }
        }
    }

    /// Reads the files of those feeds of which nothing is here. At a start, that is at once: nobody
    /// is beside the owner yet.
    pub(super) fn read_missing(&mut self, now: Now) {
        for at in 0..self.feeds.slots.len() {
            let slot = &self.feeds.slots[at];
            if slot.content.is_none() && matches!(slot.feed.source, FeedSource::File(_)) {
                self.refresh_slot(at, Task::Read, None, now);
            }
        }
        self.take_ended(now);
    }

    /// Gives a refresh to whoever carries it out.
    pub(super) fn refresh_slot(
        &mut self,
        at: usize,
        task: Task,
        reply: Option<FeedReply>,
        now: Now,
    ) {
        let slot = &mut self.feeds.slots[at];
        let read = Arc::new(AtomicU64::new(0));
        // Word that it could not be had uses up nobody's permission.
        let force = match task {
            Task::Failed(_) => false,
            _ => std::mem::take(&mut slot.force),
        };
        let job = Job {
            feed: slot.feed.clone(),
            task,
            meta: slot.meta.clone(),
            has_content: slot.content.is_some(),
            force,
            now_s: now.wall_s(),
            read: read.clone(),
        };
        slot.busy = Some(Busy { read, reply });
        self.feeds.work.give(Order::Refresh(Box::new(job)));
    }

    /// Takes over what has been read.
    pub(super) fn take_ended(&mut self, now: Now) {
        while let Some(done) = self.feeds.work.ended() {
            self.refresh_ended(done, now);
        }
    }

    fn refresh_ended(&mut self, done: Done, now: Now) {
        if let Some(error) = done.unkept {
            tracing::error!(feed = done.name, %error, "how a refresh went could not be kept");
            self.health.last_failure = Some(error.to_string());
        }
        let Some(slot) = self.feeds.slot_mut(&done.name) else { return };
        let news = done.meta.refusal.as_ref().map(|refusal| &refusal.why)
            != slot.meta.refusal.as_ref().map(|refusal| &refusal.why)
            || !slot.meta.is_failing;
        slot.meta = done.meta;
        slot.attempts += 1;
        let failed = matches!(done.how, How::Refused | How::Noted);
        slot.schedule(failed, now);
        let entries = slot.meta.content.as_ref().map_or(0, |content| content.counts().entries());
        let why = slot.meta.refusal.as_ref().map_or("", |refusal| refusal.why.as_str());
        let name = done.name.as_str();
        let outcome = match done.how {
            How::Accepted(prefixes) => {
                slot.content = Some(Arc::new(prefixes));
                slot.enforced = None;
                tracing::info!(feed = name, entries, "feed accepted");
                Ok(FeedOutcome::Accepted)
            }
            How::Unchanged => Ok(FeedOutcome::Unchanged),
            How::Noted => {
                if news {
                    tracing::warn!(feed = name, why, "feed not fetched");
                }
                Ok(FeedOutcome::Noted)
            }
            How::Refused => {
                // Once for each reason: it is asked for again and again.
                if news {
                    tracing::warn!(feed = name, why, "feed refused; what was in force stays");
                }
                Err(Problem::new(Code::Refused, format!("feed {name}: {why}")))
            }
        };
        let answer = outcome.map(|outcome| FeedAnswer { outcome, entries: entries as u64 });
        if let Some(reply) = slot.busy.take().and_then(|busy| busy.reply) {
            // Whoever has gone wants no answer.
            drop(reply.send(answer));
        }
        self.feeds.look_at_ms = 0;
    }

    /// How long until a feed needs something, at most.
    pub(in crate::edge) fn feeds_wake(&self, now: Now) -> Duration {
        let feeds = &self.feeds;
        if feeds.publication.is_some() {
            return Duration::ZERO;
        }
        let files =
            feeds.slots.iter().filter(|slot| matches!(slot.feed.source, FeedSource::File(_)));
        let due_ms = files.filter(|slot| slot.busy.is_none()).map(|slot| slot.due_ms).min();
        let look_ms = feeds.look_at_ms.max(feeds.publish_not_before_ms);
        let next_ms = due_ms.unwrap_or(u64::MAX).min(look_ms);
        let wait = Duration::from_millis(next_ms.saturating_sub(now.boot_ms));
        let busy = feeds.slots.iter().any(|slot| slot.busy.is_some());
        if busy { wait.min(LOOK_FOR_ENDED) } else { wait }
    }
}
