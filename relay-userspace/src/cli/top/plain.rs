//! One snapshot, for a pipe.

use std::io::{self, Write};

use serde::Serialize;

use super::super::output::table;
use super::model::{Flow, Model, events, headline, lists, ports, rate_text};
use crate::control::api::{EdgeStatus, FeedState, Time, Top, TopEntry};

/// All figures.
#[derive(Serialize)]
pub(super) struct Snapshot<'a> {
    status: Option<&'a EdgeStatus>,
    packets: Vec<Figure<'a>>,
    events: Vec<Figure<'a>>,
    top: &'a Top,
    rules: Vec<RuleFigure<'a>>,
    feeds: Vec<FeedFigure<'a>>,
}

#[derive(Serialize)]
struct Figure<'a> {
    name: &'a str,
    total: u64,
    per_s: Option<f64>,
}

#[derive(Serialize)]
struct RuleFigure<'a> {
    rule: &'a str,
    packets: u64,
    observed: u64,
    per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_hit: Option<Time>,
}

#[derive(Serialize)]
struct FeedFigure<'a> {
    name: &'a str,
    state: FeedState,
    in_force: u64,
    hits: u64,
    per_s: Option<f64>,
}

pub(super) fn snapshot(model: &Model) -> Snapshot<'_> {
    let figure = |flow| {
        let &Flow { name, total, per_s, .. } = flow;
        Figure { name, total, per_s }
    };
    let rules = model.rules.iter().map(|rule| RuleFigure {
        rule: &rule.rule,
        packets: rule.packets,
        observed: rule.observed,
        per_s: rule.per_s,
        last_hit: rule.last_hit,
    });
    let feeds = model.feeds.iter().map(|feed| FeedFigure {
        name: &feed.name,
        state: feed.state,
        in_force: feed.in_force,
        hits: feed.hits,
        per_s: feed.per_s,
    });
    Snapshot {
        status: model.status.as_ref(),
        packets: model.flows.iter().map(figure).collect(),
        events: model.events.iter().map(figure).collect(),
        top: &model.top,
        rules: rules.collect(),
        feeds: feeds.collect(),
    }
}

pub(super) fn print(model: &Model, out: &mut dyn Write) -> io::Result<()> {
    if let Some(status) = &model.status {
        writeln!(out, "{}\n{}\n", headline(status), lists(status))?;
    }
    let flows = model.flows.iter();
    let flows =
        flows.map(|flow| vec![flow.name.to_owned(), rate_text(flow.per_s), flow.total.to_string()]);
    table(out, Some(&["PACKETS", "A SECOND", "TOTAL"]), flows)?;
    writeln!(out, "{}", events(model))?;
    if !model.top.ports.is_empty() {
        writeln!(out, "{}", ports(&model.top))?;
    }
    for (title, entries) in [("SOURCE", &model.top.sources), ("NETWORK", &model.top.networks)] {
        if entries.is_empty() {
            continue;
        }
        writeln!(out)?;
        table(out, Some(&[title, "FATE", "A SECOND", "SHARE"]), entries.iter().map(entry))?;
    }
    print_rules(model, out)?;
    print_feeds(model, out)
}

fn print_rules(model: &Model, out: &mut dyn Write) -> io::Result<()> {
    if model.rules.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let rules = model.rules.iter().map(|rule| {
        vec![
            rule.rule.clone(),
            rate_text(rule.per_s),
            rule.packets.to_string(),
            rule.observed.to_string(),
            rule.last_hit.map_or_else(|| "-".to_owned(), |at| at.to_string()),
        ]
    });
    table(out, Some(&["RULE", "A SECOND", "HITS", "OBSERVED", "LAST HIT"]), rules)
}

fn print_feeds(model: &Model, out: &mut dyn Write) -> io::Result<()> {
    if model.feeds.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let feeds = model.feeds.iter().map(|feed| {
        vec![
            feed.name.clone(),
            feed.state.name().to_owned(),
            feed.in_force.to_string(),
            rate_text(feed.per_s),
            feed.hits.to_string(),
        ]
    });
    table(out, Some(&["FEED", "STATE", "IN FORCE", "A SECOND", "HITS"]), feeds)
}

fn entry(entry: &TopEntry) -> Vec<String> {
    let TopEntry { what, fate, per_s, percent } = entry;
    vec![what.clone(), fate.to_string(), rate_text(Some(*per_s)), format!("{percent:.0}%")]
}
