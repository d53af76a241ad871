//! Opening the queue: at once, or later, where the disk has no room.
//!
//! A database in WAL mode cannot even be read without room for its index. A relay that would not
//! start for it would leave senders without a word; one that starts puts them off (452).

use super::id::IdFloor;
use super::spool::{Inner, Spool, SpoolSettings};
use super::writer::{BatchLimits, Request, Writer};
use super::{QueueId, StoreError, read, schema};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// Changes that may wait for the writer; whoever comes then waits to be let in.
const WAITING_MAX: usize = 256;
/// How often it is tried whether there is room.
const TRY_EVERY: Duration = Duration::from_secs(2);
/// With less than this, whatever fails is taken to fail for want of room: some file systems and
/// SQLite itself only say that writing failed.
const ROOM_BYTES_MIN: u64 = 1 << 20;

/// What there is once the queue is open.
#[derive(Debug)]
pub(super) struct Opened {
    /// `None` only while the queue is being closed.
    pub(super) requests: Option<mpsc::Sender<Request>>,
    pub(super) writer: Option<JoinHandle<()>>,
}

impl Spool {
    /// Opens the queue in `folder`, making it on first use, and removes orphaned body files.
    ///
    /// # Errors
    /// Another process has it open, the database is not of this layout, or there is no room.
    pub fn open(folder: &Path, settings: SpoolSettings) -> Result<Self, StoreError> {
        let spool = Self::closed(folder, settings);
        spool.0.open()?;
        Ok(spool)
    }

    /// As [`open`](Self::open), but where there is no room the queue stays closed for now: it
    /// refuses what it is asked for with [`StoreError::Full`] until [`keep_trying`](Self::keep_trying)
    /// has opened it.
    ///
    /// # Errors
    /// As there, but for want of room.
    pub fn open_or_wait(folder: &Path, settings: SpoolSettings) -> Result<Self, StoreError> {
        let spool = Self::closed(folder, settings);
        match spool.0.open() {
            Err(error) if spool.lacks_room(&error) => {
                tracing::error!(%error, "the queue is closed: new mail is refused until there is room");
                spool.0.note_closed(&error);
            }
            opened => opened?,
        }
        Ok(spool)
    }

    /// Opens the queue as soon as there is room, if it is not open yet.
    pub async fn keep_trying(&self) {
        let mut said = String::new();
        while self.closed_for().is_some() {
            tokio::time::sleep(TRY_EVERY).await;
            let inner = Arc::clone(&self.0);
            let tried = tokio::task::spawn_blocking(move || inner.open()).await;
            match tried.unwrap_or_else(|error| Err(StoreError::Io(error.to_string()))) {
                Ok(()) => tracing::info!("the queue is open: there is room again"),
                Err(error) => {
                    let why = error.to_string();
                    if why != said && !self.lacks_room(&error) {
                        tracing::error!(%error, "the queue cannot be opened; trying again");
                    }
                    self.0.note_closed(&error);
                    said = why;
                }
            }
        }
    }

    /// Why the queue is not open, if so.
    pub fn closed_for(&self) -> Option<String> {
        if self.0.opened.get().is_some() {
            return None;
        }
        Some(self.0.closed_for.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Waits until it is open.
    pub async fn opened(&self) {
        let mut is_open = self.0.is_open.subscribe();
        // The sender is in `self`, so that it cannot be gone.
        let _ = is_open.wait_for(|open| *open).await;
    }

    fn lacks_room(&self, error: &StoreError) -> bool {
        match error {
            StoreError::Full(_) => true,
            StoreError::Io(_) => self.free_bytes().is_ok_and(|free| free < ROOM_BYTES_MIN),
            _ => false,
        }
    }
}

impl Inner {
    fn open(&self) -> Result<(), StoreError> {
        let folder = &self.folder;
        std::fs::create_dir_all(folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.try_lock().map_err(|error| {
            StoreError::Io(format!("{} is in use by another process: {error}", folder.display()))
        })?;
        self.folders.make(folder)?;
        let connection = schema::open_writer(&self.database)?;
        let swept = self.folders.sweep(|id| read::names_body_file(&connection, id))?;
        if swept > 0 {
            tracing::info!(files = swept, "removed body files that no message names");
        }
        let last = connection.query_row("SELECT id FROM id_floor", [], |row| row.get(0))?;
        let id_floor = IdFloor::at(QueueId::from_row(last));
        self.ids.raise(id_floor);
        let limits = BatchLimits {
            changes_max: self.settings.batch_changes_max.max(1),
            bytes_max: self.settings.batch_bytes_max,
        };
        let writer = Writer {
            connection,
            folders: self.folders.clone(),
            limits,
            handoff: Arc::clone(&self.handoff),
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build()?,
            id_floor,
            stored_at: None,
            lock,
        };
        let (requests, waiting) = mpsc::channel(WAITING_MAX);
        let writer = std::thread::Builder::new()
            .name("queue-writer".into())
            .spawn(move || writer.run(waiting))?;
        let opened = Opened { requests: Some(requests), writer: Some(writer) };
        // The lock above lets nobody else come here at the same time.
        let _ = self.opened.set(opened);
        self.is_open.send_replace(true);
        Ok(())
    }

    fn note_closed(&self, error: &StoreError) {
        *self.closed_for.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
    }
}
