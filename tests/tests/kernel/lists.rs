//! Whatever is done to the lists, the program says what the oracle says: rows and feeds, put, taken
//! out, replaced and observed, while the marks of touched sources are made anew in between.

use std::net::IpAddr;

use ipnet::IpNet;
use postern::edge::clock::boottime_s;
use postern::edge::filter::{Filter, Modes};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use relay_common::entry::{Entry, List, Scope};

use crate::frames::{Frame, TCP, UDP};
use crate::oracle::{Checked, Line, Lines};

/// Neighbours of every degree: one host beside the other, and ever farther networks.
const SOURCES: [&str; 16] = [
    "192.0.2.0",
    "192.0.2.1",
    "192.0.2.6",
    "192.0.2.200",
    "192.0.3.1",
    "192.0.66.1",
    "200.1.1.1",
    "255.255.255.255",
    "2001:db8::",
    "2001:db8::1",
    "2001:db8:0:1::1",
    "2001:db8:1::1",
    "2001:db8:20::1",
    "2001:db8:1000::1",
    "2001:db9::1",
    "fdff::1",
];

#[derive(Clone, Debug)]
enum Deed {
    Put(Line),
    PutAll(Vec<Line>),
    /// Of the rows, this one, counted round.
    Remove(usize),
    /// Fills the idle generation and leaves it idle.
    Fill(Vec<Line>),
    Publish(Vec<Line>),
    Retouch,
    Guard(u8),
    Observe(bool),
}

fn prefix() -> impl Strategy<Value = IpNet> {
    let special = prop::sample::select(vec![0u8, 12, 19, 20, 24, 29, 32, 36, 44, 48, 63, 64, 65]);
    let len = prop_oneof![
        2 => special.prop_map(Some),
        1 => (0u8..=128).prop_map(Some),
        // What a ban covers.
        2 => Just(None),
    ];
    (prop::sample::select(SOURCES.to_vec()), len).prop_map(|(source, len)| {
        let source: IpAddr = source.parse().unwrap();
        let family = relay_common::parse::Source::from(source).family();
        let len = len.map_or(family.host_len(), |len| len.min(family.bits()));
        IpNet::new(source, len).unwrap().trunc()
    })
}

fn line() -> impl Strategy<Value = Line> {
    // Far from now on either side: the clock goes on while the test runs.
    let expires = prop_oneof![3 => Just(0), 1 => Just(1), 2 => Just(boottime_s() + 100_000)];
    let scopes = (0u8..16, prop_oneof![2 => Just(0u8), 1 => 0u8..16]);
    (prop::bool::weighted(0.2), prefix(), expires, scopes, 0u8..9, 0u32..9).prop_map(
        |(allow, prefix, expires_s, (scope, observed), reason, rule)| {
            let list = if allow { List::Allow } else { List::Deny };
            let observed = if allow { 0 } else { observed };
            let (scope, observed) = (Scope::from_bits(scope), Scope::from_bits(observed));
            let prefix_len = prefix.prefix_len();
            (list, prefix, Entry { expires_s, rule, reason, scope, observed, prefix_len })
        },
    )
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    prop::collection::vec(line(), 0..12)
}

/// What feeds may say: nothing that lies within another prefix of the same list.
fn generation() -> impl Strategy<Value = Vec<Line>> {
    lines().prop_map(|mut lines| {
        lines.sort_by_key(|(list, prefix, _)| (*list, prefix.prefix_len()));
        let mut kept: Vec<Line> = Vec::new();
        for line in lines {
            if !kept.iter().any(|(list, net, _)| *list == line.0 && net.contains(&line.1)) {
                kept.push(line);
            }
        }
        kept
    })
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => line().prop_map(Deed::Put),
        2 => lines().prop_map(Deed::PutAll),
        3 => any::<usize>().prop_map(Deed::Remove),
        1 => generation().prop_map(Deed::Fill),
        3 => generation().prop_map(Deed::Publish),
        3 => Just(Deed::Retouch),
        1 => (0u8..16).prop_map(Deed::Guard),
        1 => any::<bool>().prop_map(Deed::Observe),
    ]
}

fn keep(rows: &mut Vec<Line>, line: Line) {
    rows.retain(|(list, prefix, _)| (*list, *prefix) != (line.0, line.1));
    rows.push(line);
}

impl Checked {
    fn does(&mut self, deed: Deed) {
        let (filter, lines) = (&mut self.probe.filter, &mut self.lines);
        match deed {
            Deed::Put(line) => {
                filter.put(line.0, line.1, line.2).unwrap();
                keep(&mut lines.rows, line);
            }
            Deed::PutAll(all) => {
                for list in List::ALL {
                    let of_list: Vec<(IpNet, Entry)> = all
                        .iter()
                        .filter(|(of, ..)| *of == list)
                        .map(|&(_, prefix, entry)| (prefix, entry))
                        .collect();
                    filter.put_all(list, &of_list).unwrap();
                }
                all.into_iter().for_each(|line| keep(&mut lines.rows, line));
            }
            Deed::Remove(_) if lines.rows.is_empty() => {}
            Deed::Remove(at) => {
                let (list, prefix, _) = lines.rows.swap_remove(at % lines.rows.len());
                assert!(filter.remove(list, prefix).unwrap());
            }
            Deed::Fill(all) => fill(filter, &all),
            Deed::Publish(all) => {
                fill(filter, &all);
                filter.feed_flip(Scope::from_bits(lines.guarded)).unwrap();
                lines.feeds = all;
            }
            Deed::Retouch => {
                let all = lines.rows.iter().chain(&lines.feeds);
                filter.retouch(&mut all.map(|&(list, prefix, _)| (list, prefix))).unwrap();
            }
            Deed::Guard(scope) => {
                filter.set_guarded(Scope::from_bits(scope)).unwrap();
                lines.guarded = scope;
            }
            Deed::Observe(observes) => {
                filter.set_modes(&Modes { observes, ..Modes::default() }).unwrap();
                lines.observes = observes;
            }
        }
    }

    fn asks_all(&mut self) {
        for source in SOURCES {
            for (port, protocol) in [(25, TCP), (587, TCP), (22, TCP), (25, UDP)] {
                let frame = Frame { protocol, ..Frame::tcp(source.parse().unwrap(), port) };
                self.frame(&frame.bytes(), &(&frame, self.lines.clone()));
            }
        }
    }

    /// As it was at the beginning.
    fn forgets(&mut self) {
        for (list, prefix, _) in std::mem::take(&mut self.lines).rows {
            self.probe.filter.remove(list, prefix).unwrap();
        }
        [Deed::Publish(Vec::new()), Deed::Retouch, Deed::Observe(false), Deed::Guard(0xf)]
            .into_iter()
            .for_each(|deed| self.does(deed));
        assert_eq!(self.probe.filter.entries(List::Deny).unwrap(), []);
        self.counts_anew();
    }
}

fn fill(filter: &mut dyn Filter, all: &[Line]) {
    while !filter.feed_clear(5).unwrap() {}
    assert_eq!(filter.feed_count().unwrap(), 0);
    for list in List::ALL {
        let of_list = all.iter().filter(|(of, ..)| *of == list);
        let of_list: Vec<_> = of_list.map(|&(_, prefix, entry)| (prefix, entry)).collect();
        filter.feed_fill(list, &of_list).unwrap();
    }
    assert_eq!(filter.feed_count().unwrap(), all.len() as u64);
}

#[test]
fn whatever_is_done_the_program_says_what_the_oracle_says() {
    let checked = std::cell::RefCell::new(Checked::empty());
    let deeds = prop::collection::vec(deed(), 1..16);
    let mut runner = TestRunner::new(Config { cases: 128, ..Config::default() });
    let result = runner.run(&deeds, |deeds| {
        let mut checked = checked.borrow_mut();
        checked.forgets();
        for deed in deeds {
            checked.does(deed);
            checked.asks_all();
        }
        checked.counted();
        Ok::<(), TestCaseError>(())
    });
    result.unwrap();
}

/// A source that nothing covers is not looked up, and one that something covers always is.
#[test]
fn marks_follow_the_lists_through_removal_and_short_prefixes() {
    for everyone in ["0.0.0.0/0", "::/0", "2000::/12", "::/19", "2000::/3"] {
        let mut checked = Checked::empty();
        let entry = Entry::new(Scope::MX, relay_common::entry::Reason::Manual, 3);
        let prefix: IpNet = everyone.parse().unwrap();
        let entry = Entry { prefix_len: prefix.prefix_len(), ..entry };
        checked.does(Deed::Guard(0xf));
        for deed in [
            Deed::Put((List::Deny, prefix, entry)),
            Deed::Retouch,
            Deed::Publish(vec![(List::Deny, prefix, entry)]),
            Deed::Remove(0),
            Deed::Retouch,
            Deed::Publish(vec![]),
            Deed::Retouch,
            Deed::Put((List::Allow, prefix, entry)),
        ] {
            checked.does(deed);
            checked.asks_all();
        }
        checked.finish();
    }
}

#[test]
fn an_empty_oracle_lets_everything_pass() {
    let mut checked = Checked::empty();
    checked.lines = Lines { guarded: 0xf, ..Lines::default() };
    checked.probe.filter.set_guarded(Scope::ALL).unwrap();
    checked.asks_all();
    assert_eq!(checked.finish().seen(), 4 * SOURCES.len() as u64);
}
