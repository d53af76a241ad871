//! Generations reach the filter whole, beside everything else that goes on.

use super::*;
use crate::edge::sshd::SshSession;

#[test]
fn a_file_is_enforced_with_its_scope_and_replaced_whole() {
    let mut bench = Bench::of_file("", "192.0.2.0/24\n203.0.113.7\n2001:db8:9::/48\n");
    assert!(bench.denied("192.0.2.9") && bench.denied("203.0.113.7"));
    assert!(bench.denied("2001:db8:9::1") && !bench.denied("203.0.113.8"));
    assert!(!bench.verdict("192.0.2.9", 22).drops());
    assert_eq!(bench.edge.status().unwrap().guarded, "mx");
    let report = bench.report();
    assert_eq!((report.state, report.phase), (FeedState::Good, FeedPhase::Idle));
    assert_eq!((report.ipv4, report.ipv6, report.attempts), (2, 1, 1));

    bench.write("192.0.2.0/24\n203.0.113.8\n");
    bench.hours(1);
    assert!(bench.denied("192.0.2.9") && bench.denied("203.0.113.8"));
    assert!(!bench.denied("203.0.113.7") && !bench.denied("2001:db8:9::1"));
    assert_eq!(bench.held(), 2);
    assert_eq!(bench.edge.status().unwrap().health.drift, 0);
}

#[test]
fn between_the_steps_the_old_generation_is_whole_and_bans_go_on() {
    let mut bench = Bench::of_file("", "192.0.2.0/24\n203.0.113.7\n");
    bench.write("192.0.2.0/24\n203.0.113.8\n");
    bench.edge.feed_refresh("a", &FeedRefresh::default()).unwrap();
    let mut steps = 0;
    while !bench.denied("203.0.113.8") {
        assert!(bench.denied("192.0.2.9") && bench.denied("203.0.113.7"));
        bench.edge.tick();
        steps += 1;
        if steps == 3 {
            assert!(bench.edge.feeds.publication.is_some());
            assert_eq!(bench.report().phase, FeedPhase::Publishing);
            // A ban of a scope that nobody had: the flip must not take its guard away.
            let submission = request(&["198.51.100.9"], Scope::SUBMISSION, None);
            bench.edge.add(List::Deny, &submission).unwrap();
            bench.edge.ban(&ban_request("198.51.100.7", Scope::MX)).unwrap();
        }
        assert!(steps < 100);
    }
    assert!(steps > 3, "it must take steps, or this shows nothing");
    assert!(bench.denied("192.0.2.9") && !bench.denied("203.0.113.7"));
    assert!(bench.verdict("198.51.100.9", 587).drops() && bench.denied("198.51.100.7"));
    bench.settle();
    assert!(bench.verdict("198.51.100.9", 587).drops() && bench.denied("198.51.100.7"));
    assert_eq!(bench.edge.status().unwrap().guarded, "smtp");
}

#[test]
fn rows_that_go_leave_the_feeds_under_guard() {
    let mut bench = Bench::of_file("scope = \"submission\"", "192.0.2.0/24\n");
    let row = request(&["198.51.100.9"], Scope::ALL, None);
    bench.edge.add(List::Deny, &row).unwrap();
    let gone = RemoveRequest { prefixes: vec!["198.51.100.9".into()], ..RemoveRequest::default() };
    bench.edge.remove(List::Deny, &gone).unwrap();
    assert_eq!(bench.edge.status().unwrap().guarded, "submission");
    assert!(bench.verdict("192.0.2.9", 465).drops());
    bench.pass(Duration::from_secs(61));
    bench.settle();
    assert!(bench.verdict("192.0.2.9", 465).drops());
}

#[test]
fn feeds_overlap_allow_beats_deny_and_observing_drops_nothing() {
    let config = "[[feed]]\nname = \"a\"\nsource = \"{dir}/a\"\n\
                  [[feed]]\nname = \"b\"\nsource = \"{dir}/b\"\nscope = \"submission\"\n\
                  [[feed]]\nname = \"good\"\nsource = \"{dir}/good\"\nlist = \"allow\"\n\
                  [[feed]]\nname = \"seen\"\nsource = \"{dir}/seen\"\nobserve = true\n";
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("a", "192.0.2.0/24\n"),
        ("b", "192.0.2.128/25\n"),
        ("good", "192.0.2.7\n"),
        ("seen", "203.0.113.0/24\n"),
    ] {
        fs::write(dir.path().join(name), content).unwrap();
    }
    let mut bench = Bench::in_dir(config, dir);
    bench.settle();
    assert!(bench.verdict("192.0.2.200", 587).drops() && bench.denied("192.0.2.200"));
    assert!(!bench.verdict("192.0.2.9", 587).drops() && bench.denied("192.0.2.9"));
    assert!(matches!(bench.verdict("192.0.2.7", 25), Verdict::Allowed(_)));
    assert!(matches!(bench.verdict("203.0.113.5", 25), Verdict::Observed(_)));
    let mut explain = |address: &str| {
        let query = ExplainQuery { address: address.parse().unwrap(), port: 25 };
        bench.edge.explain(&query).unwrap()
    };
    let told = explain("192.0.2.200");
    assert_eq!(
        (told.verdict, told.desired, told.agrees),
        (PacketVerdict::Denied, PacketVerdict::Denied, true)
    );
    let feeds: Vec<_> = told.feeds.iter().map(|of| (of.feed.as_str(), of.in_scope)).collect();
    assert_eq!(feeds, [("a", true), ("b", false)]);
    assert_eq!(explain("192.0.2.7").desired, PacketVerdict::Allowed);
    assert_eq!(explain("203.0.113.5").desired, PacketVerdict::Observed);
}

#[test]
fn hits_are_the_feeds_own_and_survive_its_replacement() {
    let mut bench = Bench::of_file("", "192.0.2.0/24\n");
    let query = ExplainQuery { address: "192.0.2.9".parse().unwrap(), port: 25 };
    bench.edge.judge(&query).unwrap();
    bench.write("192.0.0.0/16\n");
    bench.refresh(false);
    bench.edge.judge(&query).unwrap();
    assert_eq!(bench.report().packets, 2);
    let stats = bench.edge.stats().unwrap();
    assert_eq!(stats.rules[0].rule, "feed a");
    assert_eq!(stats.rules[0].packets, 2);
}

#[test]
fn what_must_stay_reachable_is_left_out_and_named_and_the_rest_is_enforced() {
    // The gateway of these tests is 198.51.100.1.
    let mut bench = Bench::of_file("", "198.51.100.0/24\n192.0.2.0/24\n");
    assert!(bench.denied("192.0.2.9") && !bench.denied("198.51.100.1"));
    assert_eq!(left_out(&bench), ["198.51.100.0/24, since it holds 198.51.100.1, a gateway"]);
    let query = ExplainQuery { address: "198.51.100.9".parse().unwrap(), port: 25 };
    let told = bench.edge.explain(&query).unwrap();
    assert!(told.agrees && told.feeds[0].left_out);
    // Once the gateway is on the allow list, it needs no other protection.
    let allow = request(&["198.51.100.1"], Scope::ALL, None);
    bench.edge.add(List::Allow, &allow).unwrap();
    bench.pass(Duration::from_secs(30));
    bench.settle();
    assert!(bench.denied("198.51.100.9") && !bench.denied("198.51.100.1"));
    assert!(bench.report().left_out.is_empty());
}

fn left_out(bench: &Bench) -> Vec<String> {
    let health = bench.edge.status().unwrap().feeds.remove(0);
    assert_eq!(health.left_out, bench.report().left_out);
    health.left_out.iter().map(FeedLeftOut::to_string).collect()
}

#[test]
fn what_is_left_out_takes_neither_what_it_swallowed_with_it_nor_the_other_half() {
    let said = "198.51.100.0/25\n198.51.100.128/25\n0.0.0.0/0\n192.0.2.0/24\n203.0.113.7\n";
    let mut bench = Bench::of_file("", said);
    for again in [false, true] {
        assert!(bench.denied("192.0.2.9") && bench.denied("203.0.113.7"));
        assert!(bench.denied("198.51.100.200") && !bench.denied("198.51.100.1"));
        assert!(!bench.denied("203.0.113.8"));
        assert_eq!(
            left_out(&bench),
            [
                "0.0.0.0/0, since it holds 198.51.100.1, a gateway",
                "198.51.100.0/25, since it holds 198.51.100.1, a gateway",
            ]
        );
        let report = bench.report();
        assert_eq!((report.ipv4, report.read, report.in_force), (1, 5, 3));
        let mut explain = |address: &str| {
            let query = ExplainQuery { address: address.parse().unwrap(), port: 25 };
            let told = bench.edge.explain(&query).unwrap();
            assert!(told.agrees);
            (told.feeds[0].prefix.to_string(), told.feeds[0].left_out)
        };
        assert_eq!(explain("192.0.2.9"), ("192.0.2.0/24".into(), false));
        assert_eq!(explain("198.51.100.1"), ("198.51.100.0/25".into(), true));
        if !again {
            bench = bench.again();
        }
    }
    // Said anew with another of those that it swallows, it is another list.
    bench.write(&format!("{said}203.0.113.9\n"));
    bench.refresh(false);
    assert!(bench.denied("203.0.113.9"));
    let allow = request(&["198.51.100.1"], Scope::ALL, None);
    bench.edge.add(List::Allow, &allow).unwrap();
    bench.settle();
    assert!(bench.denied("203.0.113.8") && !bench.denied("198.51.100.1"));
    assert_eq!((bench.held(), bench.report().in_force), (1, 1));
    assert!(left_out(&bench).is_empty());
}

#[test]
fn whoever_is_logged_in_over_ssh_is_left_out_where_a_feed_reaches_the_port() {
    for (scope, port, is_open) in [("all", 25, true), ("mx", 25, false)] {
        let lines = format!("scope = \"{scope}\"");
        let mut bench = Bench::of_file(&lines, "192.0.2.0/25\n192.0.2.128/25\n203.0.113.0/24\n");
        let peer =
            |peer: &str, logged_in| SshSession { peer: peer.parse().unwrap(), port: 22, logged_in };
        let sessions = vec![peer("192.0.2.7", true), peer("203.0.113.7", false)];
        bench.edge.sessions = Box::new(move || sessions.clone());
        bench.pass(Duration::from_secs(30));
        bench.settle();
        assert_eq!(!bench.verdict("192.0.2.7", port).drops(), is_open, "{scope}");
        assert!(bench.verdict("192.0.2.207", port).drops());
        // To be connected is not to be logged in.
        assert!(bench.verdict("203.0.113.7", port).drops());
    }
}

#[test]
fn an_allowance_that_goes_uncovers_nothing_that_must_stay_reachable() {
    let mut bench = Bench::of_file("", "198.51.100.0/24\n");
    let allow = request(&["198.51.100.1"], Scope::ALL, None);
    let remove = |force| RemoveRequest {
        prefixes: vec!["198.51.100.1".into()],
        force,
        ..RemoveRequest::default()
    };
    // Before the next generation no feed denies it; while that is on its way, it will.
    bench.edge.add(List::Allow, &allow).unwrap();
    bench.edge.remove(List::Allow, &remove(false)).unwrap();
    bench.edge.add(List::Allow, &allow).unwrap();
    bench.edge.tick();
    let why = "198.51.100.1/32 keeps 198.51.100.1, a gateway, out of the denial of \
               198.51.100.0/24; nothing was changed";
    assert_eq!(bench.edge.remove(List::Allow, &remove(false)).unwrap_err().message, why);
    bench.settle();
    assert!(bench.denied("198.51.100.9") && !bench.denied("198.51.100.1"));
    assert_eq!(bench.edge.remove(List::Allow, &remove(false)).unwrap_err().message, why);
    // Whoever insists has it denied until the next generation leaves it out.
    bench.edge.remove(List::Allow, &remove(true)).unwrap();
    assert!(bench.denied("198.51.100.1"));
    bench.settle();
    assert!(!bench.denied("198.51.100.1"));
}

#[test]
fn an_allowance_that_will_end_makes_a_feed_deny_nothing_that_must_stay_reachable() {
    let mut bench = Bench::of_file("", "198.51.100.0/24\n");
    let allow = request(&["198.51.100.1"], Scope::ALL, Some(600));
    bench.edge.add(List::Allow, &allow).unwrap();
    bench.pass(Duration::from_secs(599));
    bench.settle();
    assert!(!bench.denied("198.51.100.1"));
    // It ends in the filter by itself, whatever the edge is at.
    bench.pass(Duration::from_secs(2));
    assert!(!bench.denied("198.51.100.1"));
    assert_eq!(left_out(&bench).len(), 1);
}

#[test]
fn a_feed_that_was_renamed_opens_no_gap() {
    let bench = Bench::of_file("", "192.0.2.0/24\n");
    let config = bench.config.replace("\"a\"", "\"b\"");
    // At the end of the start, before the first tick.
    let bench = bench.restart(&config, true);
    assert!(bench.denied("192.0.2.9"));
}

#[test]
fn a_filter_that_fails_keeps_the_old_generation_and_is_tried_again() {
    let mut bench = Bench::of_file("", "192.0.2.0/24\n");
    bench.write("203.0.113.0/24\n");
    bench.edge.feed_refresh("a", &FeedRefresh::default()).unwrap();
    bench.edge.tick();
    bench.probe.broken(true);
    for _ in 0..20 {
        bench.edge.tick();
    }
    assert!(bench.denied("192.0.2.9") && !bench.denied("203.0.113.9"));
    assert!(bench.edge.status().unwrap().health.last_failure.is_some());
    bench.probe.broken(false);
    bench.pass(Duration::from_secs(6));
    bench.settle();
    assert!(!bench.denied("192.0.2.9") && bench.denied("203.0.113.9"));
}

#[test]
fn a_generation_that_was_tampered_with_is_written_anew() {
    let mut bench = Bench::of_file("", "192.0.2.0/24\n203.0.113.0/24\n");
    bench.probe.with(|filter| {
        // By way of the idle side: the trait lets nobody reach into what is in force.
        let mut kept = Vec::new();
        filter.feeds(&mut |list, net, entry| kept.push((list, net, entry))).unwrap();
        let (list, net, entry) = kept[0];
        filter.feed_fill(list, &[(net, entry)]).unwrap();
        filter.feed_flip(Scope::MX).unwrap();
    });
    assert_eq!(bench.held(), 1);
    bench.pass(Duration::from_secs(601));
    bench.settle();
    assert_eq!(bench.held(), 2);
    assert_eq!(bench.edge.status().unwrap().health.drift, 1);
}

#[test]
fn a_feed_that_is_no_longer_configured_ends_at_the_next_start() {
    let bench = Bench::of_file("", "192.0.2.0/24\n");
    let bench = bench.restart("", true);
    assert_eq!(bench.held(), 0);
    assert_eq!(bench.edge.status().unwrap().guarded, "nothing");
}
