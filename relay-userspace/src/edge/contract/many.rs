//! Many entries at once, generations of feeds, and what is switched for all.

use std::collections::HashMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use relay_common::entry::{Entry, List, Scope};
use relay_common::verdict::Verdict;

use super::{Make, NOW_S, entry, net, rule_of};
use crate::edge::filter::{Filter, FilterError, MapSizes, Modes};

/// More than go through one system call, and no multiple of that.
const MANY: u32 = 9_001;
const ROOM: MapSizes =
    MapSizes { allow: 16, deny: 4 * MANY, feeds_allow: 16, feeds_deny: 4 * MANY };

/// So many hosts and so many prefixes of each family.
fn many(rule: u32) -> Vec<(IpNet, Entry)> {
    let nets = (0..MANY).flat_map(|i| {
        let v4 = |bits: u32, len| Ipv4Net::new(bits.into(), len).expect("a length").into();
        let v6 = |bits: u128, len| Ipv6Net::new(bits.into(), len).expect("a length").into();
        let network = 0x2001_0db8_0000 | u128::from(i);
        [
            v4(0x0a00_0000 | i << 3, 32),
            v4(0x0b00_0000 | i << 3, 29),
            v6(network << 64, 64),
            v6(network << 72, 56),
        ]
    });
    nets.map(|net: IpNet| (net, entry(Scope::MX, 0, rule))).collect()
}

fn rules(filter: &dyn Filter) -> HashMap<IpNet, u32> {
    let all = filter.entries(List::Deny).expect("entries");
    let rules: HashMap<_, _> = all.iter().map(|&(prefix, entry)| (prefix, entry.rule)).collect();
    assert_eq!(rules.len(), all.len(), "an entry was listed twice");
    rules
}

fn listed(filter: &dyn Filter) -> HashMap<(List, IpNet), u32> {
    let mut all = HashMap::new();
    let each = &mut |list, prefix, entry: Entry| {
        assert!(all.insert((list, prefix), entry.rule).is_none(), "{prefix} was listed twice");
    };
    filter.feeds(each).expect("feeds");
    all
}

/// Batches are as good as single ones.
pub(super) fn puts_many_at_once(make: Make<'_>) {
    let mut filter = make(ROOM);
    let (first, second) = (many(1), many(2));
    filter.put_all(List::Deny, &first).expect("room");
    assert_eq!(rules(&*filter), first.iter().map(|&(net, _)| (net, 1)).collect());
    filter.put_all(List::Deny, &second).expect("replaced");
    assert_eq!(rules(&*filter), first.iter().map(|&(net, _)| (net, 2)).collect());
    filter.put_all(List::Deny, &[]).expect("nothing to do");
    for &(prefix, _) in first.iter().step_by(997) {
        assert!(filter.remove(List::Deny, prefix).expect("remove"));
        assert_eq!(filter.get(List::Deny, prefix).expect("get"), None);
    }
}

pub(super) fn a_full_list_takes_replacements_at_once(make: Make<'_>) {
    let mut filter = make(MapSizes { deny: 2, ..ROOM });
    for pair in [["192.0.2.1/32", "192.0.2.2/32"], ["2001:db8::/48", "2001:db8:1::/48"]] {
        let of = |rule| pair.map(|text| (net(text), entry(Scope::MX, 0, rule)));
        filter.put_all(List::Deny, &of(1)).expect("room");
        filter.put_all(List::Deny, &of(2)).expect("replaced");
        for prefix in pair {
            let got = filter.get(List::Deny, net(prefix)).expect("get").expect("was put");
            assert_eq!(got.rule, 2);
        }
    }
    let more = ["192.0.2.2/32", "192.0.2.3/32"].map(|text| (net(text), entry(Scope::MX, 0, 3)));
    let full = filter.put_all(List::Deny, &more);
    assert!(matches!(full, Err(FilterError::Full { list: List::Deny, capacity: 2, .. })));
    assert_eq!(rules(&*filter).len(), 4);
}

pub(super) fn a_generation_is_in_force_when_it_was_flipped(make: Make<'_>) {
    let mut filter = make(ROOM);
    filter.set_guarded(Scope::MX).expect("guarded");
    filter.put(List::Deny, net("198.51.100.1/32"), entry(Scope::MX, 0, 9)).expect("put");
    let deny = |text: &str, rule| [(net(text), entry(Scope::ALL, 0, rule))];
    assert!(filter.feed_clear(10).expect("clear"));
    filter.feed_fill(List::Deny, &deny("192.0.2.0/24", 1)).expect("fill");
    filter.feed_fill(List::Allow, &deny("192.0.2.128/25", 2)).expect("fill");
    assert_eq!(filter.feed_count().expect("count"), 2);
    assert_eq!(listed(&*filter), HashMap::new());
    assert_eq!(rule_of(&*filter, "192.0.2.1", Scope::MX), None);
    filter.feed_flip(Scope::SMTP).expect("flip");
    assert_eq!(filter.guarded().expect("guarded"), Scope::SMTP);
    assert_eq!(rule_of(&*filter, "192.0.2.1", Scope::SUBMISSION), Some((true, 1)));
    assert_eq!(rule_of(&*filter, "192.0.2.129", Scope::MX), Some((false, 2)));
    let both = [(List::Deny, net("192.0.2.0/24")), (List::Allow, net("192.0.2.128/25"))];
    assert_eq!(listed(&*filter), both.into_iter().zip([1, 2]).collect());
    // What stood before is idle now, and what was put as a row is no part of it.
    assert_eq!(filter.feed_count().expect("count"), 0);
    filter.feed_fill(List::Deny, &deny("203.0.113.7/32", 3)).expect("fill");
    assert_eq!(rule_of(&*filter, "203.0.113.7", Scope::MX), None);
    filter.feed_flip(Scope::MX).expect("flip");
    assert_eq!(rule_of(&*filter, "203.0.113.7", Scope::MX), Some((true, 3)));
    assert_eq!(rule_of(&*filter, "192.0.2.1", Scope::MX), None);
    assert_eq!(rule_of(&*filter, "198.51.100.1", Scope::MX), Some((true, 9)));
    assert_eq!(filter.feed_count().expect("count"), 2);
    assert_eq!(rules(&*filter).len(), 1);
}

pub(super) fn a_generation_is_cleared_in_steps(make: Make<'_>) {
    let mut filter = make(ROOM);
    filter.feed_fill(List::Deny, &many(1)).expect("fill");
    let all = u64::from(4 * MANY);
    assert_eq!(filter.feed_count().expect("count"), all);
    for step in 1..=3 {
        assert!(!filter.feed_clear(5_000).expect("clear"));
        assert_eq!(filter.feed_count().expect("count"), all - step * 5_000);
    }
    while !filter.feed_clear(5_000).expect("clear") {}
    assert_eq!(filter.feed_count().expect("count"), 0);
    // There is room for as many again, and for no more.
    filter.feed_fill(List::Deny, &many(2)).expect("fill");
    let allows: Vec<_> = many(3).into_iter().filter(|(net, _)| net.addr().is_ipv4()).collect();
    let full = filter.feed_fill(List::Allow, &allows);
    assert!(matches!(full, Err(FilterError::Full { list: List::Allow, capacity: 16, .. })));
}

/// Making the marks anew changes no verdict, while they cover what is in force.
pub(super) fn marks_are_made_anew(make: Make<'_>) {
    let mut filter = make(ROOM);
    filter.set_guarded(Scope::ALL).expect("guarded");
    let rows = ["192.0.2.1/32", "198.51.100.0/22", "2001:db8::/64", "2400::/12", "::/0"];
    let (sources, feed) =
        (["192.0.2.1", "198.51.101.1", "2001:db8::9", "2400::1", "::9"], "10.0.0.0/8");
    let put = |text| (net(text), entry(Scope::MX, 0, 1));
    filter.put_all(List::Deny, &rows.map(put)).expect("room");
    filter.feed_fill(List::Deny, &[put(feed)]).expect("fill");
    filter.feed_flip(Scope::ALL).expect("flip");
    for gone in [None, Some("::/0"), Some("2400::/12")] {
        if let Some(prefix) = gone {
            assert!(filter.remove(List::Deny, net(prefix)).expect("remove"));
        }
        let rows = filter.entries(List::Deny).expect("entries");
        let all = rows.into_iter().map(|(prefix, _)| (List::Deny, prefix));
        let all: Vec<_> = all.chain([(List::Deny, net(feed))]).collect();
        filter.retouch(&mut all.iter().copied()).expect("retouch");
        for source in sources.into_iter().chain(["10.9.9.9", "203.0.113.1"]) {
            let address = source.parse().expect("an address");
            let due = all.iter().any(|(_, prefix)| prefix.contains::<&std::net::IpAddr>(&address));
            let verdict = filter.verdict(address, Scope::MX, NOW_S).expect("verdict");
            assert_eq!(verdict.drops(), due, "{source} without {gone:?}");
        }
    }
}

pub(super) fn observes_instead_of_dropping(make: Make<'_>) {
    let mut filter = make(ROOM);
    filter.set_guarded(Scope::SMTP).expect("guarded");
    let watched = Entry { observed: Scope::SMTP, ..entry(Scope::NONE, 0, 1) };
    filter.put(List::Deny, net("192.0.2.0/24"), entry(Scope::MX, 0, 2)).expect("put");
    filter.put(List::Deny, net("192.0.2.1/32"), watched).expect("put");
    let says = |filter: &dyn Filter, class| {
        let source = "192.0.2.1".parse().expect("an address");
        match filter.verdict(source, class, NOW_S).expect("verdict") {
            Verdict::Denied(entry) => (true, entry.rule),
            Verdict::Observed(entry) => (false, entry.rule),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(says(&*filter, Scope::MX), (true, 2));
    assert_eq!(says(&*filter, Scope::of_tcp_port(587)), (false, 1));
    filter.set_modes(&Modes { observes: true, ..Modes::default() }).expect("modes");
    assert_eq!(says(&*filter, Scope::MX), (false, 2));
    assert_eq!(filter.guarded().expect("guarded"), Scope::SMTP);
    filter.set_modes(&Modes::default()).expect("modes");
    assert_eq!(says(&*filter, Scope::MX), (true, 2));
}
