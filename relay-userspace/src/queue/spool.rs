//! The handle that the relay, delivery and the control socket hold.

use super::accept::MessageWriter;
use super::body::{BodyFolders, Incoming};
use super::handoff::{Handoff, Kept, News};
use super::list::{Filter, MessageDetail, MessageSummary, QueueStats};
use super::message::{Attempt, DueCursor, DueRecipient, LoadedMessage, NewMessage, Rest, to_ms};
use super::opening::Opened;
use super::read::{self, Reader};
use super::writer::{Change, Request};
use super::{QueueId, StoreError, list, schema};
use crate::queue::id::IdSource;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::SystemTime;
use tokio::sync::{Semaphore, oneshot, watch};

/// Read connections kept open.
const READERS_KEPT_MAX: usize = 4;
/// Messages that one transaction of a mass change touches, so that new mail gets in between.
const MASS_CHANGE_STEP: usize = 2_000;

/// Bounds of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Contents up to this many octets are kept in the database, larger ones in a file each.
    pub inline_bytes_max: usize,
    /// No message is begun while the file system has fewer octets than this to give.
    pub free_bytes_min: u64,
    /// Changes in one transaction.
    pub batch_changes_max: usize,
    /// Octets of content in one transaction, after which no further change joins.
    pub batch_bytes_max: usize,
    /// Contents in files that are written at once, each with an open file.
    pub files_max: usize,
}

impl Default for SpoolSettings {
    fn default() -> Self {
        Self {
            inline_bytes_max: 128 << 10,
            free_bytes_min: 64 << 20,
            batch_changes_max: 256,
            batch_bytes_max: 8 << 20,
            files_max: 1_000,
        }
    }
}

/// The queue. Clones share it; when the last is dropped the writer ends.
#[derive(Debug, Clone)]
pub struct Spool(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) settings: SpoolSettings,
    pub(super) folder: PathBuf,
    pub(super) database: PathBuf,
    pub(super) folders: BodyFolders,
    pub(super) ids: IdSource,
    /// Nothing before there was room to open it.
    pub(super) opened: OnceLock<Opened>,
    pub(super) is_open: watch::Sender<bool>,
    /// Why it was not opened.
    pub(super) closed_for: Mutex<String>,
    readers: Mutex<Vec<Reader>>,
    pub(super) handoff: Arc<Handoff>,
    files: Arc<Semaphore>,
    damaged: AtomicU64,
    retries: AtomicU64,
}

impl Drop for Inner {
    /// Lets the writer finish what it was given, so that the folder can be opened again at once.
    fn drop(&mut self) {
        let Some(opened) = self.opened.get_mut() else { return };
        opened.requests = None;
        if let Some(writer) = opened.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the queue's writer panicked");
        }
    }
}

impl Spool {
    /// The queue of a folder, not open.
    pub(super) fn closed(folder: &Path, settings: SpoolSettings) -> Self {
        let files_max = settings.files_max.min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            settings,
            folder: folder.to_owned(),
            database: folder.join("queue.sqlite"),
            folders: BodyFolders::under(folder),
            ids: IdSource::default(),
            opened: OnceLock::new(),
            is_open: watch::Sender::new(false),
            closed_for: Mutex::default(),
            readers: Mutex::new(Vec::new()),
            handoff: Arc::default(),
            files: Arc::new(Semaphore::new(files_max)),
            damaged: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        }))
    }

    pub(super) fn settings(&self) -> &SpoolSettings {
        &self.0.settings
    }

    pub(super) fn folders(&self) -> &BodyFolders {
        &self.0.folders
    }

    /// Begins the file of a message.
    pub(super) fn begin_file(&self, id: QueueId) -> Result<Incoming, StoreError> {
        let place = Arc::clone(&self.0.files).try_acquire_owned().map_err(|_| {
            StoreError::Busy(format!("{} large messages are coming in", self.0.settings.files_max))
        })?;
        Incoming::create(&self.0.folders, id, place)
    }

    /// Begins a message. Refused while the disk is below its reserve.
    pub fn begin(&self, message: NewMessage) -> Result<MessageWriter, StoreError> {
        if message.recipients.is_empty() {
            return Err(StoreError::NoRecipients);
        }
        self.opened_now()?;
        if let Some((free, reserve)) = self.short_of_space()? {
            return Err(StoreError::Full(format!("{free} octets free, {reserve} are kept")));
        }
        let received = SystemTime::now();
        Ok(MessageWriter::new(self.clone(), self.allocate_at(received), message, received))
    }

    /// The octets that are free and those that are to be, where there are too few: new messages
    /// are refused.
    pub fn short_of_space(&self) -> Result<Option<(u64, u64)>, StoreError> {
        let (free, reserve) = (self.free_bytes()?, self.0.settings.free_bytes_min);
        Ok((free < reserve).then_some((free, reserve)))
    }

    pub(super) fn free_bytes(&self) -> Result<u64, StoreError> {
        let disk = nix::sys::statvfs::statvfs(&self.0.folder)
            .map_err(|errno| StoreError::from(std::io::Error::from(errno)))?;
        Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
    }

    fn opened_now(&self) -> Result<&Opened, StoreError> {
        self.0.opened.get().ok_or_else(|| {
            let why = self.closed_for().unwrap_or_default();
            StoreError::Full(format!("it is not open ({why})"))
        })
    }

    /// A queue id for a message that comes in with `Attempt::report`.
    pub fn allocate(&self) -> QueueId {
        self.allocate_at(SystemTime::now())
    }

    fn allocate_at(&self, now: SystemTime) -> QueueId {
        // The id needs no secrecy, only to differ: the hasher's random key is enough.
        self.0.ids.next(now, RandomState::new().hash_one(now))
    }

    pub(super) async fn submit(&self, change: Change) -> Result<u64, StoreError> {
        let (done, answer) = oneshot::channel();
        let request = Request { change, done };
        let requests = self.opened_now()?.requests.as_ref().ok_or(StoreError::Closed)?;
        requests.send(request).await.map_err(|_| StoreError::Closed)?;
        Ok(answer.await.map_err(|_| StoreError::Closed)??.applied)
    }

    /// Waits until recipients may have become due by a change, not by the clock. For one waiter.
    pub async fn due_changed(&self) {
        self.0.handoff.wait().await;
    }

    /// What may have become due by a change since this was last asked.
    ///
    /// A new message is among it before any attempt at it is recorded: whoever asks after an
    /// attempt was recorded, and knows what it was about, takes no message twice.
    pub fn take_news(&self) -> News {
        self.0.handoff.take()
    }

    /// The message as it was stored, unless it may have been removed since: then it is to be
    /// loaded.
    pub fn kept<'kept>(&self, kept: &'kept Kept) -> Option<&'kept LoadedMessage> {
        self.0.handoff.holds(kept).then_some(&kept.message)
    }

    /// Recipients due at `now` behind `cursor`, at most `limit`, in order of their due time; and
    /// what comes then. Messages with damaged recipients are put aside.
    pub async fn due(
        &self,
        now: SystemTime,
        cursor: DueCursor,
        limit: usize,
    ) -> Result<(Vec<DueRecipient>, Rest), StoreError> {
        let page = self.read(move |reader| read::due(reader, now, cursor, limit)).await?;
        for (id, reason) in page.damaged {
            self.put_aside(id, reason).await?;
        }
        Ok((page.recipients, page.rest))
    }

    /// Reads a message for delivery; `None` when it is not in the queue any more, or is damaged and
    /// was therefore put aside.
    pub async fn load(&self, id: QueueId) -> Result<Option<LoadedMessage>, StoreError> {
        let folders = self.0.folders.clone();
        match self.read(move |reader| read::load(reader, &folders, id)).await {
            Err(StoreError::Damaged(reason)) => {
                self.put_aside(id, reason).await?;
                Ok(None)
            }
            other => other,
        }
    }

    async fn put_aside(&self, message: QueueId, reason: String) -> Result<(), StoreError> {
        let now_ms = to_ms(SystemTime::now());
        let change = Change::Quarantine { message, reason: reason.clone(), now_ms };
        if self.submit(change).await? > 0 {
            self.0.damaged.fetch_add(1, Ordering::Relaxed);
            tracing::error!(queue_id = %message, %reason, "damaged message put aside");
        }
        Ok(())
    }

    /// Damaged messages met since the start.
    pub fn damaged_total(&self) -> u64 {
        self.0.damaged.load(Ordering::Relaxed)
    }

    /// How often somebody has asked for a retry since the start: who does, expects a real attempt.
    pub fn retries_asked(&self) -> u64 {
        self.0.retries.load(Ordering::SeqCst)
    }

    /// Records what came of an attempt, with the DSN if there is one, in one transaction.
    pub async fn record(&self, attempt: Attempt) -> Result<(), StoreError> {
        self.submit(Change::Record(Box::new(attempt))).await.map(|_| ())
    }

    /// Messages that match, at most `limit`, in order of arrival, behind `after`.
    pub async fn list(
        &self,
        filter: Filter,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<Vec<MessageSummary>, StoreError> {
        self.read(move |reader| list::list(reader, &filter, after, limit)).await
    }

    /// One message with all its recipients and its header section (bounded).
    pub async fn show(&self, id: QueueId) -> Result<Option<MessageDetail>, StoreError> {
        let folders = self.0.folders.clone();
        self.read(move |reader| list::show(reader, &folders, id)).await
    }

    /// Numbers of messages and recipients by state, and the oldest.
    pub async fn stats(&self) -> Result<QueueStats, StoreError> {
        self.read(move |reader| list::stats(reader, SystemTime::now())).await
    }

    /// Makes these messages due now; returns how many had recipients waiting.
    pub async fn retry(&self, messages: Vec<QueueId>) -> Result<u64, StoreError> {
        self.0.retries.fetch_add(1, Ordering::SeqCst);
        // The time of each step: new due times are looked for a little behind the latest ones.
        let retry = |messages| Change::Retry { messages, now_ms: to_ms(SystemTime::now()) };
        self.in_steps(messages, retry).await
    }

    /// Makes all messages that match due now.
    pub async fn retry_matching(&self, filter: Filter) -> Result<u64, StoreError> {
        let messages = self.read(move |reader| list::ids(reader, &filter)).await?;
        self.retry(messages).await
    }

    /// Deletes these messages without telling anyone; returns how many there were.
    pub async fn delete(&self, messages: Vec<QueueId>) -> Result<u64, StoreError> {
        self.in_steps(messages, |messages| Change::Delete { messages }).await
    }

    /// Deletes all messages that match.
    pub async fn delete_matching(&self, filter: Filter) -> Result<u64, StoreError> {
        let messages = self.read(move |reader| list::ids(reader, &filter)).await?;
        self.delete(messages).await
    }

    /// As a disk that is full from then on.
    #[cfg(test)]
    pub(super) async fn limit_pages(&self, pages: i64) {
        self.submit(Change::LimitPages(pages)).await.expect("nothing is written");
    }

    async fn in_steps(
        &self,
        messages: Vec<QueueId>,
        change: impl Fn(Vec<QueueId>) -> Change,
    ) -> Result<u64, StoreError> {
        let mut touched = 0;
        for step in messages.chunks(MASS_CHANGE_STEP) {
            touched += self.submit(change(step.to_vec())).await?;
        }
        Ok(touched)
    }

    /// Runs `work` with a read connection on a thread that may block.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.opened_now()?;
        let inner = Arc::clone(&self.0);
        let job = move || {
            let kept = inner.readers.lock().expect("no panic while it is held").pop();
            let reader = match kept {
                Some(reader) => reader,
                None => schema::open_reader(&inner.database)?,
            };
            let result = work(&reader)?;
            let mut readers = inner.readers.lock().expect("no panic while it is held");
            if readers.len() < READERS_KEPT_MAX {
                readers.push(reader);
            }
            Ok(result)
        };
        tokio::task::spawn_blocking(job).await.map_err(|error| StoreError::Io(error.to_string()))?
    }
}
