//! What an administrator can ask for, and what is refused.

use super::*;

#[test]
fn guardrails_refuse_by_name_and_force_goes_past_them() {
    let mut bench = Bench::new();
    bench.add(List::Allow, "203.0.113.0/24", Scope::SMTP, None);
    for (prefix, scope, why) in [
        ("198.51.100.0/24", Scope::MX, "holds 198.51.100.1, a gateway"),
        ("0.0.0.0/0", Scope::SMTP, "holds 198.51.100.1, a gateway"),
        ("203.0.113.9", Scope::MX, "on the allow list by 203.0.113.0/24"),
    ] {
        let all = ["192.0.2.1", prefix];
        let problem = bench.edge.add(List::Deny, &request(&all, scope, None)).unwrap_err();
        assert_eq!(problem.code, Code::Refused);
        assert!(problem.message.contains(why), "{problem}");
        assert!(bench.rows(List::Deny).is_empty(), "all or nothing");
        let forced = AddRequest { force: true, ..request(&[prefix], scope, None) };
        bench.edge.add(List::Deny, &forced).unwrap();
        bench.remove(List::Deny, prefix);
    }
    // Allowed for good, it may be covered: the allow entry keeps it reachable.
    bench.add(List::Allow, "198.51.100.1", Scope::ALL, None);
    bench.add(List::Deny, "198.51.100.0/24", Scope::MX, None);
    // Wider than what is allowed, it has an effect.
    bench.add(List::Deny, "203.0.113.9", Scope::TCP, None);
}

#[test]
fn wrong_prefixes_are_named_and_nothing_is_done() {
    let mut bench = Bench::new();
    let wrong = request(&["192.0.2.1", "10.0.0.1/8", "x"], Scope::MX, None);
    let problem = bench.edge.add(List::Deny, &wrong).unwrap_err();
    assert_eq!(problem.code, Code::Invalid);
    assert!(problem.message.contains("10.0.0.0/8"), "{problem}");
    assert_eq!(problem.details.len(), 2);
    assert!(bench.edge.add(List::Deny, &request(&[], Scope::MX, None)).is_err());
    assert!(bench.edge.add(List::Deny, &request(&["192.0.2.1"], Scope::MX, Some(0))).is_err());
    assert!(
        bench.edge.add(List::Deny, &request(&["192.0.2.1"], Scope::MX, Some(u64::MAX))).is_err()
    );
    assert!(bench.rows(List::Deny).is_empty());
}

#[test]
fn what_is_removed_passes_at_once_and_what_is_missing_is_explained() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.0/24", Scope::SMTP, None);
    bench.ban("203.0.113.9", Scope::MX);
    let changed = bench.remove(List::Deny, "192.0.2.9");
    assert_eq!(changed.removed, 0);
    assert_eq!(changed.missing[0].covered_by, Some(net("192.0.2.0/24")));
    assert_eq!(bench.remove(List::Deny, "203.0.113.9").removed, 1);
    assert!(!bench.denied("203.0.113.9", 25));
    // Forgiven: the next ban is a first one.
    assert_eq!(bench.ban("203.0.113.9", Scope::MX).duration_s, Some(600));
    let only =
        |source: &str| FlushRequest { source: Some(source.into()), ..FlushRequest::default() };
    assert_eq!(bench.edge.flush(List::Deny, &only("ban")).unwrap().removed, 1);
    assert_eq!(bench.rows(List::Deny).len(), 1);
    assert_eq!(bench.edge.flush(List::Deny, &FlushRequest::default()).unwrap().removed, 1);
    assert!(!bench.denied("192.0.2.9", 25));
}

#[test]
fn an_import_is_all_or_nothing_and_replace_drops_what_the_file_dropped() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.1", Scope::MX, None);
    let changed = bench.import("192.0.2.1\n203.0.113.0/24 ttl=1h # x\n", false).unwrap();
    assert_eq!(changed.added, 2);
    for wrong in ["192.0.2.5\n10.0.0.1/8\n", "192.0.2.5\n198.51.100.0/24\n"] {
        let problem = bench.import(wrong, true).unwrap_err();
        assert!(!problem.details.is_empty());
        assert_eq!(bench.rows(List::Deny).len(), 3);
        assert!(!bench.denied("192.0.2.5", 25) && bench.denied("203.0.113.9", 25));
    }
    let changed = bench.import("192.0.2.1\n192.0.2.6\n", true).unwrap();
    assert_eq!((changed.added, changed.updated, changed.removed), (1, 0, 1));
    assert!(!bench.denied("203.0.113.9", 25) && bench.denied("192.0.2.6", 25));
    assert!(bench.denied("192.0.2.1", 25));
}

#[test]
fn an_export_imported_into_an_empty_list_is_the_same_list() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.0/24", Scope::TCP, Some(3_600));
    bench.add(List::Deny, "2001:db8::/32", Scope::SMTP, None);
    bench.ban("203.0.113.9", Scope::MX);
    let wall_s = START.wall_s();
    let facts = |rows: Vec<Row>| -> Vec<_> {
        rows.into_iter().map(|row| (row.prefix, row.scope, row.expires, row.comment)).collect()
    };
    let rows = bench.rows(List::Deny);
    let text: String = rows.iter().map(|row| lines::format(row, wall_s) + "\n").collect();
    let mut other = Bench::new();
    other.import(&text, false).unwrap();
    assert_eq!(facts(other.rows(List::Deny)), facts(rows));
}

#[test]
fn a_full_map_refuses_whole_and_changes_nothing() {
    let mut bench = Bench::with_room(2);
    bench.add(List::Deny, "192.0.2.1", Scope::MX, None);
    let problem =
        bench.edge.add(List::Deny, &request(&["192.0.2.2", "192.0.2.3"], Scope::MX, None));
    let problem = problem.unwrap_err();
    assert_eq!(problem.code, Code::Full);
    assert!(problem.message.contains("room for 2"), "{problem}");
    assert_eq!(bench.edge.status().unwrap().health.list_full, 1);
    assert_eq!(bench.rows(List::Deny).len(), 1);
    // The other family and the other list have rooms of their own.
    bench.add(List::Deny, "2001:db8::1", Scope::MX, None);
    bench.add(List::Allow, "192.0.2.3", Scope::MX, None);
    bench.add(List::Deny, "192.0.2.2", Scope::MX, None);
    bench.add(List::Deny, "192.0.2.2", Scope::ALL, None);
}

#[test]
fn explain_asks_the_maps_and_says_when_the_lists_differ() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.0/24", Scope::MX, None);
    bench.ban("192.0.2.9", Scope::SMTP);
    let ask = |bench: &mut Bench, port| {
        let address = "::ffff:192.0.2.9".parse().unwrap();
        bench.edge.explain(&ExplainQuery { address, port }).unwrap()
    };
    let told = ask(&mut bench, 25);
    assert_eq!((told.verdict, told.agrees), (PacketVerdict::Denied, true));
    assert_eq!(told.decided_by, Some(net("192.0.2.9/32")));
    assert_eq!(told.rows[0].row.rule, "dnsbl Spamhaus ZEN");
    assert_eq!((told.rows.len(), told.bans), (2, 1));
    assert!(!ask(&mut bench, 587).rows[1].in_scope);
    bench.probe.with(|filter| {
        filter.remove(List::Deny, net("192.0.2.9/32")).unwrap();
        filter.remove(List::Deny, net("192.0.2.0/24")).unwrap();
    });
    let told = ask(&mut bench, 25);
    assert_eq!((told.verdict, told.desired), (PacketVerdict::Pass, PacketVerdict::Denied));
    assert!(!told.agrees);
    // Whoever found the difference has hastened its end.
    bench.pass(Duration::from_secs(6));
    bench.edge.tick();
    assert!(ask(&mut bench, 25).agrees);
    assert_eq!(bench.edge.status().unwrap().health.drift, 2);
}

#[test]
fn each_line_has_hits_of_its_own_and_rules_of_many_lines_are_told_once() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.1", Scope::SMTP, None);
    bench.add(List::Deny, "192.0.2.2", Scope::SMTP, None);
    bench.import("203.0.113.0/24\n198.51.100.7\n", false).unwrap();
    bench.probe.set_guarded(Scope::SMTP).unwrap();
    let judge = |bench: &mut Bench, address: &str| {
        let query = ExplainQuery { address: address.parse().unwrap(), port: 25 };
        bench.edge.judge(&query).unwrap()
    };
    for address in ["192.0.2.1", "192.0.2.1", "203.0.113.5", "198.51.100.7"] {
        judge(&mut bench, address);
    }
    let page = bench.edge.page(List::Deny, &ListQuery::default()).unwrap();
    let told: Vec<_> = page.rules.iter().map(|r| (r.rule.as_str(), r.packets)).collect();
    assert_eq!(told, [("cli 192.0.2.1/32", 2), ("cli 192.0.2.2/32", 0), ("import drop.txt", 2)]);
    assert_eq!(page.rules[0].last_hit, Some(Time(START.wall_s())));
    assert_eq!(page.rules[1].last_hit, None);
    // The rule outlives its row, and so do its hits.
    bench.remove(List::Deny, "192.0.2.1");
    bench.add(List::Deny, "192.0.2.1", Scope::MX, None);
    assert_eq!(bench.edge.stats().unwrap().rules[0].packets, 2);
}

#[test]
fn what_an_allow_entry_let_in_is_no_hit_of_a_denial_of_the_same_prefix() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.2", Scope::SMTP, None);
    bench.add(List::Allow, "192.0.2.1", Scope::ALL, None);
    let query = ExplainQuery { address: "192.0.2.1".parse().unwrap(), port: 25 };
    bench.edge.judge(&query).unwrap();
    bench.remove(List::Allow, "192.0.2.1");
    bench.add(List::Deny, "192.0.2.1", Scope::SMTP, None);
    let packets = |list| bench.edge.page(list, &ListQuery::default()).unwrap().rules[0].packets;
    assert_eq!(packets(List::Deny), 0);
    let all = bench.edge.stats().unwrap().rules;
    assert_eq!((all[0].rule.as_str(), all[0].packets), ("cli allow 192.0.2.1/32", 1));
}

#[test]
fn configured_entries_replace_each_other_and_leave_others_alone() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.1", Scope::MX, None);
    let rows = |texts: &[&str]| {
        texts.iter().map(|text| lines::Line::new(net(text), Scope::SMTP)).collect()
    };
    bench.edge.replace(List::Deny, "config", rows(&["192.0.2.1/32", "192.0.2.2/32"])).unwrap();
    bench.edge.replace(List::Deny, "config", rows(&["192.0.2.3/32"])).unwrap();
    assert!(bench.denied("192.0.2.1", 25) && !bench.denied("192.0.2.1", 587));
    assert!(!bench.denied("192.0.2.2", 25) && bench.denied("192.0.2.3", 587));
}
