//! What an administrator does to the lists: add, remove, flush, import, and read.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use relay_common::entry::{List, Reason, Scope};
use relay_core::ban::guardrails::Guardrail;
use relay_core::prefix;

use super::changes::Put;
use super::clock::Now;
use super::filter::Filter;
use super::guard::{check, with_session};
use super::lines::{Line, check_text};
use super::state::{Edge, commit};
use super::store::{Key, SOURCE_BAN};
use crate::control::api::{
    AddRequest, Changed, Code, FlushRequest, ImportQuery, ListPage, ListQuery, Missing,
    PAGE_ROWS_MAX, PREFIXES_MAX, Problem, RemoveRequest, Row, Time,
};

/// Refused prefixes that one answer names.
const REFUSALS_MAX: usize = 20;
/// A longer lifetime is a typing error, and "for ever" has a form of its own.
const TTL_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
const SOURCE_CLI: &str = "cli";

/// Whom a change of the deny list must not hit.
struct Care {
    session: Option<IpAddr>,
    force: bool,
    /// Refuse entries that an allow entry leaves without effect.
    refuse_shadowed: bool,
    /// The file that is imported, and in which of its lines a prefix stands.
    file: String,
    lines: BTreeMap<IpNet, usize>,
}

impl<F: Filter> Edge<F> {
    /// Adds prefixes by hand: all of them, or none.
    pub fn add(&mut self, list: List, request: &AddRequest) -> Result<Changed, Problem> {
        let now = self.now();
        let prefixes = parse_all(&request.prefixes)?;
        check_text("comment", &request.comment).map_err(invalid)?;
        check_scope(request.scope)?;
        let expires = expiry(request.ttl_s.map(Duration::from_secs), now).map_err(invalid)?;
        let rows: Vec<Row> = prefixes
            .into_iter()
            .map(|prefix| Row {
                prefix,
                scope: request.scope,
                reason: Reason::Manual,
                // A rule of its own, so that its hits are told apart.
                rule: format!("{SOURCE_CLI} {prefix}"),
                source: SOURCE_CLI.to_owned(),
                comment: request.comment.clone(),
                created: Time(now.wall_s()),
                expires,
            })
            .collect();
        let care = Care {
            session: request.session,
            force: request.force,
            refuse_shadowed: true,
            file: String::new(),
            lines: BTreeMap::new(),
        };
        self.check_rows(list, &rows, &care, now)?;
        self.put_rows(list, &rows, None, now)
    }

    /// Adds the lines of a file as rows of the source `import:NAME`: all of them, or none.
    pub fn import(
        &mut self,
        list: List,
        query: &ImportQuery,
        lines: Vec<Line>,
    ) -> Result<Changed, Problem> {
        let now = self.now();
        check_text("name", &query.name).map_err(invalid)?;
        check_scope(query.scope)?;
        if query.name.is_empty() {
            return Err(invalid("an import needs a name".to_owned()));
        }
        let source = format!("import:{}", query.name);
        let rule = format!("import {}", query.name);
        // A prefix that stands twice in the file means what its last line says.
        let mut rows = BTreeMap::new();
        let mut numbers = BTreeMap::new();
        for line in lines {
            let row = Row {
                prefix: line.prefix,
                scope: line.scope.unwrap_or(query.scope),
                reason: Reason::Import,
                rule: rule.clone(),
                source: source.clone(),
                comment: line.comment,
                created: Time(now.wall_s()),
                expires: expiry(line.ttl, now).map_err(|why| {
                    invalid(format!("{}:{}: {}: {why}", query.name, line.number, line.prefix))
                })?,
            };
            rows.insert(line.prefix, row);
            numbers.insert(line.prefix, line.number);
        }
        let rows: Vec<Row> = rows.into_values().collect();
        // In a list of thousands a line without effect is no mistake of its author.
        let care = Care {
            session: query.session,
            force: query.force,
            refuse_shadowed: false,
            file: query.name.clone(),
            lines: numbers,
        };
        self.check_rows(list, &rows, &care, now)?;
        self.put_rows(list, &rows, query.replace.then_some(source.as_str()), now)
    }

    /// Makes `rows` the only rows of `source`: how the configuration's entries are kept in step.
    /// The guardrails only warn: an address that has changed must not keep the gateway down.
    pub fn replace(
        &mut self,
        list: List,
        source: &str,
        rows: Vec<(IpNet, Scope)>,
    ) -> Result<Changed, Problem> {
        let now = self.now();
        let rows: Vec<Row> = rows
            .into_iter()
            .map(|(prefix, scope)| Row {
                prefix,
                scope,
                reason: Reason::Manual,
                rule: source.to_owned(),
                source: source.to_owned(),
                comment: String::new(),
                created: Time(now.wall_s()),
                expires: None,
            })
            .collect();
        let care = Care {
            session: None,
            force: false,
            refuse_shadowed: false,
            file: String::new(),
            lines: BTreeMap::new(),
        };
        if let Err(problem) = self.check_rows(list, &rows, &care, now) {
            for why in problem.details {
                tracing::warn!(source, why, "denied as configured, though it should be reachable");
            }
        }
        self.put_rows(list, &rows, Some(source), now)
    }

    fn check_rows(&self, list: List, rows: &[Row], care: &Care, now: Now) -> Result<(), Problem> {
        if list == List::Allow || care.force {
            return Ok(());
        }
        let protected = (self.protected)();
        let mut refused = Vec::new();
        for row in rows {
            let protected = with_session(&protected, care.session, row.scope);
            let checked = check(row.prefix, row.scope, &protected, &self.desired, now.wall_s());
            let shadowed = matches!(checked, Err(Guardrail::Allowed { .. }));
            if shadowed && !care.refuse_shadowed {
                continue;
            }
            if let Err(why) = checked {
                refused.push((care.lines.get(&row.prefix), why));
            }
        }
        let count = refused.len();
        // In the order of the file, or of the command line.
        refused.sort_by_key(|(line, _)| *line);
        refused.truncate(REFUSALS_MAX);
        let told = refused.into_iter().map(|(line, why)| match line {
            Some(line) => format!("{}:{line}: {why}", care.file),
            None => why.to_string(),
        });
        let refused: Vec<String> = told.collect();
        let Some(first) = refused.first() else { return Ok(()) };
        let more = if count > 1 { format!("; {} more like it", count - 1) } else { String::new() };
        Err(Problem::new(Code::Refused, format!("{first}{more}; nothing was changed"))
            .remedy("give a narrower prefix, or --force if it is meant")
            .details(refused))
    }

    /// Writes rows in one transaction; with `only_of`, other rows of that source go.
    fn put_rows(
        &mut self,
        list: List,
        rows: &[Row],
        only_of: Option<&str>,
        now: Now,
    ) -> Result<Changed, Problem> {
        let mut changed = Changed::default();
        let mut keys: BTreeSet<Key> = BTreeSet::new();
        let mut txn = self.store.begin()?;
        for row in rows {
            match txn.put(list, row)? {
                Put::Added => changed.added += 1,
                Put::Updated => changed.updated += 1,
                Put::Unchanged => continue,
            }
            keys.insert((list, row.prefix));
            if list == List::Deny
                && self.desired.allow_over(row.prefix, row.scope, now.wall_s()).is_some()
            {
                changed.shadowed += 1;
            }
        }
        if let Some(source) = only_of {
            let kept: BTreeSet<IpNet> = rows.iter().map(|row| row.prefix).collect();
            for prefix in txn.prefixes(list, Some(source))? {
                if !kept.contains(&prefix) {
                    changed.removed += txn.remove((list, prefix), Some(source))?;
                    keys.insert((list, prefix));
                }
            }
        }
        let committed = commit(txn, keys, &self.desired, self.filter.capacity(), now)?;
        changed.warning = self.enforce(committed, now);
        Ok(changed)
    }

    /// Lifts prefixes at once. Those without a row are named in the answer, and hinder nothing.
    pub fn remove(&mut self, list: List, request: &RemoveRequest) -> Result<Changed, Problem> {
        let now = self.now();
        let source = request.source.as_deref();
        let mut changed = Changed::default();
        let mut keys: BTreeSet<Key> = BTreeSet::new();
        let txn_prefixes = parse_all(&request.prefixes)?;
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
        let committed = commit(txn, keys, &self.desired, self.filter.capacity(), now)?;
        changed.warning = self.enforce(committed, now);
        Ok(changed)
    }

    /// Removes everything of a list, or of one source.
    pub fn flush(&mut self, list: List, request: &FlushRequest) -> Result<Changed, Problem> {
        let now = self.now();
        let source = request.source.as_deref();
        let mut changed = Changed::default();
        let mut keys: BTreeSet<Key> = BTreeSet::new();
        let txn = self.store.begin()?;
        for prefix in txn.prefixes(list, source)? {
            changed.removed += txn.remove((list, prefix), source)?;
            keys.insert((list, prefix));
        }
        let committed = commit(txn, keys, &self.desired, self.filter.capacity(), now)?;
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

fn invalid(message: String) -> Problem {
    Problem::new(Code::Invalid, message)
}

fn check_scope(scope: Scope) -> Result<(), Problem> {
    if scope == Scope::NONE { Err(invalid("an entry needs a scope".to_owned())) } else { Ok(()) }
}

fn expiry(ttl: Option<Duration>, now: Now) -> Result<Option<Time>, String> {
    match ttl {
        Some(ttl) if ttl < Duration::from_secs(1) => Err("a lifetime is at least a second".into()),
        Some(ttl) if ttl > TTL_MAX => Err("a lifetime is at most a hundred years".into()),
        ttl => Ok(ttl.map(|ttl| Time(now.wall_s_after(ttl)))),
    }
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
