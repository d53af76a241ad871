//! The lists as plain lines, judged without tries, hashes, marks, walks or prefix lengths: is there
//! any entry in force that matches?

use std::collections::HashMap;
use std::fmt::Debug;
use std::net::IpAddr;

use ipnet::IpNet;
use postern::edge::clock::boottime_s;
use postern::edge::filter::Filter;
use postern::edge::kernel::Probe;
use relay_common::entry::{Entry, List, Scope};
use relay_common::layout::RuleHits;
use relay_common::parse::{self, Malformed, Packet};
use relay_common::totals::{Counter, Pass, Totals, is_v4_mapped};

pub(crate) type Line = (List, IpNet, Entry);

/// What should be in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    pub(crate) rows: Vec<Line>,
    pub(crate) feeds: Vec<Line>,
    pub(crate) guarded: u8,
    pub(crate) observes: bool,
}

/// What should become of a frame.
struct Due {
    drops: bool,
    counter: Counter,
    /// Who decided, and whether it was only observed.
    entry: Option<(Entry, bool)>,
}

impl Due {
    fn passes(counter: Counter) -> Self {
        Self { drops: false, counter, entry: None }
    }
}

/// A program with some lines in its maps, and what it should say to any frame.
pub(crate) struct Checked {
    pub(crate) probe: Probe,
    pub(crate) lines: Lines,
    expected: Totals,
    hits: HashMap<u32, RuleHits>,
}

impl Checked {
    pub(crate) fn new(rows: Vec<Line>, guarded: Scope) -> Self {
        let mut checked = Self::empty();
        let filter = &mut checked.probe.filter;
        for (list, prefix, entry) in &rows {
            filter.put(*list, *prefix, *entry).unwrap();
        }
        filter.set_guarded(guarded).unwrap();
        checked.lines = Lines { rows, guarded: guarded.bits(), ..Lines::default() };
        checked
    }

    pub(crate) fn empty() -> Self {
        let (expected, hits) = (Totals::default(), HashMap::new());
        Self { probe: crate::probe(), lines: Lines::default(), expected, hits }
    }

    /// Gives the frame to the kernel, and to the oracle; returns whether both drop it.
    pub(crate) fn frame(&mut self, frame: &[u8], what: &dyn Debug) -> bool {
        let due = match parse::parse(frame) {
            Ok(packet) => self.lines.judge(&packet),
            Err(why) => Due::passes(Counter::of_unjudged(why)),
        };
        let outcome = self.probe.run(frame, 1).unwrap();
        assert_eq!(outcome.drops, due.drops, "{:?}: {what:?} {frame:02x?}", due.counter);
        self.expected.add(due.counter, 1);
        if parse::parse(frame).is_ok_and(|packet| is_v4_mapped(&packet.source)) {
            self.expected.add(Counter::V4Mapped, 1);
        }
        if let Some((entry, only_observed)) = due.entry {
            let hits = self.hits.entry(entry.rule).or_default();
            *(if only_observed { &mut hits.observed } else { &mut hits.hits }) += 1;
        }
        due.drops
    }

    /// Counts from here on.
    pub(crate) fn counts_anew(&mut self) {
        self.expected = self.probe.filter.totals().unwrap();
        for (rule, _) in self.hits.drain() {
            self.probe.filter.set_rule(rule, RuleHits::default()).unwrap();
        }
    }

    /// What the program counted is what was expected of it, counter by counter and rule by rule.
    pub(crate) fn counted(&self) -> Totals {
        let counted = self.probe.filter.totals().unwrap();
        assert_eq!(counted, self.expected);
        for (&rule, hits) in &self.hits {
            let counted = self.probe.filter.rule_hits(rule).unwrap();
            assert_eq!((counted.hits, counted.observed), (hits.hits, hits.observed), "rule {rule}");
        }
        counted
    }

    pub(crate) fn finish(self) -> Totals {
        self.counted()
    }
}

impl Lines {
    fn judge(&self, packet: &Packet) -> Due {
        let family = packet.source.family();
        let passed = |why, entry| {
            let tcp = packet.class != Scope::of_other_protocol();
            let counter = if packet.class == Scope::TCP {
                Counter::Malformed(Malformed::TooManyExtensions)
            } else {
                Counter::Passed { family, tcp, why }
            };
            Due { drops: false, counter, entry }
        };
        if !Scope::from_bits(self.guarded).intersects(packet.class) {
            return passed(Pass::Unguarded, None);
        }
        if let Some(entry) = self.first(List::Allow, packet, |entry| entry.scope) {
            return passed(Pass::Allowed, Some((entry, false)));
        }
        let denied = self.first(List::Deny, packet, |entry| entry.scope);
        if let Some(entry) = denied.filter(|_| !self.observes) {
            let counter = Counter::Dropped { family, reason: entry.reason };
            return Due { drops: true, counter, entry: Some((entry, false)) };
        }
        match denied.or_else(|| self.first(List::Deny, packet, |entry| entry.observed)) {
            Some(entry) => {
                let counter = Counter::Observed { family, reason: entry.reason };
                Due { drops: false, counter, entry: Some((entry, true)) }
            }
            None => passed(Pass::Clean, None),
        }
    }

    /// The entry that is to be named: rows before feeds, a denied host before every prefix, longer
    /// ones before shorter ones.
    fn first(&self, list: List, packet: &Packet, says: impl Fn(&Entry) -> Scope) -> Option<Entry> {
        let now_s = boottime_s();
        let address = IpAddr::from(packet.source);
        let host_len = packet.source.family().host_len();
        let rank = |len: u8| (list == List::Deny && len == host_len, len);
        [&self.rows, &self.feeds].into_iter().find_map(|lines| {
            let in_force = lines.iter().filter(|(of, prefix, entry)| {
                *of == list
                    && prefix.contains(&address)
                    && entry.is_live(now_s)
                    && says(entry).intersects(packet.class)
            });
            let first = in_force.max_by_key(|(_, prefix, _)| rank(prefix.prefix_len()));
            first.map(|(_, _, entry)| *entry)
        })
    }
}
