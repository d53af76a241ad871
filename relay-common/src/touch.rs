//! The marks of touched sources: which sources entries may cover at all, so that the others are
//! looked up nowhere.
//!
//! Each family has two filters: one for hosts, whose entries cost a line of a packed table, and one
//! for networks, whose entries cost the dearer tries. An entry marks a hash of its first bits, as
//! many as [`LENGTHS`] says; a source looks at each of these lengths. A mark is four bits of one
//! word (a Bloom filter in blocks: Putze, Sanders and Singler, Cache-, Hash- and Space-Efficient
//! Bloom Filters, 2007). An entry much shorter than the shortest length would leave too many marks:
//! it makes every source of the family look ([`Marks::Everything`]).
//!
//! A filter is as small as its marks permit, since what does not fit a processor's cache costs as
//! much as the lookup it saves. It stands in one half of its map, the [`Window`]; another size, or
//! other marks, are made in the other half and put in force by one store.

use crate::control::Kind;
use crate::parse::{Family, Source};

/// Which of a family's filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Marked {
    /// Entries of [`Kind::Hosts`].
    Hosts = 0,
    /// Entries of [`Kind::Allow`] and [`Kind::Deny`].
    Networks = 1,
}

impl Marked {
    pub const ALL: [Self; 2] = [Self::Hosts, Self::Networks];

    /// Where an entry of this kind leaves its marks.
    pub const fn by(kind: Kind) -> Self {
        match kind {
            Kind::Hosts => Self::Hosts,
            Kind::Allow | Kind::Deny => Self::Networks,
        }
    }

    /// Marks that a word may bear on the average before the filter ought to be larger. With 8 and 5
    /// one source in 40 and one in 200 looks for nothing, for each length; the tries are dear.
    pub const fn marks_per_word_max(self) -> u64 {
        match self {
            Self::Hosts => 8,
            Self::Networks => 5,
        }
    }
}

/// Lengths that entries of networks mark, longest first, and the shortest entry that marks each: a
/// longer one marks the network it is in, a shorter one all networks in it.
///
/// Those of IPv6 were chosen by simulation, for honest sources in 60,000 networks (/32) beside a
/// million entries there (90 % hosts; prefixes /48 50 %, /32 13 %, /56 and /44 10 %, /40 8 %, /36
/// 4 %, others 5 %).
pub const LENGTHS: [[(u8, u8); 3]; 2] =
    [[(24, 21), (20, 17), (16, 0)], [(64, 64), (44, 37), (36, 20)]];
/// Bits of a mark.
const MARK_BITS: u32 = 4;

/// Which kinds of table may have an entry for a source. True may be wrong, false may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// [`Kind::Hosts`].
    pub hosts: bool,
    /// [`Kind::Allow`] and [`Kind::Deny`].
    pub prefixes: bool,
}

impl Touch {
    /// Whatever there is.
    pub const ANY: Self = Self { hosts: true, prefixes: true };

    #[inline(always)]
    pub const fn is_none(self) -> bool {
        !(self.hosts | self.prefixes)
    }
}

/// The part of a filter's map that is in force: a power of two of words, in one of two halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    log2: u8,
    /// A half has 2^`half_log2` words.
    half_log2: u8,
    in_second: bool,
}

impl Window {
    const BITS: u32 = 11;
    const LOG2_MIN: u8 = 10;
    /// 128 MiB, for more entries than fit a machine's memory.
    const LOG2_MAX: u8 = 24;

    /// The smallest window of a filter that may hold the marks of so many entries.
    pub const fn for_entries(marked: Marked, entries: u64) -> Self {
        let words = entries.div_ceil(marked.marks_per_word_max()).next_power_of_two();
        let log2 = words.trailing_zeros() as u8;
        let half_log2 = if log2 < Self::LOG2_MIN {
            Self::LOG2_MIN
        } else if log2 > Self::LOG2_MAX {
            Self::LOG2_MAX
        } else {
            log2
        };
        Self { log2: Self::LOG2_MIN, half_log2, in_second: false }
    }

    /// The largest in this one's half.
    pub const fn largest(self) -> Self {
        Self { log2: self.half_log2, ..self }
    }

    /// Twice as large; `None` where there is no room.
    pub const fn doubled(self) -> Option<Self> {
        if self.log2 < self.half_log2 { Some(Self { log2: self.log2 + 1, ..self }) } else { None }
    }

    pub const fn halved(self) -> Option<Self> {
        if self.log2 > Self::LOG2_MIN { Some(Self { log2: self.log2 - 1, ..self }) } else { None }
    }

    /// As large as this one, in the half that is not in force.
    pub const fn in_other_half_of(self, in_force: Self) -> Self {
        Self { in_second: !in_force.in_second, ..self }
    }

    /// Words in it.
    pub const fn words(self) -> u32 {
        1 << self.log2
    }

    /// Words of the whole map.
    pub const fn map_words(self) -> u32 {
        2 << self.half_log2
    }

    /// Index of its first word in the map.
    #[inline(always)]
    pub const fn start(self) -> u32 {
        if self.in_second { 1 << (self.half_log2 as u32 & 31) } else { 0 }
    }

    /// Whether so many marks are more than it should bear.
    pub const fn is_full(self, marked: Marked, marks: u64) -> bool {
        marks > marked.marks_per_word_max() << self.log2
    }

    const fn to_bits(self) -> u64 {
        self.log2 as u64 | (self.half_log2 as u64) << 5 | (self.in_second as u64) << 10
    }

    #[inline(always)]
    const fn from_bits(bits: u64) -> Self {
        Self {
            log2: (bits & 31) as u8,
            half_log2: (bits >> 5 & 31) as u8,
            in_second: bits >> 10 & 1 != 0,
        }
    }
}

/// The windows of all four filters, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Windows(u64);

impl Windows {
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    pub const fn word(self) -> u64 {
        self.0
    }

    const fn at(family: Family, marked: Marked) -> u32 {
        (family as u32 * 2 + marked as u32) * Window::BITS
    }

    #[inline(always)]
    pub const fn of(self, family: Family, marked: Marked) -> Window {
        Window::from_bits(self.0 >> Self::at(family, marked))
    }

    pub const fn with(self, family: Family, marked: Marked, window: Window) -> Self {
        let at = Self::at(family, marked);
        let others = self.0 & !(((1 << Window::BITS) - 1) << at);
        Self(others | window.to_bits() << at)
    }
}

/// What a source's marks say. `word` reads a filter's map: all ones where there is no such word.
#[inline(always)]
pub fn of(source: &Source, windows: Windows, word: impl Fn(Family, Marked, u32) -> u64) -> Touch {
    // Two calls, each of one family: the kernel is faster where it knows the map beforehand.
    match source {
        Source::V4(ip) => {
            let network = u32::from_be_bytes(*ip) as u64;
            of_network(Family::V4, network, 32, windows, word)
        }
        Source::V6(b) => {
            let network = u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
            of_network(Family::V6, network, 64, windows, word)
        }
    }
}

/// The same, of a network of so many bits.
#[inline(always)]
fn of_network(
    family: Family,
    network: u64,
    bits: u8,
    windows: Windows,
    word: impl Fn(Family, Marked, u32) -> u64,
) -> Touch {
    let is_marked = |marked, len: u8| {
        let mark = Mark::of(network >> (bits - len), len);
        let index = mark.index(windows.of(family, marked));
        word(family, marked, index) & mark.bits == mark.bits
    };
    // All words are asked for before the first is there: each may be far away.
    let hosts = is_marked(Marked::Hosts, family.host_len());
    let [(long, _), (middle, _), (short, _)] = LENGTHS[family as usize];
    let long = is_marked(Marked::Networks, long);
    let middle = is_marked(Marked::Networks, middle);
    let short = is_marked(Marked::Networks, short);
    Touch { hosts, prefixes: long | middle | short }
}

/// What is left in a filter by one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its first bits choose the word.
    hash: u64,
    /// The bits that are set there.
    pub bits: u64,
}

impl Mark {
    /// By multiplicative hashing (Knuth, The Art of Computer Programming, section 6.4). The length
    /// is part of what is hashed, so that one filter serves all.
    #[inline(always)]
    const fn of(network: u64, len: u8) -> Self {
        let spread = network ^ (network >> 32) ^ ((len as u64) << 40);
        let hash = spread.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // The bits that chose the word must not choose those in it as well.
        let rest = hash ^ (hash >> 29);
        let (mut bits, mut i) = (0, 0);
        while i < MARK_BITS {
            bits |= 1 << ((rest >> (6 * i)) & 63);
            i += 1;
        }
        Self { hash, bits }
    }

    /// Its word in the map of a filter. In a window of twice the size, the word is one of the two
    /// that the smaller one's becomes.
    #[inline(always)]
    pub const fn index(self, window: Window) -> u32 {
        window.start().wrapping_add(self.hash.wrapping_shr(64 - window.log2 as u32) as u32)
    }
}

/// What an entry marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// So many networks of a length, from this one on.
    Networks { first: u64, count: u64, len: u8 },
    /// Too short to leave marks: every source of the family looks.
    Everything,
}

impl Marks {
    /// Those of an entry: `network` is an IPv4 address, or the first 64 bits of an IPv6 one. Host
    /// bits must be zero.
    pub const fn of(family: Family, network: u64, len: u8, kind: Kind) -> Self {
        let bits = match family {
            Family::V4 => 32,
            Family::V6 => 64,
        };
        let marked = match Marked::by(kind) {
            Marked::Hosts => family.host_len(),
            Marked::Networks => match LENGTHS[family as usize] {
                [(marked, from), ..] if len >= from => marked,
                [_, (marked, from), _] if len >= from => marked,
                [.., (marked, from)] if len >= from => marked,
                _ => return Self::Everything,
            },
        };
        let count = if len < marked { 1 << (marked - len) } else { 1 };
        Self::Networks { first: network >> (bits - marked), count, len: marked }
    }

    /// Calls `each` with each mark; never for [`Marks::Everything`].
    pub fn each(self, each: impl FnMut(Mark)) {
        if let Self::Networks { first, count, len } = self {
            (first..=first + (count - 1)).map(|network| Mark::of(network, len)).for_each(each);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// The words that some marks set, in windows of some size.
    #[derive(Default)]
    struct Marking {
        windows: Windows,
        words: HashMap<(Marked, u32), u64>,
    }

    impl Marking {
        fn new(family: Family, entries: u64, in_second: bool) -> Self {
            let mut windows = Windows::default();
            for marked in Marked::ALL {
                let half = Window::for_entries(marked, entries);
                let largest = Window { in_second, ..half }.largest();
                windows = windows.with(family, marked, largest);
            }
            Self { windows, words: HashMap::new() }
        }

        fn mark(&mut self, family: Family, kind: Kind, marks: Marks) {
            let window = self.windows.of(family, Marked::by(kind));
            marks.each(|mark| {
                let index = mark.index(window);
                assert!((window.start()..window.start() + window.words()).contains(&index));
                *self.words.entry((Marked::by(kind), index)).or_default() |= mark.bits;
            });
        }

        fn look(&self, source: Source) -> Touch {
            of(&source, self.windows, |family, marked, word| {
                assert_eq!(family, source.family());
                self.words.get(&(marked, word)).copied().unwrap_or(0)
            })
        }
    }

    fn mask(family: Family, len: u8) -> u64 {
        let (bits, all) = match family {
            Family::V4 => (32, u64::from(u32::MAX)),
            Family::V6 => (64, u64::MAX),
        };
        let host_bits = u32::from(bits - len.min(bits));
        all & u64::MAX.checked_shl(host_bits).unwrap_or(0)
    }

    fn source(family: Family, network: u64, host: u64) -> Source {
        match family {
            Family::V4 => Source::V4((network as u32).to_be_bytes()),
            Family::V6 => Source::V6((u128::from(network) << 64 | u128::from(host)).to_be_bytes()),
        }
    }

    fn family(v6: bool) -> Family {
        if v6 { Family::V6 } else { Family::V4 }
    }

    proptest! {
        /// The one promise: whoever is covered looks where the entry is, whatever the window.
        #[test]
        fn a_covered_source_looks(
            v6: bool, network: u64, len in 0u8..=128, host: u64, entries in 1u64..4_000_000,
            in_second: bool, hosts: bool,
        ) {
            let family = family(v6);
            let kind = if hosts { Kind::Hosts } else { Kind::Deny };
            let len = if hosts { family.host_len() } else { len.min(family.bits()) };
            let mask = mask(family, len);
            let network = network & self::mask(family, 64);
            let marks = Marks::of(family, network & mask, len, kind);
            let mut marking = Marking::new(family, entries, in_second);
            marking.mark(family, kind, marks);
            let covered = (network & mask) | (host & !mask & self::mask(family, 64));
            let touch = marking.look(source(family, covered, host));
            match marks {
                Marks::Everything => prop_assert!(v6 && len < 20),
                Marks::Networks { count, .. } => {
                    prop_assert!(count <= 1 << 16);
                    let looks = if hosts { touch.hosts } else { touch.prefixes };
                    prop_assert!(looks);
                    prop_assert!(!(hosts && touch.prefixes) && (hosts || !touch.hosts));
                }
            }
        }

        /// What a window becomes when each of its words stands for two.
        #[test]
        fn a_doubled_window_keeps_every_mark(network: u64, len in 20u8..64) {
            let window = Window::for_entries(Marked::Networks, 1 << 20);
            let doubled = window.doubled().unwrap();
            let network = network & mask(Family::V6, len);
            Marks::of(Family::V6, network, len, Kind::Deny).each(|mark| {
                assert_eq!(mark.index(doubled) / 2, mark.index(window));
            });
            prop_assert_eq!(doubled.halved(), Some(window));
            prop_assert_eq!(doubled.in_other_half_of(window).start(), doubled.map_words() / 2);
        }
    }

    #[test]
    fn few_sources_look_for_nothing() {
        for (marked, share_max) in [(Marked::Hosts, 0.04), (Marked::Networks, 0.02)] {
            // Just as many marks as the smallest window bears.
            let entries = marked.marks_per_word_max() << Window::LOG2_MIN;
            let (kind, len) =
                if marked == Marked::Hosts { (Kind::Hosts, 32) } else { (Kind::Deny, 24) };
            let mut marking = Marking::new(Family::V4, entries, false);
            let mut random = 1u64;
            let mut next = || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                random >> 32
            };
            for _ in 0..entries {
                let network = next() & mask(Family::V4, len);
                marking.mark(Family::V4, kind, Marks::of(Family::V4, network, len, kind));
            }
            let looks =
                (0..20_000).filter(|_| !marking.look(source(Family::V4, next(), 0)).is_none());
            let share = looks.count() as f64 / 20_000.0;
            assert!(share < share_max, "{marked:?}: {share}");
        }
    }

    #[test]
    fn windows_do_not_touch_each_other() {
        let mut windows = Windows::default();
        for family in Family::ALL {
            for marked in Marked::ALL {
                let most = Window::for_entries(marked, u64::MAX >> 1).largest();
                let window = most.in_other_half_of(most);
                let with = windows.with(family, marked, window);
                assert_eq!(with.of(family, marked), window);
                assert_eq!(with.with(family, marked, Window::from_bits(0)), windows);
                assert!(window.doubled().is_none());
                windows = with;
            }
        }
    }
}
