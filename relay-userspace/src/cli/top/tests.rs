//! Answers in, a screen out.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use relay_common::entry::{List, Scope};

use super::model::{Model, Sample, rate_text};
use super::screen::{Touch, meaning};
use super::view::{Look, render};
use super::{plain, speaks_utf8};
use crate::control::api::*;
use crate::control::client::ClientError;

fn status() -> EdgeStatus {
    EdgeStatus {
        version: "0.1.0".into(),
        time: Time(1_800_000_000),
        started: Time(1_799_990_000),
        mode: "native".into(),
        interfaces: vec![InterfaceStatus {
            name: "eth0".into(),
            called: None,
            mode: "native".into(),
            state: "up".into(),
            program_id: Some(7),
        }],
        links_unheard: None,
        entries: [("allow".to_owned(), 3), ("deny".to_owned(), 1_000_000)].into(),
        sources: Default::default(),
        observe: false,
        syn_rate: 0,
        feeds: Vec::new(),
        guarded: "smtp".into(),
        live_bans: 12,
        rules: 4,
        rules_exhausted: false,
        health: Health { drift: 2, ..Health::default() },
    }
}

fn entry(what: &str, fate: FateName, per_s: f64, percent: f64) -> TopEntry {
    TopEntry { what: what.into(), fate, per_s, percent }
}

fn sample(at_s: u64, seen: u64, dropped: u64) -> Sample {
    let count = |name: &str, count| (name.to_owned(), count);
    let rule = RuleStats {
        rule: "import drop.txt".into(),
        packets: dropped,
        observed: 5,
        last_hit: Some(Time(1_800_000_000)),
    };
    Sample {
        at: Duration::from_secs(at_s),
        status: Some(status()),
        stats: EdgeStats {
            packets: [
                count("seen", seen),
                count("passed", seen - dropped),
                count("dropped", dropped),
                count("passed, observed only", 5),
            ]
            .into(),
            events: [count("told", 40), count("left out", 7), count("lost", 1)].into(),
            rules: vec![rule],
            ..EdgeStats::default()
        },
        top: Top {
            told: true,
            sources: vec![
                entry("203.0.113.66", FateName::Dropped, 320.0, 80.0),
                entry("2001:db8:1:66::/64", FateName::Observed, 2.0, 0.5),
            ],
            networks: vec![entry("203.0.113.0/24", FateName::Dropped, 320.0, 80.0)],
            ports: vec![entry("25", FateName::Dropped, 322.0, 80.5)],
        },
        feeds: Vec::new(),
    }
}

fn feed(name: &str, state: FeedState, in_force: u64, packets: u64) -> FeedReport {
    FeedReport {
        name: name.into(),
        source: format!("/srv/{name}"),
        list: List::Deny,
        scope: Scope::MX,
        observe: false,
        state,
        phase: FeedPhase::Idle,
        progress: None,
        ipv4: in_force,
        ipv6: 0,
        in_force,
        read: in_force,
        attempts: 1,
        accepted: None,
        refreshed: None,
        lease_ends: None,
        next_refresh: Time(1_800_000_000),
        refusal: None,
        refusals: 0,
        left_out: Vec::new(),
        packets,
        observed: 0,
        last_hit: None,
        fetch: None,
    }
}

/// With so many feeds more than the two that are always there.
fn with_feeds(more: usize) -> Model {
    let mut model = Model::default();
    for (at_s, hits) in [(10, 100), (12, 740)] {
        let mut feeds = vec![
            feed("spamhaus-drop", FeedState::Good, 1_048_576, hits),
            feed("partner", FeedState::Failing, 12, 0),
        ];
        feeds.extend((0..more).map(|n| feed(&format!("more-{n}"), FeedState::Good, 1, 7)));
        model.update(Sample { feeds, ..sample(at_s, 10 * hits, hits) });
    }
    model
}

fn model() -> Model {
    let mut model = Model::default();
    model.update(sample(10, 1_000, 100));
    model.update(sample(12, 3_000, 740));
    model
}

fn drawn(model: &Model, width: u16, height: u16, ascii: bool) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let look = Look { interval: Duration::from_secs(1), ascii };
    terminal.draw(|frame| render(frame, model, &look)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let line = |y| -> String { (0..width).map(|x| buffer[(x, y)].symbol()).collect() };
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

#[test]
fn a_terminal_of_the_usual_size_shows_everything() {
    let screen = drawn(&model(), 80, 24, true);
    let expected = [
        "Postern 0.1.0  native on eth0, looks up smtp",
        "allow 3  deny 1000000  bans 12  2 drift repaired",
        "PACKETS       /S            TOTAL",
        "seen        1000             3000                                              #",
        "passed       680             2260                                              #",
        "dropped      320              740                                              #",
        "observed       0                5",
        "limited        0                0",
        "events told 0/s (40), left out 0/s (7), lost 0/s (1)",
        "ports 25 dropped 80%",
        "",
        "SOURCE             FATE         /S    %  NETWORK            FATE         /S    %",
        "203.0.113.66       dropped     320  80%  203.0.113.0/24     dropped     320  80%",
        "2001:db8:1:66::/64 observed    2.0   0%",
        "",
        "",
        "",
        "",
        "RULE                             /S        HITS    OBSERVED LAST HIT",
        "import drop.txt                 320         740           5 2027-01-15T08:00:00Z",
        "",
        "",
        "",
        "q quit   every 1s",
    ];
    assert_eq!(screen, expected, "{}", screen.join("\n"));
}

#[test]
fn feeds_have_a_part_of_their_own_on_a_terminal_of_the_usual_size() {
    let screen = drawn(&with_feeds(0), 80, 24, true);
    let expected = [
        "ports 25 dropped 80%",
        "",
        "SOURCE             FATE         /S    %  NETWORK            FATE         /S    %",
        "203.0.113.66       dropped     320  80%  203.0.113.0/24     dropped     320  80%",
        "2001:db8:1:66::/64 observed    2.0   0%",
        "",
        "",
        "RULE                             /S        HITS    OBSERVED LAST HIT",
        "import drop.txt                 320         740           5 2027-01-15T08:00:00Z",
        "",
        "",
        "FEED                                       STATE    IN FORCE      /S        HITS",
        "partner                                    failing        12       0           0",
        "spamhaus-drop                              good      1048576     320         740",
        "q quit   every 1s",
    ];
    assert_eq!(screen[9..], expected, "{}", screen.join("\n"));
    // With more than there is room for, those that are not well and the busiest.
    let screen = drawn(&with_feeds(30), 80, 24, true).join("\n");
    for part in ["FEED (3 of 32)", "partner", "spamhaus-drop", "more-0", "import drop.txt"] {
        assert!(screen.contains(part), "{part}:\n{screen}");
    }
    let screen = drawn(&with_feeds(0), 45, 24, true).join("\n");
    assert!(screen.contains("spamhaus-drop") && screen.contains("740"), "{screen}");
    assert!(!drawn(&with_feeds(0), 80, 20, true).join("\n").contains("FEED"));
}

#[test]
fn no_size_is_too_small_and_narrow_ones_show_what_matters() {
    for width in (0..100).step_by(7) {
        for height in 0..40 {
            drawn(&model(), width, height, false);
            drawn(&with_feeds(width.into()), width, height, false);
            drawn(&Model::default(), width, height, true);
        }
    }
    let screen = drawn(&model(), 45, 20, true).join("\n");
    for part in ["203.0.113.66", "dropped", "import drop.txt", "q quit"] {
        assert!(screen.contains(part), "{part}:\n{screen}");
    }
    assert!(!screen.contains("NETWORK"), "{screen}");
}

#[test]
fn an_edge_that_is_away_is_told_and_the_figures_stay() {
    let mut model = model();
    model.fail(&ClientError::NotReachable { daemon: "edge", path: "/run/x".into() });
    let screen = drawn(&model, 80, 24, false).join("\n");
    assert!(screen.contains("edge not reachable; trying again"), "{screen}");
    assert!(screen.contains("740"), "{screen}");
    // Another edge, whose maps are new: no rate from a counter that went back.
    model.update(sample(20, 50, 10));
    assert!(model.trouble.is_none());
    assert_eq!((model.flows[0].total, model.flows[0].per_s), (50, None));
    model.update(sample(21, 60, 10));
    assert_eq!(model.flows[0].per_s, Some(10.0));
    assert_eq!(model.flows[0].history, [10, 1_000]);
}

#[test]
fn a_filter_that_tells_nothing_says_so() {
    let mut model = Model::default();
    model.update(Sample { top: Top::default(), ..sample(1, 2, 1) });
    assert!(drawn(&model, 80, 24, false).join("\n").contains("filter.events_per_second = 0"));
}

#[test]
fn keys_that_end_it_and_keys_that_do_not() {
    let key = |code, modifiers| meaning(&Event::Key(KeyEvent::new(code, modifiers)));
    let none = KeyModifiers::NONE;
    assert_eq!(key(KeyCode::Char('q'), none), Some(Touch::Quit));
    assert_eq!(key(KeyCode::Esc, none), Some(Touch::Quit));
    assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Touch::Quit));
    assert_eq!(key(KeyCode::Char('c'), none), None);
    assert_eq!(meaning(&Event::Resize(3, 3)), Some(Touch::Redraw));
}

#[test]
fn rates_fit_their_column() {
    for (rate, text) in [
        (None, "-"),
        (Some(0.01), "0"),
        (Some(0.5), "0.5"),
        (Some(9.99), "10.0"),
        (Some(812_345.6), "812346"),
        (Some(1_234_567.0), "1.2M"),
        (Some(2e9), "2.0G"),
    ] {
        assert_eq!(rate_text(rate), text);
        assert!(text.len() <= 7);
    }
}

#[test]
fn a_snapshot_has_the_same_figures() {
    let mut out = Vec::new();
    plain::print(&model(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    for part in ["native on eth0", "203.0.113.0/24", "import drop.txt", "320", "LAST HIT"] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let json = serde_json::to_value(plain::snapshot(&model())).unwrap();
    assert_eq!(json["packets"][2]["per_s"], 320.0);
    assert_eq!(json["top"]["sources"][0]["what"], "203.0.113.66");
    assert!(!text.contains("FEED"), "{text}");

    let mut out = Vec::new();
    plain::print(&with_feeds(0), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let feeds = "\nFEED           STATE    IN FORCE  A SECOND  HITS\n\
                 partner        failing  12        0         0\n\
                 spamhaus-drop  good     1048576   320       740\n";
    assert!(text.ends_with(feeds), "{text}");
    let json = serde_json::to_value(plain::snapshot(&with_feeds(0))).unwrap();
    let expected = serde_json::json!({
        "name": "spamhaus-drop", "state": "good", "in_force": 1_048_576, "hits": 740, "per_s": 320.0,
    });
    assert_eq!(json["feeds"][1], expected);
}

#[test]
fn the_locale_says_whether_there_is_more_than_ascii() {
    let with = |name: &'static str, value: &'static str| {
        speaks_utf8(move |of| (of == name).then(|| value.to_owned()))
    };
    assert!(with("LANG", "de_DE.UTF-8") && with("LC_ALL", "C.utf8"));
    assert!(!with("LANG", "C") && !with("NOTHING", ""));
}
