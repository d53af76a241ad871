//! The feeds: whose lists are enforced, and what they must be like.

use std::{collections::HashSet, time::Duration};

use relay_common::entry::{List, Scope};
use relay_core::feed::{Format, Limits};
use toml::Spanned;

use super::{Check, Text};
use crate::config::{checked, file, parse};

/// The generation is made by looking at the next prefix of each feed, so they stay few.
const FEEDS_MAX: usize = 64;
/// Nobody's list changes faster, and publishers close their doors to whoever asks more often.
const REFRESH_MIN: Duration = Duration::from_secs(60);
const COLUMN_MAX: i64 = 1000;
/// As the filter's own lists.
const ENTRIES_MAX: i64 = 16_000_000;

impl Check<'_> {
    pub(super) fn feeds(&mut self, written: &[Spanned<file::Feed>]) -> Option<Vec<checked::Feed>> {
        if let Some(one_too_many) = written.get(FEEDS_MAX) {
            self.place = Some(one_too_many.span());
            self.missing("feed", "one feed too many; there can be 64");
            self.place = None;
            return None;
        }
        let feeds = self.each(written, Self::feed)?;
        let mut seen = HashSet::new();
        for (feed, file) in feeds.iter().zip(written.iter().map(Spanned::get_ref)) {
            if let Some(name) = file.name.as_ref().filter(|_| !seen.insert(&feed.name)) {
                self.fail("feed.name", name, "used twice; give each feed its own name");
            }
        }
        for list in List::ALL {
            let of_list = feeds.iter().filter(|feed| feed.list == list);
            let entries: usize = of_list.map(|feed| feed.limits.entries_max).sum();
            if entries > ENTRIES_MAX as usize {
                self.missing(
                    "feed.max_entries",
                    "more than 16000000 over all feeds of a list; lower some",
                );
            }
        }
        Some(feeds)
    }

    fn feed(&mut self, file: &file::Feed) -> Option<checked::Feed> {
        let name = self.text("feed.name", &file.name, &None, parse::feed_name);
        let source = self.text("feed.source", &file.source, &None, parse::feed_source);
        let ca_file = self.optional("feed.ca_file", &file.ca_file, parse::absolute_path);
        if let (Some(Some(_)), Some(checked::FeedSource::File(_))) = (&ca_file, &source) {
            let problem = "means something only beside an https:// source; remove it";
            self.missing_beside(&[&file.ca_file], "feed.ca_file", problem);
        }
        let format = self.format(file);
        let list = self.text("feed.list", &file.list, &written("deny"), |text| {
            parse::one_of(text, &parse::LISTS)
        });
        let scope = match list {
            Some(List::Allow) => "all",
            _ => "mx",
        };
        let scope: Option<Scope> = self.text("feed.scope", &file.scope, &written(scope), |text| {
            parse::one_of(text, &parse::SCOPES)
        });
        let refresh =
            self.text("feed.refresh", &file.refresh, &written("1h"), |text| match parse::duration(
                text,
            )? {
                refresh if refresh < REFRESH_MIN => {
                    Err("shorter than a minute; write for example 1h".into())
                }
                refresh => Ok(refresh),
            });
        let lease = self.text("feed.lease", &file.lease, &written("3days"), parse::duration);
        if let (Some(refresh), Some(lease)) = (refresh, lease)
            && lease <= refresh
        {
            self.missing_beside(
                &[&file.lease, &file.refresh],
                "feed.lease",
                "not longer than feed.refresh: the feed would end before it is refreshed",
            );
        }
        let size = self.text("feed.max_size", &file.max_size, &written("64MiB"), parse::size_bytes);
        Some(checked::Feed {
            limits: self.feed_limits(file)?,
            name: name?,
            source: source?,
            ca_file: ca_file?,
            format: format?,
            list: list?,
            scope: scope?,
            refresh: refresh?,
            lease: lease?,
            observe: file.observe.unwrap_or(false),
            size_bytes_max: size?,
        })
    }

    fn format(&mut self, file: &file::Feed) -> Option<Format> {
        let name = self.text("feed.format", &file.format, &written("cidr"), |text| {
            parse::one_of(text, &[("cidr", "cidr"), ("drop-json", "drop-json"), ("csv", "csv")])
        })?;
        match (name, &file.column) {
            ("csv", Some(_)) => {
                let column = self.number("feed.column", &file.column, &None, 1..=COLUMN_MAX)?;
                Some(Format::Csv { column })
            }
            ("csv", None) => {
                let problem = "missing; say which column holds the prefix, the first is 1";
                self.missing_beside(&[&file.format], "feed.column", problem);
                None
            }
            (_, Some(_)) => {
                let problem = "means something only beside format = \"csv\"; remove it";
                self.missing_beside(&[&file.format, &file.name], "feed.column", problem);
                None
            }
            ("drop-json", None) => Some(Format::DropJson),
            (_, None) => Some(Format::Cidr),
        }
    }

    fn feed_limits(&mut self, file: &file::Feed) -> Option<Limits> {
        let at = |value| Some(Spanned::new(0..0, value));
        let entries_max: Option<usize> =
            self.number("feed.max_entries", &file.max_entries, &at(1_048_576), 1..=ENTRIES_MAX);
        let entries_min: Option<usize> =
            self.number("feed.min_entries", &file.min_entries, &at(1), 1..=ENTRIES_MAX);
        let shrink_max_percent = match &file.max_shrink {
            None => Some(50),
            written => self.percent("feed.max_shrink", written.as_ref()),
        };
        let limits = Limits {
            entries_max: entries_max?,
            entries_min: entries_min?,
            shrink_max_percent: shrink_max_percent?,
        };
        if limits.entries_min > limits.entries_max {
            self.missing_beside(
                &[&file.name],
                "feed.min_entries",
                "more than feed.max_entries; lower it",
            );
            return None;
        }
        Some(limits)
    }
}

/// A default, in the form in which it would be written.
fn written(text: &str) -> Text {
    Some(Spanned::new(0..0, text.to_owned()))
}
