//! One snapshot, for a pipe.

use std::io::{self, Write};

use serde::Serialize;

use super::super::output::table;
use super::model::{Flow, Model, events, headline, lists, ports, rate_text};
use crate::control::api::{EdgeStatus, Time, Top, TopEntry};

/// All figures.
#[derive(Serialize)]
pub(super) struct Snapshot<'a> {
    status: Option<&'a EdgeStatus>,
    packets: Vec<Figure<'a>>,
    events: Vec<Figure<'a>>,
    top: &'a Top,
    rules: Vec<RuleFigure<'a>>,
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
    Snapshot {
        status: model.status.as_ref(),
        packets: model.flows.iter().map(figure).collect(),
        events: model.events.iter().map(figure).collect(),
        top: &model.top,
        rules: rules.collect(),
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

fn entry(entry: &TopEntry) -> Vec<String> {
    let TopEntry { what, fate, per_s, percent } = entry;
    vec![what.clone(), fate.to_string(), rate_text(Some(*per_s)), format!("{percent:.0}%")]
}
