//! The kernel's maps keep the same contract as the memory filter.

use postern::edge::contract;
use postern::edge::filter::Filter;
use postern::edge::kernel::Probe;
use relay_common::entry::{Entry, List, Reason, Scope};
use relay_common::layout::RuleHits;

use crate::frames::{self, Frame};

#[test]
fn kernel_maps_keep_the_contract() {
    contract::check(&mut |sizes| {
        Box::new(Probe::load(sizes).unwrap_or_else(|error| panic!("{error}")).filter)
    });
}

#[test]
fn a_rules_hits_are_counted_with_their_second_and_reset() {
    let mut probe = crate::probe();
    let before_s = i64::from(postern::edge::clock::boottime_s());
    let filter = &mut probe.filter;
    let deny = Entry::new(Scope::MX, Reason::Dnsbl, 77);
    let allow = Entry { rule: 78, ..deny };
    filter.put(List::Deny, "192.0.2.0/24".parse().unwrap(), deny).unwrap();
    filter.put(List::Allow, "192.0.2.9/32".parse().unwrap(), allow).unwrap();
    filter.set_guarded(Scope::MX).unwrap();
    let frame = |source: &str| Frame::tcp(source.parse().unwrap(), 25).bytes();
    assert!(probe.run(&frame("192.0.2.1"), 10).unwrap().drops);
    assert!(!probe.run(&frame("192.0.2.9"), 4).unwrap().drops);
    let hits = probe.filter.rule_hits(77).unwrap();
    assert_eq!(hits.hits, 10);
    let after_s = i64::from(postern::edge::clock::boottime_s());
    assert!((before_s..=after_s).contains(&hits.last_s));
    assert_eq!(probe.filter.rule_hits(78).unwrap().hits, 4);
    probe.filter.set_rule(77, RuleHits::default()).unwrap();
    assert_eq!(probe.filter.rule_hits(77).unwrap().hits, 0);
    assert_eq!(probe.filter.rule_hits(78).unwrap().hits, 4);
}

#[test]
fn an_entry_with_a_rule_out_of_range_still_drops() {
    let mut probe = crate::probe();
    let deny = Entry { reason: 200, ..Entry::new(Scope::ALL, Reason::Manual, u32::MAX) };
    probe.filter.put(List::Deny, "::/0".parse().unwrap(), deny).unwrap();
    probe.filter.set_guarded(Scope::ALL).unwrap();
    let frame = Frame { protocol: frames::ICMPV6, ..Frame::tcp("2001:db8::1".parse().unwrap(), 0) };
    assert!(probe.run(&frame.bytes(), 1).unwrap().drops);
}
