//! The verdict on a packet, given the lists. Pure: the maps and the clock are behind a trait.

use crate::control::{Control, Kind, Table};
use crate::entry::{Entry, List, Scope};
use crate::parse::{Packet, Source};
use crate::touch::Touch;

/// The tables and the time, as the kernel maps, a userspace copy or a test's own oracle has them.
pub trait Lists {
    /// Which tables may have an entry that covers the source.
    fn touched(&self, source: &Source) -> Touch;

    /// The denial of exactly the source's own unit ([`Kind::Hosts`]).
    fn host(&self, table: Table, source: &Source) -> Option<Entry>;

    /// The entry with the longest prefix that matches the first `prefix_len` bits of the source,
    /// and is itself no longer than that. This is what an LPM trie answers to a key that long.
    fn longest(&self, table: Table, list: List, source: &Source, prefix_len: u8) -> Option<Entry>;

    /// Takes steps until one is the last, and no more than so many. The kernel program has its own
    /// way to do so: the verifier would follow a loop through every turn.
    #[inline(always)]
    fn repeat<S: Step>(&self, steps_max: u32, walk: &mut S) {
        for _ in 0..steps_max {
            if walk.step() {
                break;
            }
        }
    }

    /// Second on CLOCK_BOOTTIME. Asked for only when an entry that expires was found, because the
    /// clock is dearer than the rest of the work on a packet that matches nothing.
    fn now_s(&self) -> u32;
}

/// A walk of which one step is like the other.
pub trait Step {
    /// Takes a step; says whether it was the last.
    fn step(&mut self) -> bool;
}

/// What becomes of a packet, and by which entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No entry speaks about this class of traffic: passes without a lookup.
    Unguarded,
    /// Passes, whatever the deny list says.
    Allowed(Entry),
    /// Passes: nothing in force matches.
    Clean,
    /// Passes; it would be dropped, were the entry or the whole filter not under observation.
    Observed(Entry),
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
            Self::Allowed(entry) | Self::Observed(entry) | Self::Denied(entry) => Some(entry),
            Self::Unguarded | Self::Clean => None,
        }
    }
}

/// Judges a packet. An allowed source passes; then a denial in force drops, and one that is only
/// observed is noted. Rows come before feeds, a host before prefixes, the longest prefix first.
#[inline(always)]
pub fn decide<L: Lists>(lists: &L, control: Control, packet: &Packet) -> Verdict {
    if !control.guarded().intersects(packet.class) {
        return Verdict::Unguarded;
    }
    if !control.uses_any(packet.source.family()) {
        return Verdict::Clean;
    }
    let touch = lists.touched(&packet.source);
    if touch.is_none() {
        return Verdict::Clean;
    }
    let Packet { source, class, .. } = *packet;
    let mut findings = Findings::NONE;
    let decided = if touch.prefixes {
        // Memory of its own: what is handed on has to lie there, and the short way does without.
        let (asked, mut of_all) = (Asked { lists, control, source, class, touch }, Findings::NONE);
        let decided = asked.by_all(&mut of_all);
        findings = of_all;
        decided
    } else {
        Asked { lists, control, source, class, touch }.by_hosts(&mut findings)
    };
    let entry = Entry::from_meaning(findings.decided);
    match decided {
        Some(List::Allow) => Verdict::Allowed(entry),
        Some(List::Deny) if control.observes() => Verdict::Observed(entry),
        Some(List::Deny) => Verdict::Denied(entry),
        None if findings.has_observed() => {
            Verdict::Observed(Entry::from_meaning(findings.observed))
        }
        None => Verdict::Clean,
    }
}

/// What was found so far, in words ([`Entry::to_meaning`]), all zero where nothing was. Of entries the
/// compiler would carry each field by itself; and of `Option`s it would copy what was never
/// written, which the verifier refuses.
#[derive(Clone, Copy)]
struct Findings {
    /// The entry that decided.
    decided: [u64; 2],
    /// The first entry that is only observed.
    observed: [u64; 2],
}

impl Findings {
    const NONE: Self = Self { decided: [0; 2], observed: [0; 2] };

    /// An entry that observes says of what, in its second word.
    #[inline(always)]
    const fn has_observed(&self) -> bool {
        self.observed[1] != 0
    }
}

/// One packet, and what is asked about it. Each question says whether an entry decided.
struct Asked<'a, L> {
    lists: &'a L,
    control: Control,
    source: Source,
    class: Scope,
    touch: Touch,
}

impl<L: Lists> Asked<'_, L> {
    #[inline(always)]
    fn uses(&self, table: Table, kind: Kind) -> bool {
        let is_touched = match kind {
            Kind::Hosts => self.touch.hosts,
            Kind::Allow | Kind::Deny => self.touch.prefixes,
        };
        is_touched && self.control.uses(table, kind, self.source.family())
    }

    /// What decides for a source that no prefix covers, as there are many in a flood.
    #[inline(always)]
    fn by_hosts(&self, findings: &mut Findings) -> Option<List> {
        let denied = self.uses(Table::Rows, Kind::Hosts) && self.host(Table::Rows, findings)
            || self.uses(Table::Feeds, Kind::Hosts) && self.host(Table::Feeds, findings);
        denied.then_some(List::Deny)
    }

    /// What decides for any source. Apart from the rest, so that the program of most packets lies close
    /// together in a processor's cache.
    #[inline(never)]
    fn by_all(&self, findings: &mut Findings) -> Option<List> {
        if self.allowed(findings) {
            Some(List::Allow)
        } else if self.denied(findings) {
            Some(List::Deny)
        } else {
            None
        }
    }

    #[inline(always)]
    fn allowed(&self, findings: &mut Findings) -> bool {
        self.uses(Table::Rows, Kind::Allow) && self.walk(List::Allow, findings)
            || self.uses(Table::Feeds, Kind::Allow) && self.resolved(List::Allow, findings)
    }

    #[inline(always)]
    fn denied(&self, findings: &mut Findings) -> bool {
        self.uses(Table::Rows, Kind::Hosts) && self.host(Table::Rows, findings)
            || self.uses(Table::Rows, Kind::Deny) && self.walk(List::Deny, findings)
            || self.uses(Table::Feeds, Kind::Hosts) && self.host(Table::Feeds, findings)
            || self.uses(Table::Feeds, Kind::Deny) && self.resolved(List::Deny, findings)
    }

    /// Whether the entry is in force for this packet. The first that is only observed is noted.
    #[inline(always)]
    fn decides(&self, entry: Entry, findings: &mut Findings) -> bool {
        if entry.expires_s != 0 && !entry.is_live(self.lists.now_s()) {
            return false;
        }
        if entry.scope.intersects(self.class) {
            findings.decided = entry.to_meaning();
            return true;
        }
        if !findings.has_observed() && entry.observed.intersects(self.class) {
            findings.observed = entry.to_meaning();
        }
        false
    }

    #[inline(always)]
    fn host(&self, table: Table, findings: &mut Findings) -> bool {
        match self.lists.host(table, &self.source) {
            Some(entry) => self.decides(entry, findings),
            None => false,
        }
    }

    /// What feeds say: nesting was resolved when they were published, so the longest says it all.
    #[inline(always)]
    fn resolved(&self, list: List, findings: &mut Findings) -> bool {
        let source = &self.source;
        match self.lists.longest(Table::Feeds, list, source, source.family().bits()) {
            Some(entry) => self.decides(entry, findings),
            None => false,
        }
    }

    /// The longest row that matches, lives and speaks about this class of traffic. A trie answers
    /// with the longest match alone, so one that is expired or about other ports must not hide a
    /// wider one: the walk asks again for less than the prefix it got.
    #[inline(always)]
    fn walk(&self, list: List, findings: &mut Findings) -> bool {
        let prefix_len = self.source.family().bits();
        // All of it is the walk's own: what the kernel program gives to a helper has to lie in memory,
        // and few packets come here.
        let Self { lists, control, source, class, touch } = *self;
        let asked = Asked { lists, control, source, class, touch };
        let mut walk = Walk { asked, list, prefix_len, decided: false, findings: *findings };
        // Each step shortens the prefix, so 33 steps for v4 and 129 for v6 see every nested entry.
        // Should an entry claim to be longer than what was asked for, they still are bounded.
        lists.repeat(u32::from(prefix_len) + 1, &mut walk);
        *findings = walk.findings;
        walk.decided
    }
}

struct Walk<'a, L> {
    asked: Asked<'a, L>,
    list: List,
    /// The longest prefix to be asked for next.
    prefix_len: u8,
    decided: bool,
    findings: Findings,
}

impl<L: Lists> Step for Walk<'_, L> {
    #[inline(always)]
    fn step(&mut self) -> bool {
        let Asked { lists, source, .. } = self.asked;
        let longest = lists.longest(Table::Rows, self.list, &source, self.prefix_len);
        let Some(entry) = longest else { return true };
        if self.asked.decides(entry, &mut self.findings) {
            self.decided = true;
            return true;
        }
        match entry.prefix_len.checked_sub(1) {
            Some(shorter) => {
                self.prefix_len = shorter;
                false
            }
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::entry::Reason;
    use crate::parse::Family;

    const NOW_S: u32 = 1_000;

    /// Rows, and at most one entry of a feed, as (bits of the network, length), by list.
    #[derive(Debug, Default)]
    struct Model {
        v6: bool,
        entries: HashMap<(Table, List, u128, u8), Entry>,
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
            if self.v6 {
                Source::V6 { network: (address >> 64) as u64, interface: address as u64 }
            } else {
                Source::V4(address as u32)
            }
        }

        fn address(source: &Source) -> u128 {
            match *source {
                Source::V4(address) => address.into(),
                Source::V6 { network, interface } => {
                    u128::from(network) << 64 | u128::from(interface)
                }
            }
        }

        /// The oracle: no walk, no order of lengths. Is there any?
        fn any_in_force(&self, list: List, address: u128, speaks: impl Fn(&Entry) -> bool) -> bool {
            self.entries.iter().any(|(&(_, of, network, prefix_len), entry)| {
                of == list
                    && self.network(address, prefix_len) == network
                    && entry.is_live(NOW_S)
                    && speaks(entry)
            })
        }

        fn host_len(&self) -> u8 {
            if self.v6 { Family::V6.host_len() } else { Family::V4.host_len() }
        }

        fn get(&self, table: Table, list: List, address: u128, len: u8) -> Option<Entry> {
            self.entries.get(&(table, list, self.network(address, len), len)).copied()
        }
    }

    /// What hash and tries do.
    impl Lists for Model {
        fn touched(&self, source: &Source) -> Touch {
            let address = Self::address(source);
            let any = |list, hosts: bool| {
                let of_kind = |&len: &u8| hosts == (list == List::Deny && len == self.host_len());
                Table::ALL.into_iter().any(|table| {
                    let mut lens = (0..=self.bits()).filter(of_kind);
                    lens.any(|len| self.get(table, list, address, len).is_some())
                })
            };
            let prefixes = any(List::Allow, false) || any(List::Deny, false);
            Touch { hosts: any(List::Deny, true), prefixes }
        }

        fn host(&self, table: Table, source: &Source) -> Option<Entry> {
            self.get(table, List::Deny, Self::address(source), self.host_len())
        }

        fn longest(
            &self,
            table: Table,
            list: List,
            source: &Source,
            prefix_len: u8,
        ) -> Option<Entry> {
            let address = Self::address(source);
            (0..=prefix_len)
                .rev()
                .filter(|&len| list == List::Allow || len != self.host_len())
                .find_map(|len| self.get(table, list, address, len))
        }

        fn now_s(&self) -> u32 {
            NOW_S
        }
    }

    fn entry() -> impl Strategy<Value = (bool, u128, u8, Entry)> {
        let expires = prop_oneof![Just(0), Just(NOW_S - 1), Just(NOW_S), Just(NOW_S + 1)];
        (any::<bool>(), 0u128..8, 0u8..=128, expires, 0u8..16, 0u8..16).prop_map(
            |(allow, address, prefix_len, expires_s, scope, observed)| {
                let (scope, observed) = (Scope::from_bits(scope), Scope::from_bits(observed));
                let observed = if allow { Scope::NONE } else { observed };
                let entry = Entry { expires_s, rule: 0, reason: 0, scope, observed, prefix_len };
                (allow, address, prefix_len, entry)
            },
        )
    }

    /// The first line is of a feed.
    fn model(v6: bool, lines: Vec<(bool, u128, u8, Entry)>) -> Model {
        let mut model = Model { v6, ..Model::default() };
        let mut table = Table::Feeds;
        for (allow, address, prefix_len, entry) in lines {
            let prefix_len = prefix_len.min(model.bits());
            let list = if allow { List::Allow } else { List::Deny };
            let network = model.network(address, prefix_len);
            let entry = Entry { prefix_len, ..entry };
            model.entries.insert((table, list, network, prefix_len), entry);
            table = Table::Rows;
        }
        model
    }

    /// Every table in use.
    fn all_used(guarded: Scope) -> Control {
        let mut control = Control::default().with_guarded(guarded);
        for table in Table::ALL {
            for kind in Kind::ALL {
                for family in Family::ALL {
                    control = control.with_used(table, kind, family, true);
                }
            }
        }
        control
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
            observes: bool,
        ) {
            let model = model(v6, lines);
            let packet = Packet::of_class(model.source(address), class);
            let verdict = decide(&model, all_used(guarded).with_observes(observes), &packet);
            let drops = |entry: &Entry| entry.scope.intersects(class);
            let counts = |entry: &Entry| entry.observed.intersects(class);
            let allowed = model.any_in_force(List::Allow, address, drops);
            let denied = model.any_in_force(List::Deny, address, drops);
            let observed = model.any_in_force(List::Deny, address, counts);
            if !guarded.intersects(class) {
                prop_assert_eq!(verdict, Verdict::Unguarded);
            } else if allowed {
                prop_assert!(matches!(verdict, Verdict::Allowed(_)));
            } else if denied && !observes {
                prop_assert!(verdict.drops());
            } else if denied || observed {
                prop_assert!(matches!(verdict, Verdict::Observed(_)));
            } else {
                prop_assert_eq!(verdict, Verdict::Clean);
            }
            if let Some(entry) = verdict.entry() {
                prop_assert!(entry.is_live(NOW_S) && (drops(entry) || counts(entry)));
            }
        }
    }

    fn source_zero() -> Packet {
        Packet::to_port(Source::V4(0), 25)
    }

    #[test]
    fn a_host_comes_first_and_then_the_longest_prefix_in_force() {
        let line = |prefix_len: u8, expires_s| {
            let entry = Entry::new(Scope::MX, Reason::Manual, prefix_len.into());
            (false, 0, prefix_len, Entry { expires_s, ..entry })
        };
        let lines = [line(0, 0), line(128, 1), line(96, 0), line(64, 0), line(32, 0), line(0, 0)];
        let mut model = model(true, lines.into());
        let packet = Packet::to_port(model.source(0), 25);
        let rule = |model: &Model| {
            decide(model, all_used(Scope::MX), &packet).entry().map(|entry| entry.rule)
        };
        assert_eq!(rule(&model), Some(64));
        model.entries.remove(&(Table::Rows, List::Deny, 0, 64));
        assert_eq!(rule(&model), Some(96));
    }

    #[test]
    fn tables_that_are_not_in_use_are_not_asked() {
        let entry = Entry::new(Scope::MX, Reason::Manual, 7);
        for (prefix_len, kind) in [(32, Kind::Hosts), (24, Kind::Deny)] {
            let model = model(false, [(false, 0, prefix_len, entry)].into());
            let used = Control::default().with_guarded(Scope::MX);
            assert_eq!(decide(&model, used, &source_zero()), Verdict::Clean);
            let used = used.with_used(Table::Feeds, kind, Family::V4, true);
            assert!(decide(&model, used, &source_zero()).drops());
            let used = used.with_used(Table::Feeds, kind, Family::V4, false);
            let used = used.with_used(Table::Rows, Kind::Allow, Family::V4, true);
            assert_eq!(decide(&model, used, &source_zero()), Verdict::Clean);
        }
    }

    #[test]
    fn a_list_that_lies_about_its_lengths_ends_the_walk() {
        struct Liar;
        impl Lists for Liar {
            fn touched(&self, _: &Source) -> Touch {
                Touch::ANY
            }
            fn host(&self, _: Table, _: &Source) -> Option<Entry> {
                None
            }
            fn longest(&self, _: Table, _: List, _: &Source, _: u8) -> Option<Entry> {
                let entry = Entry::new(Scope::ALL, Reason::Manual, 0);
                Some(Entry { expires_s: 1, prefix_len: 200, ..entry })
            }
            fn now_s(&self) -> u32 {
                NOW_S
            }
        }
        assert_eq!(decide(&Liar, all_used(Scope::ALL), &source_zero()), Verdict::Clean);
    }

    #[test]
    fn the_clock_is_not_read_for_entries_that_never_expire() {
        struct Timeless;
        impl Lists for Timeless {
            fn touched(&self, _: &Source) -> Touch {
                Touch::ANY
            }
            fn host(&self, _: Table, _: &Source) -> Option<Entry> {
                None
            }
            fn longest(&self, _: Table, list: List, _: &Source, _: u8) -> Option<Entry> {
                (list == List::Deny).then_some(Entry::new(Scope::MX, Reason::Manual, 0))
            }
            fn now_s(&self) -> u32 {
                panic!("nothing expires here")
            }
        }
        assert!(decide(&Timeless, all_used(Scope::ALL), &source_zero()).drops());
    }
}
