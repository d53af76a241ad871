//! The packed table of denied hosts: lines of one cache line each, of which a lookup reads one.
//!
//! A host's number is mixed by a bijection. Its first bits choose the line, the rest stands in a
//! slot of that line, so nothing is compared but what the line's number does not say already
//! (quotienting: Knuth, The Art of Computer Programming, section 6.4, exercise 13). Beside it
//! stands a number for what the denial says; a million hosts of a feed share one *meaning*.
//!
//! What does not fit into its line is put into an ordinary hash, and the line is marked as
//! *spilled*: whoever does not find a host in such a line looks there. The same holds for hosts
//! whose meaning has no number because all are taken.

use crate::parse::{Family, Source};

/// Words of a line: 64 bytes, what a processor loads at once.
pub const LINE_WORDS: usize = 8;
/// A line as it stands in the map. The first slot is no host's: its lowest bit says *spilled*.
pub type Line = [u64; LINE_WORDS];
/// Numbers of meanings: from 1 to one below this. 0 stands in a slot that is free.
pub const MEANINGS: u32 = 1 << MEANING_BITS;
const MEANING_BITS: u32 = 16;
/// Two 32-bit slots share a word for IPv4; for IPv6 a slot is a word.
const V4_SLOTS: usize = 2 * LINE_WORDS;
const V6_SLOTS: usize = LINE_WORDS;
/// So many of an IPv4 address's mixed bits fit into a slot (48 of an IPv6 network's 64); the others
/// must choose the line.
const V4_REST_BITS: u32 = 16;
/// With fewer lines the rest of a host would not fit into its slot, of either family.
const LINES_LOG2_MIN: u32 = 16;
const SPILLED: u64 = 1;

/// How many lines a table has, as its logarithm to base 2. One line is none: only the hash is used,
/// and the line says that it spilled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines(u8);

impl Lines {
    /// Bits of [`Lines::code`].
    pub const CODE_BITS: u32 = 4;

    /// For a table with room for so many hosts: half of the slots stay free, so that few lines
    /// spill. A table that nobody wants to use has none.
    pub const fn for_entries(family: Family, entries: u32) -> Self {
        if entries <= 1 {
            return Self(0);
        }
        let per_line = match family {
            Family::V4 => V4_SLOTS / 2,
            Family::V6 => V6_SLOTS / 2,
        };
        let lines = (entries as u64).div_ceil(per_line as u64).next_power_of_two();
        let log2 = lines.trailing_zeros();
        Self(if log2 < LINES_LOG2_MIN { LINES_LOG2_MIN as u8 } else { log2 as u8 })
    }

    /// The lines of the map; the kernel makes none without any.
    pub const fn count(self) -> u32 {
        1 << self.0
    }

    /// As the control word has it.
    #[inline(always)]
    pub const fn code(self) -> u64 {
        if self.0 == 0 { 0 } else { (self.0 as u32 - LINES_LOG2_MIN + 1) as u64 }
    }

    #[inline(always)]
    pub const fn from_code(code: u64) -> Self {
        if code == 0 { Self(0) } else { Self((code as u32 + LINES_LOG2_MIN - 1) as u8) }
    }

    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    const fn log2(self) -> u32 {
        self.0 as u32
    }
}

/// Where a host stands, if it stands anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the line.
    pub line: u32,
    /// The slot of this host without its meaning: the rest above [`MEANING_BITS`] zero bits.
    rest: u64,
    family: Family,
}

/// What a line says of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is denied, and what the denial says has this number.
    Meaning(u32),
    /// It may be in the hash.
    Spilled,
    No,
}

impl Place {
    /// The place of a source's host: an IPv4 address, or the first 64 bits of an IPv6 one.
    #[inline(always)]
    pub const fn of(source: &Source, lines: Lines) -> Self {
        match source {
            Source::V4(ip) => {
                let mixed = mix_v4(u32::from_be_bytes(*ip));
                let rest = (mixed & (u32::MAX >> (32 - V4_REST_BITS))) as u64;
                let line = (mixed as u64 >> (32 - lines.log2())) as u32;
                Self { line, rest: rest << MEANING_BITS, family: Family::V4 }
            }
            Source::V6(b) => {
                let network = u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
                let mixed = mix_v6(network);
                // In two steps: without lines there would be 64 bits to shift by.
                let line = (mixed >> 1 >> (63 - lines.log2())) as u32;
                Self { line, rest: mixed << MEANING_BITS, family: Family::V6 }
            }
        }
    }

    /// Looks a host up in its line.
    #[inline(always)]
    pub const fn find(&self, line: &Line) -> Found {
        let meaning = match self.family {
            Family::V4 => find_v4(line, self.rest),
            Family::V6 => find_v6(line, self.rest),
        };
        if meaning != 0 {
            Found::Meaning(meaning as u32)
        } else if is_spilled(line) {
            Found::Spilled
        } else {
            Found::No
        }
    }

    /// What its slot holds when the host is denied with this meaning.
    pub const fn slot(&self, meaning: u32) -> u64 {
        self.rest | meaning as u64
    }
}

/// Whether hosts of this line may be in the hash.
#[inline(always)]
pub const fn is_spilled(line: &Line) -> bool {
    line[0] & SPILLED != 0
}

/// The first word of a line, spilled.
pub const fn spilled(first_word: u64) -> u64 {
    first_word | SPILLED
}

/// The meaning of a slot that has this rest; 0 for any other.
#[inline(always)]
const fn meaning(slot: u64, rest: u64) -> u64 {
    // With the same rest only the meaning is left, from 1 to one below MEANINGS.
    let left = slot ^ rest;
    if left < MEANINGS as u64 { left } else { 0 }
}

// Returns at the first match: the verifier would follow each slot in two ways for each before it.

#[inline(always)]
const fn find_v4(line: &Line, rest: u64) -> u64 {
    let mut found = meaning(line[0] >> 32, rest);
    let mut word = 1;
    while word < LINE_WORDS && found == 0 {
        found = meaning(line[word] & 0xffff_ffff, rest);
        if found == 0 {
            found = meaning(line[word] >> 32, rest);
        }
        word += 1;
    }
    found
}

#[inline(always)]
const fn find_v6(line: &Line, rest: u64) -> u64 {
    let (mut found, mut word) = (0, 1);
    while word < LINE_WORDS && found == 0 {
        found = meaning(line[word], rest);
        word += 1;
    }
    found
}

/// The slots of a line, for whoever writes it.
pub const fn slots(family: Family) -> core::ops::Range<usize> {
    match family {
        Family::V4 => 1..V4_SLOTS,
        Family::V6 => 1..V6_SLOTS,
    }
}

/// The word of a line that a slot stands in, and how far its bits are shifted there.
pub const fn word_of(family: Family, slot: usize) -> (usize, u32) {
    match family {
        Family::V4 => (slot / 2, 32 * (slot as u32 % 2)),
        Family::V6 => (slot, 0),
    }
}

/// A slot's bits in the word that holds it, before they are shifted there.
pub const fn slot_mask(family: Family) -> u64 {
    match family {
        Family::V4 => 0xffff_ffff,
        Family::V6 => u64::MAX,
    }
}

/// The meaning in a slot; 0 where the slot is free.
pub const fn meaning_of(slot: u64) -> u32 {
    (slot & (MEANINGS - 1) as u64) as u32
}

/// The host of a slot that is not free: its network address.
pub const fn host_of(family: Family, lines: Lines, line: u32, slot: u64) -> Source {
    let rest = slot >> MEANING_BITS;
    match family {
        Family::V4 => {
            let mixed = line << (32 - lines.log2()) | rest as u32;
            Source::V4(unmix_v4(mixed).to_be_bytes())
        }
        Family::V6 => {
            let mixed = (line as u64) << (64 - lines.log2()) | rest;
            let n = unmix_v6(mixed).to_be_bytes();
            Source::V6([n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], 0, 0, 0, 0, 0, 0, 0, 0])
        }
    }
}

/// Odd numbers with bits all over; multiplying by one is undone by multiplying by its inverse.
const V4_FACTORS: [u32; 2] = [0x7feb_352d, 0x846c_a68b];
const V6_FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9];

/// A bijection that spreads neighbours: shifts and multiplications in turn, as Stafford's and
/// Wellons's mixers do.
#[inline(always)]
const fn mix_v4(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(V4_FACTORS[0]);
    x ^= x >> 15;
    x = x.wrapping_mul(V4_FACTORS[1]);
    x ^ x >> 16
}

const fn unmix_v4(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(inverse(V4_FACTORS[1] as u64) as u32);
    x ^= x >> 15 ^ x >> 30;
    x = x.wrapping_mul(inverse(V4_FACTORS[0] as u64) as u32);
    x ^ x >> 16
}

#[inline(always)]
const fn mix_v6(mut x: u64) -> u64 {
    x ^= x >> 32;
    x = x.wrapping_mul(V6_FACTORS[0]);
    x ^= x >> 32;
    x = x.wrapping_mul(V6_FACTORS[1]);
    x ^ x >> 32
}

const fn unmix_v6(mut x: u64) -> u64 {
    x ^= x >> 32;
    x = x.wrapping_mul(inverse(V6_FACTORS[1]));
    x ^= x >> 32;
    x = x.wrapping_mul(inverse(V6_FACTORS[0]));
    x ^ x >> 32
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration: each turn doubles the bits
/// that are right, of which an odd number itself has three.
const fn inverse(odd: u64) -> u64 {
    let (mut inverse, mut turn) = (odd, 0);
    while turn < 5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(inverse)));
        turn += 1;
    }
    inverse
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;

    fn source(v6: bool, octets: [u8; 16]) -> Source {
        if v6 {
            Source::V6(octets)
        } else {
            Source::V4([octets[0], octets[1], octets[2], octets[3]])
        }
    }

    /// A line that holds one slot.
    fn line_with(family: Family, slot: usize, bits: u64) -> Line {
        let (word, shift) = word_of(family, slot);
        let mut line = [0; LINE_WORDS];
        line[word] = bits << shift;
        line
    }

    proptest! {
        #[test]
        fn a_host_is_found_in_every_slot_and_can_be_read_back(
            v6: bool, octets: [u8; 16], entries in 2u32..40_000_000, meaning in 1u32..MEANINGS,
        ) {
            let source = source(v6, octets);
            let family = source.family();
            let lines = Lines::for_entries(family, entries);
            let place = Place::of(&source, lines);
            prop_assert!(place.line < lines.count());
            for slot in slots(family) {
                let bits = place.slot(meaning);
                prop_assert_eq!(bits & !slot_mask(family), 0);
                prop_assert_eq!(meaning_of(bits), meaning);
                let line = line_with(family, slot, bits);
                prop_assert_eq!(place.find(&line), Found::Meaning(meaning));
                let host = host_of(family, lines, place.line, bits);
                let is = match (host, source) {
                    (Source::V4(is), Source::V4(was)) => is == was,
                    (Source::V6(is), Source::V6(was)) => is[..8] == was[..8] && is[8..] == [0; 8],
                    _ => false,
                };
                prop_assert!(is, "{host:?} is not {source:?}");
            }
        }

        #[test]
        fn another_host_is_not_found(
            v6: bool, octets: [u8; 16], other: [u8; 16], entries in 2u32..40_000_000,
        ) {
            prop_assume!(octets[..4] != other[..4]);
            let (source, other) = (source(v6, octets), source(v6, other));
            let family = source.family();
            let lines = Lines::for_entries(family, entries);
            let (place, elsewhere) = (Place::of(&source, lines), Place::of(&other, lines));
            // In another line it may look the same; in the same line it must not.
            let differs = place.line != elsewhere.line || place.rest != elsewhere.rest;
            prop_assert!(differs);
            for slot in slots(family) {
                let mut line = line_with(family, slot, place.slot(7));
                if place.rest != elsewhere.rest {
                    prop_assert_eq!(elsewhere.find(&line), Found::No);
                    line[0] = spilled(line[0]);
                    prop_assert_eq!(elsewhere.find(&line), Found::Spilled);
                    prop_assert_eq!(place.find(&line), Found::Meaning(7));
                }
            }
        }
    }

    #[test]
    fn a_free_slot_is_nobodys() {
        for octets in [[0; 16], [255; 16]] {
            for v6 in [false, true] {
                let source = source(v6, octets);
                let place = Place::of(&source, Lines::for_entries(source.family(), 1_000_000));
                assert_eq!(place.find(&[0; LINE_WORDS]), Found::No);
                let zeros = Place { rest: 0, ..place };
                assert_eq!(zeros.find(&[SPILLED, 0, 0, 0, 0, 0, 0, 0]), Found::Spilled);
            }
        }
    }

    #[test]
    fn a_million_hosts_take_8_and_16_mebibytes_and_the_code_keeps_it() {
        for (family, entries, mebibytes) in
            [(Family::V4, 1_000_000, 8), (Family::V6, 1_000_000, 16), (Family::V4, 2, 4)]
        {
            let lines = Lines::for_entries(family, entries);
            assert_eq!(lines.count() * 64, mebibytes << 20);
            assert_eq!(Lines::from_code(lines.code()), lines);
            assert!(lines.code() < 1 << Lines::CODE_BITS);
        }
        assert!(Lines::for_entries(Family::V4, 1).is_none());
        assert_eq!(
            Lines::from_code(Lines::for_entries(Family::V6, u32::MAX).code()).count(),
            1 << 30
        );
    }

    #[test]
    fn neighbours_are_spread() {
        // Every address of a /16: with four to a line on the average, hardly any line has 16.
        let lines = Lines::for_entries(Family::V4, 131_072);
        let mut counts = std::vec![0u8; lines.count() as usize];
        for host in 0..=0xffffu32 {
            let place = Place::of(&Source::V4((0xcb00_0000 | host).to_be_bytes()), lines);
            counts[place.line as usize] += 1;
        }
        let most = counts.iter().max().copied();
        assert!(most < Some(12), "{most:?}");
    }
}
