//! What is kept beside a feed's content: where it came from, when, and how its latest refresh went.

use std::fmt::Write;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use aws_lc_rs::digest;
use ipnet::IpNet;
use relay_core::feed::{Counts, Format, Prefixes};
use serde::{Deserialize, Serialize};

use super::super::clock::Now;
use crate::config::Feed;
use crate::control::api::Validators;

/// The longest reason that is kept, in bytes: a text from the network may be part of it.
const WHY_BYTES_MAX: usize = 500;

/// The file `NAME.json`. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Meta {
    /// Whence the content came, and how it was written: another source's content is no measure
    /// for this one's.
    pub source: String,
    pub content: Option<Content>,
    /// The latest refresh that failed.
    pub refusal: Option<Refusal>,
    /// Refreshes that failed, ever.
    pub refusals: u64,
    /// Whether the latest of all was one of them.
    pub is_failing: bool,
}

/// What `NAME.cidr` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    pub digest: String,
    pub read: usize,
    pub v4: usize,
    pub v6: usize,
    pub accepted_s: u64,
    /// When a refresh last succeeded: the lease runs from here.
    pub refreshed_s: u64,
    /// Of the file it was read from, to see that it is still the same.
    #[serde(default)]
    pub stamp: Option<Stamp>,
    #[serde(default)]
    pub validators: Validators,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub at_s: u64,
    pub why: String,
}

/// What tells a file from what it was before, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl From<&Metadata> for Stamp {
    fn from(of: &Metadata) -> Self {
        Self {
            device: of.dev(),
            inode: of.ino(),
            size: of.size(),
            modified_s: of.mtime(),
            modified_ns: of.mtime_nsec(),
        }
    }
}

impl Meta {
    /// Of a feed that has had no content yet.
    pub(super) fn of(feed: &Feed) -> Self {
        Self { source: source_of(feed), ..Self::default() }
    }

    /// Writes a failure down.
    pub(super) fn refuse(&mut self, why: &str, now_s: u64) {
        let mut why: String = why.chars().filter(|c| !c.is_control()).collect();
        let end = (0..=why.len().min(WHY_BYTES_MAX)).rev().find(|&at| why.is_char_boundary(at));
        why.truncate(end.unwrap_or(0));
        self.refusal = Some(Refusal { at_s: now_s, why });
        self.refusals += 1;
        self.is_failing = true;
    }
}

impl Content {
    pub(super) fn counts(&self) -> Counts {
        Counts { read: self.read, v4: self.v4, v6: self.v6 }
    }

    /// The second since 1970 at which the lease ends. A clock that was wrong when the content was
    /// refreshed makes no lease longer.
    pub(super) fn lease_ends_s(&self, feed: &Feed, now: Now) -> u64 {
        self.refreshed_s.min(now.wall_s()).saturating_add(feed.lease.as_secs())
    }
}

/// The source and how it is read, as one text.
pub(super) fn source_of(feed: &Feed) -> String {
    match feed.format {
        Format::Cidr => format!("cidr {}", feed.source),
        Format::DropJson => format!("drop-json {}", feed.source),
        Format::Csv { column } => format!("csv {column} {}", feed.source),
    }
}

/// What a feed's content is recognised by, however it was written: SHA-256 over each prefix that
/// was said, in order, as family, address and length.
pub(super) fn digest_of(prefixes: &Prefixes) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for net in prefixes.said() {
        match net {
            IpNet::V4(net) => {
                context.update(&[4]);
                context.update(&net.addr().octets());
            }
            IpNet::V6(net) => {
                context.update(&[6]);
                context.update(&net.addr().octets());
            }
        }
        context.update(&[net.prefix_len()]);
    }
    let mut text = String::with_capacity(64);
    for byte in context.finish().as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
