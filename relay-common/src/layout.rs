//! Names, sizes and meanings of the maps. Whatever changes here, or in the bytes of an
//! [`Entry`](crate::entry::Entry), in [`Reason`](crate::entry::Reason)'s numbers or in the places of
//! [`Counter`](crate::totals::Counter), raises [`LAYOUT_VERSION`]: pinned maps of another version
//! are never adopted.

use crate::entry::{List, Scope};
use crate::parse::Family;

/// Names the pin directory, so that maps of two layouts never meet.
pub const LAYOUT_VERSION: u32 = 1;

/// The program's name in the object file, and what `bpftool prog` shows.
pub const PROGRAM: &str = "postern";

pub const ALLOW_V4: &str = "ALLOW_V4";
pub const ALLOW_V6: &str = "ALLOW_V6";
pub const DENY_V4: &str = "DENY_V4";
pub const DENY_V6: &str = "DENY_V6";
/// Per-CPU array of u64, indexed by [`Counter::index`](crate::totals::Counter::index).
pub const TOTALS: &str = "TOTALS";
/// Per-CPU array of [`RuleHits`] bytes, indexed by an entry's rule.
pub const RULE_HITS: &str = "RULE_HITS";
/// Array of one u32: the bits of the guarded [`Scope`].
pub const GUARDED: &str = "GUARDED";

/// Every map, in the order in which they are pinned.
pub const MAPS: [&str; 7] = [ALLOW_V4, ALLOW_V6, DENY_V4, DENY_V6, TOTALS, RULE_HITS, GUARDED];

/// The trie that holds a list's entries of one family.
pub const fn trie(list: List, family: Family) -> &'static str {
    match (list, family) {
        (List::Allow, Family::V4) => ALLOW_V4,
        (List::Allow, Family::V6) => ALLOW_V6,
        (List::Deny, Family::V4) => DENY_V4,
        (List::Deny, Family::V6) => DENY_V6,
    }
}

/// What a trie holds; `None` for a map that is no list.
pub fn list_of(map: &str) -> Option<(List, Family)> {
    let pairs = List::ALL.into_iter().flat_map(|list| Family::ALL.map(|family| (list, family)));
    pairs.into_iter().find(|&(list, family)| trie(list, family) == map)
}

/// Room for entries in each allow trie unless the loader says otherwise.
pub const ALLOW_ENTRIES: u32 = 65_536;
/// Room for entries in each deny trie unless the loader says otherwise.
pub const DENY_ENTRIES: u32 = 1_048_576;
/// Rule ids run from 0 to one below this. An entry with a higher one works and is not counted.
pub const RULES: u32 = 65_536;

/// The scope that the GUARDED map's word stands for.
pub const fn guarded_scope(word: u32) -> Scope {
    Scope::from_bits(word.to_le_bytes()[0])
}

/// The GUARDED map's word for a scope.
pub const fn guarded_word(scope: Scope) -> u32 {
    scope.bits() as u32
}

/// One CPU's slot of the RULE_HITS map: what a rule's entries did to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RuleHits {
    /// Packets that the rule decided: dropped for a deny, passed for an allow.
    pub hits: u64,
    /// Second on CLOCK_BOOTTIME of the latest one; 0 with no hits.
    pub last_s: u64,
}

impl RuleHits {
    /// Both CPUs' hits as one.
    pub fn merge(self, other: Self) -> Self {
        Self {
            hits: self.hits.wrapping_add(other.hits),
            last_s: if self.last_s > other.last_s { self.last_s } else { other.last_s },
        }
    }
}
