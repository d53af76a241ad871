//! Denials that wait to be confirmed.

use super::*;

fn waiting(prefix: &str, ttl_s: Option<u64>, within_s: u64) -> AddRequest {
    AddRequest { confirm_within_s: Some(within_s), ..request(&[prefix], Scope::TCP, ttl_s) }
}

fn confirm(bench: &mut Bench, ids: &[u64], all: bool) -> Result<Changed, Problem> {
    bench.edge.confirm(&ConfirmRequest { ids: ids.to_vec(), all })
}

#[test]
fn what_is_not_confirmed_ends_in_the_kernel_and_what_stood_there_stays() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.9", Scope::MX, Some(600));
    let changed = bench.edge.add(List::Deny, &waiting("192.0.2.9", None, 60)).unwrap();
    let pending = changed.pending.unwrap();
    assert_eq!((pending.id, pending.rows), (1, 1));
    assert_eq!(pending.until.0, START.wall_s() + 60);
    assert!(bench.denied("192.0.2.9", 22) && bench.denied("192.0.2.9", 25));
    bench.edge.add(List::Deny, &waiting("203.0.113.9", None, 60)).unwrap();
    assert_eq!(bench.edge.pending_changes().unwrap().len(), 2);
    bench.pass(Duration::from_secs(60));
    // With every daemon dead.
    assert!(!bench.denied("203.0.113.9", 22) && !bench.denied("192.0.2.9", 22));
    bench.edge.tick();
    assert!(bench.denied("192.0.2.9", 25) && !bench.denied("192.0.2.9", 22));
    let rows = bench.rows(List::Deny);
    assert_eq!((rows.len(), rows[0].source.as_str()), (1, "cli"));
    assert_eq!(bench.edge.pending_changes().unwrap(), []);
    assert_eq!(confirm(&mut bench, &[1], false).unwrap_err().code, Code::NotFound);
    assert_eq!(confirm(&mut bench, &[], true).unwrap_err().code, Code::NotFound);
}

#[test]
fn what_is_confirmed_lives_as_long_as_was_asked_counted_from_the_add() {
    let mut bench = Bench::new();
    bench.edge.add(List::Deny, &waiting("192.0.2.9", Some(600), 60)).unwrap();
    bench.edge.add(List::Deny, &waiting("203.0.113.9", None, 60)).unwrap();
    bench.edge.add(List::Deny, &waiting("203.0.113.7", Some(10), 60)).unwrap();
    bench.pass(Duration::from_secs(59));
    bench.edge.tick();
    let problem = confirm(&mut bench, &[], false).unwrap_err();
    assert!(problem.message.contains("3 changes"), "{problem}");
    assert_eq!(confirm(&mut bench, &[1, 9], false).unwrap_err().code, Code::NotFound);
    assert_eq!(confirm(&mut bench, &[1], false).unwrap().added, 1);
    // What was to live ten seconds has done so.
    assert_eq!(confirm(&mut bench, &[], true).unwrap().added, 1);
    bench.pass(Duration::from_secs(540));
    bench.edge.tick();
    assert!(bench.denied("192.0.2.9", 22) && bench.denied("203.0.113.9", 22));
    assert!(bench.rows(List::Deny).iter().all(|row| row.source == "cli"));
    bench.pass(Duration::from_secs(1));
    bench.edge.tick();
    assert!(!bench.denied("192.0.2.9", 22) && bench.denied("203.0.113.9", 22));
}

#[test]
fn an_import_that_replaces_does_so_once_it_is_confirmed() {
    let mut bench = Bench::new();
    bench.import("192.0.2.1\n192.0.2.2 ttl=1h\n192.0.2.3\n", false).unwrap();
    let query = ImportQuery {
        name: "drop.txt".into(),
        scope: Scope::SMTP,
        replace: true,
        observe: false,
        force: false,
        confirm_within_s: Some(30),
        session: None,
    };
    let mut import = || {
        let lines = lines::parse("drop.txt", b"192.0.2.2\n192.0.2.4\n").unwrap();
        bench.edge.import(List::Deny, &query, lines).unwrap().pending.unwrap().id
    };
    let (first, second) = (import(), import());
    assert!(bench.denied("192.0.2.1", 25) && bench.denied("192.0.2.4", 25));
    bench.pass(Duration::from_secs(29));
    bench.edge.tick();
    assert_ne!(first, second);
    let changed = confirm(&mut bench, &[second], false).unwrap();
    assert_eq!((changed.added, changed.updated, changed.removed), (1, 1, 2));
    bench.pass(Duration::from_secs(2));
    bench.edge.tick();
    let rows = bench.rows(List::Deny);
    let told: Vec<_> = rows.iter().map(|row| (row.prefix.to_string(), row.expires)).collect();
    assert_eq!(told, [("192.0.2.2/32".into(), None), ("192.0.2.4/32".into(), None)]);
    assert!(rows.iter().all(|row| row.source == "import:drop.txt"));
    assert!(!bench.denied("192.0.2.1", 25) && bench.denied("192.0.2.4", 25));
}

#[test]
fn a_wait_has_its_bounds_and_survives_a_restart() {
    let mut bench = Bench::new();
    for within_s in [0, 3_601, u64::MAX] {
        let problem = bench.edge.add(List::Deny, &waiting("192.0.2.9", None, within_s));
        assert_eq!(problem.unwrap_err().code, Code::Invalid);
    }
    let allow = bench.edge.add(List::Allow, &waiting("192.0.2.9", None, 60));
    assert_eq!(allow.unwrap_err().code, Code::Invalid);
    for n in 0..100 {
        bench.edge.add(List::Deny, &waiting(&format!("192.0.2.{n}"), None, 60)).unwrap();
    }
    let one_more = bench.edge.add(List::Deny, &waiting("192.0.2.100", None, 60)).unwrap_err();
    assert_eq!(one_more.code, Code::Refused);
    let Bench { edge, probe, now, dir } = bench;
    drop(edge);
    let mut bench = Bench { edge: open(dir.path(), &probe, &now), probe, now, dir };
    assert_eq!(confirm(&mut bench, &[7], false).unwrap().added, 1);
    let Bench { edge, probe, now, dir } = bench;
    drop(edge);
    now.lock().unwrap().wall_ms += 60_000;
    let bench = Bench { edge: open(dir.path(), &probe, &now), probe, now, dir };
    assert_eq!(bench.edge.pending_changes().unwrap(), []);
    assert_eq!(bench.rows(List::Deny).len(), 1);
}
