//! The prefixes of several feeds in one order, each with what they all claim for it.

use relay_common::entry::List;
use relay_common::parse::Family;

use super::said::Said;
use super::{Feed, FeedClaim};
use crate::feed::prefixes::Spans;
use crate::feed::span::Span;

/// Where a feed's prefixes have been read to.
struct Cursor<'a> {
    claim: FeedClaim,
    head: Span,
    rest: Spans<'a>,
}

/// Of one list and family: by address, of two at one address the wider first, each prefix once.
pub(super) struct Merge<'a> {
    /// In the order of the feeds. One that has come to its end is gone.
    cursors: Vec<Cursor<'a>>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(feeds: &'a [Feed<'a>], list: List, family: Family, now_s: u32) -> Self {
        let live = feeds.iter().filter(|feed| feed.list == list && feed.claim.is_live(now_s));
        let cursor = |feed: &'a Feed<'a>| {
            let mut rest = feed.prefixes.spans(family);
            Some(Cursor { claim: feed.claim, head: rest.next()?, rest })
        };
        Self { cursors: live.filter_map(cursor).collect() }
    }
}

impl Iterator for Merge<'_> {
    type Item = (Span, Said);

    fn next(&mut self) -> Option<(Span, Said)> {
        let span = self.cursors.iter().map(|cursor| cursor.head).min()?;
        let mut said = Said::default();
        self.cursors.retain_mut(|cursor| {
            if cursor.head != span {
                return true;
            }
            said.add(&cursor.claim);
            let next = cursor.rest.next();
            cursor.head = next.unwrap_or(span);
            next.is_some()
        });
        Some((span, said))
    }
}
