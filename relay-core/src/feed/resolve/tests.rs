use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use relay_common::entry::Reason;

use super::*;

mod model;

use model::{CLASSES, Fate, NOW_S, Published, Tables, fate, net, prefixes, said};

const V4_LENS: [u8; 9] = [0, 1, 2, 3, 24, 29, 30, 31, 32];
const V6_LENS: [u8; 10] = [0, 1, 48, 62, 63, 64, 65, 66, 127, 128];
const ADDRESSES: u16 = 1 << 6;

/// Addresses that differ at the top, at the bottom and, in IPv6, around a host's length.
fn address(v4: bool, number: u16) -> IpAddr {
    if v4 {
        let number = u32::from(number);
        IpAddr::V4(Ipv4Addr::from((number & 7) << 29 | number >> 3 & 7))
    } else {
        let number = u128::from(number);
        let (top, bottom) = ((number & 1) << 127, number >> 5);
        IpAddr::V6(Ipv6Addr::from(top | (number >> 1 & 15) << 62 | bottom))
    }
}

fn nets(v4: bool) -> impl Strategy<Value = Vec<IpNet>> {
    let lens = if v4 { &V4_LENS[..] } else { &V6_LENS[..] };
    // Mostly over one address, for the many ways in which prefixes nest.
    let number = prop_oneof![2 => Just(0), 1 => 0..ADDRESSES];
    let one = (number, prop::sample::select(lens))
        .prop_map(move |(number, len)| IpNet::new(address(v4, number), len).unwrap().trunc());
    prop::collection::vec(one, 0..8)
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![Just(Scope::NONE), Just(Scope::MX), (0u8..16).prop_map(Scope::from_bits)]
}

fn expires() -> impl Strategy<Value = u32> {
    prop::sample::select(&[0, 0, NOW_S - 1, NOW_S, NOW_S + 1, NOW_S + 2, NOW_S + 3][..])
}

fn feeds(v4: bool) -> impl Strategy<Value = Vec<Published>> {
    let one = (nets(v4), prop::bool::weighted(0.2), scope(), scope(), expires());
    prop::collection::vec(one, 0..7).prop_map(|feeds| {
        let feed = |(rule, (nets, allow, scope, observed, expires_s))| {
            let list = if allow { List::Allow } else { List::Deny };
            let claim =
                FeedClaim { scope, observed, rule, reason: Reason::Import as u8, expires_s };
            Published { nets, list, claim }
        };
        (0..).zip(feeds).map(feed).collect()
    })
}

fn any_feeds() -> impl Strategy<Value = (bool, Vec<Published>)> {
    any::<bool>().prop_flat_map(|v4| (Just(v4), feeds(v4)))
}

/// Calls for every address, class and second.
fn each(v4: bool, seconds: std::ops::Range<u32>, mut check: impl FnMut(IpAddr, Scope, u32)) {
    for number in 0..ADDRESSES {
        for class in CLASSES {
            seconds.clone().for_each(|now_s| check(address(v4, number), class, now_s));
        }
    }
}

proptest! {
    #[test]
    fn the_kernel_does_now_what_the_feeds_say_and_later_closes_never_more(
        (v4, feeds) in any_feeds(),
    ) {
        let mut tables = Tables::of(&feeds);
        each(v4, NOW_S..NOW_S + 4, |address, class, now_s| {
            tables.now_s = now_s;
            let (found, expected) =
                (tables.verdict(address, class), said(&feeds, address, class, now_s));
            if now_s == NOW_S {
                assert_eq!(fate(&found), expected, "{address} {class}");
            } else if found.drops() {
                assert_eq!(expected, Fate::Denied, "{address} {class} at {now_s}");
            } else if expected == Fate::Allowed {
                assert_eq!(fate(&found), expected, "{address} {class} at {now_s}");
            }
        });
    }

    #[test]
    fn feeds_of_one_scope_are_exact_at_all_times((v4, mut feeds) in any_feeds()) {
        for feed in &mut feeds {
            feed.claim.scope = Scope::SMTP;
            feed.claim.observed = Scope::NONE;
        }
        let mut tables = Tables::of(&feeds);
        each(v4, NOW_S..NOW_S + 4, |address, class, now_s| {
            tables.now_s = now_s;
            let expected = said(&feeds, address, class, now_s);
            assert_eq!(fate(&tables.verdict(address, class)), expected, "{address} at {now_s}");
        });
    }

    #[test]
    fn hosts_whose_lease_ends_uncover_exactly_what_is_wider(
        (v4, mut feeds) in any_feeds(),
        hosts in prop::collection::vec(0..ADDRESSES, 0..8),
        scope in scope(),
        observed in scope(),
    ) {
        let len = if v4 { 32 } else { 64 };
        for feed in &mut feeds {
            feed.claim.expires_s = 0;
            // No other claims on hosts, not even on ones joined of their halves.
            if prefixes(&feed.nets).iter().any(|net| net.prefix_len() == len) {
                feed.nets.clear();
            }
        }
        // Without the last bit of a host's length no two are joined.
        let host = |number| IpNet::new(address(v4, number & !8), len).unwrap().trunc();
        let nets = hosts.into_iter().map(host).collect();
        let (rule, reason) = (u32::try_from(feeds.len()).unwrap(), Reason::Import as u8);
        let claim = FeedClaim { scope, observed, rule, reason, expires_s: NOW_S + 1 };
        feeds.push(Published { nets, list: List::Deny, claim });
        let mut tables = Tables::of(&feeds);
        each(v4, NOW_S..NOW_S + 3, |address, class, now_s| {
            tables.now_s = now_s;
            let expected = said(&feeds, address, class, now_s);
            assert_eq!(fate(&tables.verdict(address, class)), expected, "{address} at {now_s}");
        });
    }

    #[test]
    fn feeds_that_never_end_are_exact_and_no_entry_can_be_spared((v4, mut feeds) in any_feeds()) {
        for feed in &mut feeds {
            feed.claim.expires_s = 0;
        }
        let mut tables = Tables::of(&feeds);
        let keys: Vec<_> = tables.entries.keys().copied().collect();
        for key in keys {
            let entry = tables.entries.remove(&key).unwrap();
            // Addresses that only narrower entries answer for may be all of its own.
            let narrower = tables.entries.keys().any(|other| key.1.contains(&other.1));
            let mut differs = false;
            each(v4, NOW_S..NOW_S + 1, |address, class, now_s| {
                differs |= fate(&tables.verdict(address, class)) != said(&feeds, address, class, now_s);
            });
            // An allowed source needs no denial; that is not looked at.
            let allowed = feeds.iter().any(|feed| feed.list == List::Allow);
            prop_assert!(differs || narrower || allowed, "{:?} {:?}", key, entry);
            tables.entries.insert(key, entry);
        }
    }

    #[test]
    fn feeds_that_observe_open_nothing((v4, feeds) in any_feeds()) {
        let mut alone = feeds.clone();
        alone.iter_mut().for_each(|feed| feed.claim.observed = Scope::NONE);
        let (mut with, mut without) = (Tables::of(&feeds), Tables::of(&alone));
        each(v4, NOW_S..NOW_S + 4, |address, class, now_s| {
            (with.now_s, without.now_s) = (now_s, now_s);
            let drops = |tables: &Tables| tables.verdict(address, class).drops();
            assert!(!drops(&without) || drops(&with), "{address} {class} at {now_s}");
        });
    }

    #[test]
    fn only_feeds_that_say_so_are_named((v4, feeds) in any_feeds()) {
        let tables = Tables::of(&feeds);
        each(v4, NOW_S..NOW_S + 1, |address, class, now_s| {
            let verdict = tables.verdict(address, class);
            let Some(entry) = verdict.entry() else { return };
            let feed = &feeds[entry.rule as usize];
            let list = if fate(&verdict) == Fate::Allowed { List::Allow } else { List::Deny };
            assert!(feed.says(list, address) && feed.claim.is_live(now_s));
            // One that observes alone is not named for a drop.
            assert!(!verdict.drops() || feed.claim.scope != Scope::NONE);
        });
    }
}

fn feed(rule: u32, list: List, scope: Scope, expires_s: u32, nets: &[&str]) -> Published {
    let (observed, reason) = (Scope::NONE, Reason::Import as u8);
    let nets = nets.iter().map(|text| net(text)).collect();
    Published { nets, list, claim: FeedClaim { scope, observed, rule, reason, expires_s } }
}

fn observing(feed: Published) -> Published {
    let FeedClaim { scope: observed, .. } = feed.claim;
    Published { claim: FeedClaim { scope: Scope::NONE, observed, ..feed.claim }, ..feed }
}

/// Each entry as `kind prefix scope/observed until rule`.
#[track_caller]
fn check(feeds: &[Published], expected: &[&str]) {
    let tables = Tables::of(feeds);
    let mut lines: Vec<_> = tables.entries.iter().collect();
    lines.sort_by_key(|((kind, net), _)| (net.addr(), net.prefix_len(), *kind));
    let lines: Vec<String> = lines
        .into_iter()
        .map(|((kind, net), e)| {
            format!("{kind:?} {net} {}/{} {} {}", e.scope, e.observed, e.expires_s, e.rule)
        })
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn what_a_wider_prefix_says_as_long_is_left_out() {
    let wide = feed(1, List::Deny, Scope::SMTP, 0, &["192.0.2.0/24", "2001:db8::/32"]);
    let nets = ["192.0.2.0/25", "192.0.2.9/32", "2001:db8::/64", "2001:db8::1/128"];
    let expected = ["Deny 192.0.2.0/24 smtp/0x0 0 1", "Deny 2001:db8::/32 smtp/0x0 0 1"];
    for (scope, expires_s) in [(Scope::SMTP, 0), (Scope::MX, 0), (Scope::SMTP, 2_000)] {
        check(&[wide.clone(), feed(2, List::Deny, scope, expires_s, &nets)], &expected);
        let noted = observing(feed(2, List::Deny, scope, expires_s, &nets));
        check(&[noted, wide.clone()], &expected);
    }
}

#[test]
fn the_longest_prefix_says_everything_and_names_the_most_specific() {
    check(
        &[
            feed(1, List::Deny, Scope::MX, 0, &["10.0.0.0/8"]),
            feed(2, List::Deny, Scope::SUBMISSION, 2_000, &["10.1.0.0/16"]),
            feed(3, List::Deny, Scope::TCP, 3_000, &["10.1.0.0/16", "11.0.0.0/8"]),
            observing(feed(4, List::Deny, Scope::ALL, 0, &["10.1.1.0/24"])),
        ],
        &[
            "Deny 10.0.0.0/8 mx/0x0 0 1",
            // Submission is claimed until 3000 by the other, and so is all that is not for ever.
            "Deny 10.1.0.0/16 tcp/0x0 3000 2",
            "Deny 10.1.1.0/24 tcp/0x8 3000 2",
            "Deny 11.0.0.0/8 tcp/0x0 3000 3",
        ],
    );
}

#[test]
fn a_shorter_lease_of_the_same_classes_shortens_nothing() {
    check(
        &[
            feed(1, List::Deny, Scope::MX, 2_000, &["10.0.0.0/8", "192.0.2.0/24"]),
            feed(2, List::Deny, Scope::MX, 0, &["10.1.0.0/16", "192.0.2.0/24"]),
            feed(3, List::Deny, Scope::MX, 1_500, &["10.1.1.0/24", "192.0.2.0/24", "10.2.2.2/32"]),
        ],
        &[
            "Deny 10.0.0.0/8 mx/0x0 2000 1",
            "Deny 10.1.0.0/16 mx/0x0 0 2",
            "Deny 192.0.2.0/24 mx/0x0 0 1",
        ],
    );
}

#[test]
fn a_host_says_its_own_and_leaves_the_rest_to_the_trie() {
    check(
        &[
            feed(1, List::Deny, Scope::MX, 0, &["10.0.0.0/8", "2001:db8::/32"]),
            feed(2, List::Deny, Scope::TCP, 2_000, &["10.1.1.1/32", "2001:db8::/64"]),
            feed(3, List::Deny, Scope::ALL, 3_000, &["2001:db8::1/128"]),
        ],
        &[
            "Deny 10.0.0.0/8 mx/0x0 0 1",
            "Hosts 10.1.1.1/32 tcp/0x0 2000 2",
            "Deny 2001:db8::/32 mx/0x0 0 1",
            "Hosts 2001:db8::/64 tcp/0x0 2000 2",
            "Deny 2001:db8::1/128 all/0x0 3000 3",
        ],
    );
    // What stands in the table of hosts need not be said again for a narrower prefix.
    check(
        &[
            feed(1, List::Deny, Scope::TCP, 0, &["2001:db8::/64"]),
            feed(2, List::Deny, Scope::MX, 0, &["2001:db8::1/128"]),
        ],
        &["Hosts 2001:db8::/64 tcp/0x0 0 1"],
    );
}

#[test]
fn a_host_says_nothing_for_longer_than_it_is_claimed() {
    check(
        &[
            feed(1, List::Deny, Scope::MX, 1_500, &["10.0.0.0/8"]),
            feed(2, List::Deny, Scope::MX, 1_500, &["10.1.1.1/32"]),
            feed(3, List::Deny, Scope::SUBMISSION, 2_000, &["10.1.1.1/32"]),
        ],
        &["Deny 10.0.0.0/8 mx/0x0 1500 1", "Hosts 10.1.1.1/32 submission/0x0 2000 2"],
    );
}

#[test]
fn a_lease_of_who_only_observes_ends_no_denial() {
    let nets = ["10.0.0.0/8", "192.0.2.1/32"];
    check(
        &[
            observing(feed(1, List::Deny, Scope::SUBMISSION, 1_500, &nets)),
            feed(2, List::Deny, Scope::MX, 0, &nets),
        ],
        &["Deny 10.0.0.0/8 mx/submission 0 2", "Hosts 192.0.2.1/32 mx/submission 0 2"],
    );
}

#[test]
fn allowances_stand_in_the_trie_alone_and_end_with_the_last_claim() {
    check(
        &[
            feed(1, List::Allow, Scope::SMTP, 0, &["192.0.2.0/24"]),
            feed(2, List::Allow, Scope::ALL, 2_000, &["192.0.2.7/32"]),
            observing(feed(3, List::Allow, Scope::ALL, 0, &["192.0.2.8/32"])),
            feed(4, List::Deny, Scope::ALL, 0, &["192.0.2.7/32"]),
        ],
        &[
            "Allow 192.0.2.0/24 smtp/0x0 0 1",
            "Allow 192.0.2.7/32 all/0x0 0 2",
            "Hosts 192.0.2.7/32 all/0x0 0 4",
        ],
    );
}

#[test]
fn dead_claims_say_nothing() {
    check(&[feed(1, List::Deny, Scope::MX, NOW_S, &["10.0.0.0/8"])], &[]);
    check(&[], &[]);
}

#[test]
fn entries_are_counted_by_table_and_family() {
    let feeds = [
        feed(
            1,
            List::Deny,
            Scope::MX,
            0,
            &["10.0.0.0/8", "192.0.2.1/32", "192.0.2.9/32", "::/64", "1::1/128"],
        ),
        feed(1, List::Allow, Scope::MX, 0, &["10.0.0.1/32", "::/64"]),
    ];
    let sets: Vec<_> = feeds.iter().map(|feed| (prefixes(&feed.nets), feed)).collect();
    let feeds: Vec<_> = sets
        .iter()
        .map(|(prefixes, feed)| Feed { prefixes, list: feed.list, claim: feed.claim })
        .collect();
    let resolved: Vec<_> = resolve(&feeds, NOW_S).collect();
    let tally: Tally = resolved.iter().collect();
    let of = |kind| Family::ALL.map(|family| tally.get(kind, family));
    assert_eq!(Kind::ALL.map(of), [[1, 1], [1, 1], [2, 1]]);
    assert_eq!(tally.total(), 7);
}
