//! Which sources no entry can speak about, told by a word or a few.
//!
//! Each entry marks the sources that it covers. One that bears no mark is in no list, and costs no
//! lookup. A mark says nothing by itself: then the tables are asked.
//!
//! Marks stand in one map for each family, in three parts:
//!
//! - *wide*: one bit for each IPv4 /24 that any entry touches, or for a hash of the first 32 bits of
//!   an IPv6 address. Nearly every honest source costs just this one load. The part is as small as
//!   can be: a map that does not fit a processor's cache costs as much as the lookup that it saves.
//! - *networks*, of which only those who bear the wide mark ask: whether the dearer tries may have an
//!   entry. For IPv4 again a bit for each /24. IPv6 has too many networks for that: there an entry
//!   marks a hash of its first bits, as many as the next of [`V6_LENGTHS`] says, and a source looks
//!   at each of them.
//! - *hosts*: whether the packed table may have one. A hash of the /32 or /64.
//!
//! A mark of a hash is four bits of one word (a Bloom filter in blocks: Putze, Sanders and Singler,
//! Cache-, Hash- and Space-Efficient Bloom Filters, 2007). An entry shorter than the shortest length
//! marks every network of that length in it, down to [`V6_SHORTEST`]; below that it makes every IPv6
//! source look ([`Marks::Everything`]).

use crate::control::Kind;
use crate::parse::{Family, Source};

/// Words of 64 bits in the map of each family: three parts of 2 MiB.
pub const WORDS: u32 = 3 * PART;
const PART: u32 = 1 << PART_LOG2;
const PART_LOG2: u32 = 18;
/// Where the parts begin.
const WIDE: u32 = 0;
const NETWORKS: u32 = PART;
const HOSTS: u32 = 2 * PART;
/// How many of an address's first bits have a wide mark.
const V4_WIDE: u8 = 24;
const V6_WIDE: u8 = 32;

/// How many of an IPv6 address's first bits are hashed for networks, longest first.
///
/// Of honest sources in 60,000 networks (/32) beside a million entries there (90 % hosts; prefixes
/// /48 50 %, /32 13 %, /56 and /44 10 %, /40 8 %, /36 4 %, others 5 %), these let 0.6 % look for
/// nothing. One bit for 64 and 32 let 78 % look; for 64, 48, 40 and 32, 27 %, and a fourth load.
pub const V6_LENGTHS: [u8; 3] = [64, 44, 36];
/// Bits of a mark.
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

    #[inline(always)]
    pub const fn is_none(self) -> bool {
        !(self.hosts | self.prefixes)
    }
}

/// What a source's marks say; `word` reads the family's map. `likely` is called where the packed
/// table will be asked for the host.
#[inline(always)]
pub fn of(source: &Source, word: impl Fn(Family, u32) -> u64, likely: impl FnOnce()) -> Touch {
    // All words are asked for before the first is there: each may be far away.
    match source {
        Source::V4(ip) => {
            let host = u32::from_be_bytes(*ip);
            let is_marked = |mark: Mark| word(Family::V4, mark.word) & mark.bits == mark.bits;
            let network = host >> (32 - V4_WIDE);
            if !is_marked(Mark::of_v4(WIDE, network)) {
                return Touch::NONE;
            }
            let prefixes = is_marked(Mark::of_v4(NETWORKS, network));
            let hosts = is_marked(Mark::hashed(HOSTS, host as u64, Family::V4.host_len()));
            if hosts {
                likely();
            }
            Touch { hosts, prefixes }
        }
        Source::V6(b) => {
            let network = u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
            let is_marked = |mark: Mark| word(Family::V6, mark.word) & mark.bits == mark.bits;
            if !is_marked(Mark::wide_v6(network >> (64 - V6_WIDE))) {
                return Touch::NONE;
            }
            let in_network =
                |len: u8| is_marked(Mark::hashed(NETWORKS, network >> (64 - len), len));
            let [long, middle, short] = V6_LENGTHS.map(in_network);
            let hosts = is_marked(Mark::hashed(HOSTS, network, Family::V6.host_len()));
            if hosts {
                likely();
            }
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
    /// The bit of an IPv4 /24, in this part.
    #[inline(always)]
    const fn of_v4(part: u32, network: u32) -> Self {
        Self { word: part + network / 64, bits: 1 << (network % 64) }
    }

    /// The bit of an IPv6 /32.
    #[inline(always)]
    const fn wide_v6(network: u64) -> Self {
        let hash = network.wrapping_mul(SPREADING);
        let bits = 1 << (hash >> (64 - PART_LOG2 - 6) & 63);
        Self { word: WIDE + (hash >> (64 - PART_LOG2)) as u32, bits }
    }

    /// By multiplicative hashing (Knuth, The Art of Computer Programming, section 6.4). The length
    /// is part of what is hashed, so that one part serves all.
    #[inline(always)]
    const fn hashed(part: u32, network: u64, len: u8) -> Self {
        let spread = network ^ (network >> 32) ^ ((len as u64) << 40);
        let hash = spread.wrapping_mul(SPREADING);
        let word = part + (hash >> (64 - PART_LOG2)) as u32;
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
    /// The IPv4 /24s from the first to the last.
    V4 { first: u32, last: u32 },
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
    let wide = 32 - V4_WIDE;
    Marks::V4 { first: network >> wide, last: (network | host_bits) >> wide }
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
    let wide_count = if len < V6_WIDE { 1 << (V6_WIDE - len) } else { 1 };
    let (first, wide) = (network >> (64 - marked), network >> (64 - V6_WIDE));
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
                set(Mark::hashed(HOSTS, host, family.host_len()));
                set(match family {
                    Family::V4 => Mark::of_v4(WIDE, host as u32 >> (32 - V4_WIDE)),
                    Family::V6 => Mark::wide_v6(host >> (64 - V6_WIDE)),
                });
            }
            Self::V4 { first, last } => {
                for part in [NETWORKS, WIDE] {
                    for word in first / 64..=last / 64 {
                        let (start, end) = (first.max(word * 64), last.min(word * 64 + 63));
                        let networks = (start..=end).map(|net| Mark::of_v4(part, net).bits);
                        set(Mark {
                            word: part + word,
                            bits: networks.fold(0, |all, bit| all | bit),
                        });
                    }
                }
            }
            Self::V6 { first, count, len, wide, wide_count } => {
                let networks = first..=first + (count - 1);
                networks.for_each(|network| set(Mark::hashed(NETWORKS, network, len)));
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
            assert!(word < WORDS);
            *words.entry(word).or_default() |= bits;
        });
        enough.then_some(words)
    }

    fn look(words: &HashMap<u32, u64>, source: Source) -> Touch {
        let word = |family, word| {
            assert_eq!(family, source.family());
            words.get(&word).copied().unwrap_or(0)
        };
        of(&source, word, || ())
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
            let touch = look(&words, Source::V4(source.to_be_bytes()));
            prop_assert_eq!(touch, Touch { hosts, prefixes: !hosts });
        }

        #[test]
        fn a_covered_v6_source_looks(network: u64, len in 0u8..=128, host: u128, hosts: bool) {
            let len = if hosts { 64 } else { len };
            let mask = u64::MAX.checked_shl(64 - u32::from(len.min(64))).unwrap_or(0);
            let source = u128::from(network & mask) << 64 | (host & !(u128::from(mask) << 64));
            let kind = if hosts { Kind::Hosts } else { Kind::Deny };
            match marked(marks_v6(network & mask, len, kind)) {
                Some(words) => {
                    let touch = look(&words, Source::V6(source.to_be_bytes()));
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
            prop_assert!(look(&marks, Source::V6((u128::from(host) << 64).to_be_bytes())).is_none());
        }

        /// Beside a listed host, in its /24 or /32, hardly anybody asks for hosts, and nobody for
        /// networks.
        #[test]
        fn a_neighbour_of_a_host_hardly_ever_looks(host: u64, neighbour in 1u8..=255) {
            let beside = host ^ u64::from(neighbour);
            let v4 = marked(marks_v4(host as u32, 32, Kind::Hosts)).unwrap();
            prop_assert!(look(&v4, Source::V4((beside as u32).to_be_bytes())).is_none());
            let v6 = marked(marks_v6(host, 64, Kind::Hosts)).unwrap();
            let source = Source::V6((u128::from(beside) << 64).to_be_bytes());
            prop_assert!(look(&v6, source).is_none());
        }
    }

    #[test]
    fn the_ends_of_the_map_are_marked() {
        let all = marked(marks_v4(0, 0, Kind::Deny)).unwrap();
        assert_eq!(all.len(), 2 * PART as usize);
        assert!(all.values().all(|&word| word == u64::MAX));
        let last = marked(marks_v4(u32::MAX, 24, Kind::Deny));
        assert_eq!(last, Some(HashMap::from([(PART - 1, 1 << 63), (HOSTS - 1, 1 << 63)])));
        let most = marked(marks_v6(0xffff << 48, V6_SHORTEST, Kind::Deny)).unwrap();
        assert!(most.values().map(|word| word.count_ones()).sum::<u32>() > 3 * 65_536);
    }
}
