//! Names, sizes and meanings of the maps. Whatever changes here, or in the bytes of an
//! [`Entry`](crate::entry::Entry) or an [`Event`](crate::event::Event), in
//! [`Reason`](crate::entry::Reason)'s numbers, in the bits of [`touch`](crate::touch) or of
//! [`packed`](crate::packed) tables, or in the places of [`Counter`](crate::totals::Counter), raises
//! [`LAYOUT_VERSION`]: pinned maps of another version are never adopted.

use crate::control::{Kind, Place, Slot};
use crate::packed::MEANINGS;
use crate::parse::Family;
use crate::totals::COUNTERS;
use crate::touch;

/// Names the pin directory, so that maps of two layouts never meet.
pub const LAYOUT_VERSION: u32 = 5;

/// The program's name in the object file, and what `bpftool prog` shows.
pub const PROGRAM: &str = "postern";

/// Per-CPU array of one [`Cpu`].
pub const CPU: &str = "CPU";
/// Per-CPU array of [`RuleHits`], indexed by an entry's rule.
pub const RULE_HITS: &str = "RULE_HITS";
/// Array of one value: [`CONTROL_WORDS`] u64. What userspace says and no packet changes, in one map, so
/// that a packet looks it up once. Can be mapped into memory.
///
/// | words | what |
/// |---|---|
/// | 0 | the [`Control`](crate::control::Control) word |
/// | [`SETTINGS_AT`], two | [`Settings`] |
/// | from [`MEANINGS_AT`] | the [`Entry`](crate::entry::Entry)s that the numbers in packed tables stand for, [`MEANING_WORDS`] each |
/// | from [`TOUCHED_V4_AT`] | the marks of IPv4 ([`touch`](crate::touch)) |
pub const CONTROL: &str = "CONTROL";
/// Array of one value: the marks of IPv6. Can be mapped into memory. (In CONTROL there is no room for
/// them: see [`VALUE_MAX`].)
pub const TOUCHED_V6: &str = "TOUCHED_V6";
/// Ring buffer of [`Event`](crate::event::Event)s.
pub const EVENTS: &str = "EVENTS";
/// LRU hashes of [`Bucket`](crate::limit::Bucket)s, by the IPv4 address or the first 64 bits.
pub const BUCKETS_V4: &str = "BUCKETS_V4";
pub const BUCKETS_V6: &str = "BUCKETS_V6";

/// The maps that are no tables of entries.
pub const OTHER_MAPS: [&str; 7] =
    [CPU, RULE_HITS, CONTROL, TOUCHED_V6, EVENTS, BUCKETS_V4, BUCKETS_V6];

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
/// Where the parts of CONTROL begin.
pub const SETTINGS_AT: usize = 1;
pub const MEANINGS_AT: usize = 8;
/// Words of 64 bits that each meaning takes, the last of them half empty.
pub const MEANING_WORDS: usize = 2;
pub const TOUCHED_V4_AT: usize = MEANINGS_AT + MEANINGS as usize * MEANING_WORDS;
/// Words of 64 bits in CONTROL.
pub const CONTROL_WORDS: usize = TOUCHED_V4_AT + touch::words(Family::V4);
/// Kernels before 6.0 take no value of an array that is larger (KMALLOC_MAX_SIZE).
pub const VALUE_MAX: usize = 4 << 20;
const _: () = assert!(8 * CONTROL_WORDS <= VALUE_MAX && 8 * touch::words(Family::V6) <= VALUE_MAX);
/// Sources whose connections are counted at once; the ones seen longest ago make room.
pub const BUCKETS: u32 = 65_536;

/// What one CPU has for itself: what is running there, and its counters. No two write the same, so plain
/// additions are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Cpu {
    /// A tick of the kernel's timer, and the second of CLOCK_BOOTTIME that the clock showed in it.
    pub tick: u64,
    pub second: u64,
    /// The second that is running, and the events that were told in it.
    pub told: InSecond,
    /// The second that is running, and the connections that were opened in it.
    pub opened: InSecond,
    _room: [u64; 2],
    /// By [`Counter::index`](crate::totals::Counter::index).
    pub counters: [u64; COUNTERS as usize],
}

impl Cpu {
    /// The same in words of 64 bits: the counters begin at [`Cpu::COUNTERS_AT`].
    pub const WORDS: usize = size_of::<Self>() / size_of::<u64>();
    pub const COUNTERS_AT: usize = core::mem::offset_of!(Self, counters) / size_of::<u64>();
}

/// How often something happened in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct InSecond {
    pub second: u64,
    pub count: u64,
}

impl InSecond {
    /// Counts once more, from nothing where another second is running. Says how often by now.
    #[inline(always)]
    pub const fn count(&mut self, second: u64) -> u64 {
        if self.second != second {
            *self = Self { second, count: 0 };
        }
        self.count += 1;
        self.count
    }
}

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
pub struct Settings {
    /// Connections a second from one source, and how many at once above that.
    pub syn_per_s: u32,
    pub syn_burst: u32,
    /// Connections a second, over all sources, up to which nobody is limited. For each CPU.
    pub syn_free_per_s: u32,
    /// Events a second at most. For each CPU.
    pub events_per_s: u32,
}

impl Settings {
    /// As they stand in CONTROL.
    pub const fn to_words(self) -> [u64; 2] {
        let Self { syn_per_s, syn_burst, syn_free_per_s, events_per_s } = self;
        [
            syn_per_s as u64 | (syn_burst as u64) << 32,
            syn_free_per_s as u64 | (events_per_s as u64) << 32,
        ]
    }

    #[inline(always)]
    pub const fn from_words([syn, others]: [u64; 2]) -> Self {
        Self {
            syn_per_s: syn as u32,
            syn_burst: (syn >> 32) as u32,
            syn_free_per_s: others as u32,
            events_per_s: (others >> 32) as u32,
        }
    }
}
