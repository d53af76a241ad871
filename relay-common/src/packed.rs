//! The packed table of denied hosts: lines of one cache line each, of which a lookup mostly reads one.
//!
//! A host's number is mixed by a bijection. Its first bits choose the line, the rest stands in a
//! slot of that line, so nothing is compared but what the line's number does not say already
//! (quotienting: Knuth, The Art of Computer Programming, section 6.4, exercise 13). What a denial
//! says has a number, its *meaning*; a million hosts of a feed share one.
//!
//! In IPv6 a slot holds both, the rest and the meaning. In IPv4 it holds no more than the rest, 16
//! bits, so that a million hosts take 4 MiB: what a processor keeps near, and not twice as much,
//! which it does not. Their meanings stand *beside*: for each line there is another one in the second
//! half of the map, with the meaning of each slot in the same place. Where all hosts of a line have
//! the same meaning, its first word says so, and the line beside is not read.
//!
//! What does not fit into its line is put into an ordinary hash, and the line is marked as
//! *spilled*: whoever does not find a host in such a line looks there. The same holds for hosts
//! whose meaning has no number because all are taken, and for an IPv4 host whose rest is zero, as a
//! free slot is.
//!
//! A slot that was free is taken in this order: the first word of its line, the meaning beside,
//! the slot; and a lookup reads them in the opposite one, so what it finds means what it reads.

use crate::parse::{Family, Source};

/// Words of a line: 64 bytes, what a processor loads at once.
pub const LINE_WORDS: usize = 8;
/// A line as it stands in the map. The first word is no host's: its lowest bit says *spilled*, and
/// in IPv4 the bits from [`SHARED_AT`] the meaning that all hosts of the line have.
pub type Line = [u64; LINE_WORDS];
/// Numbers of meanings: from 1 to one below this.
pub const MEANINGS: u32 = 1 << MEANING_BITS;
const MEANING_BITS: u32 = 16;
const SHARED_AT: u32 = 16;
/// Slots of 16 bits for IPv4, of a word for IPv6.
const V4_SLOT_BITS: u32 = 16;
const V4_SLOTS_A_WORD: usize = 4;
/// With fewer lines the rest of an IPv4 host would not fit into its slot, nor that of an IPv6 host
/// beside its meaning.
const LINES_LOG2_MIN: u32 = 16;
const SPILLED: u64 = 1;

/// How many lines a table has, as its logarithm to base 2. One line is none: only the hash is used,
/// and the line says that it spilled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines(u8);

impl Lines {
    /// Bits of [`Lines::code`].
    pub const CODE_BITS: u32 = 5;

    /// For a table with room for so many hosts: two slots of five stay free, so that few lines
    /// spill. A table that nobody wants to use has none.
    pub const fn for_entries(family: Family, entries: u32) -> Self {
        if entries <= 1 {
            return Self(0);
        }
        // Of 28 and of 7 slots.
        let per_line = match family {
            Family::V4 => 16,
            Family::V6 => 4,
        };
        let lines = (entries as u64).div_ceil(per_line).next_power_of_two();
        let log2 = lines.trailing_zeros();
        Self(if log2 < LINES_LOG2_MIN { LINES_LOG2_MIN as u8 } else { log2 as u8 })
    }

    /// The lines that hosts are spread over.
    #[inline(always)]
    pub const fn count(self) -> u32 {
        1 << self.0
    }

    /// The lines of the map, with those beside.
    pub const fn in_map(self, family: Family) -> u32 {
        match family {
            Family::V4 => 2 * self.count(),
            Family::V6 => self.count(),
        }
    }

    /// Of a map with so many lines.
    pub const fn of_map(family: Family, in_map: u32) -> Self {
        let lines = match family {
            Family::V4 => in_map / 2,
            Family::V6 => in_map,
        };
        Self(if lines < 1 << LINES_LOG2_MIN { 0 } else { lines.ilog2() as u8 })
    }

    /// As the control word has it.
    #[inline(always)]
    pub const fn code(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    pub const fn from_code(code: u64) -> Self {
        Self(code as u8)
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
    /// What the line's number does not say of the host: 16 bits of an IPv4 address; of an IPv6
    /// network 48, above [`MEANING_BITS`] zero bits.
    rest: u64,
    family: Family,
}

/// What a line says of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It is denied, and what the denial says has this number.
    Meaning(u32),
    /// It is denied, and the number stands beside: in this word, shifted so far.
    Beside {
        word: usize,
        shift: u32,
    },
    /// It may be in the hash.
    Spilled,
    No,
}

impl Place {
    /// The place of a source's host: an IPv4 address, or the first 64 bits of an IPv6 one.
    #[inline(always)]
    pub const fn of(source: &Source, lines: Lines) -> Self {
        match source {
            Source::V4(address) => {
                let mixed = mix_v4(*address);
                let line = (mixed as u64 >> (32 - lines.log2())) as u32;
                Self { line, rest: (mixed & 0xffff) as u64, family: Family::V4 }
            }
            Source::V6 { network, .. } => {
                let mixed = mix_v6(*network);
                // In two steps: without lines there would be 64 bits to shift by.
                let line = (mixed >> 1 >> (63 - lines.log2())) as u32;
                Self { line, rest: mixed << MEANING_BITS, family: Family::V6 }
            }
        }
    }

    /// Looks a host up in its line, of which `word` reads the words, the first one last.
    #[inline(always)]
    pub fn find(&self, word: impl Fn(usize) -> u64) -> Found {
        let found = match self.family {
            Family::V4 => self.find_v4(&word),
            Family::V6 => self.find_v6(&word),
        };
        match found {
            Found::No if is_spilled(word(0)) => Found::Spilled,
            found => found,
        }
    }

    /// All slots are looked at, whichever holds the host: a branch that depends on which is foreseen
    /// wrongly by the processor, which finds out only when the line has come from memory, and throws
    /// away all that it did in the meantime. (Of IPv6 slots the compiler makes branches anyway.)
    #[inline(always)]
    fn find_v4(&self, word: &impl Fn(usize) -> u64) -> Found {
        let (mut found, mut at) = (0, 1);
        while at < LINE_WORDS {
            found |= slots_with(self.rest, word(at));
            at += 1;
        }
        if found == 0 || self.rest == 0 {
            return Found::No;
        }
        match shared(word(0)) {
            0 => self.beside(word),
            meaning => Found::Meaning(meaning),
        }
    }

    /// Where the meaning of a host stands that is in the line.
    #[inline(always)]
    fn beside(&self, word: &impl Fn(usize) -> u64) -> Found {
        let (mut found, mut at) = (0, 1);
        // Ends at the first match: the verifier would follow each word in two ways for each before
        // it.
        while at < LINE_WORDS && found == 0 {
            found = slots_with(self.rest, word(at));
            at += 1;
        }
        match found {
            // It was removed a moment ago.
            0 => Found::No,
            found => Found::Beside { word: at - 1, shift: lowest_slot(found) },
        }
    }

    #[inline(always)]
    fn find_v6(&self, word: &impl Fn(usize) -> u64) -> Found {
        let mut at = 1;
        while at < LINE_WORDS {
            // With the same rest only the meaning is left, from 1 to one below MEANINGS.
            let left = word(at) ^ self.rest;
            if left != 0 && left < MEANINGS as u64 {
                return Found::Meaning(left as u32);
            }
            at += 1;
        }
        Found::No
    }

    /// Whether a slot can hold the host at all.
    pub const fn has_slots(&self) -> bool {
        matches!(self.family, Family::V6) || self.rest != 0
    }

    /// What its slot holds when the host is denied with this meaning.
    pub const fn slot(&self, meaning: u32) -> u64 {
        match self.family {
            Family::V4 => self.rest,
            Family::V6 => self.rest | meaning as u64,
        }
    }

    /// Whether this is what a slot holds of the host.
    pub const fn is_in(&self, slot: u64) -> bool {
        match self.family {
            Family::V4 => slot == self.rest && self.rest != 0,
            Family::V6 => {
                slot >> MEANING_BITS == self.rest >> MEANING_BITS && !is_free(Family::V6, slot)
            }
        }
    }
}

/// The highest bit of each slot that holds this rest, if only the lowest of them is looked at: of
/// those above it, some may be set that do not (Warren, Hacker's Delight, section 6-1).
#[inline(always)]
const fn slots_with(rest: u64, word: u64) -> u64 {
    const ONES: u64 = 0x0001_0001_0001_0001;
    let differ = word ^ rest.wrapping_mul(ONES);
    differ.wrapping_sub(ONES) & !differ & ONES << (V4_SLOT_BITS - 1)
}

/// How far the lowest of the slots is shifted whose highest bits these are.
#[inline(always)]
const fn lowest_slot(highest_bits: u64) -> u32 {
    highest_bits.trailing_zeros() & !(V4_SLOT_BITS - 1)
}

/// Whether hosts of the line with this first word may be in the hash.
#[inline(always)]
pub const fn is_spilled(first_word: u64) -> bool {
    first_word & SPILLED != 0
}

/// The first word of a line, spilled.
pub const fn spilled(first_word: u64) -> u64 {
    first_word | SPILLED
}

/// The meaning that all hosts of the line with this first word have; 0 where it stands beside.
#[inline(always)]
pub const fn shared(first_word: u64) -> u32 {
    (first_word >> SHARED_AT) as u32 & (MEANINGS - 1)
}

/// The first word of a line whose hosts all have this meaning; or, with 0, each its own.
pub const fn sharing(first_word: u64, meaning: u32) -> u64 {
    first_word & !((MEANINGS as u64 - 1) << SHARED_AT) | (meaning as u64) << SHARED_AT
}

/// How many slots a line has, for whoever writes it.
pub const fn slots(family: Family) -> usize {
    match family {
        Family::V4 => (LINE_WORDS - 1) * V4_SLOTS_A_WORD,
        Family::V6 => LINE_WORDS - 1,
    }
}

/// The word of a line that a slot stands in, and how far its bits are shifted there. What stands
/// beside an IPv4 slot has the same place in its own line.
pub const fn word_of(family: Family, slot: usize) -> (usize, u32) {
    match family {
        Family::V4 => (1 + slot / V4_SLOTS_A_WORD, V4_SLOT_BITS * (slot % V4_SLOTS_A_WORD) as u32),
        Family::V6 => (1 + slot, 0),
    }
}

/// A slot's bits in the word that holds it, before they are shifted there.
pub const fn slot_mask(family: Family) -> u64 {
    match family {
        Family::V4 => (1 << V4_SLOT_BITS) - 1,
        Family::V6 => u64::MAX,
    }
}

pub const fn is_free(family: Family, slot: u64) -> bool {
    match family {
        Family::V4 => slot == 0,
        Family::V6 => meaning_of(slot) == 0,
    }
}

/// The meaning in an IPv6 slot, or beside an IPv4 one.
#[inline(always)]
pub const fn meaning_of(bits: u64) -> u32 {
    bits as u32 & (MEANINGS - 1)
}

/// The host of a slot that is not free: its network address.
pub const fn host_of(family: Family, lines: Lines, line: u32, slot: u64) -> Source {
    match family {
        Family::V4 => Source::V4(unmix_v4(line << (32 - lines.log2()) | slot as u32)),
        Family::V6 => {
            let mixed = (line as u64) << (64 - lines.log2()) | slot >> MEANING_BITS;
            Source::V6 { network: unmix_v6(mixed), interface: 0 }
        }
    }
}

/// 2^32 divided by the golden ratio, to an odd number.
const V4_FACTOR: u32 = 0x9e37_79b1;
/// Without it the rest of every host *.*.0.0 would be zero.
const V4_SUMMAND: u32 = 0x5bd1_e995;
/// Odd numbers with bits all over.
const V6_FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9];

/// A bijection whose first bits spread neighbours, and most of what lies at equal distances (Knuth, The
/// Art of Computer Programming, section 6.4, theorem S). Multiplying by an odd number is undone by
/// multiplying by its inverse.
#[inline(always)]
const fn mix_v4(x: u32) -> u32 {
    x.wrapping_mul(V4_FACTOR).wrapping_add(V4_SUMMAND)
}

const fn unmix_v4(x: u32) -> u32 {
    x.wrapping_sub(V4_SUMMAND).wrapping_mul(inverse(V4_FACTOR as u64) as u32)
}

/// Shifts and multiplications in turn, as Stafford's mixers do: of 64 bits one multiplication would
/// leave too many networks at certain distances, 2^16 for one, in too few lines.
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

    fn source(v6: bool, host: u64) -> Source {
        if v6 { Source::V6 { network: host, interface: !host } } else { Source::V4(host as u32) }
    }

    /// A line that holds these slots from the first on, and what stands beside.
    fn lines_with(family: Family, hosts: &[(Place, u32)]) -> (Line, Line) {
        let (mut line, mut beside) = ([0; LINE_WORDS], [0; LINE_WORDS]);
        for (slot, (place, meaning)) in hosts.iter().enumerate() {
            let (word, shift) = word_of(family, slot);
            line[word] |= place.slot(*meaning) << shift;
            beside[word] |= u64::from(*meaning) << shift;
        }
        (line, beside)
    }

    fn meaning(place: &Place, (line, beside): &(Line, Line)) -> Option<u32> {
        match place.find(|word| line[word]) {
            Found::Meaning(meaning) => Some(meaning),
            Found::Beside { word, shift } => Some(meaning_of(beside[word] >> shift)),
            Found::Spilled | Found::No => None,
        }
    }

    proptest! {
        #[test]
        fn a_host_can_be_read_back(v6: bool, host: u64, entries in 2u32..40_000_000) {
            let source = source(v6, host);
            let family = source.family();
            let lines = Lines::for_entries(family, entries);
            let place = Place::of(&source, lines);
            prop_assert!(place.line < lines.count());
            let bits = place.slot(7);
            prop_assert_eq!(bits & !slot_mask(family), 0);
            prop_assert_eq!(place.is_in(bits), place.has_slots());
            let same = match (host_of(family, lines, place.line, bits), source) {
                (Source::V4(is), Source::V4(was)) => is == was,
                (Source::V6 { network: is, interface: 0 }, Source::V6 { network: was, .. }) => {
                    is == was
                }
                _ => false,
            };
            prop_assert!(same);
        }

        /// Against a list: whoever stands in the line is found with what it means, and nobody else.
        #[test]
        fn a_line_says_of_each_host_what_it_means(
            v6: bool,
            hosts in proptest::collection::vec((0u64..60, 1u32..MEANINGS), 0..28),
            share in any::<Option<bool>>(),
            stranger in 0u64..60,
        ) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let lines = Lines::for_entries(family, 1_000_000);
            let of = |rest: u64| {
                let bits = if v6 { rest << MEANING_BITS } else { rest };
                Place::of(&host_of(family, lines, 5, bits), lines)
            };
            let mut seen = std::collections::HashMap::new();
            for (rest, meaning) in hosts.into_iter().take(slots(family)) {
                let meaning = if share.is_some() { 9 } else { meaning };
                if of(rest).has_slots() {
                    seen.insert(rest, meaning);
                }
            }
            let placed: std::vec::Vec<_> = seen.iter().map(|(&rest, &m)| (of(rest), m)).collect();
            let mut both = lines_with(family, &placed);
            if share == Some(true) && !v6 {
                both.0[0] = sharing(spilled(0), 9);
                both.1 = [0; LINE_WORDS];
            }
            for (place, means) in &placed {
                prop_assert_eq!(place.line, 5);
                prop_assert_eq!(meaning(place, &both), Some(*means));
            }
            let expected = seen.get(&stranger).copied();
            prop_assert_eq!(meaning(&of(stranger), &both), expected);
            both.0[0] = spilled(both.0[0]);
            if expected.is_none() {
                prop_assert_eq!(of(stranger).find(|word| both.0[word]), Found::Spilled);
            }
        }

        #[test]
        fn two_hosts_differ_in_line_or_rest(
            v6: bool, host: u64, other: u64, entries in 2u32..40_000_000,
        ) {
            prop_assume!(host as u32 != other as u32);
            let (source, other) = (source(v6, host), source(v6, other));
            let lines = Lines::for_entries(source.family(), entries);
            let (place, elsewhere) = (Place::of(&source, lines), Place::of(&other, lines));
            let differs = place.line != elsewhere.line || place.rest != elsewhere.rest;
            prop_assert!(differs);
        }

        #[test]
        fn the_lowest_slot_with_a_rest_is_the_right_one(
            slots: [u16; V4_SLOTS_A_WORD], rest: u16, at in 0..V4_SLOTS_A_WORD, placed: bool,
        ) {
            let mut slots = slots;
            if placed {
                slots[at] = rest;
            }
            let word = (0..).zip(slots).map(|(at, slot)| u64::from(slot) << (16 * at)).sum();
            let found = slots_with(rest.into(), word);
            let first = slots.iter().position(|&slot| slot == rest);
            prop_assert_eq!(found != 0, first.is_some());
            if let Some(first) = first {
                prop_assert_eq!(lowest_slot(found), 16 * first as u32);
            }
        }
    }

    #[test]
    fn a_free_slot_is_nobodys() {
        for host in [0, u64::MAX] {
            for v6 in [false, true] {
                let source = source(v6, host);
                let place = Place::of(&source, Lines::for_entries(source.family(), 1_000_000));
                assert_eq!(place.find(|_| 0), Found::No);
                let zeros = Place { rest: 0, ..place };
                assert_eq!(zeros.find(|word| u64::from(word == 0)), Found::Spilled);
                assert!(!zeros.is_in(0));
            }
        }
    }

    /// Whole networks, one host of each, the same host in each.
    #[test]
    fn hosts_at_equal_distances_spread_over_the_lines() {
        for v6 in [false, true] {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let lines = Lines::for_entries(family, 1_000_000);
            for step in (0..if v6 { 48 } else { 17 }).map(|log2| 1u64 << log2) {
                let mut taken = std::vec![0; lines.count() as usize];
                let mut spilled = 0;
                for host in (0..65_536u64).map(|n| (n + 7) * step) {
                    let place = Place::of(&source(v6, host), lines);
                    let line = &mut taken[place.line as usize];
                    *line += 1;
                    spilled += u32::from(!place.has_slots() || *line > slots(family));
                }
                assert!(spilled < 65, "{spilled} of {family:?} at {step}");
            }
        }
    }

    #[test]
    fn what_a_line_shares_does_not_touch_that_it_spilled() {
        assert_eq!(shared(sharing(spilled(0), 0xffff)), 0xffff);
        assert!(is_spilled(sharing(spilled(0), 0)) && !is_spilled(sharing(0, 0xffff)));
        assert_eq!(sharing(sharing(SPILLED, 0xffff), 0), SPILLED);
    }

    #[test]
    fn a_million_hosts_take_4_and_16_mebibytes_and_the_code_keeps_it() {
        for (family, entries, mebibytes) in
            [(Family::V4, 1_048_576, 4), (Family::V6, 1_000_000, 16), (Family::V4, 2, 4)]
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
        // Every address of a /12: with sixteen to a line on the average, hardly any has 28.
        let lines = Lines::for_entries(Family::V4, 1_048_576);
        let mut counts = std::vec![0u8; lines.count() as usize];
        for host in 0..=0xf_ffffu32 {
            counts[Place::of(&Source::V4(0xcb00_0000 | host), lines).line as usize] += 1;
        }
        let over = counts.iter().filter(|&&count| usize::from(count) > slots(Family::V4)).count();
        assert!(over < 300, "{over}");
    }
}
