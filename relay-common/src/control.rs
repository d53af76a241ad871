//! The control word: what a packet needs to know before it looks anything up. One load, once a
//! packet, so that no packet sees the old state in one respect and the new one in another.

use crate::entry::Scope;
use crate::packed::Lines;
use crate::parse::Family;
use crate::touch::Touch;

/// What a table of entries holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Allowed prefixes, in a trie.
    Allow = 0,
    /// Denied prefixes, in a trie; all but the ones in `Hosts`.
    Deny = 1,
    /// Denied units of exactly [`Family::host_len`] bits, in a hash.
    Hosts = 2,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Allow, Self::Deny, Self::Hosts];
}

impl Family {
    /// The length of the denials that stand in the table of hosts: what a ban covers.
    pub const fn host_len(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 64,
        }
    }
}

/// Which entries are asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// What administrators and bans put there, one by one.
    Rows = 0,
    /// The generation of feeds in force.
    Feeds = 1,
}

impl Table {
    pub const ALL: [Self; 2] = [Self::Rows, Self::Feeds];
}

/// One of two places for a generation of feeds: one in force, the other idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    #[default]
    A,
    B,
}

impl Slot {
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Where a table's entries stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    Rows,
    Feeds(Slot),
}

/// The word. Nothing is dropped while it is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control(u64);

const GUARDED: u64 = 0xf;
const SLOT_B: u64 = 1 << 4;
const OBSERVES: u64 = 1 << 5;
const V6_LOOKS: u64 = 1 << 6;
const LIMITS_SYN: u64 = 1 << 7;
const TELLS: u64 = 1 << 8;
const USED_AT: u32 = 16;
const LINES_AT: u32 = 32;

impl Control {
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    pub const fn word(self) -> u64 {
        self.0
    }

    const fn has(self, bits: u64) -> bool {
        self.0 & bits != 0
    }

    const fn with(self, bits: u64, on: bool) -> Self {
        Self(if on { self.0 | bits } else { self.0 & !bits })
    }

    /// Traffic that any entry speaks about; all else passes without a lookup.
    #[inline(always)]
    pub const fn guarded(self) -> Scope {
        Scope::from_bits((self.0 & GUARDED) as u8)
    }

    pub const fn with_guarded(self, scope: Scope) -> Self {
        Self(self.0 & !GUARDED | scope.bits() as u64)
    }

    /// The generation of feeds in force.
    #[inline(always)]
    pub const fn slot(self) -> Slot {
        if self.has(SLOT_B) { Slot::B } else { Slot::A }
    }

    pub const fn with_slot(self, slot: Slot) -> Self {
        self.with(SLOT_B, matches!(slot, Slot::B))
    }

    /// Nothing is dropped; what would be is counted.
    #[inline(always)]
    pub const fn observes(self) -> bool {
        self.has(OBSERVES)
    }

    pub const fn with_observes(self, on: bool) -> Self {
        self.with(OBSERVES, on)
    }

    /// Some IPv6 entry is too short for the map of touched sources: all of them look.
    #[inline(always)]
    pub const fn every_v6_looks(self) -> bool {
        self.has(V6_LOOKS)
    }

    /// What a source must ask by its marks, and by what leaves none.
    #[inline(always)]
    pub const fn widened(self, touch: Touch, family: Family) -> Touch {
        let everything = matches!(family, Family::V6) && self.every_v6_looks();
        Touch { prefixes: touch.prefixes | everything, ..touch }
    }

    pub const fn with_every_v6_looks(self, on: bool) -> Self {
        self.with(V6_LOOKS, on)
    }

    /// Connections a second from one source are limited.
    #[inline(always)]
    pub const fn limits_syn(self) -> bool {
        self.has(LIMITS_SYN)
    }

    pub const fn with_limits_syn(self, on: bool) -> Self {
        self.with(LIMITS_SYN, on)
    }

    /// Drops are told in the ring buffer.
    #[inline(always)]
    pub const fn tells(self) -> bool {
        self.has(TELLS)
    }

    pub const fn with_tells(self, on: bool) -> Self {
        self.with(TELLS, on)
    }

    const fn used_bit(table: Table, kind: Kind, family: Family) -> u64 {
        1 << (USED_AT + table as u32 * 6 + kind as u32 * 2 + family as u32)
    }

    /// Whether a table may hold entries. An empty one is not asked.
    #[inline(always)]
    pub const fn uses(self, table: Table, kind: Kind, family: Family) -> bool {
        self.has(Self::used_bit(table, kind, family))
    }

    pub const fn with_used(self, table: Table, kind: Kind, family: Family, on: bool) -> Self {
        self.with(Self::used_bit(table, kind, family), on)
    }

    const fn lines_at(table: Table, family: Family) -> u32 {
        LINES_AT + (table as u32 * 2 + family as u32) * Lines::CODE_BITS
    }

    /// How many lines a packed table of hosts has.
    #[inline(always)]
    pub const fn lines(self, table: Table, family: Family) -> Lines {
        let code = self.0 >> Self::lines_at(table, family);
        Lines::from_code(code & ((1 << Lines::CODE_BITS) - 1))
    }

    pub const fn with_lines(self, table: Table, family: Family, lines: Lines) -> Self {
        let at = Self::lines_at(table, family);
        let others = self.0 & !(((1 << Lines::CODE_BITS) - 1) << at);
        Self(others | lines.code() << at)
    }

    /// Whether any trie of the family may hold entries.
    #[inline(always)]
    pub const fn uses_prefixes(self, family: Family) -> bool {
        let kinds = Self::used_bit(Table::Rows, Kind::Allow, family)
            | Self::used_bit(Table::Rows, Kind::Deny, family)
            | Self::used_bit(Table::Feeds, Kind::Allow, family)
            | Self::used_bit(Table::Feeds, Kind::Deny, family);
        self.has(kinds)
    }

    /// Whether any table of the family may hold entries.
    #[inline(always)]
    pub const fn uses_any(self, family: Family) -> bool {
        let kinds = Self::used_bit(Table::Rows, Kind::Allow, family)
            | Self::used_bit(Table::Rows, Kind::Deny, family)
            | Self::used_bit(Table::Rows, Kind::Hosts, family)
            | Self::used_bit(Table::Feeds, Kind::Allow, family)
            | Self::used_bit(Table::Feeds, Kind::Deny, family)
            | Self::used_bit(Table::Feeds, Kind::Hosts, family);
        self.has(kinds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_the_word_touches_another() {
        let zero = Control::default();
        let mut seen = 0;
        let mut single = |control: Control| {
            assert_eq!(seen & control.word(), 0);
            seen |= control.word();
        };
        single(zero.with_guarded(Scope::ALL));
        single(zero.with_slot(Slot::B));
        single(zero.with_observes(true));
        single(zero.with_every_v6_looks(true));
        single(zero.with_limits_syn(true));
        single(zero.with_tells(true));
        for table in Table::ALL {
            for kind in Kind::ALL {
                for family in Family::ALL {
                    let used = zero.with_used(table, kind, family, true);
                    assert!(used.uses(table, kind, family) && used.uses_any(family));
                    assert_eq!(used.uses_prefixes(family), kind != Kind::Hosts);
                    assert_eq!(used.with_used(table, kind, family, false), zero);
                    single(used);
                }
            }
        }
        for table in Table::ALL {
            for family in Family::ALL {
                let most = Lines::for_entries(family, u32::MAX);
                let lined = zero.with_lines(table, family, most);
                assert_eq!(lined.lines(table, family), most);
                assert_eq!(lined.with_lines(table, family, Lines::default()), zero);
                single(lined);
            }
        }
        assert_eq!(Control::from_word(seen).guarded(), Scope::ALL);
        assert_eq!(Control::from_word(seen).with_guarded(Scope::MX).guarded(), Scope::MX);
        assert_eq!(zero.with_slot(Slot::B).slot(), Slot::B);
        assert_eq!(zero.with_slot(Slot::B).with_slot(Slot::A), zero);
    }
}
