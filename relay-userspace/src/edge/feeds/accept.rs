//! One refresh of a feed, from its bytes to content that is kept, or to the reason why not.
//!
//! Runs beside the owner of the lists: it reads and writes files and knows no map.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use relay_core::feed::{Builder, Counts, FormatError, Limits, Prefixes, Reader, Refusal, judge};
use thiserror::Error;

use super::meta::{Content, Meta, Stamp, digest_of, source_of};
use super::store::{FeedStore, Incoming, read_pieces};
use crate::config::{Feed, FeedSource};
use crate::control::api::Validators;

/// What is to be done with a feed.
#[derive(Debug)]
pub(super) enum Task {
    /// Read its file.
    Read,
    /// Take what the relay has fetched.
    Take(Incoming, Validators),
    /// The publisher says that nothing has changed.
    Unchanged(Validators),
    /// It could not be had.
    Failed(String),
}

/// One refresh. A feed has one at a time.
#[derive(Debug)]
pub(super) struct Job {
    pub feed: Feed,
    pub task: Task,
    pub meta: Meta,
    /// Whether the meta's content is at hand, to go on with or to compare with.
    pub has_content: bool,
    /// Take it even if it has shrunk.
    pub force: bool,
    pub now_s: u64,
    /// Prefixes read so far.
    pub read: Arc<AtomicU64>,
}

/// How a refresh ended.
#[derive(Debug)]
pub(super) struct Done {
    pub name: String,
    pub meta: Meta,
    pub how: How,
    /// What is not on disk, though it should be.
    pub unkept: Option<io::Error>,
}

#[derive(Debug)]
pub(super) enum How {
    Accepted(Prefixes),
    Unchanged,
    Refused,
    /// The relay could not get it.
    Noted,
}

/// Why content is not taken.
#[derive(Debug, Error)]
enum Unfit {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is larger than {size_bytes_max} bytes")]
    TooLarge { size_bytes_max: u64 },
    #[error("it changed while it was read")]
    Changed,
    #[error("{0}")]
    Format(#[from] FormatError),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("nothing has changed, says its publisher, and nothing of it is here")]
    NothingHere,
    #[error("it cannot be kept: {0}")]
    Unkept(io::Error),
}

/// Carries a refresh out, and writes down how it went.
pub(super) fn run(job: Job, store: &FeedStore) -> Done {
    let Job { feed, task, mut meta, has_content, force, now_s, read } = job;
    let name = feed.name.clone();
    let at = At { feed: &feed, store, has_content, force, now_s, read: &read };
    let (how, unkept) = match task {
        Task::Failed(why) => {
            meta.refuse(&why, now_s);
            (How::Noted, store.keep_words(&name, &meta).err())
        }
        task => match at.refresh(task, &mut meta) {
            Ok(Fresh::New(prefixes)) => (How::Accepted(prefixes), None),
            Ok(Fresh::Same) => (How::Unchanged, store.keep_words(&name, &meta).err()),
            Err(why) => {
                meta.refuse(&why.to_string(), now_s);
                (How::Refused, store.keep_words(&name, &meta).err())
            }
        },
    };
    Done { name, meta, how, unkept }
}

enum Fresh {
    New(Prefixes),
    Same,
}

struct At<'a> {
    feed: &'a Feed,
    store: &'a FeedStore,
    has_content: bool,
    force: bool,
    now_s: u64,
    read: &'a AtomicU64,
}

impl At<'_> {
    fn refresh(&self, task: Task, meta: &mut Meta) -> Result<Fresh, Unfit> {
        match task {
            Task::Read => {
                let FeedSource::File(path) = &self.feed.source else { return Err(Unfit::NotAFile) };
                let file = open(path)?;
                let stamp = Stamp::from(&file.metadata()?);
                if let Some(content) = self.own_content(meta)
                    && content.stamp == Some(stamp)
                {
                    content.refreshed_s = self.now_s;
                    meta.is_failing = false;
                    return Ok(Fresh::Same);
                }
                let builder = self.parse(&file)?;
                if Stamp::from(&file.metadata()?) != stamp {
                    return Err(Unfit::Changed);
                }
                self.judge(builder, Some(stamp), Validators::default(), meta)
            }
            Task::Take(incoming, validators) => {
                let builder = self.parse(&open(incoming.path())?)?;
                self.judge(builder, None, validators, meta)
            }
            Task::Unchanged(validators) => {
                let now_s = self.now_s;
                let content = self.own_content(meta).ok_or(Unfit::NothingHere)?;
                content.refreshed_s = now_s;
                let Validators { etag, last_modified } = validators;
                content.validators.etag = etag.or(content.validators.etag.take());
                content.validators.last_modified =
                    last_modified.or(content.validators.last_modified.take());
                meta.is_failing = false;
                Ok(Fresh::Same)
            }
            Task::Failed(_) => Err(Unfit::NothingHere),
        }
    }

    /// The content that is at hand, if this source said it.
    fn own_content<'m>(&self, meta: &'m mut Meta) -> Option<&'m mut Content> {
        let own = self.has_content && meta.source == source_of(self.feed);
        meta.content.as_mut().filter(|_| own)
    }

    fn parse(&self, file: &File) -> Result<Builder, Unfit> {
        let size_bytes_max = self.feed.size_bytes_max;
        let builder = Builder::new(self.feed.limits.entries_max);
        let mut reader = Reader::new(self.feed.format, builder);
        let mut left = size_bytes_max;
        read_pieces(file, |piece| {
            left =
                left.checked_sub(piece.len() as u64).ok_or(Unfit::TooLarge { size_bytes_max })?;
            reader.push(piece)?;
            self.read.store(reader.read() as u64, Ordering::Relaxed);
            Ok::<_, Unfit>(())
        })?;
        Ok(reader.finish()?)
    }

    fn judge(
        &self,
        builder: Builder,
        stamp: Option<Stamp>,
        validators: Validators,
        meta: &mut Meta,
    ) -> Result<Fresh, Unfit> {
        let (prefixes, counts) = builder.finish();
        let digest = digest_of(&prefixes);
        let old = self.own_content(meta).map(|content| (content.counts(), content.digest.clone()));
        self.fits(old.as_ref().map(|(counts, _)| *counts), counts)?;
        let content = Content {
            digest,
            read: counts.read,
            v4: counts.v4,
            v6: counts.v6,
            accepted_s: self.now_s,
            refreshed_s: self.now_s,
            stamp,
            validators,
        };
        if let Some((_, digest)) = old
            && digest == content.digest
            && let Some(kept) = &mut meta.content
        {
            *kept = Content { accepted_s: kept.accepted_s, ..content };
            meta.is_failing = false;
            return Ok(Fresh::Same);
        }
        let meta_before = meta.clone();
        meta.source = source_of(self.feed);
        meta.content = Some(content);
        meta.is_failing = false;
        self.store.keep(&self.feed.name, &prefixes, meta).map_err(|error| {
            *meta = meta_before;
            Unfit::Unkept(error)
        })?;
        Ok(Fresh::New(prefixes))
    }

    fn fits(&self, old: Option<Counts>, new: Counts) -> Result<(), Refusal> {
        let shrink_max_percent = if self.force { 100 } else { self.feed.limits.shrink_max_percent };
        judge(old, new, &Limits { shrink_max_percent, ..self.feed.limits })
    }
}

/// A regular file; without waiting for the other end of a pipe that lies there.
fn open(path: &Path) -> Result<File, Unfit> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(Unfit::NotAFile) }
}
