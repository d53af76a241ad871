//! The one writer: a thread that drains what waits into one transaction and answers after COMMIT.

use super::apply::{self, Applied, Effects};
use super::body::{BodyFolders, Content};
use super::handoff::{Handoff, Wake};
use super::id::IdFloor;
use super::message::{Attempt, Stored, to_ms};
use super::{QueueId, StoreError};
use rusqlite::Connection;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// While mail comes in, what became of attempts waits so long for a message whose way to the disk
/// it can share. Until then a crash means that a message is delivered twice, never that it is lost.
const RECORDS_WAIT: Duration = Duration::from_millis(2);
/// Mail comes in: the latest message was stored less than this ago.
const COMING_IN: Duration = Duration::from_millis(10);

/// A change to the queue. Applied more than once only when the transaction was rolled back.
#[derive(Debug)]
pub(super) enum Change {
    Store(Box<Stored>),
    Record(Box<Attempt>),
    /// Makes the recipients of these messages due at `now_ms`, out of quarantine if they were in.
    Retry {
        messages: Vec<QueueId>,
        now_ms: i64,
    },
    Delete {
        messages: Vec<QueueId>,
    },
    Quarantine {
        message: QueueId,
        reason: String,
        now_ms: i64,
    },
    #[cfg(test)]
    LimitPages(i64),
}

impl Change {
    fn weight(&self) -> usize {
        match self {
            Self::Store(stored) => match &stored.content {
                Content::Inline(content) => content.len(),
                Content::File(_) => 0,
            },
            _ => 0,
        }
    }
}

/// A change and who waits for it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) change: Change,
    pub(super) done: oneshot::Sender<Result<Done, StoreError>>,
}

/// A change is on disk.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) applied: Applied,
    #[expect(dead_code, reason = "wakes delivery when it is dropped")]
    wake: Option<Wake>,
}

/// Bounds of one transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    pub(super) changes_max: usize,
    pub(super) bytes_max: usize,
}

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) folders: BodyFolders,
    pub(super) limits: BatchLimits,
    /// Told of what may have become due.
    pub(super) handoff: Arc<Handoff>,
    /// Waits for requests, with a clock.
    pub(super) runtime: Runtime,
    pub(super) id_floor: IdFloor,
    /// When the latest message was stored.
    pub(super) stored_at: Option<Instant>,
    /// Held locked while this writer lives: two would sweep each other's files.
    #[expect(dead_code, reason = "held for its lock alone")]
    pub(super) lock: File,
}

/// Requests of one transaction.
#[derive(Debug, Default)]
struct Batch {
    requests: Vec<Request>,
    bytes: usize,
    /// Somebody is waiting to hear that this is on disk.
    is_urgent: bool,
}

impl Batch {
    fn push(&mut self, request: Request) {
        self.bytes += request.change.weight();
        self.is_urgent |= !matches!(request.change, Change::Record(_));
        self.requests.push(request);
    }

    fn is_full(&self, limits: BatchLimits) -> bool {
        self.requests.len() >= limits.changes_max || self.bytes >= limits.bytes_max
    }
}

impl Writer {
    /// Runs until every sender is gone.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(batch) = self.gather(&mut requests) {
            self.process(batch.requests);
        }
        let drained = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = drained {
            tracing::warn!(%error, "the queue's log was not folded in; the next start does it");
        }
    }

    /// What waits. There is no delay to gather more of what is urgent: while one COMMIT is on its
    /// way to the disk, the next batch gathers by itself.
    fn gather(&self, requests: &mut mpsc::Receiver<Request>) -> Option<Batch> {
        let is_coming_in = self.stored_at.is_some_and(|at| at.elapsed() < COMING_IN);
        self.runtime.block_on(async {
            let mut batch = Batch::default();
            batch.push(requests.recv().await?);
            let until = Instant::now() + RECORDS_WAIT;
            while !batch.is_full(self.limits) {
                if let Ok(next) = requests.try_recv() {
                    batch.push(next);
                } else if batch.is_urgent || !is_coming_in {
                    break;
                } else if let Ok(Some(next)) = timeout_at(until, requests.recv()).await {
                    batch.push(next);
                } else {
                    break;
                }
            }
            Some(batch)
        })
    }

    fn process(&mut self, batch: Vec<Request>) {
        let now = SystemTime::now();
        match self.transact(&batch, now) {
            Ok((applied, effects)) => {
                let mut answers = Vec::with_capacity(batch.len());
                for (request, applied) in batch.into_iter().zip(applied) {
                    let wake = match request.change {
                        Change::Store(stored) => Some(self.stored(*stored, now)),
                        _ => None,
                    };
                    answers.push((request.done, Done { applied, wake }));
                }
                // Behind the new messages: what was removed may be one of them.
                self.after_commit(&effects);
                for (waiting, done) in answers {
                    // That nobody waits any more is no fault.
                    let _ = waiting.send(Ok(done));
                }
            }
            // One bad request must not take the others with it.
            Err(error) if batch.len() > 1 && !error.is_about_the_disk() => {
                for request in batch {
                    self.process(vec![request]);
                }
            }
            Err(error) => {
                tracing::error!(%error, requests = batch.len(), "the queue could not be written");
                for request in batch {
                    let _ = request.done.send(Err(error.clone()));
                }
            }
        }
    }

    fn transact(
        &mut self,
        batch: &[Request],
        now: SystemTime,
    ) -> Result<(Vec<Applied>, Effects), StoreError> {
        #[cfg(test)]
        if let [Request { change: Change::LimitPages(pages), .. }] = batch {
            self.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        }
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut effects = Effects::default();
        let mut applied = Vec::with_capacity(batch.len());
        for request in batch {
            applied.push(apply::change(&transaction, &request.change, now, &mut effects)?);
        }
        let floor = self.id_floor.above(effects.highest);
        if let Some(floor) = floor {
            apply::raise_id_floor(&transaction, floor)?;
        }
        // Dropped without COMMIT, as by every `?` above, a transaction is rolled back.
        transaction.commit()?;
        self.id_floor = floor.unwrap_or(self.id_floor);
        Ok((applied, effects))
    }

    fn after_commit(&self, effects: &Effects) {
        for id in &effects.files_unnamed {
            if let Err(error) = std::fs::remove_file(self.folders.body(*id))
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(queue_id = %id, %error, "body file not removed; the next start does");
            }
        }
        if effects.removed {
            self.handoff.removed();
        }
        if effects.due_changed {
            self.handoff.due();
        }
    }

    fn stored(&mut self, mut stored: Stored, now: SystemTime) -> Wake {
        if let Content::File(file) = &mut stored.content {
            file.keep();
        }
        self.stored_at = Some(Instant::now());
        self.handoff.stored(stored, to_ms(now))
    }
}
