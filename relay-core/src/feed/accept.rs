//! Whether new content of a feed may replace what is in force.
//!
//! A publisher's accident (an empty file, a list cut to its head) is far more likely than half of
//! the world's spammers giving up between two refreshes. So such content is refused, what is in
//! force stays until its lease ends, and the administrator reads why.
//!
//! What is counted are the prefixes of the set, that is after aggregation: neither lines that are
//! said twice nor their order make a list look larger. Addresses are not counted: one `0.0.0.0/0`
//! would then outweigh all that it replaced. The price is that a publisher who begins to write
//! whole networks in place of their hosts is refused once; the administrator can permit it.

use thiserror::Error;

use super::prefixes::Counts;

/// What a feed may be like, in prefixes of its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub entries_max: usize,
    /// An empty list is refused even where this is 0.
    pub entries_min: usize,
    /// How much smaller than the old the new content may be, in percent of the old: with 100 the
    /// size of the old does not matter.
    pub shrink_max_percent: u8,
}

/// Why content was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("the list is empty")]
    Empty,
    #[error("the list has {entries} prefixes, fewer than the {entries_min} it must have")]
    TooFew { entries: usize, entries_min: usize },
    #[error("the list has {entries} prefixes, more than the {entries_max} it may have")]
    TooMany { entries: usize, entries_max: usize },
    #[error(
        "the list shrank from {old} prefixes to {new}, by more than the {shrink_max_percent} % \
         that it may shrink at once"
    )]
    Shrank { old: usize, new: usize, shrink_max_percent: u8 },
}

/// Whether the new content may replace the old; `None` where there is none yet.
pub fn judge(old: Option<Counts>, new: Counts, limits: &Limits) -> Result<(), Refusal> {
    let &Limits { entries_max, entries_min, shrink_max_percent } = limits;
    let entries = new.entries();
    if entries == 0 {
        return Err(Refusal::Empty);
    }
    if entries < entries_min {
        return Err(Refusal::TooFew { entries, entries_min });
    }
    if entries > entries_max {
        return Err(Refusal::TooMany { entries, entries_max });
    }
    let old = old.map_or(0, Counts::entries);
    let left_min_percent = 100u128.saturating_sub(shrink_max_percent.into());
    if (entries as u128) * 100 < (old as u128) * left_min_percent {
        return Err(Refusal::Shrank { old, new: entries, shrink_max_percent });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { entries_max: 2_000, entries_min: 10, shrink_max_percent: 50 };

    fn counts(entries: usize) -> Counts {
        Counts { read: 5_000, v4: entries / 2, v6: entries - entries / 2 }
    }

    #[test]
    fn sizes_within_the_limits_are_accepted_and_others_named() {
        let first = |entries| judge(None, counts(entries), &LIMITS);
        assert_eq!(first(0), Err(Refusal::Empty));
        assert_eq!(first(9), Err(Refusal::TooFew { entries: 9, entries_min: 10 }));
        assert_eq!(first(10), Ok(()));
        assert_eq!(first(2_000), Ok(()));
        assert_eq!(first(2_001), Err(Refusal::TooMany { entries: 2_001, entries_max: 2_000 }));
    }

    #[test]
    fn an_empty_list_is_refused_whatever_is_permitted() {
        let limits = Limits { entries_max: 0, entries_min: 0, shrink_max_percent: 100 };
        assert_eq!(judge(Some(counts(1_000)), counts(0), &limits), Err(Refusal::Empty));
    }

    #[test]
    fn a_list_may_shrink_by_the_percentage_and_no_further() {
        let next = |old, new| judge(Some(counts(old)), counts(new), &LIMITS);
        assert_eq!(next(1_000, 500), Ok(()));
        assert_eq!(
            next(1_001, 500).unwrap_err().to_string(),
            "the list shrank from 1001 prefixes to 500, by more than the 50 % that it may shrink \
             at once"
        );
        assert_eq!(next(10, 2_000), Ok(()));
        let at = |shrink_max_percent, new| {
            judge(Some(counts(1_000)), counts(new), &Limits { shrink_max_percent, ..LIMITS })
        };
        assert_eq!(at(100, 10), Ok(()));
        assert_eq!(at(255, 10), Ok(()));
        assert_eq!(at(0, 1_000), Ok(()));
        assert!(matches!(at(0, 999), Err(Refusal::Shrank { .. })));
    }
}
