//! What is asked of the feeds over the control socket: refresh, content, and word of none.

use std::fs::File;
use std::path::PathBuf;

use tokio::sync::oneshot;

use super::accept::Task;
use super::store::Incoming;
use crate::config::FeedSource;
use crate::control::api::{
    Code, FeedAnswer, FeedOutcome, FeedRefresh, Problem, VALIDATOR_BYTES_MAX, Validators,
};
use crate::edge::clock::Now;
use crate::edge::filter::Filter;
use crate::edge::state::Edge;

/// Told once a refresh has ended.
pub(in crate::edge) type FeedReply = oneshot::Sender<Result<FeedAnswer, Problem>>;

/// Where content may be written that is to become a feed's.
#[derive(Debug)]
pub(in crate::edge) struct Upload {
    path: PathBuf,
    pub size_bytes_max: u64,
}

impl Upload {
    /// Takes the place.
    ///
    /// # Errors
    /// Somebody else is writing there, or the disk fails.
    pub(in crate::edge) fn begin(&self) -> Result<(Incoming, File), Problem> {
        match Incoming::take(self.path.clone()) {
            Ok(Some(taken)) => Ok(taken),
            Ok(None) => Err(busy()),
            Err(error) => Err(Problem::new(Code::Storage, error.to_string())),
        }
    }
}

fn busy() -> Problem {
    Problem::new(Code::Busy, "the feed is being refreshed").remedy("try again in a moment")
}

/// A validator is a field of a header: anything else could not be sent back.
fn check(validators: &Validators) -> Result<(), Problem> {
    let sendable = |text: &String| {
        text.len() <= VALIDATOR_BYTES_MAX
            && text.bytes().all(|b| b == b'\t' || (b' '..127).contains(&b))
    };
    let both = [&validators.etag, &validators.last_modified];
    if both.into_iter().flatten().all(sendable) {
        Ok(())
    } else {
        Err(Problem::new(Code::Invalid, "a validator is up to 1024 printable ASCII characters"))
    }
}

impl<F: Filter> Edge<F> {
    fn feed_at(&self, name: &str) -> Result<usize, Problem> {
        let found = self.feeds.slots.iter().position(|slot| slot.feed.name == name);
        found.ok_or_else(|| Problem::new(Code::NotFound, format!("there is no feed {name:?}")))
    }

    /// A feed from the network that nothing is being done with.
    fn network_feed_at(&self, name: &str) -> Result<usize, Problem> {
        let at = self.feed_at(name)?;
        let slot = &self.feeds.slots[at];
        if let FeedSource::File(path) = &slot.feed.source {
            let message = format!("the feed {name} is read from {}", path.display());
            return Err(Problem::new(Code::Refused, message));
        }
        if slot.busy.is_some() { Err(busy()) } else { Ok(at) }
    }

    /// Has a feed be refreshed now: a file is read, an address is fetched by the relay.
    pub(in crate::edge) fn feed_refresh(
        &mut self,
        name: &str,
        request: &FeedRefresh,
    ) -> Result<FeedAnswer, Problem> {
        let at = self.feed_at(name)?;
        let now = self.now();
        let slot = &mut self.feeds.slots[at];
        slot.force = request.force;
        slot.failures = 0;
        slot.due_ms = now.boot_ms;
        if request.force {
            tracing::info!(feed = name, "the next content is taken however small it is");
        }
        // A refresh under way may have begun before the file was written.
        let entries = slot.meta.content.as_ref().map_or(0, |content| content.counts().entries());
        Ok(FeedAnswer { outcome: FeedOutcome::Due, entries: entries as u64 })
    }

    /// Where the content of a feed from the network may be written.
    pub(in crate::edge) fn feed_upload(&self, name: &str) -> Result<Upload, Problem> {
        let slot = &self.feeds.slots[self.network_feed_at(name)?];
        let path = self.feeds.work.store().incoming(name);
        Ok(Upload { path, size_bytes_max: slot.feed.size_bytes_max })
    }

    /// Takes what the relay has fetched. The answer comes when it is kept, or refused.
    pub(in crate::edge) fn feed_content(
        &mut self,
        name: &str,
        incoming: Incoming,
        validators: Validators,
        reply: FeedReply,
    ) {
        let checked = check(&validators);
        self.refresh_by(name, checked.map(|()| Task::Take(incoming, validators)), reply);
    }

    /// The publisher says that nothing has changed.
    pub(in crate::edge) fn feed_unchanged(
        &mut self,
        name: &str,
        validators: Validators,
        reply: FeedReply,
    ) {
        let checked = check(&validators);
        self.refresh_by(name, checked.map(|()| Task::Unchanged(validators)), reply);
    }

    /// The relay could not fetch it.
    pub(in crate::edge) fn feed_failed(&mut self, name: &str, reason: String, reply: FeedReply) {
        self.refresh_by(name, Ok(Task::Failed(reason)), reply);
    }

    fn refresh_by(&mut self, name: &str, task: Result<Task, Problem>, reply: FeedReply) {
        let now: Now = self.now();
        match task.and_then(|task| Ok((self.network_feed_at(name)?, task))) {
            Ok((at, task)) => self.refresh_slot(at, task, Some(reply), now),
            // Whoever has gone wants no answer.
            Err(problem) => drop(reply.send(Err(problem))),
        }
    }
}
