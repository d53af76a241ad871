//! Which sources no entry can speak about, told by a word or a few.
//!
//! Each entry marks the sources that it covers. One that bears no mark is in no list, and costs no
//! lookup. A mark says nothing by itself: then the tables are asked.
//!
//! IPv4 has two marks for each /24, both in one word: one for hosts, which costs a lookup in a
//! hash, and one for prefixes, which costs the dearer ones in tries.
//!
//! IPv6 has too many networks for that. There a hash of the first 32 bits of an address chooses one
//! of 2^25 bits: where it is not set, no entry covers anybody there. Behind it, an entry marks a hash of its first bits, as many as the
//! next of [`V6_LENGTHS`] says; a source looks at each of them. Each mark is four bits of one
//! word (a Bloom filter in blocks: Putze, Sanders and Singler, Cache-, Hash- and Space-Efficient
//! Bloom Filters, 2007). An entry shorter than the shortest length marks every network of that
//! length in it, down to [`V6_SHORTEST`]; below that it makes every IPv6 source look
//! ([`Marks::Everything`]).

use crate::control::Kind;
use crate::parse::{Family, Source};

/// Words of 64 bits in the map of each family: 4 MiB for IPv4, and twice that for IPv6.
pub const fn words(family: Family) -> u32 {
    match family {
        Family::V4 => WORDS,
        Family::V6 => 2 * WORDS,
    }
}

const WORDS: u32 = 1 << WORDS_LOG2;
const WORDS_LOG2: u32 = 19;
/// So many of an IPv6 address's first bits have a bit in the second half of the map, by their hash.
const V6_WIDE: u8 = 32;

/// How many of an address's first bits are hashed, longest first; the longest is a host's.
///
/// Of honest sources in 60,000 networks (/32) beside a million entries there (90 % hosts; prefixes
/// /48 50 %, /32 13 %, /56 and /44 10 %, /40 8 %, /36 4 %, others 5 %), these let 0.6 % look for
/// nothing. One bit for 64 and 32 let 78 % look; for 64, 48, 40 and 32, 27 %, and a fourth load.
pub const V6_LENGTHS: [u8; 3] = [64, 44, 36];
/// Bits of a mark.
const V6_BITS: u32 = 4;
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

    #[inline(always)]
    pub const fn is_none(self) -> bool {
        !(self.hosts | self.prefixes)
    }
}

/// What a source's marks say; `word` reads the family's map.
#[inline(always)]
pub fn of(source: &Source, word: impl Fn(Family, u32) -> u64) -> Touch {
    match source {
        Source::V4(ip) => {
            let network = u32::from_be_bytes(*ip) >> 8;
            let marks = word(Family::V4, network / V4_NETWORKS);
            let is_marked = |kind| marks & v4_mark(network, kind) != 0;
            Touch { hosts: is_marked(Kind::Hosts), prefixes: is_marked(Kind::Deny) }
        }
        Source::V6(b) => {
            let network = u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
            let (at, bit) = v6_wide(network >> (64 - V6_WIDE));
            if word(Family::V6, at) & bit == 0 {
                return Touch { hosts: false, prefixes: false };
            }
            let is_marked = |len: u8| {
                let mark = V6Mark::of(network >> (64 - len), len);
                word(Family::V6, mark.word) & mark.bits == mark.bits
            };
            // All words are asked for before the first is there: each may be far away.
            let [host, long, short] = V6_LENGTHS.map(is_marked);
            Touch { hosts: host, prefixes: host | long | short }
        }
    }
}

/// Networks of 24 bits that share a word.
const V4_NETWORKS: u32 = 32;

/// The bit of one /24 in its word: hosts in the low half, prefixes in the high one.
#[inline(always)]
const fn v4_mark(network: u32, kind: Kind) -> u64 {
    let half = if matches!(kind, Kind::Hosts) { 0 } else { V4_NETWORKS };
    1 << (network % V4_NETWORKS + half)
}

/// The word and the bit of a network of [`V6_WIDE`] bits.
#[inline(always)]
const fn v6_wide(network: u64) -> (u32, u64) {
    let hash = network.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (WORDS + (hash >> (64 - WORDS_LOG2)) as u32, 1 << (hash >> (58 - WORDS_LOG2) & 63))
}

struct V6Mark {
    word: u32,
    bits: u64,
}

impl V6Mark {
    /// By multiplicative hashing (Knuth, The Art of Computer Programming, section 6.4). The length
    /// is part of what is hashed, so that one map serves all.
    #[inline(always)]
    const fn of(network: u64, len: u8) -> Self {
        let spread = network ^ (network >> 32) ^ ((len as u64) << 40);
        let product = spread.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let word = (product >> (64 - WORDS_LOG2)) as u32;
        // The bits that chose the word must not choose those in it as well.
        let rest = product ^ (product >> 29);
        let (mut bits, mut i) = (0, 0);
        while i < V6_BITS {
            bits |= 1 << ((rest >> (6 * i)) & 63);
            i += 1;
        }
        Self { word, bits }
    }
}

/// What an entry marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// The /24s from the first to the last, for a kind of table.
    V4 { first: u32, last: u32, kind: Kind },
    /// So many networks of a length, from this one on; and the wide ones that they lie in.
    V6 { first: u64, count: u64, len: u8, wide: (u64, u64) },
    /// Too short to leave marks: every source of the family looks.
    Everything,
}

/// What an IPv4 entry marks. Host bits must be zero.
pub const fn marks_v4(network: u32, len: u8, kind: Kind) -> Marks {
    let host_bits = if len >= 32 { 0 } else { u32::MAX >> len };
    Marks::V4 { first: network >> 8, last: (network | host_bits) >> 8, kind }
}

/// What an IPv6 entry marks, by the first 64 bits of its address. Host bits must be zero.
pub const fn marks_v6(network: u64, len: u8) -> Marks {
    let [host, long, short] = V6_LENGTHS;
    let marked = match len {
        _ if len >= host => host,
        // Up to here neighbours look, too.
        _ if len > short => long,
        _ if len >= V6_SHORTEST => short,
        _ => return Marks::Everything,
    };
    let count = if len < marked { 1 << (marked - len) } else { 1 };
    let wide_count = if len < V6_WIDE { 1 << (V6_WIDE - len) } else { 1 };
    let wide = (network >> (64 - V6_WIDE), wide_count);
    Marks::V6 { first: network >> (64 - marked), count, len: marked, wide }
}

impl Marks {
    /// Calls `mark` with the index and the bits of each word to be marked, one word possibly
    /// several times. Says whether marks are enough; otherwise every source must look.
    pub fn each_word(self, mut mark: impl FnMut(u32, u64)) -> bool {
        match self {
            Self::V4 { first, last, kind } => {
                for word in first / V4_NETWORKS..=last / V4_NETWORKS {
                    let start = first.max(word * V4_NETWORKS);
                    let end = last.min(word * V4_NETWORKS + (V4_NETWORKS - 1));
                    let bits = (start..=end).fold(0, |bits, net| bits | v4_mark(net, kind));
                    mark(word, bits);
                }
            }
            Self::V6 { first, count, len, wide: (wide, wide_count) } => {
                for network in wide..=wide + (wide_count - 1) {
                    let (word, bit) = v6_wide(network);
                    mark(word, bit);
                }
                for network in first..=first + (count - 1) {
                    let V6Mark { word, bits } = V6Mark::of(network, len);
                    mark(word, bits);
                }
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
            assert!(word < super::words(Family::V6));
            *words.entry(word).or_default() |= bits;
        });
        enough.then_some(words)
    }

    fn look(words: &HashMap<u32, u64>, source: Source) -> Touch {
        of(&source, |family, word| {
            assert_eq!(family, source.family());
            words.get(&word).copied().unwrap_or(0)
        })
    }

    proptest! {
        /// The one promise: whoever is covered looks where the entry is.
        #[test]
        fn a_covered_v4_source_looks(network: u32, len in 0u8..=32, host: u32, hosts: bool) {
            let mask = if len == 0 { 0 } else { u32::MAX << (32 - len) };
            let kind = if hosts { Kind::Hosts } else { Kind::Deny };
            let words = marked(marks_v4(network & mask, len, kind)).unwrap();
            let source = (network & mask) | (host & !mask);
            let touch = look(&words, Source::V4(source.to_be_bytes()));
            prop_assert_eq!(touch, Touch { hosts, prefixes: !hosts });
            let marked: u32 = words.values().map(|word| word.count_ones()).sum();
            prop_assert_eq!(marked, 1 << 24u8.saturating_sub(len));
        }

        #[test]
        fn a_covered_v6_source_looks(network: u64, len in 0u8..=128, host: u128) {
            let mask = u64::MAX.checked_shl(64 - u32::from(len.min(64))).unwrap_or(0);
            let source = u128::from(network & mask) << 64 | (host & !(u128::from(mask) << 64));
            match marked(marks_v6(network & mask, len)) {
                Some(words) => {
                    let touch = look(&words, Source::V6(source.to_be_bytes()));
                    prop_assert!(touch.prefixes);
                    prop_assert!(touch.hosts || len < Family::V6.host_len());
                }
                None => prop_assert!(len < V6_SHORTEST),
            }
        }

        #[test]
        fn a_source_outside_hardly_ever_looks(network: u64, host: u64, len in 31u8..=64) {
            let mask = u64::MAX << (64 - len);
            let marks = marked(marks_v6(network & mask, len)).unwrap();
            // Another /32, but for entries that mark so many of them that some must meet it.
            let source = u128::from(host ^ (1 << 63)) << 64;
            prop_assume!((host ^ (1 << 63)) >> 28 != network >> 28 && len > 30);
            prop_assert!(look(&marks, Source::V6(source.to_be_bytes())).is_none());
        }
    }

    #[test]
    fn the_ends_of_the_v4_map_are_marked() {
        let all = marked(marks_v4(0, 0, Kind::Deny)).unwrap();
        assert_eq!(all.len(), WORDS as usize);
        assert!(all.values().all(|&word| word == u64::MAX << V4_NETWORKS));
        let last = marked(marks_v4(u32::MAX, 32, Kind::Hosts)).unwrap();
        assert_eq!(last, HashMap::from([(WORDS - 1, 1 << 31)]));
        let most = marked(marks_v6(0xffff << 48, V6_SHORTEST)).unwrap();
        assert!(most.values().map(|word| word.count_ones()).sum::<u32>() > 3 * 65_536 + 4_000);
    }
}
