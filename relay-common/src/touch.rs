//! Which sources no entry can speak about, told by one bit.
//!
//! Each entry marks the bits of the addresses that it covers. A source whose bits are clear is in
//! no list, and costs no lookup. A bit that is set says nothing: then the tables are asked.
//!
//! IPv4 has a bit for each /24. IPv6 has too many networks for that: an entry marks a hash of its
//! first [`V6_LONG`] bits, or, if it is shorter, of its first [`V6_SHORT`] bits; a source looks at
//! both. An entry shorter than [`V6_SHORT`] marks every network of that length in it, down to
//! [`V6_SHORTEST`]; below that it makes every IPv6 source look ([`Marks::Everything`]).

/// Words of 64 bits in the map of each family: 2^24 bits, 2 MiB.
pub const WORDS: u32 = 1 << (BITS_LOG2 - 6);
const BITS_LOG2: u32 = 24;

/// Entries at least this long mark one bit, and it is what bans and hosts are: a /64.
pub const V6_LONG: u8 = 64;
/// Entries shorter than [`V6_LONG`] mark a bit for each network of this length.
pub const V6_SHORT: u8 = 32;
/// The shortest entry that marks bits: at most 2^16 of them.
pub const V6_SHORTEST: u8 = 16;

/// One bit of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bit(u32);

impl Bit {
    /// The index of its word, below [`WORDS`].
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.0 >> 6
    }

    #[inline(always)]
    pub const fn mask(self) -> u64 {
        1 << (self.0 & 63)
    }
}

/// The bit that an IPv4 source looks at.
#[inline(always)]
pub const fn v4(address: u32) -> Bit {
    Bit(address >> 8)
}

/// The bits that an IPv6 source looks at, by the first 64 bits of its address.
#[inline(always)]
pub const fn v6(network: u64) -> [Bit; 2] {
    [hashed(network, V6_LONG), hashed(network, V6_SHORT)]
}

/// Multiplicative hashing (Knuth, The Art of Computer Programming, section 6.4). The length is
/// part of what is hashed, so that one map serves both.
#[inline(always)]
const fn hashed(network: u64, len: u8) -> Bit {
    let kept = network >> (64 - len as u32);
    let mixed = (kept ^ (kept >> 32) ^ ((len as u64) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Bit((mixed >> (64 - BITS_LOG2)) as u32)
}

/// What an entry marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// Every bit from the first to the last.
    Range(Bit, Bit),
    /// The bits of so many networks of [`V6_SHORT`] bits, from this one on.
    Networks {
        first: u32,
        count: u32,
    },
    One(Bit),
    /// Too short to be marked: every source of the family looks.
    Everything,
}

/// What an IPv4 entry marks. Host bits must be zero.
pub const fn marks_v4(network: u32, len: u8) -> Marks {
    let host_bits = if len >= 32 { 0 } else { u32::MAX >> len };
    Marks::Range(v4(network), v4(network | host_bits))
}

/// What an IPv6 entry marks, by the first 64 bits of its address. Host bits must be zero.
pub const fn marks_v6(network: u64, len: u8) -> Marks {
    if len >= V6_LONG {
        return Marks::One(hashed(network, V6_LONG));
    }
    if len < V6_SHORTEST {
        return Marks::Everything;
    }
    let first = (network >> (64 - V6_SHORT as u32)) as u32;
    let count = if len >= V6_SHORT { 1 } else { 1 << (V6_SHORT - len) };
    Marks::Networks { first, count }
}

/// The bit of one network of [`V6_SHORT`] bits.
pub const fn v6_short(network: u32) -> Bit {
    hashed((network as u64) << (64 - V6_SHORT as u32), V6_SHORT)
}

impl Marks {
    /// Calls `mark` with the index and the bits of each word to be marked, one word possibly
    /// several times. Says whether marks are enough; otherwise every source must look.
    pub fn each_word(self, mut mark: impl FnMut(u32, u64)) -> bool {
        match self {
            Self::One(bit) => mark(bit.word(), bit.mask()),
            Self::Networks { first, count } => {
                for network in first..=first + (count - 1) {
                    let bit = v6_short(network);
                    mark(bit.word(), bit.mask());
                }
            }
            Self::Range(first, last) => {
                for word in first.word()..=last.word() {
                    let mut bits = u64::MAX;
                    if word == first.word() {
                        bits &= u64::MAX << (first.0 & 63);
                    }
                    if word == last.word() {
                        bits &= u64::MAX >> (63 - (last.0 & 63));
                    }
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
    fn words(marks: Marks) -> Option<HashMap<u32, u64>> {
        let mut words = HashMap::new();
        let enough = marks.each_word(|word, bits| {
            assert!(word < WORDS);
            *words.entry(word).or_default() |= bits;
        });
        enough.then_some(words)
    }

    fn looks(words: &HashMap<u32, u64>, bit: Bit) -> bool {
        words.get(&bit.word()).is_some_and(|word| word & bit.mask() != 0)
    }

    proptest! {
        /// The one promise: whoever is covered looks.
        #[test]
        fn a_covered_v4_source_looks(network: u32, len in 0u8..=32, host: u32) {
            let mask = if len == 0 { 0 } else { u32::MAX << (32 - len) };
            let words = words(marks_v4(network & mask, len)).unwrap();
            prop_assert!(looks(&words, v4((network & mask) | (host & !mask))));
            let marked: u32 = words.values().map(|word| word.count_ones()).sum();
            prop_assert_eq!(marked, 1 << 24u8.saturating_sub(len));
        }

        #[test]
        fn a_covered_v6_source_looks(network: u64, len in 0u8..=128, host: u64) {
            let mask = u64::MAX.checked_shl(64 - u32::from(len.min(64))).unwrap_or(0);
            let source = (network & mask) | (host & !mask);
            match words(marks_v6(network & mask, len)) {
                Some(words) => prop_assert!(v6(source).iter().any(|&bit| looks(&words, bit))),
                None => prop_assert!(len < V6_SHORTEST),
            }
        }
    }

    #[test]
    fn the_ends_of_the_v4_map_are_marked() {
        assert_eq!(words(marks_v4(0, 0)).unwrap().len(), WORDS as usize);
        let last = words(marks_v4(u32::MAX, 32)).unwrap();
        assert_eq!(last, HashMap::from([(WORDS - 1, 1 << 63)]));
        let most = words(marks_v6(0xffff << 48, V6_SHORTEST)).unwrap();
        assert!(most.values().map(|word| word.count_ones()).sum::<u32>() > 60_000);
    }
}
