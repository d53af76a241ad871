//! Which sources no entry can speak about, told by a word or a few.
//!
//! Each entry marks the sources that it covers. One that bears no mark is in no list, and costs no
//! lookup. A mark says nothing by itself: then the tables are asked.
//!
//! Marks stand in words of 64 bits, those of each family for themselves, in parts:
//!
//! - *wide*: one bit for each IPv4 /24 that any entry touches, or two for a hash of the first 32 bits
//!   of an IPv6 address. Nearly every honest source costs just this one load. The part is as small as
//!   can be: a map that does not fit a processor's cache costs as much as the lookup that it saves.
//! - *networks*, of which only those who bear the wide mark ask: whether the dearer tries may have an
//!   entry. An entry marks a hash of its first bits, as many as the next of [`V4_LENGTH`] or
//!   [`V6_LENGTHS`] says, and a source looks at each of them.
//! - *short*, for IPv4 alone: a bit for each /20, for entries as short as that.
//! - *hosts*, for IPv6 alone: whether the packed table may have one. A hash of the /64. The table of
//!   IPv4 is as near as such a part would be, so there it is asked itself.
//!
//! A mark of a hash is some bits of one word (a Bloom filter in blocks: Putze, Sanders and Singler,
//! Cache-, Hash- and Space-Efficient Bloom Filters, 2007). An entry shorter than the shortest length
//! marks every network of that length in it, down to [`V6_SHORTEST`]; below that it makes every IPv6
//! source look ([`Marks::Everything`]).
//!
//! What a denied IPv4 source reads of a list of a million, 2 MiB and 0.6 here and 4 of the packed table,
//! stays in a processor's nearest caches where some megabytes of them are its own. With 2 MiB for
//! networks it did not, and cost 60 ns more.

use crate::control::Kind;
use crate::parse::{Family, Source};

/// How many words a family has.
pub const fn words(family: Family) -> usize {
    match family {
        Family::V4 => V4_SHORT.end() as usize,
        Family::V6 => V6_HOSTS.end() as usize,
    }
}

/// A part of them.
#[derive(Clone, Copy, Debug)]
struct Part {
    /// Its first word.
    start: u32,
    /// Its words, as their logarithm to base 2.
    log2: u32,
}

impl Part {
    const fn first(log2: u32) -> Self {
        Self { start: 0, log2 }
    }

    /// The part behind this one.
    const fn then(self, log2: u32) -> Self {
        Self { start: self.end(), log2 }
    }

    const fn end(self) -> u32 {
        self.start + (1 << self.log2)
    }
}

/// 2 MiB, 512 KiB and 128 KiB.
const V4_WIDE: Part = Part::first(18);
const V4_NETWORKS: Part = V4_WIDE.then(16);
const V4_SHORT: Part = V4_NETWORKS.then(14);
/// 1, 2 and 1 MiB.
const V6_WIDE: Part = Part::first(17);
const V6_NETWORKS: Part = V6_WIDE.then(18);
const V6_HOSTS: Part = V6_NETWORKS.then(17);

/// How many of an address's first bits have a wide mark.
const V4_WIDE_LENGTH: u8 = 24;
const V6_WIDE_LENGTH: u8 = 32;
/// How many of an IPv4 address's first bits are hashed for networks. Beside 100,000 entries of 21 bits
/// or more, one source in a thousand looks for nothing; beside 500,000 one in 25, beside a
/// million one in 6.
pub const V4_LENGTH: u8 = 24;
const V4_SHORT_LENGTH: u8 = 20;
/// How many of an IPv6 address's first bits are hashed for networks, longest first.
///
/// Of honest sources in 60,000 networks (/32) beside a million entries there (90 % hosts; prefixes
/// /48 50 %, /32 13 %, /56 and /44 10 %, /40 8 %, /36 4 %, others 5 %), these let 0.6 % look for
/// nothing. One bit for 64 and 32 let 78 % look; for 64, 48, 40 and 32, 27 %, and a fourth load.
pub const V6_LENGTHS: [u8; 3] = [64, 44, 36];
/// Bits of a mark of networks and of hosts.
const MARK_BITS: u32 = 4;
/// The shortest entry that leaves marks: at most 2^16 of them.
pub const V6_SHORTEST: u8 = 20;

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

    const NONE: Self = Self { hosts: false, prefixes: false };
    const HOSTS: Self = Self { hosts: true, prefixes: false };

    #[inline(always)]
    pub const fn is_none(self) -> bool {
        !(self.hosts | self.prefixes)
    }
}

/// The map of marks of one family.
pub trait Words {
    /// A word of the map; the index is below [`words`].
    fn word(&self, index: u32) -> u64;
}

/// What a source's marks say. Of prefixes nothing is read where there are none.
#[inline(always)]
pub fn of<W: Words>(words: &W, source: &Source, are_prefixes: bool) -> Touch {
    let is_marked = |mark: Mark| words.word(mark.word) & mark.bits == mark.bits;
    // All words are asked for before the first is there: each may be far away.
    match source {
        Source::V4(address) => {
            if !is_marked(Mark::of_v4(V4_WIDE, address >> (32 - V4_WIDE_LENGTH))) {
                return Touch::NONE;
            }
            if !are_prefixes {
                return Touch::HOSTS;
            }
            let network = (address >> (32 - V4_LENGTH)) as u64;
            let long = is_marked(Mark::hashed(V4_NETWORKS, network, V4_LENGTH));
            let short = is_marked(Mark::of_v4(V4_SHORT, address >> (32 - V4_SHORT_LENGTH)));
            Touch { hosts: true, prefixes: long | short }
        }
        Source::V6 { network, .. } => {
            if !is_marked(Mark::wide_v6(network >> (64 - V6_WIDE_LENGTH))) {
                return Touch::NONE;
            }
            let hosts = is_marked(Mark::hashed(V6_HOSTS, *network, Family::V6.host_len()));
            if !are_prefixes {
                return Touch { hosts, prefixes: false };
            }
            let in_network =
                |len: u8| is_marked(Mark::hashed(V6_NETWORKS, network >> (64 - len), len));
            let [long, middle, short] = V6_LENGTHS.map(in_network);
            Touch { hosts, prefixes: long | middle | short }
        }
    }
}

/// Bits of one word that are set together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    word: u32,
    bits: u64,
}

impl Mark {
    /// The bit of an IPv4 network, in a part that has one for each.
    #[inline(always)]
    const fn of_v4(part: Part, network: u32) -> Self {
        Self { word: part.start + network / 64, bits: 1 << (network % 64) }
    }

    /// The bits of IPv4 networks from the first to the last, word by word.
    fn all_v4(part: Part, first: u32, last: u32) -> impl Iterator<Item = Self> {
        (first / 64..=last / 64).map(move |word| {
            let (start, end) = (first.max(word * 64), last.min(word * 64 + 63));
            let bits = (start..=end).fold(0, |all, network| all | 1 << (network % 64));
            Self { word: part.start + word, bits }
        })
    }

    /// The bits of an IPv6 /32.
    #[inline(always)]
    const fn wide_v6(network: u64) -> Self {
        let hash = network.wrapping_mul(SPREADING);
        let (word, behind) = (hash >> (64 - V6_WIDE.log2), 58 - V6_WIDE.log2);
        let bits = 1 << (hash >> behind & 63) | 1 << (hash >> (behind - 6) & 63);
        Self { word: V6_WIDE.start + word as u32, bits }
    }

    /// By multiplicative hashing (Knuth, The Art of Computer Programming, section 6.4). The length
    /// is part of what is hashed, so that one part serves all.
    #[inline(always)]
    const fn hashed(part: Part, network: u64, len: u8) -> Self {
        let spread = network ^ (network >> 32) ^ ((len as u64) << 40);
        let hash = spread.wrapping_mul(SPREADING);
        let word = part.start + (hash >> (64 - part.log2)) as u32;
        // The bits that chose the word must not choose those in it as well.
        let rest = hash ^ (hash >> 29);
        let (mut bits, mut i) = (0, 0);
        while i < MARK_BITS {
            bits |= 1 << ((rest >> (6 * i)) & 63);
            i += 1;
        }
        Self { word, bits }
    }
}

/// 2^64 divided by the golden ratio.
const SPREADING: u64 = 0x9e37_79b9_7f4a_7c15;

/// What an entry marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// A host: an IPv4 address, or the first 64 bits of an IPv6 one.
    Host { family: Family, host: u64 },
    /// An IPv4 network, by its first address and its last.
    V4 { first: u32, last: u32, len: u8 },
    /// So many IPv6 networks of a length, from this one on; and the wide ones they lie in.
    V6 { first: u64, count: u64, len: u8, wide: u64, wide_count: u64 },
    /// Too short to leave marks: every source of the family looks.
    Everything,
}

/// What an IPv4 entry marks. Host bits must be zero.
pub const fn marks_v4(network: u32, len: u8, kind: Kind) -> Marks {
    if matches!(kind, Kind::Hosts) {
        return Marks::Host { family: Family::V4, host: network as u64 };
    }
    let host_bits = if len >= 32 { 0 } else { u32::MAX >> len };
    Marks::V4 { first: network, last: network | host_bits, len }
}

/// What an IPv6 entry marks, by the first 64 bits of its address. Host bits must be zero.
pub const fn marks_v6(network: u64, len: u8, kind: Kind) -> Marks {
    if matches!(kind, Kind::Hosts) {
        return Marks::Host { family: Family::V6, host: network };
    }
    let [long, middle, short] = V6_LENGTHS;
    let marked = match len {
        _ if len >= long => long,
        // Up to here neighbours look, too.
        _ if len > short => middle,
        _ if len >= V6_SHORTEST => short,
        _ => return Marks::Everything,
    };
    let count = if len < marked { 1 << (marked - len) } else { 1 };
    let wide_count = if len < V6_WIDE_LENGTH { 1 << (V6_WIDE_LENGTH - len) } else { 1 };
    let (first, wide) = (network >> (64 - marked), network >> (64 - V6_WIDE_LENGTH));
    Marks::V6 { first, count, len: marked, wide, wide_count }
}

impl Marks {
    /// Calls `mark` with the index and the bits of each word to be marked, one word possibly
    /// several times; a wide mark comes last, behind what it leads to. Says whether marks are
    /// enough; otherwise every source must look.
    pub fn each_word(self, mut mark: impl FnMut(u32, u64)) -> bool {
        let mut set = |Mark { word, bits }| mark(word, bits);
        match self {
            Self::Host { family, host } => {
                if family == Family::V6 {
                    set(Mark::hashed(V6_HOSTS, host, family.host_len()));
                }
                set(match family {
                    Family::V4 => Mark::of_v4(V4_WIDE, host as u32 >> (32 - V4_WIDE_LENGTH)),
                    Family::V6 => Mark::wide_v6(host >> (64 - V6_WIDE_LENGTH)),
                });
            }
            Self::V4 { first, last, len } => {
                let of_length = |len: u8| (first >> (32 - len), last >> (32 - len));
                if len <= V4_SHORT_LENGTH {
                    let (first, last) = of_length(V4_SHORT_LENGTH);
                    Mark::all_v4(V4_SHORT, first, last).for_each(&mut set);
                } else {
                    let (first, last) = of_length(V4_LENGTH);
                    let hashed = |net: u32| Mark::hashed(V4_NETWORKS, net.into(), V4_LENGTH);
                    (first..=last).map(hashed).for_each(&mut set);
                }
                let (first, last) = of_length(V4_WIDE_LENGTH);
                Mark::all_v4(V4_WIDE, first, last).for_each(&mut set);
            }
            Self::V6 { first, count, len, wide, wide_count } => {
                let networks = first..=first + (count - 1);
                networks.for_each(|network| set(Mark::hashed(V6_NETWORKS, network, len)));
                let wide = wide..=wide + (wide_count - 1);
                wide.for_each(|network| set(Mark::wide_v6(network)));
            }
            Self::Everything => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// The words that some marks set.
    fn marked(marks: Marks) -> Option<HashMap<u32, u64>> {
        let mut words = HashMap::new();
        let enough = marks.each_word(|word, bits| {
            let most = super::words(Family::V4).max(super::words(Family::V6));
            assert!((word as usize) < most);
            *words.entry(word).or_default() |= bits;
        });
        enough.then_some(words)
    }

    impl Words for HashMap<u32, u64> {
        fn word(&self, index: u32) -> u64 {
            self.get(&index).copied().unwrap_or(0)
        }
    }

    fn v6(network: u64) -> Source {
        Source::V6 { network, interface: 0 }
    }

    proptest! {
        /// The one promise: whoever is covered looks where the entry is.
        #[test]
        fn a_covered_v4_source_looks(network: u32, len in 0u8..=32, host: u32, hosts: bool) {
            let len = if hosts { 32 } else { len };
            let mask = if len == 0 { 0 } else { u32::MAX << (32 - len) };
            let kind = if hosts { Kind::Hosts } else { Kind::Deny };
            let words = marked(marks_v4(network & mask, len, kind)).unwrap();
            let source = (network & mask) | (host & !mask);
            let touch = of(&words, &Source::V4(source), true);
            prop_assert_eq!(touch, Touch { hosts: true, prefixes: !hosts });
        }

        #[test]
        fn a_covered_v6_source_looks(network: u64, len in 0u8..=128, host: u64, hosts: bool) {
            let len = if hosts { 64 } else { len };
            let mask = u64::MAX.checked_shl(64 - u32::from(len.min(64))).unwrap_or(0);
            let kind = if hosts { Kind::Hosts } else { Kind::Deny };
            match marked(marks_v6(network & mask, len, kind)) {
                Some(words) => {
                    let touch = of(&words, &v6(network & mask | host & !mask), true);
                    prop_assert_eq!(touch, Touch { hosts, prefixes: !hosts });
                }
                None => prop_assert!(len < V6_SHORTEST),
            }
        }

        #[test]
        fn a_source_outside_hardly_ever_looks(network: u64, host: u64, len in 32u8..=64) {
            let mask = u64::MAX << (64 - len);
            let marks = marked(marks_v6(network & mask, len, Kind::Deny)).unwrap();
            prop_assume!(host >> 32 != network >> 32);
            prop_assert!(of(&marks, &v6(host), true).is_none());
        }

        /// Beside a listed host, in its /24 or /32, nobody asks for networks, and of IPv6 sources
        /// hardly any for hosts.
        #[test]
        fn a_neighbour_of_a_host_hardly_ever_looks(host: u64, neighbour in 1u8..=255) {
            let beside = host ^ u64::from(neighbour);
            let marks = marked(marks_v4(host as u32, 32, Kind::Hosts)).unwrap();
            prop_assert!(!of(&marks, &Source::V4(beside as u32), true).prefixes);
            let marks = marked(marks_v6(host, 64, Kind::Hosts)).unwrap();
            prop_assert!(of(&marks, &v6(beside), true).is_none());
        }
    }

    #[test]
    fn the_ends_of_the_map_are_marked() {
        let all = marked(marks_v4(0, 0, Kind::Deny)).unwrap();
        assert_eq!(all.len(), (1 << V4_WIDE.log2) + (1 << V4_SHORT.log2));
        assert!(all.values().all(|&word| word == u64::MAX));
        let last = marked(marks_v4(u32::MAX << 12, 20, Kind::Deny)).unwrap();
        let wide = (V4_WIDE.end() - 1, 0xffff << 48);
        assert_eq!(last, HashMap::from([wide, (words(Family::V4) as u32 - 1, 1 << 63)]));
        let most = marked(marks_v6(0xffff << 48, V6_SHORTEST, Kind::Deny)).unwrap();
        assert!(most.values().map(|word| word.count_ones()).sum::<u32>() > 3 * 65_536);
    }

    /// What [`V4_LENGTH`] says of how many look for nothing.
    #[test]
    fn few_sources_ask_for_networks_in_vain() {
        let mut map = HashMap::<u32, u64>::new();
        let networks = |from, to| (from..to).map(|n: u32| n.wrapping_mul(0x9e37_79b1) & !0xff);
        let strangers = || (0..100_000).map(|n: u32| n.wrapping_mul(0x85eb_ca6b) | 1 << 31 | 1);
        for (from, to, at_most) in [(0, 100_000, 0.001), (100_000, 500_000, 0.045)] {
            for network in networks(from, to) {
                let network = network & !(1 << 31);
                marks_v4(network, 24, Kind::Deny)
                    .each_word(|word, bits| *map.entry(word).or_default() |= bits);
            }
            // The half of the addresses in which no network is; all of them bear the wide mark.
            let mut everywhere = map.clone();
            everywhere.extend((1 << 17..1 << 18).map(|word| (word, u64::MAX)));
            let in_vain = strangers().filter(|&it| of(&everywhere, &Source::V4(it), true).prefixes);
            let share = in_vain.count() as f64 / 100_000.0;
            assert!(share <= at_most, "{share} of {to}");
        }
    }
}
