//! Names, sizes and meanings of the maps. Whatever changes here, or in the bytes of an
//! [`Entry`](crate::entry::Entry) or an [`Event`](crate::event::Event), in
//! [`Reason`](crate::entry::Reason)'s numbers, in the bits of [`touch`](crate::touch) or of
//! [`packed`](crate::packed) tables, or in the places of [`Counter`](crate::totals::Counter), raises
//! [`LAYOUT_VERSION`]: pinned maps of another version are never adopted.

use crate::control::{Kind, Place, Slot};
use crate::parse::Family;

/// Names the pin directory, so that maps of two layouts never meet.
pub const LAYOUT_VERSION: u32 = 4;

/// The program's name in the object file, and what `bpftool prog` shows.
pub const PROGRAM: &str = "postern";

/// Per-CPU array of u64, indexed by [`Counter::index`](crate::totals::Counter::index).
pub const TOTALS: &str = "TOTALS";
/// Per-CPU array of [`RuleHits`], indexed by an entry's rule.
pub const RULE_HITS: &str = "RULE_HITS";
/// Array of one u64: the [`Control`](crate::control::Control) word. Can be mapped into memory.
pub const CONTROL: &str = "CONTROL";
/// Arrays of one value: [`touch::words`](crate::touch::words) u64. Can be mapped into memory.
pub const TOUCHED_V4: &str = "TOUCHED_V4";
pub const TOUCHED_V6: &str = "TOUCHED_V6";
/// Array of the [`Entry`](crate::entry::Entry)s that the numbers in packed tables stand for. Can be
/// mapped into memory: each takes [`MEANING_WORDS`].
pub const MEANINGS: &str = "MEANINGS";
/// Array of one [`Settings`].
pub const SETTINGS: &str = "SETTINGS";
/// Ring buffer of [`Event`](crate::event::Event)s.
pub const EVENTS: &str = "EVENTS";
/// LRU hashes of [`Bucket`](crate::limit::Bucket)s, by the IPv4 address or the first 64 bits.
pub const BUCKETS_V4: &str = "BUCKETS_V4";
pub const BUCKETS_V6: &str = "BUCKETS_V6";

/// The maps that are no tables of entries.
pub const OTHER_MAPS: [&str; 10] = [
    TOTALS, RULE_HITS, CONTROL, TOUCHED_V4, TOUCHED_V6, MEANINGS, SETTINGS, EVENTS, BUCKETS_V4,
    BUCKETS_V6,
];

/// Every table of entries: where it stands, what it holds, and its map's name.
pub const TABLES: [(Place, Kind, Family, &str); 18] = [
    (Place::Rows, Kind::Allow, Family::V4, "ALLOW_V4"),
    (Place::Rows, Kind::Allow, Family::V6, "ALLOW_V6"),
    (Place::Rows, Kind::Deny, Family::V4, "DENY_V4"),
    (Place::Rows, Kind::Deny, Family::V6, "DENY_V6"),
    (Place::Rows, Kind::Hosts, Family::V4, "HOSTS_V4"),
    (Place::Rows, Kind::Hosts, Family::V6, "HOSTS_V6"),
    (Place::Feeds(Slot::A), Kind::Allow, Family::V4, "FEED_A_ALLOW_V4"),
    (Place::Feeds(Slot::A), Kind::Allow, Family::V6, "FEED_A_ALLOW_V6"),
    (Place::Feeds(Slot::A), Kind::Deny, Family::V4, "FEED_A_DENY_V4"),
    (Place::Feeds(Slot::A), Kind::Deny, Family::V6, "FEED_A_DENY_V6"),
    (Place::Feeds(Slot::A), Kind::Hosts, Family::V4, "FEED_A_HOSTS_V4"),
    (Place::Feeds(Slot::A), Kind::Hosts, Family::V6, "FEED_A_HOSTS_V6"),
    (Place::Feeds(Slot::B), Kind::Allow, Family::V4, "FEED_B_ALLOW_V4"),
    (Place::Feeds(Slot::B), Kind::Allow, Family::V6, "FEED_B_ALLOW_V6"),
    (Place::Feeds(Slot::B), Kind::Deny, Family::V4, "FEED_B_DENY_V4"),
    (Place::Feeds(Slot::B), Kind::Deny, Family::V6, "FEED_B_DENY_V6"),
    (Place::Feeds(Slot::B), Kind::Hosts, Family::V4, "FEED_B_HOSTS_V4"),
    (Place::Feeds(Slot::B), Kind::Hosts, Family::V6, "FEED_B_HOSTS_V6"),
];

/// The packed tables of hosts: arrays of [`Line`](crate::packed::Line)s, which can be mapped into
/// memory. The hash of the same place and family holds what they spill.
pub const LINES: [(Place, Family, &str); 6] = [
    (Place::Rows, Family::V4, "LINES_V4"),
    (Place::Rows, Family::V6, "LINES_V6"),
    (Place::Feeds(Slot::A), Family::V4, "FEED_A_LINES_V4"),
    (Place::Feeds(Slot::A), Family::V6, "FEED_A_LINES_V6"),
    (Place::Feeds(Slot::B), Family::V4, "FEED_B_LINES_V4"),
    (Place::Feeds(Slot::B), Family::V6, "FEED_B_LINES_V6"),
];

/// The map of a table.
///
/// # Panics
/// Never: every table has a map.
pub fn map_of(place: Place, kind: Kind, family: Family) -> &'static str {
    let found = TABLES.iter().find(|&&(p, k, f, _)| (p, k, f) == (place, kind, family));
    found.map(|&(.., name)| name).expect("TABLES has every combination")
}

/// Every map, in the order in which they are pinned.
pub fn maps() -> impl Iterator<Item = &'static str> {
    let tables = TABLES.into_iter().map(|(.., name)| name);
    let lines = LINES.into_iter().map(|(.., name)| name);
    tables.chain(lines).chain(OTHER_MAPS)
}

/// Room for entries in each allow table unless the loader says otherwise.
pub const ALLOW_ENTRIES: u32 = 65_536;
/// Room for entries in each deny table unless the loader says otherwise.
pub const DENY_ENTRIES: u32 = 1_048_576;
/// Rule ids run from 0 to one below this. An entry with a higher one works and is not counted.
pub const RULES: u32 = 65_536;
/// Bytes of the ring buffer: a power of two, and of pages.
pub const EVENT_BYTES: u32 = 256 << 10;
/// Words of 64 bits that each entry of MEANINGS takes, the last of them half empty.
pub const MEANING_WORDS: u32 = 2;
/// Sources whose connections are counted at once; the ones seen longest ago make room.
pub const BUCKETS: u32 = 65_536;

/// One CPU's slot of the RULE_HITS map: what a rule's entries did to packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RuleHits {
    /// Packets that the rule decided: dropped for a deny, passed for an allow.
    pub hits: u64,
    /// Packets that the rule would have dropped, were it not under observation.
    pub observed: u64,
    /// Second on CLOCK_BOOTTIME of the latest of either, below 0 where it came before the boot; 0
    /// with none.
    pub last_s: i64,
}

impl RuleHits {
    /// Both CPUs' hits as one.
    pub fn merge(self, other: Self) -> Self {
        Self {
            hits: self.hits.wrapping_add(other.hits),
            observed: self.observed.wrapping_add(other.observed),
            last_s: match (self.last_s, other.last_s) {
                (last_s, 0) | (0, last_s) => last_s,
                (one, another) => one.max(another),
            },
        }
    }
}

/// What the program is told by the configuration, beyond the control word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Connections a second from one source, and how many at once above that.
    pub syn_per_s: u32,
    pub syn_burst: u32,
    /// Connections a second, over all sources, up to which nobody is limited. For each CPU.
    pub syn_free_per_s: u32,
    /// Events a second at most. For each CPU.
    pub events_per_s: u32,
}
