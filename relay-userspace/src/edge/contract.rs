//! What every [`Filter`] must do, as one suite: run over the memory filter by this crate's tests,
//! and over the kernel's maps by the tests crate, which has root and namespaces.

mod many;

use ipnet::IpNet;
use relay_common::entry::{Entry, List, Reason, Scope};
use relay_common::layout::{self, RuleHits};
use relay_common::parse::Family;
use relay_common::totals::{Counter, Totals};
use relay_common::verdict::Verdict;

use super::filter::{Filter, FilterError, MapSizes};

/// Makes an empty filter with room for so many entries.
pub type Make<'a> = &'a mut dyn FnMut(MapSizes) -> Box<dyn Filter>;

/// Runs the suite, each part on a fresh filter.
///
/// # Panics
/// Where the filter breaks the contract.
pub fn check(make: Make<'_>) {
    let parts: [fn(Make<'_>); 16] = [
        puts_gets_and_removes_exactly,
        replaces_in_place,
        truncates_to_the_network,
        lists_everything_once,
        says_when_it_is_full,
        allows_before_it_denies,
        walks_past_the_expired_and_the_out_of_scope,
        ignores_unguarded_traffic,
        counts_by_rule,
        counts_on_from_what_it_is_given,
        many::puts_many_at_once,
        many::a_full_list_takes_replacements_at_once,
        many::a_generation_is_in_force_when_it_was_flipped,
        many::a_generation_is_cleared_in_steps,
        many::marks_are_made_anew,
        many::observes_instead_of_dropping,
    ];
    for part in parts {
        part(make);
    }
}

const NOW_S: u32 = 1_000;

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn entry(scope: Scope, expires_s: u32, rule: u32) -> Entry {
    Entry { expires_s, ..Entry::new(scope, Reason::Manual, rule) }
}

fn rule_of(filter: &dyn Filter, source: &str, class: Scope) -> Option<(bool, u32)> {
    let verdict = filter.verdict(source.parse().expect("an address"), class, NOW_S);
    let verdict = verdict.expect("a verdict");
    verdict.entry().map(|entry| (verdict.drops(), entry.rule))
}

fn puts_gets_and_removes_exactly(make: Make<'_>) {
    let mut filter = make(MapSizes::default());
    for (list, prefix) in [
        (List::Deny, net("192.0.2.0/24")),
        (List::Deny, net("2001:db8::/32")),
        (List::Allow, net("0.0.0.0/0")),
        (List::Allow, net("2001:db8::1/128")),
    ] {
        assert_eq!(filter.get(list, prefix).expect("get"), None);
        filter.put(list, prefix, entry(Scope::MX, 5, 9)).expect("put");
        let got = filter.get(list, prefix).expect("get").expect("was put");
        assert_eq!(got, Entry { prefix_len: prefix.prefix_len(), ..entry(Scope::MX, 5, 9) });
        for other in prefix.subnets(prefix.prefix_len().saturating_add(1)).into_iter().flatten() {
            assert_eq!(filter.get(list, other).expect("get"), None, "{other} was not put");
            assert!(!filter.remove(list, other).expect("remove"), "{other} was not put");
        }
        assert!(filter.remove(list, prefix).expect("remove"));
        assert!(!filter.remove(list, prefix).expect("remove"));
        assert_eq!(filter.get(list, prefix).expect("get"), None);
    }
}

fn replaces_in_place(make: Make<'_>) {
    let mut filter = make(MapSizes { allow: 1, deny: 1, ..MapSizes::default() });
    filter.put(List::Deny, net("192.0.2.1/32"), entry(Scope::MX, 5, 1)).expect("put");
    filter.put(List::Deny, net("192.0.2.1/32"), entry(Scope::ALL, 0, 2)).expect("put when full");
    let got = filter.get(List::Deny, net("192.0.2.1/32")).expect("get").expect("was put");
    assert_eq!((got.rule, got.scope, got.expires_s), (2, Scope::ALL, 0));
}

fn truncates_to_the_network(make: Make<'_>) {
    let mut filter = make(MapSizes::default());
    filter.put(List::Deny, net("192.0.2.77/24"), entry(Scope::MX, 0, 1)).expect("put");
    filter.put(List::Deny, net("192.0.2.78/24"), entry(Scope::MX, 0, 2)).expect("put");
    let all = filter.entries(List::Deny).expect("entries");
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].0, all[0].1.rule), (net("192.0.2.0/24"), 2));
    assert!(filter.remove(List::Deny, net("192.0.2.1/24")).expect("remove"));
}

fn lists_everything_once(make: Make<'_>) {
    let mut filter = make(MapSizes::default());
    let mut put: Vec<IpNet> = Vec::new();
    for i in 0..200u8 {
        put.push(net(&format!("10.{}.{i}.0/{}", i / 7, 24 + i % 9)).trunc());
        put.push(net(&format!("2001:db8:{i:x}::/{}", 48 + i % 80)).trunc());
    }
    put.extend([net("0.0.0.0/0"), net("::/0")]);
    for &prefix in &put {
        filter.put(List::Deny, prefix, entry(Scope::MX, 0, 3)).expect("put");
    }
    filter.put(List::Allow, net("192.0.2.0/24"), entry(Scope::MX, 0, 4)).expect("put");
    let mut listed: Vec<IpNet> = Vec::new();
    for (prefix, entry) in filter.entries(List::Deny).expect("entries") {
        assert_eq!((entry.prefix_len, entry.rule), (prefix.prefix_len(), 3));
        listed.push(prefix);
    }
    put.sort();
    put.dedup();
    listed.sort();
    assert_eq!(listed, put);
    assert_eq!(filter.entries(List::Allow).expect("entries").len(), 1);
}

fn says_when_it_is_full(make: Make<'_>) {
    let sizes = MapSizes { allow: 2, deny: 3, ..MapSizes::default() };
    let mut filter = make(sizes);
    assert_eq!(filter.capacity(), sizes);
    for list in List::ALL {
        for i in 0..sizes.of(list) {
            let prefix = net(&format!("192.0.2.{i}/32"));
            filter.put(list, prefix, entry(Scope::MX, 0, 0)).expect("room");
        }
        match filter.put(list, net("198.51.100.1/32"), entry(Scope::MX, 0, 0)) {
            Err(FilterError::Full { list: of, family: Family::V4, capacity }) => {
                assert_eq!((of, capacity), (list, sizes.of(list)));
            }
            other => panic!("a full list must say so, not {other:?}"),
        }
        filter.put(list, net("2001:db8::1/128"), entry(Scope::MX, 0, 0)).expect("v6 has its own");
        assert!(filter.remove(list, net("192.0.2.0/32")).expect("remove"));
        filter.put(list, net("198.51.100.1/32"), entry(Scope::MX, 0, 0)).expect("room again");
    }
}

fn allows_before_it_denies(make: Make<'_>) {
    let mut filter = make(MapSizes::default());
    filter.set_guarded(Scope::SMTP).expect("guarded");
    for (deny, allow, source, outside) in [
        ("192.0.2.1/32", "192.0.2.0/24", "192.0.2.1", "192.0.3.1"),
        ("2001:db8::/64", "2001:db8::/32", "2001:db8::1", "2001:db9::1"),
    ] {
        filter.put(List::Deny, net(deny), entry(Scope::SMTP, 0, 1)).expect("put");
        assert_eq!(rule_of(&*filter, source, Scope::MX), Some((true, 1)));
        filter.put(List::Allow, net(allow), entry(Scope::ALL, 0, 2)).expect("put");
        assert_eq!(rule_of(&*filter, source, Scope::MX), Some((false, 2)));
        assert_eq!(rule_of(&*filter, outside, Scope::MX), None);
        assert!(filter.remove(List::Allow, net(allow)).expect("remove"));
        assert_eq!(rule_of(&*filter, source, Scope::MX), Some((true, 1)));
    }
    assert_eq!(rule_of(&*filter, "::ffff:192.0.2.1", Scope::MX), Some((true, 1)));
}

fn walks_past_the_expired_and_the_out_of_scope(make: Make<'_>) {
    let mut filter = make(MapSizes::default());
    filter.set_guarded(Scope::ALL).expect("guarded");
    for (net_text, scope, expires_s, rule) in [
        ("192.0.2.1/32", Scope::SMTP, NOW_S, 1),
        ("192.0.2.0/25", Scope::SUBMISSION, 0, 2),
        ("192.0.2.0/24", Scope::MX, NOW_S + 1, 3),
        ("0.0.0.0/0", Scope::ALL, 0, 4),
    ] {
        filter.put(List::Deny, net(net_text), entry(scope, expires_s, rule)).expect("put");
    }
    assert_eq!(rule_of(&*filter, "192.0.2.1", Scope::MX), Some((true, 3)));
    assert_eq!(rule_of(&*filter, "192.0.2.1", Scope::of_tcp_port(587)), Some((true, 2)));
    assert_eq!(rule_of(&*filter, "192.0.2.1", Scope::of_tcp_port(22)), Some((true, 4)));
    assert_eq!(rule_of(&*filter, "203.0.113.1", Scope::of_other_protocol()), Some((true, 4)));
}

fn ignores_unguarded_traffic(make: Make<'_>) {
    let mut filter = make(MapSizes::default());
    let source = "192.0.2.1".parse().expect("an address");
    filter.put(List::Deny, net("0.0.0.0/0"), entry(Scope::ALL, 0, 1)).expect("put");
    assert_eq!(filter.guarded().expect("guarded"), Scope::NONE);
    assert_eq!(filter.verdict(source, Scope::MX, NOW_S).expect("verdict"), Verdict::Unguarded);
    filter.set_guarded(Scope::MX).expect("guarded");
    assert_eq!(filter.guarded().expect("guarded"), Scope::MX);
    assert!(filter.verdict(source, Scope::MX, NOW_S).expect("verdict").drops());
    let ssh = Scope::of_tcp_port(22);
    assert_eq!(filter.verdict(source, ssh, NOW_S).expect("verdict"), Verdict::Unguarded);
}

fn counts_by_rule(make: Make<'_>) {
    let mut filter = make(MapSizes::default());
    let last = layout::RULES - 1;
    for rule in [0, last] {
        assert_eq!(filter.rule_hits(rule).expect("hits"), RuleHits::default());
        filter.set_rule(rule, RuleHits::default()).expect("set");
    }
    assert!(matches!(filter.rule_hits(last + 1), Err(FilterError::NoSuchRule { .. })));
    assert!(matches!(
        filter.set_rule(last + 1, RuleHits::default()),
        Err(FilterError::NoSuchRule { .. })
    ));
    assert_eq!(filter.totals().expect("totals").seen(), 0);
}

fn counts_on_from_what_it_is_given(make: Make<'_>) {
    let mut filter = make(MapSizes::default());
    let mut totals = Totals::default();
    for (packets, counter) in (1..).zip(Counter::all()) {
        totals.add(counter, packets);
    }
    let last = layout::RULES - 1;
    let before_boot = RuleHits { hits: 7, observed: u64::MAX, last_s: -9 };
    let after = RuleHits { hits: 0, observed: 3, last_s: 40 };
    filter.set_totals(&totals).expect("set");
    filter.set_rule(1, before_boot).expect("set");
    filter.set_rule(last, after).expect("set");
    assert_eq!(filter.totals().expect("totals"), totals);
    assert_eq!(filter.rule_hits(1).expect("hits"), before_boot);
    assert_eq!(filter.rule_hits(last).expect("hits"), after);
    assert_eq!(filter.rule_hits(2).expect("hits"), RuleHits::default());
    assert_eq!(before_boot.merge(RuleHits::default()).last_s, -9);
    filter.set_rule(1, RuleHits::default()).expect("set");
    assert_eq!(filter.rule_hits(1).expect("hits"), RuleHits::default());
}
