//! What claims say together about an address, class by class, and the entries that say it.

use relay_common::entry::{Entry, List, Scope};

use super::FeedClaim;

/// The end of what never ends, and the latest of all.
const NEVER: u32 = u32::MAX;
const CLASSES: usize = Scope::ALL.bits().count_ones() as usize;

fn class(index: usize) -> Scope {
    Scope::from_bits(1 << index)
}

/// The second on CLOCK_BOOTTIME from which each class is no longer claimed; 0 where none is.
#[derive(Clone, Copy, Debug, Default)]
struct Ends([u32; CLASSES]);

impl Ends {
    fn claim(&mut self, scope: Scope, end_s: u32) {
        for (index, end) in self.0.iter_mut().enumerate() {
            if scope.intersects(class(index)) {
                *end = (*end).max(end_s);
            }
        }
    }

    fn with(self, other: Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index].max(other.0[index])))
    }

    /// The classes that are claimed, as far as this holds of class and end.
    fn scope_where(&self, holds: impl Fn(Scope, u32) -> bool) -> Scope {
        let claimed = self.0.iter().enumerate().filter(|&(_, &end_s)| end_s > 0);
        claimed
            .filter(|&(index, &end_s)| holds(class(index), end_s))
            .fold(Scope::NONE, |all, (index, _)| all.union(class(index)))
    }

    fn scope(&self) -> Scope {
        self.scope_where(|_, _| true)
    }

    fn end_s(&self, asked: Scope) -> impl Iterator<Item = u32> {
        let ends = self.0.iter().enumerate();
        ends.filter(move |&(index, _)| asked.intersects(class(index))).map(|(_, &end_s)| end_s)
    }
}

/// Who is named for a claim.
#[derive(Clone, Copy, Debug)]
struct By {
    rule: u32,
    reason: u8,
}

/// All that is claimed for a prefix.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    scope: Ends,
    observed: Ends,
    /// The most specific, and of these the first, who claims something beyond observation.
    by: Option<By>,
    observed_by: Option<By>,
}

impl Said {
    /// A further claim on the same prefix.
    pub(super) fn add(&mut self, claim: &FeedClaim) {
        let by = By { rule: claim.rule, reason: claim.reason };
        let end_s = if claim.expires_s == 0 { NEVER } else { claim.expires_s };
        self.scope.claim(claim.scope, end_s);
        self.observed.claim(claim.observed, end_s);
        if claim.scope != Scope::NONE {
            self.by.get_or_insert(by);
        }
        if claim.observed != Scope::NONE {
            self.observed_by.get_or_insert(by);
        }
    }

    /// Together with what is claimed for wider prefixes.
    pub(super) fn with(&self, wider: &Self) -> Self {
        Self {
            scope: self.scope.with(wider.scope),
            observed: self.observed.with(wider.observed),
            by: self.by.or(wider.by),
            observed_by: self.observed_by.or(wider.observed_by),
        }
    }

    /// When a denial of these classes ends, at the latest: with the first that is claimed no more.
    /// What is only observed does not count where anything is dropped.
    fn denial_end_s(&self, scope: Scope, observed: Scope) -> Option<u32> {
        self.scope.end_s(scope).min().or_else(|| self.observed.end_s(observed).min())
    }

    fn entry(&self, len: u8, scope: Scope, observed: Scope, end_s: u32) -> Option<Entry> {
        let By { rule, reason } = if scope == Scope::NONE { self.observed_by } else { self.by }?;
        let expires_s = if end_s == NEVER { 0 } else { end_s };
        Some(Entry { expires_s, rule, reason, scope, observed, prefix_len: len })
    }
}

/// The entry of a prefix in a trie, where it hides all wider ones: it says all of `said`.
pub(super) fn prefix(list: List, len: u8, said: &Said) -> Option<Entry> {
    let scope = said.scope.scope();
    match list {
        // One that ended too early would close something.
        List::Allow => said.entry(len, scope, Scope::NONE, said.scope.end_s(scope).max()?),
        List::Deny => {
            let observed = said.observed.scope().without(scope);
            said.entry(len, scope, observed, said.denial_end_s(scope, observed)?)
        }
    }
}

/// The entry of a host, which hides nothing where it is not in force. It says what is claimed for
/// the host itself, if the longest prefix over it does not say that as long. `said` are the host's
/// own claims with those of all that is wider.
pub(super) fn host(len: u8, own: &Said, said: &Said, longest: Option<&Entry>) -> Option<Entry> {
    let (dropped, noted) =
        longest.map_or((Scope::NONE, Scope::NONE), |l| (l.scope, l.scope.union(l.observed)));
    let longest_end_s = longest.map_or(0, end_s_of);
    let is_new = |by_longest: Scope| {
        move |class, end_s| !(by_longest.intersects(class) && longest_end_s >= end_s)
    };
    let scope = own.scope.scope_where(is_new(dropped));
    let observed = own.observed.scope_where(is_new(noted)).without(own.scope.scope());
    let end_s = said.denial_end_s(scope, observed)?;
    // Of its own claims also those that the prefix says, too, as far as they are good until then:
    // so a packet is judged by the first entry that is found, and the host's own feed is named.
    let good = said.scope.scope_where(|_, class_end_s| class_end_s >= end_s);
    let scope = own.scope.scope_where(|class, _| good.intersects(class));
    own.entry(len, scope, own.observed.scope().without(scope), end_s)
}

/// Whether others say all that an entry says, for as long.
pub(super) fn is_said(entry: &Entry, others: [Option<Entry>; 2]) -> bool {
    let as_long = others.into_iter().flatten().filter(|other| end_s_of(other) >= end_s_of(entry));
    let (scope, observed) = as_long.fold((Scope::NONE, Scope::NONE), |(scope, observed), other| {
        (scope.union(other.scope), observed.union(other.observed))
    });
    scope.contains(entry.scope) && scope.union(observed).contains(entry.observed)
}

fn end_s_of(entry: &Entry) -> u32 {
    if entry.expires_s == 0 { NEVER } else { entry.expires_s }
}
