//! What is kept of feeds that the configuration no longer has: given to the feed of another name
//! that has the same source, since it was only renamed, and removed otherwise.

use std::collections::BTreeSet;
use std::io;

use super::meta::{Meta, source_of};
use super::rule_of;
use super::store::FeedStore;
use crate::config::Feed;
use crate::edge::filter::Filter;
use crate::edge::state::Edge;
use crate::edge::store::Store;

/// Sees through what is kept, before it is read. What fails is tried again at the next start.
pub(super) fn see_through(feeds: &[Feed], store: &FeedStore, lists: &mut Store) {
    let names = match store.names() {
        Ok(names) => names,
        Err(error) => {
            tracing::error!(%error, "the folder of the feeds cannot be read");
            return;
        }
    };
    let is_configured = |name: &String| feeds.iter().any(|feed| feed.name == *name);
    let mut old: BTreeSet<String> =
        names.iter().filter(|name| !is_configured(name)).cloned().collect();
    for feed in feeds {
        if old.is_empty() || !matches!(store.words::<Meta>(&feed.name), Ok(None)) {
            continue;
        }
        let Some(from) = kept_of(feed, &old, store) else { continue };
        let counter = lists.begin().and_then(|txn| {
            txn.rename_rule(&rule_of(&from), &rule_of(&feed.name))?;
            txn.commit()
        });
        if let Err(error) = counter {
            tracing::warn!(feed = feed.name, %error, "its counter begins anew");
        }
        match store.rename(&from, &feed.name) {
            Ok(()) => tracing::info!(feed = feed.name, was = from, "feed renamed"),
            Err(error) => tracing::error!(feed = feed.name, was = from, %error, "renaming a feed"),
        }
        // If that failed, it is not to be removed either.
        old.remove(&from);
    }
    for name in old {
        let done: io::Result<()> = store.forget(&name);
        match done {
            Ok(()) => {
                tracing::info!(feed = name, "no longer configured; what was kept of it is removed");
            }
            Err(error) => tracing::error!(feed = name, %error, "removing what was kept of a feed"),
        }
    }
}

/// The name under which content of the feed's source is kept: of several, what was refreshed last.
fn kept_of(feed: &Feed, old: &BTreeSet<String>, store: &FeedStore) -> Option<String> {
    let of_source = old.iter().filter_map(|name| {
        let meta: Meta = store.words(name).ok().flatten()?;
        let refreshed_s = meta.content.as_ref().map(|content| content.refreshed_s);
        (meta.source == source_of(feed)).then_some((refreshed_s, name))
    });
    of_source.max().map(|(_, name)| name.clone())
}

impl<F: Filter> Edge<F> {
    /// Gives the counters of feeds free that are no longer configured. While they may still be in
    /// force, as the filter could not be written, they count under their names.
    pub(in crate::edge) fn forget_old_feeds(&mut self) {
        if self.feeds.in_force.is_none() {
            return;
        }
        let there: Vec<String> =
            self.feeds.slots.iter().map(|slot| rule_of(&slot.feed.name)).collect();
        let is_there = |rule: &str| there.iter().any(|it| it == rule);
        match self.store.begin().and_then(|txn| txn.forget_feed_rules(is_there)) {
            Ok(gone) => {
                for (_, rule) in &gone {
                    tracing::info!(rule, "no longer configured; its counter is free");
                }
                self.reset_rules(gone.into_iter().map(|(slot, _)| slot).collect(), &mut None);
            }
            Err(error) => tracing::warn!(%error, "counters of feeds that are gone stay taken"),
        }
    }
}
