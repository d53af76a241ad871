//! Feeds from the network, as the relay hands them over.

use super::*;

const CONFIG: &str = "[[feed]]\nname = \"a\"\nsource = \"https://lists.example.net/a\"\n\
                      refresh = \"2h\"\nmax_size = \"1KiB\"\n";

fn fetch(bench: &Bench) -> FeedFetch {
    bench.report().fetch.unwrap()
}

#[test]
fn content_is_taken_with_its_validators_and_prolonged_by_word_of_none() {
    let mut bench = Bench::new(CONFIG);
    assert!(fetch(&bench).due && bench.report().state == FeedState::Empty);
    let answer = bench.deliver("192.0.2.0/24\n", Some("\"v1\"")).unwrap();
    assert_eq!(answer, FeedAnswer { outcome: FeedOutcome::Accepted, entries: 1 });
    assert!(bench.denied("192.0.2.9") && !fetch(&bench).due);
    assert_eq!(fetch(&bench).validators.etag.as_deref(), Some("\"v1\""));
    assert!(!bench.dir.path().join("feeds/a.incoming").exists());
    bench.hours(2);
    assert!(fetch(&bench).due);
    let mut bench = bench.again();
    assert!(fetch(&bench).due);
    assert_eq!(fetch(&bench).validators.etag.as_deref(), Some("\"v1\""));
    let answer = bench.answered(|edge, reply| {
        edge.feed_unchanged("a", Validators::default(), reply);
    });
    assert_eq!(answer.unwrap().outcome, FeedOutcome::Unchanged);
    assert!(!fetch(&bench).due);
    assert_eq!(bench.report().refreshed, Some(Time(bench.now.lock().unwrap().wall_s())));
    let bench = bench.again();
    assert!(!fetch(&bench).due, "a start asks nobody before the time");
}

#[test]
fn refused_content_answers_with_the_reason_and_failures_are_noted() {
    let mut bench = Bench::new(CONFIG);
    bench.deliver("192.0.2.0/24\n203.0.113.0/24\n198.18.0.0/15\n", None).unwrap();
    let refused = bench.deliver("192.0.2.0/24\n", Some("\"v2\"")).unwrap_err();
    assert_eq!(refused.code, Code::Refused);
    assert!(refused.message.contains("shrank"), "{refused}");
    // What was not taken must not be asked for conditionally.
    assert_eq!(fetch(&bench).validators, Validators::default());
    let noted = bench.answered(|edge, reply| {
        edge.feed_failed("a", "lists.example.net\u{1b}[2J: no route to host".into(), reply);
    });
    assert_eq!(noted.unwrap().outcome, FeedOutcome::Noted);
    assert_eq!(bench.why(), "lists.example.net[2J: no route to host");
    assert_eq!((bench.held(), bench.report().refusals), (3, 2));
    bench.edge.feed_refresh("a", &FeedRefresh { force: true }).unwrap();
    assert!(fetch(&bench).due);
    // Force is for content, and survives a failure to get any.
    bench.answered(|edge, reply| edge.feed_failed("a", "no".into(), reply)).unwrap();
    bench.deliver("192.0.2.0/24\n", None).unwrap();
    assert_eq!(bench.held(), 1);
}

#[test]
fn word_of_no_change_is_refused_where_nothing_is_kept() {
    let mut bench = Bench::new(CONFIG);
    let answer = bench.answered(|edge, reply| {
        edge.feed_unchanged("a", Validators::default(), reply);
    });
    assert!(answer.unwrap_err().message.contains("nothing of it is here"));
}

#[test]
fn one_at_a_time_writes_and_the_unknown_and_the_unsendable_are_refused() {
    let mut bench = Bench::new(CONFIG);
    let upload = bench.edge.feed_upload("a").unwrap();
    let held: (Incoming, _) = upload.begin().unwrap();
    assert_eq!(upload.begin().unwrap_err().code, Code::Busy);
    drop(held);
    assert_eq!(bench.deliver("", Some("a\r\nb: c")).unwrap_err().code, Code::Invalid);
    assert_eq!(bench.edge.feed_upload("b").unwrap_err().code, Code::NotFound);
    let bench = Bench::of_file("", "192.0.2.1\n");
    assert_eq!(bench.edge.feed_upload("a").unwrap_err().code, Code::Refused);
}
