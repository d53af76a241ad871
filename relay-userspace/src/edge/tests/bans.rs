//! Bans: ladder, caps, and whom they never touch.

use super::*;

#[test]
fn the_ladder_lengthens_with_each_ban_and_forgets_after_a_month() {
    let mut bench = Bench::new();
    let mut durations = Vec::new();
    for _ in 0..4 {
        let answer = bench.ban("192.0.2.9", Scope::MX);
        assert_eq!(answer.outcome, BanOutcome::Banned);
        durations.push(answer.duration_s.unwrap());
        bench.pass(Duration::from_secs(answer.duration_s.unwrap()));
        bench.edge.tick();
        assert!(!bench.denied("192.0.2.9", 25));
    }
    assert_eq!(durations, [600, 3_600, 86_400, 86_400]);
    bench.pass(BanPolicy::default().forget_after + Duration::from_secs(1));
    assert_eq!(bench.ban("192.0.2.9", Scope::MX).duration_s, Some(600));
}

#[test]
fn whoever_is_banned_already_is_told_until_when_and_a_wider_scope_widens() {
    let mut bench = Bench::new();
    let first = bench.ban("2001:db8::1", Scope::MX);
    assert_eq!(first.prefix, net("2001:db8::/64"));
    bench.pass(Duration::from_secs(10));
    let again = bench.ban("2001:db8::2", Scope::MX);
    assert_eq!(again.outcome, BanOutcome::AlreadyBanned);
    assert_eq!(again.until, first.until);
    let wider = bench.ban("2001:db8::2", Scope::SUBMISSION);
    assert_eq!(wider.outcome, BanOutcome::Banned);
    assert!(bench.denied("2001:db8::3", 25) && bench.denied("2001:db8::3", 587));
    bench.add(List::Deny, "203.0.113.0/24", Scope::SMTP, None);
    let covered = bench.ban("203.0.113.9", Scope::MX);
    assert_eq!((covered.outcome, covered.until), (BanOutcome::AlreadyBanned, None));
}

#[test]
fn the_protected_and_the_allowed_are_never_banned() {
    let mut bench = Bench::new();
    bench.add(List::Allow, "203.0.113.0/24", Scope::SUBMISSION, None);
    bench.add(List::Allow, "2001:db8::5", Scope::ALL, None);
    for address in ["198.51.100.1", "::ffff:198.51.100.1", "203.0.113.9", "2001:db8::5"] {
        let answer = bench.ban(address, Scope::MX);
        assert_eq!(answer.outcome, BanOutcome::Protected, "{address}");
        assert!(answer.message.is_some());
    }
    assert!(bench.rows(List::Deny).is_empty());
    assert_eq!(bench.edge.status().unwrap().health.bans_protected, 4);
}

#[test]
fn caps_stop_a_storm_of_bans() {
    let mut bench = Bench::new();
    let mut outcomes = Vec::new();
    for n in 0..4 {
        outcomes.push(bench.ban(&format!("192.0.2.{n}"), Scope::MX).outcome);
    }
    assert_eq!(outcomes[2..], [BanOutcome::Banned, BanOutcome::Capped]);
    bench.pass(Duration::from_secs(61));
    bench.edge.tick();
    for n in 4..7 {
        outcomes.push(bench.ban(&format!("192.0.2.{n}"), Scope::MX).outcome);
    }
    assert_eq!(outcomes[4..], [BanOutcome::Banned, BanOutcome::Banned, BanOutcome::Capped]);
    let status = bench.edge.status().unwrap();
    assert_eq!((status.live_bans, status.health.bans_capped), (5, 2));
    bench.pass(Duration::from_secs(600));
    bench.edge.tick();
    assert_eq!(bench.ban("192.0.2.9", Scope::MX).outcome, BanOutcome::Banned);
}

#[test]
fn no_ban_reaches_further_than_the_policy() {
    let mut bench = Bench::new();
    assert_eq!(bench.ban("192.0.2.9", Scope::ALL).outcome, BanOutcome::Banned);
    assert!(bench.denied("192.0.2.9", 25) && !bench.denied("192.0.2.9", 22));
    let ssh = Scope::of_tcp_port(22);
    assert_eq!(bench.edge.ban(&ban_request("192.0.2.10", ssh)).unwrap_err().code, Code::Invalid);
}
