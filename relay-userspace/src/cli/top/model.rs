//! From answers to figures. Pure: the time is part of an answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::control::api::{
    EdgeStats, EdgeStatus, FeedReport, FeedState, InterfaceStatus, Time, Top,
};
use crate::control::client::ClientError;

/// Rates that are remembered for the curve: the widest terminal that anybody has.
const HISTORY_MAX: usize = 512;
/// What is shown of the packets, and what the edge calls it.
const FLOWS: [(&str, &str); 5] = [
    ("seen", "seen"),
    ("passed", "passed"),
    ("dropped", "dropped"),
    ("observed", "passed, observed only"),
    ("limited", "dropped, limited"),
];
const EVENTS: [&str; 3] = ["told", "left out", "lost"];

/// One set of answers.
#[derive(Debug)]
pub(super) struct Sample {
    /// On a clock that never steps.
    pub(super) at: Duration,
    pub(super) status: Option<EdgeStatus>,
    pub(super) stats: EdgeStats,
    pub(super) top: Top,
    pub(super) feeds: Vec<FeedReport>,
}

/// A counter over time.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) name: &'static str,
    pub(super) total: u64,
    /// `None` until there are two answers of one edge.
    pub(super) per_s: Option<f64>,
    /// Rates, newest first.
    pub(super) history: VecDeque<u64>,
}

#[derive(Debug)]
pub(super) struct RuleLine {
    pub(super) rule: String,
    pub(super) packets: u64,
    pub(super) observed: u64,
    pub(super) per_s: Option<f64>,
    pub(super) last_hit: Option<Time>,
}

#[derive(Debug)]
pub(super) struct FeedLine {
    pub(super) name: String,
    pub(super) state: FeedState,
    /// Prefixes.
    pub(super) in_force: u64,
    /// Packets that its entries decided, or would have.
    pub(super) hits: u64,
    pub(super) per_s: Option<f64>,
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) status: Option<EdgeStatus>,
    pub(super) flows: Vec<Flow>,
    pub(super) events: Vec<Flow>,
    pub(super) rules: Vec<RuleLine>,
    /// Those that are not well first, then by hits.
    pub(super) feeds: Vec<FeedLine>,
    pub(super) top: Top,
    /// Why the figures are old.
    pub(super) trouble: Option<String>,
    /// When the latest answers came, and what rules had then.
    latest: Option<(Duration, BTreeMap<String, u64>)>,
}

impl Default for Model {
    fn default() -> Self {
        let flow = |name| Flow { name, total: 0, per_s: None, history: VecDeque::new() };
        Self {
            status: None,
            flows: FLOWS.map(|(name, _)| flow(name)).into(),
            events: EVENTS.map(flow).into(),
            rules: Vec::new(),
            feeds: Vec::new(),
            top: Top::default(),
            trouble: None,
            latest: None,
        }
    }
}

impl Flow {
    fn update(&mut self, total: u64, passed: Option<Duration>) {
        self.per_s = passed.and_then(|passed| rate(self.total, total, passed));
        self.total = total;
        if let Some(per_s) = self.per_s {
            self.history.push_front(per_s.round() as u64);
            self.history.truncate(HISTORY_MAX);
        }
    }
}

/// `None` for a counter that began anew.
fn rate(before: u64, after: u64, passed: Duration) -> Option<f64> {
    let more = after.checked_sub(before)? as f64;
    (passed > Duration::ZERO).then(|| more / passed.as_secs_f64())
}

impl Model {
    /// Takes in what the edge has answered.
    pub(super) fn update(&mut self, sample: Sample) {
        let Sample { at, status, stats, top, feeds } = sample;
        let passed = self.latest.as_ref().map(|(before, _)| at.saturating_sub(*before));
        let count = |counts: &BTreeMap<String, u64>, name| counts.get(name).copied().unwrap_or(0);
        for (flow, (_, key)) in self.flows.iter_mut().zip(FLOWS) {
            flow.update(count(&stats.packets, key), passed);
        }
        for flow in &mut self.events {
            flow.update(count(&stats.events, flow.name), passed);
        }
        let before = self.latest.take().map(|(_, rules)| rules).unwrap_or_default();
        let packets = |rule: &str| before.get(rule).copied().unwrap_or(0);
        let mut now = BTreeMap::new();
        self.rules.clear();
        for rule in stats.rules {
            let all = rule.packets.saturating_add(rule.observed);
            let per_s = passed.and_then(|passed| rate(packets(&rule.rule), all, passed));
            now.insert(rule.rule.clone(), all);
            self.rules.push(RuleLine {
                rule: rule.rule,
                packets: rule.packets,
                observed: rule.observed,
                per_s,
                last_hit: rule.last_hit,
            });
        }
        self.update_feeds(feeds, passed);
        self.latest = Some((at, now));
        self.top = top;
        self.status = status.or(self.status.take());
        self.trouble = None;
    }

    fn update_feeds(&mut self, feeds: Vec<FeedReport>, passed: Option<Duration>) {
        let before = std::mem::take(&mut self.feeds);
        let line = |feed: FeedReport| {
            let hits = feed.packets.saturating_add(feed.observed);
            let before = before.iter().find(|line| line.name == feed.name);
            let per_s = before.zip(passed).and_then(|(line, passed)| rate(line.hits, hits, passed));
            FeedLine { name: feed.name, state: feed.state, in_force: feed.in_force, hits, per_s }
        };
        self.feeds = feeds.into_iter().map(line).collect();
        self.feeds.sort_by_key(|line| (line.state == FeedState::Good, Reverse(line.hits)));
    }

    /// The figures stay as they were, and say so.
    pub(super) fn fail(&mut self, error: &ClientError) {
        self.trouble = Some(match error {
            ClientError::NotReachable { .. } => "edge not reachable; trying again".to_owned(),
            other => format!("no answer from the edge: {other}"),
        });
        for flow in self.flows.iter_mut().chain(&mut self.events) {
            flow.per_s = None;
        }
    }
}

/// A rate in at most seven characters.
pub(super) fn rate_text(per_s: Option<f64>) -> String {
    match per_s {
        None => "-".to_owned(),
        Some(rate) if rate < 0.05 => "0".to_owned(),
        Some(rate) if rate < 10.0 => format!("{rate:.1}"),
        Some(rate) if rate < 1e6 => format!("{rate:.0}"),
        Some(rate) if rate < 1e9 => format!("{:.1}M", rate / 1e6),
        Some(rate) => format!("{:.1}G", rate / 1e9),
    }
}

/// What it is, where, and whether it is well.
pub(super) fn headline(status: &EdgeStatus) -> String {
    let name = |of: &InterfaceStatus| {
        let ill = if of.state == "up" { String::new() } else { format!(" ({})", of.state) };
        format!("{}{ill}", of.on())
    };
    let names: Vec<String> = status.interfaces.iter().map(name).collect();
    let place = if names.is_empty() { String::new() } else { format!(" on {}", names.join(", ")) };
    let observes = if status.observe { ", ONLY OBSERVING" } else { "" };
    let EdgeStatus { version, mode, guarded, .. } = status;
    format!("Postern {version}  {mode}{place}, looks up {guarded}{observes}")
}

/// What the lists hold.
pub(super) fn lists(status: &EdgeStatus) -> String {
    let lists = status.entries.iter().map(|(list, count)| format!("{list} {count}"));
    let mut parts: Vec<String> = lists.collect();
    parts.push(format!("bans {}", status.live_bans));
    for (count, what) in [
        (status.health.pending, "writes pending"),
        (status.health.write_failures, "writes failed"),
        (status.health.drift, "drift repaired"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.join("  ")
}

/// What was not told about, if anything.
pub(super) fn events(model: &Model) -> String {
    if !model.top.told && model.status.is_some() {
        return "events off (filter.events_per_second = 0)".to_owned();
    }
    let each = model.events.iter().map(|flow| {
        let Flow { name, total, per_s, .. } = flow;
        format!("{name} {}/s ({total})", rate_text(*per_s))
    });
    format!("events {}", each.collect::<Vec<_>>().join(", "))
}

/// The ports, on a line.
pub(super) fn ports(top: &Top) -> String {
    let each = top.ports.iter().take(4);
    let each = each.map(|entry| format!("{} {} {:.0}%", entry.what, entry.fate, entry.percent));
    format!("ports {}", each.collect::<Vec<_>>().join(", "))
}
