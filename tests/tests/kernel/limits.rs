//! The limit on connections from one source, and what is told of single packets.

use std::net::IpAddr;

use postern::edge::clock::boottime_s;
use postern::edge::filter::{Filter, Modes, SynLimit};
use postern::edge::kernel::Probe;
use relay_common::entry::{Entry, List, Reason, Scope};
use relay_common::event::{Event, Fate};
use relay_common::parse::{Family, Source};
use relay_common::totals::{Counter, Pass, Totals};

use crate::frames::Frame;

const SYN: u8 = 0x02;
const BURST: u32 = 10;

/// Nothing comes back.
const STRICT: SynLimit = SynLimit { per_s: 0, burst: BURST, free_per_s: 0 };

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn limited(limit: SynLimit, events_per_s: u32) -> Probe {
    let mut probe = crate::probe();
    probe.filter.set_guarded(Scope::SMTP).unwrap();
    let modes = Modes { syn: Some(limit), events_per_s, ..Modes::default() };
    probe.filter.set_modes(&modes).unwrap();
    probe
}

fn run(probe: &mut Probe, source: &str, flags: u8, repeat: u32) -> Totals {
    let before = probe.filter.totals().unwrap();
    let frame = Frame { flags, ..Frame::tcp(ip(source), 25) };
    probe.run(&frame.bytes(), repeat).unwrap();
    let after = probe.filter.totals().unwrap();
    assert_eq!(after.seen() - before.seen(), u64::from(repeat));
    after
}

fn clean(totals: &Totals, family: Family) -> u64 {
    totals.passed_because(family, Pass::Clean)
}

#[test]
fn a_source_may_open_its_burst_and_no_more() {
    let mut probe = limited(STRICT, 0);
    let totals = run(&mut probe, "192.0.2.1", SYN, 100);
    assert_eq!(clean(&totals, Family::V4), u64::from(BURST));
    assert_eq!(totals.get(Counter::Limited(Family::V4)), 90);
    // Another source has a burst of its own; another address of one /64 has not.
    let totals = run(&mut probe, "192.0.2.2", SYN, BURST);
    assert_eq!(totals.limited(), 90);
    run(&mut probe, "2001:db8::1", SYN, BURST);
    let totals = run(&mut probe, "2001:db8::2", SYN, 5);
    assert_eq!(totals.get(Counter::Limited(Family::V6)), 5);
    let totals = run(&mut probe, "2001:db8:0:1::1", SYN, BURST);
    assert_eq!((totals.limited(), totals.dropped(Family::V4)), (95, 90));
    // No rule did it.
    assert_eq!(probe.filter.rule_hits(0).unwrap().hits, 0);
}

#[test]
fn only_what_opens_a_connection_to_a_guarded_port_counts() {
    let mut probe = limited(STRICT, 0);
    for flags in [0x10, 0x12, 0x04, 0x14, 0x01, 0x11, 0x18, 0x06, 0x03, 0x00] {
        let totals = run(&mut probe, "192.0.2.1", flags, 3 * BURST);
        assert_eq!(totals.limited(), 0, "flags {flags:02x}");
    }
    let other_port = Frame::tcp(ip("192.0.2.1"), 22).bytes();
    assert!(!probe.run(&other_port, 3 * BURST).unwrap().drops);
    // With ECN asked for (RFC 3168 section 6.1.1) it is a SYN all the same.
    let totals = run(&mut probe, "192.0.2.1", SYN | 0xc0, BURST + 1);
    assert_eq!(totals.limited(), 1);
}

#[test]
fn allowed_and_denied_sources_are_not_limited() {
    let mut probe = limited(STRICT, 0);
    let entry = Entry::new(Scope::MX, Reason::Manual, 5);
    probe.filter.put(List::Allow, "192.0.2.0/24".parse().unwrap(), entry).unwrap();
    probe.filter.put(List::Deny, "198.51.100.1/32".parse().unwrap(), entry).unwrap();
    let totals = run(&mut probe, "192.0.2.1", SYN, 100);
    assert_eq!((totals.limited(), totals.allowed()), (0, 100));
    let totals = run(&mut probe, "198.51.100.1", SYN, 100);
    assert_eq!((totals.limited(), totals.dropped_for(Reason::Manual)), (0, 100));
}

#[test]
fn whoever_is_only_observed_is_limited_like_anybody() {
    let mut probe = limited(STRICT, 1_000);
    let entry = Entry { observed: Scope::MX, ..Entry::new(Scope::NONE, Reason::Manual, 5) };
    for (family, source, prefix) in
        [(Family::V4, "192.0.2.1", "192.0.2.1/32"), (Family::V6, "2001:db8::1", "2001:db8::/48")]
    {
        probe.filter.put(List::Deny, prefix.parse().unwrap(), entry).unwrap();
        let before = probe.filter.totals().unwrap();
        let totals = run(&mut probe, source, SYN, 100);
        let observed = totals.observed(family) - before.observed(family);
        assert_eq!((totals.limited() - before.limited(), observed), (90, u64::from(BURST)));
        assert_eq!(run(&mut probe, source, 0x10, 100).limited(), totals.limited());
    }
    // The rule has seen them all.
    assert_eq!(probe.filter.rule_hits(5).unwrap().observed, 400);
    // Where all is only observed, a denied source would not have come as far as the limit.
    let mut probe = limited(STRICT, 0);
    let modes = Modes { syn: Some(STRICT), observes: true, ..Modes::default() };
    probe.filter.set_modes(&modes).unwrap();
    let denied = Entry::new(Scope::MX, Reason::Manual, 5);
    probe.filter.put(List::Deny, "192.0.2.1/32".parse().unwrap(), denied).unwrap();
    let totals = run(&mut probe, "192.0.2.1", SYN, 100);
    assert_eq!((totals.limited(), totals.observed(Family::V4)), (0, 100));
}

#[test]
fn below_the_free_budget_nobody_is_limited() {
    let mut probe = limited(SynLimit { free_per_s: 1_000_000, ..STRICT }, 0);
    assert_eq!(run(&mut probe, "192.0.2.1", SYN, 1_000).limited(), 0);
}

#[test]
fn tokens_come_back_with_time() {
    // One each millisecond, and room for one: of many at once some find none, later one does.
    let limit = SynLimit { per_s: 1_000, burst: 1, free_per_s: 0 };
    let mut probe = limited(limit, 0);
    let mut limited = run(&mut probe, "192.0.2.1", SYN, 10_000).limited();
    assert!(limited > 0);
    let passes = (0..100_000).any(|_| {
        let before =
            std::mem::replace(&mut limited, run(&mut probe, "192.0.2.1", SYN, 1).limited());
        before == limited
    });
    assert!(passes, "no token came back");
}

#[test]
fn what_is_told_says_what_happened() {
    let mut probe = limited(STRICT, 1_000);
    let entry = Entry { observed: Scope::SUBMISSION, ..Entry::new(Scope::MX, Reason::Dnsbl, 77) };
    probe.filter.put(List::Deny, "2001:db8::/48".parse().unwrap(), entry).unwrap();
    probe.filter.put(List::Deny, "192.0.2.1/32".parse().unwrap(), entry).unwrap();
    let before_s = u64::from(boottime_s());
    for (source, port) in [
        ("192.0.2.1", 25),
        ("192.0.2.1", 587),
        ("2001:db8:0:1::9", 25),
        ("2001:db8:0:1::9", 465),
        ("203.0.113.1", 25),
    ] {
        probe.run(&Frame::tcp(ip(source), port).bytes(), 1).unwrap();
    }
    run(&mut probe, "203.0.113.7", SYN, BURST + 1);
    let modes = Modes { observes: true, syn: Some(STRICT), events_per_s: 1_000 };
    probe.filter.set_modes(&modes).unwrap();
    run(&mut probe, "203.0.113.7", SYN, 1);
    let events = probe.events().unwrap();
    let said = |event: &Event| (event.source, event.port, event.fate, event.rule, event.prefix_len);
    let (v4, v6) = (Source::from(ip("192.0.2.1")), Source::from(ip("2001:db8:0:1::9")));
    let expected = [
        (v4, 25, Fate::Dropped, 77, 32),
        (v4, 587, Fate::Observed, 77, 32),
        (v6, 25, Fate::Dropped, 77, 48),
        (v6, 465, Fate::Observed, 77, 48),
        (Source::from(ip("203.0.113.7")), 25, Fate::Limited, 0, 0),
        (Source::from(ip("203.0.113.7")), 25, Fate::LimitObserved, 0, 0),
    ];
    assert_eq!(events.iter().map(said).collect::<Vec<_>>(), expected);
    for event in &events {
        let of_rule = if event.fate.is_of_the_limit() { 0 } else { Reason::Dnsbl as u8 };
        assert_eq!(event.reason, of_rule);
        let at_s = event.at_ns / 1_000_000_000;
        assert!((before_s..=u64::from(boottime_s())).contains(&at_s));
    }
    let totals = probe.filter.totals().unwrap();
    assert_eq!(totals.get(Counter::EventTold), events.len() as u64);
    assert_eq!(probe.events().unwrap(), []);
}

#[test]
fn what_is_not_told_is_counted() {
    let mut probe = crate::probe();
    let entry = Entry::new(Scope::MX, Reason::Manual, 1);
    probe.filter.put(List::Deny, "192.0.2.1/32".parse().unwrap(), entry).unwrap();
    probe.filter.set_guarded(Scope::MX).unwrap();
    let mut told = |per_s: u32, packets: u32| {
        probe.filter.set_modes(&Modes { events_per_s: per_s, ..Modes::default() }).unwrap();
        let before = probe.filter.totals().unwrap();
        let totals = run(&mut probe, "192.0.2.1", SYN, packets);
        let grown = |counter| totals.get(counter) - before.get(counter);
        let counts = [Counter::EventTold, Counter::EventLeftOut, Counter::EventLost].map(grown);
        (counts, probe.events().unwrap().len() as u64)
    };
    assert_eq!(told(0, 1_000), ([0, 0, 0], 0));
    let ([told_few, left_out, lost], read) = told(20, 1_000);
    assert_eq!((told_few + left_out, lost, read), (1_000, 0, told_few));
    // Two seconds' budgets at most, as a second may end in between.
    assert!((1..=40).contains(&told_few), "{told_few}");
    // Nobody reads: the buffer fills.
    let ([told_many, left_out, lost], read) = told(u32::MAX, 20_000);
    assert_eq!((told_many + lost, left_out, read), (20_000, 0, told_many));
    assert!(lost > 10_000 && told_many > 1_000, "{told_many} told, {lost} lost");
}
