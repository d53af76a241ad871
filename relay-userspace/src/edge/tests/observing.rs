//! What is only observed is counted, and neither drops nor changes what does.

use super::*;

fn observing(prefix: &str, scope: Scope) -> AddRequest {
    AddRequest { observe: true, ..request(&[prefix], scope, None) }
}

#[test]
fn an_observed_row_counts_and_drops_nothing() {
    let mut bench = Bench::new();
    bench.edge.add(List::Deny, &observing("192.0.2.0/24", Scope::MX)).unwrap();
    assert!(bench.observed("192.0.2.9", 25) && !bench.denied("192.0.2.9", 25));
    assert_eq!(bench.edge.status().unwrap().guarded, "mx");
    let query = ExplainQuery { address: "192.0.2.9".parse().unwrap(), port: 25 };
    assert_eq!(bench.edge.judge(&query).unwrap().verdict, PacketVerdict::Observed);
    let told = bench.explain("192.0.2.9");
    assert_eq!((told.verdict, told.desired), (PacketVerdict::Observed, PacketVerdict::Observed));
    assert!(told.agrees && told.rows[0].row.observe);
    assert_eq!((told.rows[0].packets, told.rows[0].observed), (0, 1));
    let stats = bench.edge.stats().unwrap();
    assert_eq!(stats.observed_by_reason["manual"], 1);
    assert_eq!((stats.packets["dropped"], stats.packets["passed, observed only"]), (0, 1));
    assert_eq!((stats.rules[0].packets, stats.rules[0].observed), (0, 1));
    // Asked for in earnest, it is.
    bench.add(List::Deny, "192.0.2.0/24", Scope::MX, None);
    assert!(bench.denied("192.0.2.9", 25));
    assert_eq!(bench.rows(List::Deny).len(), 1);
}

#[test]
fn an_observed_row_neither_shields_nor_widens_nor_shortens_an_enforced_one() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.0/24", Scope::MX, None);
    bench.edge.add(List::Deny, &observing("192.0.2.9", Scope::SMTP)).unwrap();
    assert!(bench.denied("192.0.2.9", 25), "a wider row holds");
    assert!(bench.observed("192.0.2.9", 587) && !bench.observed("192.0.2.8", 587));
    // On one prefix: a ban, and an observed row of an administrator that ends before it.
    let short = AddRequest { ttl_s: Some(60), ..observing("203.0.113.9", Scope::TCP) };
    bench.edge.add(List::Deny, &short).unwrap();
    assert_eq!(bench.ban("203.0.113.9", Scope::MX).outcome, BanOutcome::Banned);
    let entry = bench.entry(List::Deny, "203.0.113.9/32").unwrap();
    assert_eq!(entry.scope, Scope::MX);
    assert_eq!(entry.observed, Scope::TCP.without(Scope::MX));
    bench.pass(Duration::from_secs(599));
    bench.edge.tick();
    assert!(bench.denied("203.0.113.9", 25) && !bench.observed("203.0.113.9", 587));
}

#[test]
fn the_whole_filter_can_observe() {
    let mut bench = Bench::with(1_000, |settings| settings.modes.observes = true);
    bench.add(List::Deny, "192.0.2.9", Scope::MX, None);
    assert!(bench.observed("192.0.2.9", 25));
    assert!(bench.edge.status().unwrap().observe);
    let told = bench.explain("192.0.2.9");
    assert_eq!((told.desired, told.agrees), (PacketVerdict::Observed, true));
    assert!(!told.rows[0].row.observe);
    // The next edge, with another configuration.
    let Bench { edge, probe, now, dir } = bench;
    drop(edge);
    let bench = Bench { edge: open(dir.path(), &probe, &now), probe, now, dir };
    assert!(bench.denied("192.0.2.9", 25) && !bench.edge.status().unwrap().observe);
}

#[test]
fn observed_bans_come_once_and_enforced_ones_are_not_weakened() {
    let mut bench = Bench::with(1_000, |settings| settings.observe_bans = true);
    assert_eq!(bench.ban("192.0.2.9", Scope::MX).outcome, BanOutcome::Banned);
    assert!(bench.observed("192.0.2.9", 25));
    // Its mail comes in, and is refused again: no reason to climb the ladder.
    assert_eq!(bench.ban("192.0.2.9", Scope::MX).outcome, BanOutcome::AlreadyBanned);
    assert_eq!(bench.explain("192.0.2.9").bans, 1);
    // In earnest from now on: what was observed only is banned, and as far as it was asked for.
    let Bench { edge, probe, now, dir } = bench;
    drop(edge);
    let mut bench = Bench { edge: open(dir.path(), &probe, &now), probe, now, dir };
    assert_eq!(bench.ban("192.0.2.9", Scope::SUBMISSION).outcome, BanOutcome::Banned);
    assert!(bench.denied("192.0.2.9", 587) && !bench.denied("192.0.2.9", 25));
    // And back: a ban in force is not turned into one that is only observed.
    let Bench { edge, probe, now, dir } = bench;
    drop(edge);
    let settings = EdgeSettings { observe_bans: true, ..settings(dir.path()) };
    let edge = open_with(settings, &probe, &now);
    let mut bench = Bench { edge, probe, now, dir };
    assert_eq!(bench.ban("192.0.2.9", Scope::SMTP).outcome, BanOutcome::AlreadyBanned);
    assert!(bench.denied("192.0.2.9", 587));
}

#[test]
fn files_say_which_lines_are_observed_and_exports_say_it_again() {
    let mut bench = Bench::new();
    bench.import("192.0.2.1\n192.0.2.2 observe ttl=1h # a try\n", false).unwrap();
    assert!(bench.denied("192.0.2.1", 25) && bench.observed("192.0.2.2", 25));
    let wall_s = START.wall_s();
    let lines: Vec<String> =
        bench.rows(List::Deny).iter().map(|row| lines::format(row, wall_s)).collect();
    assert_eq!(lines[1], "192.0.2.2/32 scope=smtp ttl=3600s observe # a try");
    let query = ImportQuery {
        name: "all".into(),
        scope: Scope::MX,
        replace: false,
        observe: true,
        force: false,
        confirm_within_s: None,
        session: None,
    };
    let lines = lines::parse("all", b"203.0.113.1\n198.51.100.1\n").unwrap();
    // The gateway among them: what drops nothing cuts nothing off.
    bench.edge.import(List::Deny, &query, lines).unwrap();
    assert!(bench.observed("203.0.113.1", 25) && bench.observed("198.51.100.1", 25));
    let problem = bench.edge.add(List::Allow, &observing("192.0.2.1", Scope::MX)).unwrap_err();
    assert_eq!(problem.code, Code::Invalid);
}

#[test]
fn mail_ports_are_looked_up_while_connections_are_limited() {
    let syn = Some(SynLimit { per_s: 5, burst: 5, free_per_s: 0 });
    let mut bench = Bench::with(1_000, |settings| settings.modes.syn = syn);
    assert_eq!(bench.edge.status().unwrap().guarded, "smtp");
    bench.add(List::Deny, "192.0.2.9", Scope::ALL, Some(60));
    assert_eq!(bench.probe.guarded().unwrap(), Scope::ALL);
    bench.pass(Duration::from_secs(60));
    bench.edge.tick();
    assert_eq!(bench.probe.guarded().unwrap(), Scope::SMTP);
    assert_eq!(bench.edge.status().unwrap().syn_rate, 5);
    // Whoever asks about a source learns of the limit, unless an entry speaks about it.
    assert_eq!(bench.explain("192.0.2.9").syn_rate, 5);
    bench.add(List::Allow, "192.0.2.9", Scope::ALL, None);
    assert_eq!(bench.explain("192.0.2.9").syn_rate, 0);
}
