//! What was just stored goes to delivery out of memory: the disk has it and need not be asked.
//!
//! The database stays the authority. What finds no room here is found there, by the scan that also
//! finds what the clock makes due; and a kept message counts only as long as nobody has taken a
//! message out of the queue since.

use super::body::Content;
use super::message::{DueRecipient, LoadedMessage, NewMessage, Stored, domain_of, from_ms};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Octets of content kept in memory for delivery, over all messages.
const KEPT_BYTES_MAX: usize = 4 << 20;
/// Messages that wait here for the dispatcher.
const WAITING_MAX: usize = 1_000;

/// A message that was committed a moment ago, as delivery would find and read it.
#[derive(Debug)]
pub struct Fresh {
    pub recipients: Vec<DueRecipient>,
    /// `None` when it has a file, or too much is kept already: then it is to be loaded.
    pub kept: Option<Arc<Kept>>,
}

/// A message in memory. It is to be had from [`Spool::kept`](super::Spool::kept).
#[derive(Debug)]
pub struct Kept {
    pub(super) message: LoadedMessage,
    /// [`Handoff::removals`] when it was stored.
    removals: u64,
    #[expect(dead_code, reason = "held for the room it takes")]
    room: OwnedSemaphorePermit,
}

/// What may have become due since it was last asked.
#[derive(Debug, Default)]
pub struct News {
    pub fresh: Vec<Fresh>,
    /// There is more, which only [`Spool::due`](super::Spool::due) finds.
    pub more: bool,
}

#[derive(Debug)]
pub(super) struct Handoff {
    news: Mutex<News>,
    told: Notify,
    room: Arc<Semaphore>,
    /// How often messages were deleted or put aside.
    removals: AtomicU64,
}

/// Wakes delivery when it is dropped. It goes with the answer to whoever stored the message, so
/// that one thread is woken for both; if nobody waits for the answer any more, it goes at once.
#[derive(Debug)]
pub(super) struct Wake(Arc<Handoff>);

impl Drop for Wake {
    fn drop(&mut self) {
        self.0.told.notify_one();
    }
}

impl Default for Handoff {
    fn default() -> Self {
        Self {
            news: Mutex::default(),
            told: Notify::new(),
            room: Arc::new(Semaphore::new(KEPT_BYTES_MAX)),
            removals: AtomicU64::new(0),
        }
    }
}

impl Handoff {
    /// A message was committed, with recipients due at `due_ms`. Delivery is woken by whoever
    /// drops what this returns.
    pub(super) fn stored(self: &Arc<Self>, stored: Stored, due_ms: i64) -> Wake {
        let fresh = self.fresh(stored, due_ms);
        self.with_news(|news| {
            if news.fresh.len() < WAITING_MAX {
                news.fresh.push(fresh);
            } else {
                news.more = true;
            }
        });
        Wake(Arc::clone(self))
    }

    /// Recipients may have become due that are in the database alone.
    pub(super) fn due(&self) {
        self.with_news(|news| news.more = true);
        self.told.notify_one();
    }

    /// Messages are not to be delivered that may be kept here.
    pub(super) fn removed(&self) {
        self.removals.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until there are news. For one waiter.
    pub(super) async fn wait(&self) {
        self.told.notified().await;
    }

    pub(super) fn take(&self) -> News {
        self.with_news(std::mem::take)
    }

    pub(super) fn holds(&self, kept: &Kept) -> bool {
        kept.removals == self.removals.load(Ordering::SeqCst)
    }

    fn with_news<T>(&self, work: impl FnOnce(&mut News) -> T) -> T {
        work(&mut self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn fresh(&self, stored: Stored, due_ms: i64) -> Fresh {
        let Stored { id, message, received_ms, size, eight_bit, content, .. } = stored;
        let NewMessage { reverse_path, recipients, options, binary, .. } = message;
        let recipients = (0..).zip(recipients).map(|(ordinal, recipient)| DueRecipient {
            message: id,
            ordinal,
            domain: domain_of(&recipient.address),
            address: recipient.address,
            options: recipient.options,
            route: recipient.route,
            rule: recipient.rule,
            attempts: 0,
            due: from_ms(due_ms),
        });
        let kept = match content {
            Content::File(_) => None,
            Content::Inline(content) => self.room_for(content.len()).map(|room| {
                let received = from_ms(received_ms);
                let content = Content::Inline(content);
                let message = LoadedMessage {
                    id,
                    reverse_path,
                    received,
                    size,
                    eight_bit,
                    binary,
                    options,
                    content,
                };
                let removals = self.removals.load(Ordering::SeqCst);
                Arc::new(Kept { message, removals, room })
            }),
        };
        Fresh { recipients: recipients.collect(), kept }
    }

    fn room_for(&self, octets: usize) -> Option<OwnedSemaphorePermit> {
        let octets = u32::try_from(octets).ok()?;
        Arc::clone(&self.room).try_acquire_many_owned(octets).ok()
    }
}
