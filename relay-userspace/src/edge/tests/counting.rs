//! Counters go on after the filter was taken off, the machine started anew, or another rule had the
//! number.

use relay_common::totals::Counter;

use super::*;

/// One connection to port 25, counted.
fn knock(bench: &mut Bench, address: &str) {
    let query = ExplainQuery { address: address.parse().unwrap(), port: 25 };
    bench.edge.judge(&query).unwrap();
}

/// Hits and the last one, of the rule of the only row.
fn counted(bench: &Bench) -> (u64, Option<Time>) {
    let page = bench.edge.page(List::Deny, &ListQuery::default()).unwrap();
    let rule = page.rules.first().expect("a rule");
    (rule.packets, rule.last_hit)
}

/// What comes after the end of the edge: another one, and a filter that knows nothing of before.
fn next(bench: Bench) -> Bench {
    let Bench { edge, now, dir, .. } = bench;
    edge.end(true).unwrap();
    after_a_kill(now, dir)
}

fn after_a_kill(now: Arc<Mutex<Now>>, dir: tempfile::TempDir) -> Bench {
    let probe = Probe::new(1_000);
    Bench { edge: open(dir.path(), &probe, &now), probe, now, dir }
}

#[test]
fn counters_go_on_where_the_filter_was_taken_off() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.1", Scope::SMTP, None);
    let hit = Some(Time(START.wall_s()));
    for rounds in 1..=3 {
        knock(&mut bench, "192.0.2.1");
        knock(&mut bench, "192.0.2.2");
        bench = next(bench);
        assert_eq!(counted(&bench), (rounds, hit));
        let stats = bench.edge.stats().unwrap();
        assert_eq!((stats.packets["dropped"], stats.packets["seen"]), (rounds, 2 * rounds));
        assert_eq!(stats.dropped_by_reason["manual"], rounds);
    }
}

#[test]
fn a_filter_that_stood_keeps_its_own_counters() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.1", Scope::SMTP, None);
    knock(&mut bench, "192.0.2.1");
    let Bench { edge, probe, now, dir } = bench;
    edge.end(false).unwrap();
    // It went on while there was no edge.
    let mut filter = probe.clone();
    let boot_s = now.lock().unwrap().boot_s();
    filter.judge("192.0.2.1".parse().unwrap(), 25, boot_s).unwrap();
    let bench = Bench { edge: open(dir.path(), &probe, &now), probe, now, dir };
    assert_eq!(counted(&bench).0, 2);
}

#[test]
fn the_last_hit_outlives_a_reboot() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.1", Scope::SMTP, None);
    knock(&mut bench, "192.0.2.1");
    bench.pass(Duration::from_secs(3600));
    // The machine was started 20 seconds ago.
    let Bench { edge, now, dir, .. } = bench;
    edge.end(true).unwrap();
    now.lock().unwrap().boot_ms = 20_000;
    let mut bench = after_a_kill(now, dir);
    assert_eq!(counted(&bench), (1, Some(Time(START.wall_s()))));
    knock(&mut bench, "192.0.2.1");
    assert_eq!(counted(&bench), (2, Some(Time(START.wall_s() + 3600))));
}

#[test]
fn a_clock_that_is_set_right_after_each_start_moves_no_last_hit() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.1", Scope::SMTP, None);
    knock(&mut bench, "192.0.2.1");
    let hour_ms = 3_600_000;
    for _ in 0..3 {
        // An hour ahead at each start of the machine.
        let Bench { edge, now, dir, .. } = bench;
        edge.end(true).unwrap();
        let boot_ms = std::mem::replace(&mut now.lock().unwrap().boot_ms, 20_000);
        now.lock().unwrap().wall_ms += hour_ms;
        bench = after_a_kill(now, dir);
        bench.now.lock().unwrap().wall_ms -= hour_ms;
        bench.now.lock().unwrap().boot_ms = boot_ms;
        bench.edge.tick();
    }
    assert_eq!(counted(&next(bench)), (1, Some(Time(START.wall_s()))));
}

#[test]
fn each_counter_is_judged_by_itself() {
    let mut bench = Bench::new();
    for address in ["192.0.2.1", "192.0.2.2"] {
        bench.add(List::Deny, address, Scope::SMTP, None);
        knock(&mut bench, address);
    }
    let Bench { edge, probe, now, dir } = bench;
    edge.end(false).unwrap();
    // Of a filter that stands somebody has removed the totals, or the hits of one rule.
    let mut filter = probe.clone();
    let boot_s = now.lock().unwrap().boot_s();
    filter.judge("192.0.2.2".parse().unwrap(), 25, boot_s).unwrap();
    filter.set_totals(&Totals::default()).unwrap();
    filter.set_rule(1, RuleHits::default()).unwrap();
    let bench = Bench { edge: open(dir.path(), &probe, &now), probe, now, dir };
    let stats = bench.edge.stats().unwrap();
    assert_eq!(stats.packets["dropped"], 2);
    assert_eq!(stats.rules.iter().map(|rule| rule.packets).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn without_an_end_the_copy_of_minutes_ago_holds() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.1", Scope::SMTP, None);
    knock(&mut bench, "192.0.2.1");
    bench.edge.tick();
    bench.pass(Duration::from_secs(301));
    bench.edge.tick();
    knock(&mut bench, "192.0.2.1");
    // The power went.
    let Bench { edge, now, dir, .. } = bench;
    drop(edge);
    let bench = after_a_kill(now, dir);
    assert_eq!(counted(&bench).0, 1);
    assert_eq!(bench.edge.stats().unwrap().packets["dropped"], 1);
}

#[test]
fn lists_that_begin_anew_do_not_inherit_what_the_filter_counted() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.1", Scope::SMTP, None);
    knock(&mut bench, "192.0.2.1");
    let Bench { edge, probe, now, .. } = bench;
    edge.end(false).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench { edge: open(dir.path(), &probe, &now), probe, now, dir };
    bench.add(List::Deny, "192.0.2.7", Scope::SMTP, None);
    assert_eq!(counted(&bench), (0, None));
}

#[test]
fn a_count_that_no_counter_bears_is_left_alone() {
    let mut bench = Bench::new();
    knock(&mut bench, "192.0.2.2");
    let Bench { edge, now, dir, .. } = bench;
    edge.end(true).unwrap();
    let lists = rusqlite::Connection::open(dir.path().join("lists.db")).unwrap();
    lists.execute("INSERT INTO total VALUES ('of another version', 5)", []).unwrap();
    lists.execute("UPDATE total SET packets = -1 WHERE counter = 'not-ip'", []).unwrap();
    drop(lists);
    let bench = next(after_a_kill(now, dir));
    let passed = bench.probe.totals().unwrap();
    assert_eq!((passed.seen(), passed.get(Counter::NotIp)), (1, 0));
    let lists = rusqlite::Connection::open(bench.dir.path().join("lists.db")).unwrap();
    let kept = "SELECT packets FROM total WHERE counter = 'of another version'";
    assert_eq!(lists.query_row(kept, [], |row| row.get::<_, i64>(0)).unwrap(), 5);
}
