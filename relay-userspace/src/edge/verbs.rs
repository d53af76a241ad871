//! What an administrator does to the lists: add, remove, flush, import, and read.

use std::collections::BTreeSet;
use std::time::Duration;

use ipnet::IpNet;
use relay_common::entry::{List, Reason, Scope};
use relay_core::prefix;

use super::batch::{Batch, Care, REFUSALS_MAX};
use super::commit::{commit_updates, updates_of};
use super::filter::Filter;
use super::lifting::Before;
use super::lines::{Line, check_text};
use super::state::Edge;
use super::store::{Key, SOURCE_BAN};
use crate::control::api::{
    AddRequest, Changed, Code, FlushRequest, ImportQuery, ListPage, ListQuery, Missing,
    PAGE_ROWS_MAX, PREFIXES_MAX, Problem, RemoveRequest,
};

const SOURCE_CLI: &str = "cli";

impl<F: Filter> Edge<F> {
    /// Adds prefixes by hand: all of them, or none.
    pub fn add(&mut self, list: List, request: &AddRequest) -> Result<Changed, Problem> {
        let prefixes = parse_all(&request.prefixes)?;
        check_text("comment", &request.comment).map_err(invalid)?;
        let line = |prefix| Line {
            comment: request.comment.as_str().into(),
            ..Line::new(prefix, request.scope).lasting(request.ttl_s.map(Duration::from_secs))
        };
        // The same prefix twice is one entry.
        let prefixes: BTreeSet<IpNet> = prefixes.into_iter().collect();
        let batch = Batch {
            list,
            source: SOURCE_CLI,
            rule: SOURCE_CLI,
            // So that the hits of one are told from those of another.
            rule_each: true,
            reason: Reason::Manual,
            lines: prefixes.into_iter().map(line).collect(),
            scope: request.scope,
            observe: request.observe,
            replaces: false,
            confirm_within: request.confirm_within_s.map(Duration::from_secs),
        };
        let (session, force) = (request.session, request.force);
        self.carry_out(batch, &Care { session, force, refuse_shadowed: true, ..Care::default() })
    }

    /// Adds the lines of a file as rows of the source `import:NAME`: all of them, or none.
    pub fn import(
        &mut self,
        list: List,
        query: &ImportQuery,
        mut lines: Vec<Line>,
    ) -> Result<Changed, Problem> {
        check_text("name", &query.name).map_err(invalid)?;
        if query.name.is_empty() {
            return Err(invalid("an import needs a name".to_owned()));
        }
        // A prefix that stands twice in the file means what its last line says.
        lines.sort_unstable_by_key(|line| (line.prefix, std::cmp::Reverse(line.number)));
        lines.dedup_by_key(|line| line.prefix);
        let batch = Batch {
            list,
            source: &format!("import:{}", query.name),
            rule: &format!("import {}", query.name),
            rule_each: false,
            reason: Reason::Import,
            lines,
            scope: query.scope,
            observe: query.observe,
            replaces: query.replace,
            confirm_within: query.confirm_within_s.map(Duration::from_secs),
        };
        // In a list of thousands a line without effect is no mistake of its author.
        let (session, force) = (query.session, query.force);
        self.carry_out(batch, &Care { session, force, file: &query.name, ..Care::default() })
    }

    /// Makes `lines` the only rows of `source`: how the configuration's entries are kept in step.
    /// The guardrails only warn: an address that has changed must not keep the gateway down.
    pub fn replace(
        &mut self,
        list: List,
        source: &str,
        mut lines: Vec<Line>,
    ) -> Result<Changed, Problem> {
        let now = self.now();
        lines.sort_by_key(|line| (line.prefix, line.observe));
        // What is denied and observed, too, is denied.
        lines.dedup_by_key(|line| line.prefix);
        let batch = Batch {
            list,
            source,
            rule: source,
            rule_each: false,
            reason: Reason::Manual,
            lines,
            scope: Scope::ALL,
            observe: false,
            replaces: true,
            confirm_within: None,
        };
        if let Err(problem) = self.hold_to_guardrails(&batch, &Care::default(), now) {
            for why in problem.details {
                tracing::warn!(source, why, "denied as configured, though it should be reachable");
            }
        }
        let care = Care { only_warn: true, ..Care::default() };
        let done = self.put_batch(batch, &care, now);
        self.note_full(done)
    }

    /// Lifts prefixes at once: all of them, or none where a guardrail says no. Those without a row
    /// are named in the answer, and hinder nothing.
    pub fn remove(&mut self, list: List, request: &RemoveRequest) -> Result<Changed, Problem> {
        let now = self.now();
        let source = request.source.as_deref();
        let mut changed = Changed::default();
        let mut keys: BTreeSet<Key> = BTreeSet::new();
        let txn_prefixes = parse_all(&request.prefixes)?;
        let care = Care { session: request.session, force: request.force, ..Care::default() };
        let lifting = self.lifting(list, &care);
        let txn = self.store.begin()?;
        for prefix in txn_prefixes {
            let gone = txn.remove((list, prefix), source)?;
            if gone == 0 && !keys.contains(&(list, prefix)) {
                let wider = self.desired.covering(list, prefix, now.wall_s()).next();
                let covered_by = wider.map(|(wider, _)| wider).filter(|wider| *wider != prefix);
                changed.missing.push(Missing { prefix, covered_by });
                continue;
            }
            changed.removed += gone;
            keys.insert((list, prefix));
            if list == List::Deny && source.is_none_or(|source| source == SOURCE_BAN) {
                txn.forgive(prefix)?;
            }
        }
        let updates = updates_of(&txn, keys, &self.desired, now)?;
        if let Some(lifting) = &lifting {
            let before = Before { desired: &self.desired, feeds: &self.feeds };
            lifting.check(&before, &updates, now)?;
        }
        let committed = commit_updates(txn, updates, &self.desired, self.filter.capacity())?;
        changed.warning = self.enforce(committed, now);
        Ok(changed)
    }

    /// Removes everything of a list, or of one source.
    pub fn flush(&mut self, list: List, request: &FlushRequest) -> Result<Changed, Problem> {
        let now = self.now();
        let source = request.source.as_deref();
        let mut changed = Changed::default();
        let mut keys: BTreeSet<Key> = BTreeSet::new();
        let care = Care { session: request.session, force: request.force, ..Care::default() };
        let lifting = self.lifting(list, &care);
        let txn = self.store.begin()?;
        for prefix in txn.prefixes(list, source)? {
            changed.removed += txn.remove((list, prefix), source)?;
            keys.insert((list, prefix));
        }
        let updates = updates_of(&txn, keys, &self.desired, now)?;
        if let Some(lifting) = &lifting {
            let before = Before { desired: &self.desired, feeds: &self.feeds };
            lifting.check(&before, &updates, now)?;
        }
        let committed = commit_updates(txn, updates, &self.desired, self.filter.capacity())?;
        changed.warning = self.enforce(committed, now);
        Ok(changed)
    }

    /// One page of a list.
    pub fn page(&self, list: List, query: &ListQuery) -> Result<ListPage, Problem> {
        let limit = query.limit.unwrap_or(PAGE_ROWS_MAX).clamp(1, PAGE_ROWS_MAX);
        let after = match &query.after {
            None => None,
            Some(cursor) => {
                let parts = cursor.split_once('|');
                let parts = parts.and_then(|(at, source)| Some((at.parse().ok()?, source)));
                Some(parts.ok_or_else(|| invalid(format!("{cursor:?} is no place in a list")))?)
            }
        };
        let mut rows = self.store.page(list, query.source.as_deref(), after, limit + 1)?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().filter(|_| more);
        let next = last.map(|row| format!("{}|{}", row.prefix, row.source));
        let rules = self.rules_of(&rows)?;
        Ok(ListPage { rows, rules, next })
    }
}

pub(super) fn invalid(message: String) -> Problem {
    Problem::new(Code::Invalid, message)
}

fn parse_all(texts: &[String]) -> Result<Vec<IpNet>, Problem> {
    if texts.is_empty() || texts.len() > PREFIXES_MAX {
        let message = format!("one request takes from 1 to {PREFIXES_MAX} prefixes");
        return Err(invalid(message).remedy("import a file for more"));
    }
    let mut wrong = Vec::new();
    let mut prefixes = Vec::with_capacity(texts.len());
    for text in texts {
        match prefix::parse(text) {
            Ok(prefix) => prefixes.push(prefix),
            Err(error) => wrong.push(error.to_string()),
        }
    }
    let Some(first) = wrong.first() else { return Ok(prefixes) };
    let message = format!("{first}; nothing was changed");
    wrong.truncate(REFUSALS_MAX);
    Err(invalid(message).remedy("write addresses, 192.0.2.0/24 or 2001:db8::/32").details(wrong))
}
