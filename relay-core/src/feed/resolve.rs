//! What the kernel gets from all feeds together: one generation of entries.
//!
//! Of the feeds' tables the kernel asks little ([`relay_common::verdict::decide`]): whether a source
//! is allowed, the longest prefix in the trie of allowances; then, whether it is denied, the entry
//! of its own unit in the table of hosts, and, if that is not in force for the packet's class, the
//! longest prefix in the trie of denials. It does not walk on to wider prefixes. So the longest has
//! to say all that the feeds say about its addresses, and that is worked out here.
//!
//! A feed *claims* classes for the addresses of its prefixes until its lease ends. An entry has one
//! end for all its classes, so where claims of different classes and different ends meet, it cannot
//! say all of them for ever. What holds:
//!
//! - When it is resolved, the entries say exactly what the claims say, allowed, denied and observed.
//! - Later, nothing is closed that the live claims leave open: a denial ends when the first of its
//!   classes is no longer claimed by anyone, and an allowance with the last. Too little may be
//!   closed then; so whoever publishes resolves anew when a lease ends, and only where that process
//!   is dead does it matter.
//! - A class ends with the *last* of the claims on it, so feeds of one scope, whatever their leases,
//!   are exact at all times.
//! - The kernel goes on from a host that is expired, or about other classes, to the trie. So the
//!   entry of a host says only what the host itself is claimed for, and its end uncovers the rest.
//! - Claims that only observe never change what is dropped. In an entry that also drops they end
//!   with it, and may until then be counted for longer than they are claimed.
//!
//! Who is named (rule and reason) is the most specific of those whose claims are dropped or allowed,
//! among equals the first in the order of the feeds; of those who observe, where nothing is dropped.
//!
//! An entry that would say nothing beyond what the kernel finds without it is left out.

use ipnet::IpNet;
use relay_common::control::Kind;
use relay_common::entry::{Entry, List, Scope};
use relay_common::parse::Family;

use super::prefixes::Prefixes;
use super::span::Span;

mod merge;
mod said;

use merge::Merge;
use said::Said;

/// What a feed says about each of its prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedClaim {
    /// Classes that are dropped, or allowed.
    pub scope: Scope,
    /// Classes that are only counted; of no meaning for an allowance.
    pub observed: Scope,
    /// Counter slot of the feed's rule.
    pub rule: u32,
    /// The number of a [`relay_common::entry::Reason`].
    pub reason: u8,
    /// Second on CLOCK_BOOTTIME from which the claim is dead; 0 = it never dies.
    pub expires_s: u32,
}

impl FeedClaim {
    /// Whether the claim holds at this second of CLOCK_BOOTTIME.
    pub const fn is_live(&self, now_s: u32) -> bool {
        self.expires_s == 0 || now_s < self.expires_s
    }
}

/// A feed in force.
#[derive(Clone, Copy, Debug)]
pub struct Feed<'a> {
    pub prefixes: &'a Prefixes,
    pub list: List,
    pub claim: FeedClaim,
}

/// The entries of a generation, made as they are asked for: the allowances, then the denials, of
/// each the IPv4 ones first, each by address. Claims that are dead at `now_s`, a second on
/// CLOCK_BOOTTIME, are left out. Of few feeds, as each step looks at the next prefix of each.
pub fn resolve<'a>(
    feeds: &'a [Feed<'a>],
    now_s: u32,
) -> impl Iterator<Item = (List, IpNet, Entry)> {
    let parts = List::ALL.into_iter().flat_map(|list| Family::ALL.map(|family| (list, family)));
    parts.flat_map(move |(list, family)| {
        let merge = Merge::new(feeds, list, family, now_s);
        Part { list, family, merge, open: Vec::new() }
            .map(move |(span, entry)| (list, span.net(family), entry))
    })
}

/// The table in which the kernel holds an entry.
pub fn kind_of(list: List, net: IpNet) -> Kind {
    let family = if net.addr().is_ipv4() { Family::V4 } else { Family::V6 };
    kind(list, family, net.prefix_len())
}

fn kind(list: List, family: Family, len: u8) -> Kind {
    match list {
        List::Allow => Kind::Allow,
        List::Deny if len == family.host_len() => Kind::Hosts,
        List::Deny => Kind::Deny,
    }
}

/// Entries by table, to compare with what the kernel counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally([[usize; Family::ALL.len()]; Kind::ALL.len()]);

impl Tally {
    pub fn add(&mut self, list: List, net: IpNet) {
        let family = if net.addr().is_ipv4() { Family::V4 } else { Family::V6 };
        self.0[kind_of(list, net) as usize][family as usize] += 1;
    }

    pub fn get(&self, kind: Kind, family: Family) -> usize {
        self.0[kind as usize][family as usize]
    }

    pub fn total(&self) -> usize {
        self.0.iter().flatten().sum()
    }
}

impl<'a> FromIterator<&'a (List, IpNet, Entry)> for Tally {
    fn from_iter<I: IntoIterator<Item = &'a (List, IpNet, Entry)>>(entries: I) -> Self {
        let mut tally = Self::default();
        for &(list, net, _) in entries {
            tally.add(list, net);
        }
        tally
    }
}

/// A claimed prefix over the ones that come next.
#[derive(Clone, Copy, Debug)]
struct Frame {
    span: Span,
    /// What this prefix and the wider ones are claimed for, but for the claims on a host.
    said: Said,
    /// What the trie answers for an address of this prefix that is in no narrower one.
    longest: Option<Entry>,
    /// What the table of hosts answers: from an IPv6 host down, for what is narrower.
    host: Option<Entry>,
}

/// The entries of one list and family.
struct Part<'a> {
    list: List,
    family: Family,
    merge: Merge<'a>,
    /// The prefixes over the next one, the widest first: one of each length at most.
    open: Vec<Frame>,
}

impl Iterator for Part<'_> {
    type Item = (Span, Entry);

    fn next(&mut self) -> Option<(Span, Entry)> {
        loop {
            let (span, own) = self.merge.next()?;
            if let Some(entry) = self.enter(span, own) {
                return Some((span, entry));
            }
        }
    }
}

impl Part<'_> {
    /// Opens a prefix with its own claims. Returns the entry it needs, if it needs one.
    fn enter(&mut self, span: Span, own: Said) -> Option<Entry> {
        while self.open.last().is_some_and(|frame| !frame.span.covers(span)) {
            self.open.pop();
        }
        let (wider, longest, host) = match self.open.last() {
            Some(frame) => (frame.said, frame.longest, frame.host),
            None => (Said::default(), None, None),
        };
        let said = own.with(&wider);
        if kind(self.list, self.family, span.len) == Kind::Hosts {
            let host = said::host(span.len, &own, &said, longest.as_ref());
            self.open.push(Frame { span, said: wider, longest, host });
            return host;
        }
        let entry = said::prefix(self.list, span.len, &said)
            .filter(|entry| !said::is_said(entry, [longest, host]));
        self.open.push(Frame { span, said, longest: entry.or(longest), host });
        entry
    }
}

#[cfg(test)]
mod tests;
