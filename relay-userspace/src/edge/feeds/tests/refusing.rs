//! What is refused leaves everything as it was, and is told.

use super::*;

fn lines(count: u32) -> String {
    (0..count).map(|n| format!("192.{}.{}.1\n", n / 256, n % 256)).collect()
}

#[test]
fn what_is_empty_malformed_small_large_or_gone_is_refused_with_its_reason() {
    let mut bench =
        Bench::of_file("min_entries = 10\nmax_entries = 200\nmax_size = \"4KiB\"", &lines(100));
    let held = bench.held();
    let long = format!("{}{}", lines(100), "#\n".repeat(4096));
    for (content, why) in [
        ("", "the list is empty"),
        ("<html>Too many requests</html>\n", "line 1: \"<html>"),
        ("192.0.0.1\n192.0.2.256\n", "line 2: \"192.0.2.256\""),
        (lines(9).as_str(), "fewer than the 10"),
        (lines(49).as_str(), "shrank from 100 prefixes to 49"),
        (lines(201).as_str(), "more than 200 prefixes"),
        (long.as_str(), "larger than 4096 bytes"),
    ] {
        bench.write(content);
        let before = bench.report().refusals;
        bench.refresh(false);
        let report = bench.report();
        assert!(bench.why().contains(why), "{why}: {}", bench.why());
        assert_eq!((report.refusals, report.state), (before + 1, FeedState::Failing));
        assert_eq!((bench.held(), report.ipv4), (held, 100), "{why}");
        let health = &bench.edge.status().unwrap().feeds[0];
        assert!(health.why.as_ref().unwrap().contains(why));
    }
    fs::remove_file(bench.dir.path().join("a")).unwrap();
    bench.refresh(false);
    assert!(bench.why().contains("cannot be read"), "{}", bench.why());
    bench.write(&lines(100));
    bench.refresh(false);
    // The reason stays to be read; the state says that it is over.
    assert_eq!((bench.report().state, bench.report().refusals), (FeedState::Good, 8));
}

#[test]
fn force_takes_a_feed_that_shrank_once() {
    let mut bench = Bench::of_file("", &lines(100));
    bench.write(&lines(20));
    bench.refresh(true);
    assert_eq!((bench.held(), bench.report().state), (20, FeedState::Good));
    bench.write(&lines(5));
    bench.refresh(false);
    assert_eq!((bench.held(), bench.report().state), (20, FeedState::Failing));
}

#[test]
fn a_pipe_a_folder_and_a_device_are_no_feed() {
    let mut bench = Bench::of_file("", &lines(3));
    let path = bench.dir.path().join("a");
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    bench.refresh(false);
    assert!(bench.why().contains("not a regular file"), "{}", bench.why());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    bench.refresh(false);
    assert!(bench.why().contains("not a regular file"), "{}", bench.why());
    assert_eq!(bench.held(), 3);
}

#[test]
fn a_refusal_is_tried_again_ever_more_slowly_up_to_the_interval() {
    let mut bench = Bench::of_file("", &lines(3));
    bench.write("nonsense\n");
    bench.refresh(false);
    let mut waits = Vec::new();
    for _ in 0..6 {
        let wait_s = bench.report().next_refresh.0 - bench.now.lock().unwrap().wall_s();
        waits.push(wait_s / 60);
        bench.pass(Duration::from_secs(wait_s));
        bench.settle();
    }
    assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
    bench.write(&lines(4));
    bench.hours(1);
    assert_eq!(bench.held(), 4);
}

#[test]
fn a_panic_is_a_refresh_that_failed_with_its_reason_and_the_next_one_goes_on() {
    let mut bench = Bench::of_file("", "192.0.2.0/24\n");
    bench.edge.feeds.work.run = |job, _| panic!("no line like that: {}", job.feed.name);
    bench.write("203.0.113.0/24\n");
    bench.refresh(false);
    assert_eq!(bench.why(), "Postern itself failed in reading it: no line like that: a");
    let report = bench.report();
    assert_eq!((report.state, report.phase), (FeedState::Failing, FeedPhase::Idle));
    assert_eq!((report.refusals, report.attempts), (1, 2));
    let health = bench.edge.status().unwrap().feeds.remove(0);
    assert_eq!((health.refusals, health.why), (1, Some(bench.why())));
    assert!(bench.denied("192.0.2.9") && !bench.denied("203.0.113.9"));
    // It is known after a restart, too, and tried again soon.
    let mut bench = bench.again();
    assert_eq!(bench.report().refusals, 1);
    bench.refresh(true);
    assert_eq!(bench.report().state, FeedState::Good);
    assert!(bench.denied("203.0.113.9"));
}

#[test]
fn the_thread_that_reads_outlives_a_panic_and_answers_whoever_waits() {
    let mut bench =
        Bench::new("[[feed]]\nname = \"a\"\nsource = \"https://lists.example.net/a\"\n");
    bench.edge.feeds.work.run = |job, store| match job.force {
        false => panic!("for a test"),
        true => crate::edge::feeds::accept::run(job, store),
    };
    bench.edge.read_feeds_beside().unwrap();
    for force in [false, true] {
        bench.edge.feed_refresh("a", &FeedRefresh { force }).unwrap();
        let (incoming, mut file) = bench.edge.feed_upload("a").unwrap().begin().unwrap();
        std::io::Write::write_all(&mut file, b"192.0.2.0/24\n").unwrap();
        let (reply, mut answer) = oneshot::channel();
        bench.edge.feed_content("a", incoming, Validators::default(), reply);
        let began = std::time::Instant::now();
        let answer = loop {
            bench.edge.tick();
            assert!(began.elapsed() < Duration::from_secs(10), "it is busy for ever");
            match answer.try_recv() {
                Ok(answer) => break answer,
                Err(oneshot::error::TryRecvError::Empty) => std::thread::yield_now(),
                Err(error) => panic!("nobody answers: {error}"),
            }
        };
        assert_eq!(answer.is_ok(), force, "{answer:?}");
        assert!(!bench.dir.path().join("feeds/a.incoming").exists());
    }
    bench.settle();
    assert!(bench.denied("192.0.2.9"));
}
