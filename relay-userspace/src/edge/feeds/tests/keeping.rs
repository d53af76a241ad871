//! What was accepted survives restarts, and what is damaged harms nobody else.

use super::*;

fn folder(bench: &Bench) -> std::path::PathBuf {
    bench.dir.path().join("feeds")
}

#[test]
fn a_restart_recognises_what_is_in_force_and_writes_nothing() {
    let mut bench = Bench::of_file("", "192.0.2.0/24\n203.0.113.0/24\n");
    bench.settle();
    bench.pass(Duration::from_millis(1_700));
    let ends = bench.ends_s();
    bench.probe.broken(true);
    let bench = bench.again();
    // Writing would have failed; half a second of the clock would have moved the ends.
    assert_eq!((bench.held(), bench.ends_s()), (2, ends));
    assert_eq!(bench.edge.feeds.in_force.as_ref().unwrap().print.entries, 2);
    assert_eq!(bench.report().state, FeedState::Good);
}

#[test]
fn a_reboot_publishes_what_was_kept_before_the_start_is_over() {
    let bench = Bench::of_file("", "192.0.2.0/24\n2001:db8::/32\n");
    {
        let mut now = bench.now.lock().unwrap();
        *now = Now { wall_ms: now.wall_ms + 60_000, boot_ms: 9_000 };
    }
    fs::remove_file(bench.dir.path().join("a")).unwrap();
    let config = bench.config.clone();
    let bench = bench.restart(&config, false);
    assert!(bench.denied("192.0.2.9") && bench.denied("2001:db8::1"));
    assert_eq!(bench.ends_s(), Some(9 + 3 * 24 * 3600 - 60));
}

#[test]
fn a_process_killed_while_filling_leaves_the_old_and_the_next_start_makes_the_new() {
    let mut bench = Bench::of_file("", "192.0.2.0/24\n");
    bench.write("203.0.113.0/24\n");
    bench.edge.feed_refresh("a", &FeedRefresh::default()).unwrap();
    for _ in 0..3 {
        bench.edge.tick();
    }
    assert_eq!(bench.probe.feed_count().unwrap(), 1, "it must be killed half-way");
    assert!(bench.denied("192.0.2.9"));
    let mut bench = bench.again();
    assert!(!bench.denied("192.0.2.9") && bench.denied("203.0.113.9"));
    bench.settle();
    assert_eq!((bench.probe.feed_count().unwrap(), bench.held()), (0, 1));
}

#[test]
fn damage_is_said_and_the_file_is_read_anew_or_else_that_feed_alone_is_empty() {
    let config = "[[feed]]\nname = \"a\"\nsource = \"{dir}/a\"\n\
                  [[feed]]\nname = \"b\"\nsource = \"{dir}/b\"\n";
    for damage in ["cut", "other", "gone", "json"] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "192.0.2.0/24\n198.18.0.0/15\n").unwrap();
        fs::write(dir.path().join("b"), "203.0.113.0/24\n").unwrap();
        let mut bench = Bench::in_dir(config, dir);
        bench.settle();
        let content = folder(&bench).join("a.cidr");
        match damage {
            "cut" => fs::write(content, "192.0.2.0/24\n198.18").unwrap(),
            "other" => fs::write(content, "192.0.2.0/24\n").unwrap(),
            "gone" => fs::remove_file(content).unwrap(),
            _ => fs::write(folder(&bench).join("a.json"), "{").unwrap(),
        }
        // Its file is read at the start: no packet slips through.
        let bench = bench.again();
        assert!(bench.denied("192.0.2.9") && bench.denied("198.19.0.1"), "{damage}");
        assert!(bench.denied("203.0.113.9"), "{damage}");
        assert!(bench.why().contains("damaged"), "{damage}");
        fs::write(folder(&bench).join("a.cidr"), "192").unwrap();
        fs::remove_file(bench.dir.path().join("a")).unwrap();
        let bench = bench.again();
        assert!(!bench.denied("192.0.2.9") && bench.denied("203.0.113.9"), "{damage}");
        assert_eq!(bench.report().state, FeedState::Empty, "{damage}");
    }
}

#[test]
fn a_crash_between_the_two_renames_loses_nothing() {
    let bench = Bench::of_file("", "192.0.2.0/24\n");
    let old = fs::read(folder(&bench).join("a.json")).unwrap();
    let mut bench = bench;
    bench.write("203.0.113.0/24\n");
    bench.refresh(false);
    let at = folder(&bench);
    fs::rename(at.join("a.json"), at.join("a.json.new")).unwrap();
    fs::write(at.join("a.json"), old).unwrap();
    let bench = bench.again();
    assert!(bench.denied("203.0.113.9"));
    assert_eq!(bench.report().state, FeedState::Good);
}

#[test]
fn another_source_is_not_measured_by_the_old_ones_content_which_stays_until_then() {
    let many: String = (0..100).map(|n| format!("192.0.{n}.0/24\n192.1.{n}.7\n")).collect();
    let bench = Bench::of_file("", &many);
    fs::write(bench.dir.path().join("b"), "203.0.113.0/24\n").unwrap();
    let config = bench.config.replace("{dir}/a", "{dir}/b");
    let mut bench = bench.restart(&config, true);
    assert!(bench.denied("192.1.7.7"));
    bench.settle();
    assert!(!bench.denied("192.1.7.7") && bench.denied("203.0.113.9"));
}

fn files(bench: &Bench) -> Vec<String> {
    let files = fs::read_dir(folder(bench)).unwrap();
    let mut names: Vec<_> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn rules(bench: &Bench) -> Vec<(u32, String)> {
    bench.edge.store.rules().unwrap()
}

fn knock(bench: &mut Bench, address: &str) {
    let query = ExplainQuery { address: address.parse().unwrap(), port: 25 };
    bench.edge.judge(&query).unwrap();
}

#[test]
fn what_is_kept_of_a_feed_that_is_gone_goes_at_the_next_start_and_its_counter_is_free() {
    let config = "[[feed]]\nname = \"a\"\nsource = \"{dir}/a\"\n\
                  [[feed]]\nname = \"b\"\nsource = \"{dir}/b\"\n";
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "192.0.2.0/24\n").unwrap();
    fs::write(dir.path().join("b"), "203.0.113.0/24\n").unwrap();
    let mut bench = Bench::in_dir(config, dir);
    bench.settle();
    knock(&mut bench, "192.0.2.9");
    knock(&mut bench, "203.0.113.9");
    for other in ["b.cidr.new", "b.json.new", "b.txt", "README"] {
        fs::write(folder(&bench).join(other), "x").unwrap();
    }
    assert_eq!(rules(&bench), [(1, "feed a".to_owned()), (2, "feed b".to_owned())]);
    let only_a = &config[..config.rfind("[[feed]]").unwrap()];
    let mut bench = bench.restart(only_a, true);
    assert!(bench.denied("192.0.2.9") && !bench.denied("203.0.113.9"));
    assert_eq!(files(&bench), ["README", "a.cidr", "a.json", "b.txt", "in_force.json"]);
    assert_eq!(rules(&bench), [(1, "feed a".to_owned())]);
    assert_eq!(bench.report().packets, 1);
    // Whoever gets the counter next begins with none.
    bench.edge.add(List::Deny, &request(&["198.51.100.9"], Scope::MX, None)).unwrap();
    let stats = bench.edge.stats().unwrap().rules;
    assert_eq!(rules(&bench)[1], (2, "cli 198.51.100.9/32".to_owned()));
    assert_eq!(stats.len(), 1, "{stats:?}");
}

#[test]
fn a_filter_that_still_has_the_feed_keeps_its_counter() {
    let bench = Bench::of_file("", "192.0.2.0/24\n");
    bench.probe.broken(true);
    let bench = bench.restart("", true);
    assert!(bench.denied("192.0.2.9"));
    assert_eq!(rules(&bench), [(1, "feed a".to_owned())]);
    bench.probe.broken(false);
    let bench = bench.restart("", true);
    assert!(!bench.denied("192.0.2.9"));
    assert_eq!(rules(&bench), []);
}

#[test]
fn a_feed_that_was_only_renamed_keeps_its_content_its_counter_and_what_its_publisher_said() {
    let config = "[[feed]]\nname = \"a\"\nsource = \"https://lists.example.net/a\"\n";
    let mut bench = Bench::new(config);
    bench.deliver("192.0.2.0/24\n", Some("\"v1\"")).unwrap();
    knock(&mut bench, "192.0.2.9");
    let renamed = config.replace("name = \"a\"", "name = \"b\"");
    let bench = bench.restart(&renamed, true);
    assert!(bench.denied("192.0.2.9"));
    let report = bench.edge.feed_report("b").unwrap();
    assert_eq!((report.state, report.packets, report.in_force), (FeedState::Good, 1, 1));
    let fetch = report.fetch.unwrap();
    assert!(!fetch.due && fetch.validators.etag.as_deref() == Some("\"v1\""));
    assert_eq!(rules(&bench), [(1, "feed b".to_owned())]);
    assert_eq!(files(&bench), ["b.cidr", "b.json", "in_force.json"]);

    // Killed between the two: the content has the new name, and what is known about it the old.
    fs::rename(folder(&bench).join("b.json"), folder(&bench).join("a.json")).unwrap();
    let bench = bench.again();
    assert_eq!(bench.edge.feed_report("b").unwrap().state, FeedState::Good);
    // Another source under the old name is another feed.
    let other = renamed.replace("/a\"", "/c\"").replace("\"b\"", "\"c\"");
    let bench = bench.restart(&other, true);
    assert!(!bench.denied("192.0.2.9"));
    assert_eq!(files(&bench), ["in_force.json"]);
}
