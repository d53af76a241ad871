//! Bans: ladder, caps, and whom they never touch.

use super::*;
use crate::edge::sshd::SshSession;

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

#[test]
fn a_full_list_refuses_a_ban_unless_bans_may_make_room() {
    for make_room in [false, true] {
        let mut bench = Bench::with(3, |settings| settings.make_room = make_room);
        bench.add(List::Deny, "203.0.113.1", Scope::MX, Some(30));
        bench.ban("192.0.2.1", Scope::MX);
        bench.pass(Duration::from_secs(5));
        bench.ban("192.0.2.2", Scope::MX);
        // The other family has a room of its own.
        bench.pass(Duration::from_secs(61));
        bench.add(List::Deny, "203.0.113.1", Scope::MX, Some(30));
        assert_eq!(bench.ban("2001:db8::1", Scope::MX).outcome, BanOutcome::Banned);
        let before = bench.rows(List::Deny);
        // It sorts before the one that goes, which must be gone by then all the same.
        let answer = bench.edge.ban(&ban_request("192.0.2.0", Scope::MX));
        let health = bench.edge.status().unwrap().health;
        if make_room {
            let answer = answer.unwrap();
            assert_eq!((answer.outcome, answer.message), (BanOutcome::Banned, None));
            assert!(bench.denied("192.0.2.0", 25) && bench.denied("192.0.2.2", 25));
            assert!(bench.denied("203.0.113.1", 25), "an administrator's makes no room");
            assert_eq!(bench.entry(List::Deny, "192.0.2.1/32"), None);
            assert_eq!((health.bans_evicted, health.list_full), (1, 0));
        } else {
            let problem = answer.unwrap_err();
            assert_eq!(problem.code, Code::Full);
            assert!(problem.message.contains("room for 3"), "{problem}");
            assert_eq!(bench.rows(List::Deny), before);
            assert_eq!((health.bans_evicted, health.list_full), (0, 1));
        }
    }
}

#[test]
fn whoever_is_logged_in_over_ssh_is_spared_and_who_only_connects_is_not() {
    let session =
        |peer: &str, logged_in| SshSession { peer: peer.parse().unwrap(), port: 22, logged_in };
    let sessions = vec![session("192.0.2.7", true), session("192.0.2.8", false)];
    let mut bench = Bench::new();
    bench.edge.sessions = Box::new(move || sessions.clone());
    assert_eq!(bench.ban("192.0.2.7", Scope::MX).outcome, BanOutcome::Protected);
    assert_eq!(bench.ban("192.0.2.8", Scope::MX).outcome, BanOutcome::Banned);
    // By hand, the port matters, and both are asked about.
    bench.add(List::Deny, "192.0.2.0/25", Scope::SMTP, None);
    for (prefix, peer) in [("192.0.2.0/29", "192.0.2.7"), ("192.0.2.8/31", "192.0.2.8")] {
        let denial = request(&[prefix], Scope::TCP, None);
        let problem = bench.edge.add(List::Deny, &denial).unwrap_err();
        let why = format!("{prefix} holds {peer}, from which somebody is logged in over SSH");
        assert!(problem.message.starts_with(&why), "{problem}");
        bench.edge.add(List::Deny, &AddRequest { force: true, ..denial }).unwrap();
    }
}
