//! The verdict on a packet, given the lists. Pure: the maps and the clock are behind a trait.

use crate::entry::{Entry, List, Scope};
use crate::parse::{Packet, Source};

/// The lists and the time, as the kernel maps, a userspace copy or a test's own oracle has them.
pub trait Lists {
    /// The entry with the longest prefix that matches the first `prefix_len` bits of the source,
    /// and is itself no longer than that. This is what an LPM trie answers to a key that long.
    fn longest(&self, list: List, source: &Source, prefix_len: u8) -> Option<Entry>;

    /// Second on CLOCK_BOOTTIME. Asked for only when an entry that expires was found, because the
    /// clock is dearer than the rest of the work on a packet that matches nothing.
    fn now_s(&self) -> u32;
}

/// What becomes of a packet, and by which entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No deny entry speaks about this class of traffic: passes without a lookup.
    Unguarded,
    /// Passes, whatever the deny list says.
    Allowed(Entry),
    /// Passes: nothing in force matches.
    Clean,
    /// Dropped.
    Denied(Entry),
}

impl Verdict {
    pub const fn drops(&self) -> bool {
        matches!(self, Self::Denied(_))
    }

    /// The entry that decided, if one did.
    pub const fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Allowed(entry) | Self::Denied(entry) => Some(entry),
            Self::Unguarded | Self::Clean => None,
        }
    }
}

/// Judges a packet. `guarded` is the union of the scopes of all deny entries, so that traffic no
/// entry speaks about costs nothing.
#[inline(always)]
pub fn decide<L: Lists>(lists: &L, guarded: Scope, packet: &Packet) -> Verdict {
    if !guarded.intersects(packet.class) {
        return Verdict::Unguarded;
    }
    if let Some(entry) = in_force(lists, List::Allow, packet) {
        return Verdict::Allowed(entry);
    }
    match in_force(lists, List::Deny, packet) {
        Some(entry) => Verdict::Denied(entry),
        None => Verdict::Clean,
    }
}

/// The longest entry that matches, lives and speaks about this class of traffic. A trie answers
/// with the longest match alone, so one that is expired or about other ports must not hide a
/// wider one: the walk asks again for less than the prefix it got.
#[inline(always)]
fn in_force<L: Lists>(lists: &L, list: List, packet: &Packet) -> Option<Entry> {
    let bits = packet.source.family().bits();
    let mut prefix_len = bits;
    // Each step shortens the prefix, so 33 steps for v4 and 129 for v6 see every nested entry.
    for _ in 0..=bits {
        let entry = lists.longest(list, &packet.source, prefix_len)?;
        let lives = entry.expires_s == 0 || entry.is_live(lists.now_s());
        if lives && entry.scope.intersects(packet.class) {
            return Some(entry);
        }
        // Should an entry claim to be longer than what was asked for, the steps still are bounded.
        prefix_len = entry.prefix_len.checked_sub(1)?;
    }
    None
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::parse::Family;

    const NOW_S: u32 = 1_000;

    /// Prefixes as (bits of the network, length), by list.
    #[derive(Debug, Default)]
    struct Model {
        v6: bool,
        entries: HashMap<(List, u128, u8), Entry>,
    }

    impl Model {
        fn bits(&self) -> u8 {
            if self.v6 { Family::V6.bits() } else { Family::V4.bits() }
        }

        fn network(&self, address: u128, prefix_len: u8) -> u128 {
            let host_bits = u32::from(self.bits() - prefix_len);
            address
                .checked_shr(host_bits)
                .map_or(0, |bits| bits.checked_shl(host_bits).unwrap_or(0))
        }

        fn source(&self, address: u128) -> Source {
            let octets = address.to_be_bytes();
            if self.v6 { Source::V6(octets) } else { Source::V4(*octets.last_chunk().unwrap()) }
        }

        fn address(source: &Source) -> u128 {
            match *source {
                Source::V4(octets) => u32::from_be_bytes(octets).into(),
                Source::V6(octets) => u128::from_be_bytes(octets),
            }
        }

        /// The oracle: no walk, no order of lengths. Is there any?
        fn any_in_force(&self, list: List, address: u128, class: Scope) -> bool {
            self.entries.iter().any(|(&(of, network, prefix_len), entry)| {
                of == list
                    && self.network(address, prefix_len) == network
                    && entry.is_live(NOW_S)
                    && entry.scope.intersects(class)
            })
        }
    }

    /// What a trie does.
    impl Lists for Model {
        fn longest(&self, list: List, source: &Source, prefix_len: u8) -> Option<Entry> {
            let address = Self::address(source);
            (0..=prefix_len)
                .rev()
                .find_map(|len| self.entries.get(&(list, self.network(address, len), len)).copied())
        }

        fn now_s(&self) -> u32 {
            NOW_S
        }
    }

    fn entry() -> impl Strategy<Value = (bool, u128, u8, Entry)> {
        let expires = prop_oneof![Just(0), Just(NOW_S - 1), Just(NOW_S), Just(NOW_S + 1)];
        (any::<bool>(), 0u128..8, 0u8..=128, expires, 0u8..16).prop_map(
            |(allow, address, prefix_len, expires_s, scope)| {
                let scope = Scope::from_bits(scope);
                (
                    allow,
                    address,
                    prefix_len,
                    Entry { expires_s, rule: 0, reason: 0, scope, prefix_len },
                )
            },
        )
    }

    fn model(v6: bool, lines: Vec<(bool, u128, u8, Entry)>) -> Model {
        let mut model = Model { v6, ..Model::default() };
        for (allow, address, prefix_len, entry) in lines {
            let prefix_len = prefix_len.min(model.bits());
            let list = if allow { List::Allow } else { List::Deny };
            let network = model.network(address, prefix_len);
            model.entries.insert((list, network, prefix_len), Entry { prefix_len, ..entry });
        }
        model
    }

    proptest! {
        #[test]
        fn agrees_with_an_oracle_that_looks_at_every_entry(
            v6: bool,
            lines in proptest::collection::vec(entry(), 0..40),
            address in 0u128..8,
            class in prop_oneof![
                Just(Scope::MX),
                Just(Scope::of_tcp_port(587)),
                Just(Scope::of_tcp_port(22)),
                Just(Scope::of_other_protocol()),
            ],
            guarded in (0u8..16).prop_map(Scope::from_bits),
        ) {
            let model = model(v6, lines);
            let packet = Packet { source: model.source(address), class };
            let verdict = decide(&model, guarded, &packet);
            let allowed = model.any_in_force(List::Allow, address, class);
            let denied = model.any_in_force(List::Deny, address, class);
            if !guarded.intersects(class) {
                prop_assert_eq!(verdict, Verdict::Unguarded);
            } else if allowed {
                prop_assert!(matches!(verdict, Verdict::Allowed(_)));
            } else if denied {
                prop_assert!(verdict.drops());
            } else {
                prop_assert_eq!(verdict, Verdict::Clean);
            }
            if let Some(entry) = verdict.entry() {
                prop_assert!(entry.is_live(NOW_S) && entry.scope.intersects(class));
            }
        }
    }

    #[test]
    fn the_longest_entry_in_force_is_the_one_named() {
        let line = |prefix_len: u8, expires_s| {
            let entry = Entry {
                expires_s,
                rule: prefix_len.into(),
                reason: 0,
                scope: Scope::MX,
                prefix_len,
            };
            (false, 0, prefix_len, entry)
        };
        let model = model(true, [line(128, 1), line(64, 0), line(32, 0), line(0, 0)].into());
        let packet = Packet { source: model.source(0), class: Scope::MX };
        let verdict = decide(&model, Scope::MX, &packet);
        assert_eq!(verdict.entry().unwrap().rule, 64);
    }

    #[test]
    fn a_list_that_lies_about_its_lengths_ends_the_walk() {
        struct Liar;
        impl Lists for Liar {
            fn longest(&self, _: List, _: &Source, _: u8) -> Option<Entry> {
                Some(Entry { expires_s: 1, rule: 0, reason: 0, scope: Scope::ALL, prefix_len: 200 })
            }
            fn now_s(&self) -> u32 {
                NOW_S
            }
        }
        let packet = Packet { source: Source::V4([0; 4]), class: Scope::MX };
        assert_eq!(decide(&Liar, Scope::ALL, &packet), Verdict::Clean);
    }

    #[test]
    fn the_clock_is_not_read_for_entries_that_never_expire() {
        struct Timeless;
        impl Lists for Timeless {
            fn longest(&self, list: List, _: &Source, _: u8) -> Option<Entry> {
                let entry =
                    Entry { expires_s: 0, rule: 0, reason: 0, scope: Scope::MX, prefix_len: 0 };
                (list == List::Deny).then_some(entry)
            }
            fn now_s(&self) -> u32 {
                panic!("nothing expires here")
            }
        }
        let packet = Packet { source: Source::V4([0; 4]), class: Scope::MX };
        assert!(decide(&Timeless, Scope::ALL, &packet).drops());
    }
}
