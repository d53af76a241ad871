//! Feeds in the edge: lists of prefixes that others publish, in force beside the edge's own rows.
//!
//! The way of a refresh: [`mod@requests`] or the clock ([`mod@due`]) gives a job to [`mod@work`],
//! which reads, judges and keeps the content ([`mod@accept`], [`mod@store`]) beside the owner of
//! the lists. Then [`mod@wanted`] says which feeds are to be in force until when, and
//! [`mod@publish`] writes them all into the filter as one generation, step by step, so that the
//! owner answers others in between.

mod accept;
mod due;
mod generation;
mod meta;
mod old;
mod publish;
mod report;
mod requests;
mod store;
#[cfg(test)]
mod tests;
mod upload;
mod wanted;
mod work;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ipnet::IpNet;
use relay_common::entry::{List, Scope};
use relay_core::feed::Prefixes;

pub(super) use report::verdict_of;
pub(super) use requests::{FeedReply, Upload};
pub(super) use store::Incoming;
pub(super) use upload::receive;

use self::generation::Generation;
use self::meta::Meta;
use self::publish::Publication;
use self::store::FeedStore;
use self::work::Work;
use super::clock::Now;
use super::desired::boot_expiry_s;
use super::filter::Filter;
use super::state::{Edge, EdgeSettings};
use super::store::{RULE_SLOT_OTHER, Store};
use crate::config::Feed;
use crate::control::api::FeedLeftOut;

/// Drops and counts are attributed to a rule of this name.
fn rule_of(feed: &str) -> String {
    format!("feed {feed}")
}

/// The counter of a feed. Each by itself: a new one that finds no room takes none from the others.
fn counter_of(feed: &Feed, lists: &mut Store, counted_anew: &mut Vec<u32>) -> u32 {
    let rules = [rule_of(&feed.name)];
    match lists.begin().and_then(|txn| txn.slots_of(&rules)) {
        Ok((slots, anew)) => {
            counted_anew.extend(anew);
            slots.first().copied().unwrap_or(RULE_SLOT_OTHER)
        }
        Err(error) => {
            tracing::error!(
                feed = feed.name, %error,
                "a feed has no counter of its own until the next start"
            );
            RULE_SLOT_OTHER
        }
    }
}

/// One configured feed.
#[derive(Debug)]
struct Slot {
    feed: Feed,
    rule: u32,
    meta: Meta,
    /// What the meta's content is, unless it was lost.
    content: Option<Arc<Prefixes>>,
    /// What of it is not enforced, as of the last look, and the rest.
    left_out: Vec<FeedLeftOut>,
    enforced: Option<Arc<Prefixes>>,
    /// Milliseconds since boot.
    due_ms: u64,
    /// Refreshes that failed, one after the other.
    failures: u32,
    /// Refreshes that have ended since the start.
    attempts: u64,
    /// The administrator takes the next content even if it has shrunk.
    force: bool,
    busy: Option<Busy>,
}

/// A refresh under way.
struct Busy {
    read: Arc<AtomicU64>,
    reply: Option<FeedReply>,
}

impl std::fmt::Debug for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Busy").field("read", &self.read).finish_non_exhaustive()
    }
}

impl Slot {
    fn open(feed: &Feed, rule: u32, store: Option<&FeedStore>, now: Now) -> Self {
        let loaded = store.map(|store| store.load(&feed.name, feed.limits.entries_max));
        let (mut meta, content) = match loaded {
            Some(Ok(Some(kept))) => kept,
            Some(Ok(None)) | None => (Meta::of(feed), None),
            Some(Err(error)) => {
                tracing::error!(
                    feed = feed.name, %error,
                    "what was kept of a feed is damaged; it is empty until it is refreshed"
                );
                let mut meta = Meta::of(feed);
                meta.refuse(&format!("what was kept of it is damaged: {error}"), now.wall_s());
                (meta, None)
            }
        };
        if content.is_none() {
            meta.content = None;
        }
        Self {
            feed: feed.clone(),
            rule,
            due_ms: due::first_ms(feed, &meta, now),
            meta,
            content: content.map(Arc::new),
            left_out: Vec::new(),
            enforced: None,
            failures: 0,
            attempts: 0,
            force: false,
            busy: None,
        }
    }

    /// The second since 1970 at which the feed ends, if nothing comes between.
    fn lease_ends_s(&self, now: Now) -> Option<u64> {
        let content = self.meta.content.as_ref()?;
        Some(content.lease_ends_s(&self.feed, now))
    }

    /// As [`Self::lease_ends_s`] on CLOCK_BOOTTIME; `None` once it is over.
    fn expires_s(&self, now: Now) -> Option<u32> {
        boot_expiry_s(Some(self.lease_ends_s(now)?), now)
    }

    fn is_due(&self, now: Now) -> bool {
        self.busy.is_none() && now.boot_ms >= self.due_ms
    }
}

/// The feeds of the configuration, and what of them is in force.
#[derive(Debug)]
pub(super) struct Feeds {
    slots: Vec<Slot>,
    work: Work,
    /// `None` until it is known what the filter holds.
    in_force: Option<Generation>,
    publication: Option<Publication>,
    /// When to look whether something else should be in force; milliseconds since boot.
    look_at_ms: u64,
    /// After a failure, not before this.
    publish_not_before_ms: u64,
    /// When to compare what is in force with what should be.
    compare_at_ms: u64,
}

impl Feeds {
    /// Reads what was kept, and gives each feed a counter; also returned are those that were
    /// another rule's before. What is damaged is said, and is empty until it is refreshed; a folder
    /// that cannot be used, or a full disk, is no reason to filter nothing.
    pub(super) fn open(settings: &EdgeSettings, lists: &mut Store, now: Now) -> (Self, Vec<u32>) {
        let store = FeedStore::open(settings.feeds_folder.clone());
        if let Err(error) = &store {
            tracing::error!(%error, "the folder of the feeds cannot be used");
        }
        if let Ok(store) = &store {
            old::see_through(&settings.feeds, store, lists);
        }
        let mut counted_anew = Vec::new();
        let mut slots = Vec::with_capacity(settings.feeds.len());
        for feed in &settings.feeds {
            let rule = counter_of(feed, lists, &mut counted_anew);
            slots.push(Slot::open(feed, rule, store.as_ref().ok(), now));
        }
        let store = store.unwrap_or_else(|_| FeedStore::at(settings.feeds_folder.clone()));
        let feeds = Self {
            slots,
            work: Work::new(store),
            in_force: None,
            publication: None,
            look_at_ms: 0,
            publish_not_before_ms: 0,
            compare_at_ms: 0,
        };
        (feeds, counted_anew)
    }

    /// The traffic that the feeds in force speak about; `None` while that is not known.
    fn guarded(&self) -> Option<Scope> {
        self.in_force.as_ref().map(Generation::guarded)
    }

    fn slot(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.feed.name == name)
    }

    fn slot_mut(&mut self, name: &str) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.feed.name == name)
    }

    /// Whether the map of sources to be looked up may be made anew: not while entries are written
    /// that it does not know of yet.
    pub(super) fn may_retouch(&self) -> bool {
        self.publication.is_none() && self.in_force.is_some()
    }

    /// How many prefixes of a feed are in force.
    fn in_force_of(&self, name: &str) -> u64 {
        let parts = self.in_force.iter().flat_map(|generation| &generation.parts);
        parts.filter(|part| part.name == name).map(|part| part.prefixes.len() as u64).sum()
    }

    /// How many entries of feeds the filter holds.
    pub(super) fn entries_in_force(&self) -> u64 {
        self.in_force.as_ref().map_or(0, |generation| generation.print.entries)
    }

    /// Every prefix of the feeds in force.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = (List, IpNet)> {
        self.in_force.iter().flat_map(Generation::prefixes)
    }
}

impl<F: Filter> Edge<F> {
    /// The traffic that has to be looked up: for the rows and for the feeds, and the mail ports
    /// while connections to them are limited.
    pub(super) fn guarded(&self) -> Scope {
        // Until it is known what feeds the filter holds, what they guard stays guarded.
        let feeds = self.feeds.guarded().or_else(|| self.filter.guarded().ok());
        self.guarded_with(feeds.unwrap_or(Scope::NONE))
    }

    /// The same, were this the traffic that feeds speak about.
    pub(super) fn guarded_with(&self, feeds: Scope) -> Scope {
        let limited = self.settings.modes.syn.map_or(Scope::NONE, |_| Scope::SMTP);
        self.desired.guarded().union(feeds).union(limited)
    }

    /// Has feeds be read by a thread of their own from now on.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn read_feeds_beside(&mut self) -> std::io::Result<()> {
        self.feeds.work.beside()
    }
}
