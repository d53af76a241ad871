//! Rows reach the maps, end there, and survive what can happen to either.

use super::*;

#[test]
fn an_entry_is_enforced_until_it_ends_and_its_row_goes_with_it() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.0/24", Scope::MX, Some(600));
    assert!(bench.denied("192.0.2.9", 25) && !bench.denied("192.0.2.9", 587));
    bench.pass(Duration::from_secs(599));
    bench.edge.tick();
    assert!(bench.denied("192.0.2.9", 25));
    bench.pass(Duration::from_secs(1));
    // The kernel ends it, the daemon may be dead; then the daemon sweeps.
    assert!(!bench.denied("192.0.2.9", 25));
    assert!(bench.entry(List::Deny, "192.0.2.0/24").is_some());
    assert_eq!(bench.edge.next_wake(), Duration::ZERO);
    bench.edge.tick();
    assert_eq!(bench.entry(List::Deny, "192.0.2.0/24"), None);
    assert!(bench.rows(List::Deny).is_empty());
    assert_eq!(bench.edge.status().unwrap().health.drift, 0);
}

#[test]
fn a_ban_under_an_administrators_entry_merges_and_separates_again() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.9", Scope::SUBMISSION, None);
    let answer = bench.ban("192.0.2.9", Scope::MX);
    assert_eq!(answer.outcome, BanOutcome::Banned);
    assert!(bench.denied("192.0.2.9", 25) && bench.denied("192.0.2.9", 587));
    bench.pass(Duration::from_secs(600));
    bench.edge.tick();
    assert!(!bench.denied("192.0.2.9", 25) && bench.denied("192.0.2.9", 587));
    assert_eq!(bench.entry(List::Deny, "192.0.2.9/32").unwrap().expires_s, 0);
}

#[test]
fn a_restart_restores_what_lives_and_removes_what_the_lists_do_not_have() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.0/24", Scope::SMTP, None);
    bench.add(List::Deny, "2001:db8::/32", Scope::SMTP, Some(60));
    bench.add(List::Allow, "192.0.2.7", Scope::ALL, None);
    let Bench { edge, now, dir, .. } = bench;
    drop(edge);
    {
        let mut now = now.lock().unwrap();
        // A reboot, and a minute gone: boot time starts anew, wall time does not.
        *now = Now { wall_ms: now.wall_ms + 61_000, boot_ms: 9_000 };
    }
    let probe = Probe::new(1_000);
    let stale = Entry::new(Scope::ALL, Reason::Manual, 9);
    probe.with(|filter| filter.put(List::Deny, net("203.0.113.5/32"), stale).unwrap());
    let bench = Bench { edge: open(dir.path(), &probe, &now), probe, now, dir };
    assert!(bench.denied("192.0.2.9", 25) && !bench.denied("192.0.2.7", 25));
    assert!(!bench.denied("2001:db8::1", 25) && !bench.denied("203.0.113.5", 25));
    assert_eq!(bench.rows(List::Deny).len(), 1);
    assert_eq!(bench.edge.status().unwrap().health.drift, 0);
}

#[test]
fn a_failed_write_is_told_shows_in_the_status_and_heals() {
    let mut bench = Bench::new();
    bench.probe.broken(true);
    let changed = bench.add(List::Deny, "192.0.2.0/24", Scope::SMTP, None);
    assert!(changed.warning.unwrap().contains("broken for a test"));
    let health = bench.edge.status().unwrap().health;
    assert_eq!(health.pending, 1);
    assert!(health.write_failures > 0 && health.last_failure.is_some());
    assert!(!bench.denied("192.0.2.9", 25));
    bench.probe.broken(false);
    bench.pass(Duration::from_secs(6));
    bench.edge.tick();
    assert!(bench.denied("192.0.2.9", 25));
    let health = bench.edge.status().unwrap().health;
    assert_eq!((health.pending, health.drift), (0, 0));
}

#[test]
fn drift_is_repaired_and_counted() {
    let mut bench = Bench::new();
    for n in 0..4 {
        bench.add(List::Deny, &format!("192.0.2.{n}"), Scope::SMTP, None);
    }
    let odd = Entry::new(Scope::ALL, Reason::Manual, 77);
    bench.probe.with(|filter| {
        filter.remove(List::Deny, net("192.0.2.1/32")).unwrap();
        filter.put(List::Deny, net("192.0.2.2/32"), odd).unwrap();
        filter.put(List::Allow, net("203.0.113.0/24"), odd).unwrap();
    });
    bench.pass(Duration::from_secs(61));
    bench.edge.tick();
    assert!(bench.denied("192.0.2.1", 25) && !bench.denied("192.0.2.2", 22));
    assert_eq!(bench.entry(List::Allow, "203.0.113.0/24"), None);
    assert_eq!(bench.edge.status().unwrap().health.drift, 3);
    bench.pass(Duration::from_secs(61));
    bench.edge.tick();
    assert_eq!(bench.edge.status().unwrap().health.drift, 3);
}

#[test]
fn a_clock_that_is_set_moves_no_end() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.9", Scope::SMTP, Some(7_200));
    let before = bench.entry(List::Deny, "192.0.2.9/32").unwrap().expires_s;
    bench.now.lock().unwrap().wall_ms += 3_600_000;
    bench.edge.tick();
    // The row ends at a wall time, and that is now an hour nearer.
    let after = bench.entry(List::Deny, "192.0.2.9/32").unwrap().expires_s;
    assert_eq!(before - after, 3_600);
    let health = bench.edge.status().unwrap().health;
    assert_eq!((health.clock_steps, health.drift), (1, 0));
}

#[test]
fn the_guarded_scope_follows_the_deny_list() {
    let mut bench = Bench::new();
    let guarded = |bench: &Bench| bench.edge.status().unwrap().guarded;
    assert_eq!(guarded(&bench), "nothing");
    bench.add(List::Deny, "192.0.2.9", Scope::MX, None);
    bench.add(List::Allow, "192.0.2.10", Scope::ALL, None);
    assert_eq!(guarded(&bench), "mx");
    bench.add(List::Deny, "192.0.2.11", Scope::ALL, Some(60));
    assert_eq!(guarded(&bench), "all");
    assert!(bench.denied("192.0.2.11", 22));
    bench.pass(Duration::from_secs(60));
    bench.edge.tick();
    assert_eq!(guarded(&bench), "mx");
}

#[test]
fn lists_longer_than_the_maps_are_enforced_as_far_as_they_go_and_can_be_shortened() {
    let mut bench = Bench::new();
    for n in 0..4 {
        bench.add(List::Deny, &format!("192.0.2.{n}"), Scope::SMTP, None);
    }
    let Bench { edge, now, dir, .. } = bench;
    drop(edge);
    let probe = Probe::new(2);
    let mut bench = Bench { edge: open(dir.path(), &probe, &now), probe, now, dir };
    assert_eq!(bench.edge.status().unwrap().health.pending, 2);
    assert_eq!(bench.add(List::Allow, "203.0.113.1", Scope::ALL, None).added, 1);
    let request = request(&["192.0.2.9"], Scope::SMTP, None);
    assert_eq!(bench.edge.add(List::Deny, &request).unwrap_err().code, Code::Full);
    for n in 0..2 {
        assert_eq!(bench.remove(List::Deny, &format!("192.0.2.{n}")).removed, 1);
    }
    bench.pass(Duration::from_secs(6));
    bench.edge.tick();
    assert_eq!(bench.edge.status().unwrap().health.pending, 0);
    assert!(bench.denied("192.0.2.2", 25) && bench.denied("192.0.2.3", 25));
}

#[test]
fn a_file_that_replaces_all_of_a_full_list_is_in_force_at_once() {
    let mut bench = Bench::with_room(4);
    bench.import("192.0.2.1\n192.0.2.2\n192.0.2.3\n192.0.2.4\n", true).unwrap();
    bench.add(List::Allow, "198.51.100.7", Scope::ALL, None);
    let changed = bench.import("10.0.0.1\n10.0.0.2\n10.0.0.3\n192.0.2.4\n", true).unwrap();
    assert_eq!((changed.added, changed.removed, changed.warning), (3, 3, None));
    for (address, denied) in [("10.0.0.3", true), ("192.0.2.4", true), ("192.0.2.1", false)] {
        assert_eq!(bench.denied(address, 25), denied, "{address}");
    }
    let health = bench.edge.status().unwrap().health;
    assert_eq!((health.write_failures, health.list_full), (0, 0));
}
