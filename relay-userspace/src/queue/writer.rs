//! The one writer: a thread that drains what waits into one transaction and answers after COMMIT.

use super::apply::{self, Applied, Effects};
use super::message::{Attempt, Stored};
use super::{QueueId, StoreError};
use crate::queue::body::{BodyFolders, Content};
use rusqlite::Connection;
use std::fs::File;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, oneshot};

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
    pub(super) done: oneshot::Sender<Result<Applied, StoreError>>,
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
    /// Told whenever a recipient may have become due.
    pub(super) due: Arc<Notify>,
    /// Held locked while this writer lives: two would sweep each other's files.
    #[expect(dead_code, reason = "held for its lock alone")]
    pub(super) lock: File,
}

impl Writer {
    /// Runs until every sender is gone. There is no delay to gather more: while one COMMIT is on
    /// its way to the disk, the next batch gathers by itself.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut bytes = first.change.weight();
            let mut batch = vec![first];
            while batch.len() < self.limits.changes_max && bytes < self.limits.bytes_max {
                let Ok(next) = requests.try_recv() else { break };
                bytes += next.change.weight();
                batch.push(next);
            }
            self.process(batch);
        }
        let drained = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = drained {
            tracing::warn!(%error, "the queue's log was not folded in; the next start does it");
        }
    }

    fn process(&mut self, mut batch: Vec<Request>) {
        match self.transact(&batch) {
            Ok((applied, effects)) => {
                self.after_commit(&effects);
                for (request, applied) in batch.iter_mut().zip(applied) {
                    if let Change::Store(stored) = &mut request.change
                        && let Content::File(file) = &mut stored.content
                    {
                        file.keep();
                    }
                    take_done(request, Ok(applied));
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
                for request in &mut batch {
                    take_done(request, Err(error.clone()));
                }
            }
        }
    }

    fn transact(&mut self, batch: &[Request]) -> Result<(Vec<Applied>, Effects), StoreError> {
        #[cfg(test)]
        if let [Request { change: Change::LimitPages(pages), .. }] = batch {
            self.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
        }
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut effects = Effects::default();
        let mut applied = Vec::with_capacity(batch.len());
        for request in batch {
            applied.push(apply::change(&transaction, &request.change, &mut effects)?);
        }
        apply::raise_id_floor(&transaction, &effects)?;
        // Dropped without COMMIT, as by every `?` above, a transaction is rolled back.
        transaction.commit()?;
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
        if effects.due_changed {
            self.due.notify_one();
        }
    }
}

/// Answers a request; that nobody waits any more is no fault.
fn take_done(request: &mut Request, result: Result<Applied, StoreError>) {
    let (unused, _) = oneshot::channel();
    let _ = std::mem::replace(&mut request.done, unused).send(result);
}
