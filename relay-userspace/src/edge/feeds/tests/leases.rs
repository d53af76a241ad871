//! Entries end by themselves when no refresh succeeds for as long as the lease.

use super::*;

const LEASE: &str = "lease = \"4h\"";

#[test]
fn a_feed_that_is_never_refreshed_ends_in_the_filter_and_in_the_status() {
    let mut bench = Bench::of_file(LEASE, "192.0.2.0/24\n");
    fs::remove_file(bench.dir.path().join("a")).unwrap();
    for _ in 0..3 {
        bench.hours(1);
        assert!(bench.denied("192.0.2.9"));
    }
    let detach = false;
    assert_eq!(bench.edge.stopping(StopRequest { detach }).unwrap().feed_entries, 1);
    bench.pass(Duration::from_secs(3600));
    // The filter ends it, with every process dead.
    assert!(!bench.denied("192.0.2.9") && bench.held() == 1);
    bench.settle();
    assert_eq!((bench.held(), bench.report().state), (0, FeedState::Ended));
    assert_eq!(bench.edge.status().unwrap().guarded, "nothing");
    bench.write("192.0.2.0/24\n");
    bench.hours(1);
    assert!(bench.denied("192.0.2.9"));
    assert_eq!(bench.edge.status().unwrap().health.drift, 0);
}

#[test]
fn an_unchanged_file_prolongs_the_lease_which_is_written_when_half_is_used() {
    let mut bench = Bench::of_file(LEASE, "192.0.2.0/24\n");
    let first = bench.ends_s().unwrap();
    bench.hours(1);
    assert_eq!(bench.ends_s(), Some(first));
    bench.hours(1);
    bench.hours(1);
    let second = bench.ends_s().unwrap();
    assert!(second > first, "less than half is left");
    for _ in 0..20 {
        bench.hours(1);
        assert!(bench.denied("192.0.2.9"));
    }
    assert_eq!(bench.report().accepted, Some(Time(START.wall_s())));
}

#[test]
fn a_clock_that_is_set_converts_the_end_anew() {
    let mut bench = Bench::of_file(LEASE, "192.0.2.0/24\n");
    let before = bench.ends_s().unwrap();
    bench.now.lock().unwrap().wall_ms += 600_000;
    bench.settle();
    assert_eq!(before - bench.ends_s().unwrap(), 600);
    // A clock set back does not make the lease longer than it is.
    bench.now.lock().unwrap().wall_ms -= 100 * 3_600_000;
    bench.settle();
    let left = bench.ends_s().unwrap() - bench.now.lock().unwrap().boot_s();
    assert!(left <= 4 * 3600, "{left}");
}
