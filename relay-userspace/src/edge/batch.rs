//! Many rows of one source in one transaction: held to the guardrails, written, enforced.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use relay_common::entry::{List, Reason, Scope};
use relay_core::ban::guardrails::{Guardrail, Protected};

use super::changes::{NewRow, Put, Txn};
use super::clock::Now;
use super::commit::commit_updates;
use super::desired::{Claim, last_s, merge};
use super::draining::Draining;
use super::filter::Filter;
use super::guard::{check, with_sessions};
use super::lifting::Before;
use super::lines::Line;
use super::state::Edge;
use super::store::{Key, SOURCE_UNCONFIRMED, StoreError};
use super::verbs::invalid;
use crate::control::api::{Changed, Code, Pending, Problem, Time, WorkStage};

/// Refused prefixes that one answer names.
pub(super) const REFUSALS_MAX: usize = 20;
/// A longer lifetime is a typing error, and "for ever" has a form of its own.
const TTL_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
/// How long a change may wait to be confirmed.
const CONFIRM_WITHIN_MAX: Duration = Duration::from_secs(3600);
/// Changes that may wait at once.
const PENDING_MAX: usize = 100;

/// Rows that one request makes.
pub(super) struct Batch<'a> {
    pub(super) list: List,
    pub(super) source: &'a str,
    pub(super) rule: &'a str,
    /// Each line has a rule of its own: this one with its prefix behind it.
    pub(super) rule_each: bool,
    pub(super) reason: Reason,
    /// In order of prefix, each once.
    pub(super) lines: Vec<Line>,
    /// Scope of lines that give none.
    pub(super) scope: Scope,
    /// Every line is only observed.
    pub(super) observe: bool,
    /// Other rows of the source go.
    pub(super) replaces: bool,
    /// The rows end after this, unless they are confirmed.
    pub(super) confirm_within: Option<Duration>,
}

/// Whom a change of the lists must not hit.
#[derive(Default)]
pub(super) struct Care<'a> {
    pub(super) session: Option<IpAddr>,
    pub(super) force: bool,
    /// Say in the log what would be refused, and do it.
    pub(super) only_warn: bool,
    /// Refuse entries that an allow entry leaves without effect.
    pub(super) refuse_shadowed: bool,
    /// The file that the lines stand in.
    pub(super) file: &'a str,
}

impl Batch<'_> {
    fn scope_of(&self, line: &Line) -> Scope {
        line.scope.unwrap_or(self.scope)
    }

    /// What is let in is not counted with what is dropped, so a rule is of one list.
    fn rule_of(&self, line: &Line) -> Cow<'_, str> {
        let rule = match self.list {
            List::Allow => Cow::from(format!("{} allow", self.rule)),
            List::Deny => self.rule.into(),
        };
        if self.rule_each { format!("{rule} {}", line.prefix).into() } else { rule }
    }

    fn observes(&self, line: &Line) -> bool {
        self.observe || line.observe
    }

    /// Removes the rows that the source has beside these. Says how many there were.
    fn remove_others(
        &self,
        kept: &[IpNet],
        txn: &Txn<'_>,
        updates: &mut Vec<(Key, Option<Claim>)>,
        now: Now,
    ) -> Result<u64, StoreError> {
        let mut removed = 0;
        for prefix in txn.prefixes(self.list, Some(self.source))? {
            if kept.binary_search(&prefix).is_err() {
                let key = (self.list, prefix);
                removed += txn.remove(key, Some(self.source))?;
                updates.push((key, merge(&txn.claims(key)?, now.wall_s())));
            }
        }
        Ok(removed)
    }

    /// The row of a line, which ends by the deadline of a change that waits to be confirmed.
    fn row<'a>(
        &'a self,
        line: &'a Line,
        rule: &'a str,
        deadline_s: Option<u64>,
        now: Now,
    ) -> Result<NewRow<'a>, Problem> {
        let asked_s = expiry(line.ttl(), now).map_err(invalid)?;
        Ok(NewRow {
            prefix: line.prefix,
            scope: self.scope_of(line),
            observe: self.observes(line),
            reason: self.reason,
            rule,
            source: self.source,
            comment: &line.comment,
            created_s: now.wall_s(),
            expires_s: [asked_s, deadline_s].into_iter().flatten().min(),
            confirmed_s: asked_s.filter(|_| deadline_s.is_some()),
        })
    }

    /// Refuses what makes no sense, before anything is done.
    fn check(&self, file: &str, now: Now) -> Result<(), Problem> {
        if self.scope == Scope::NONE {
            return Err(invalid("an entry needs a scope".to_owned()));
        }
        let observes = self.lines.iter().any(|line| self.observes(line));
        if self.list == List::Allow && (observes || self.confirm_within.is_some()) {
            return Err(invalid("only denials are observed, or wait to be confirmed".to_owned()));
        }
        for line in &self.lines {
            expiry(line.ttl(), now).map_err(|why| match line.number {
                0 => invalid(why),
                number => invalid(format!("{file}:{number}: {}: {why}", line.prefix)),
            })?;
        }
        match self.confirm_within {
            Some(d) if !(Duration::from_secs(1)..=CONFIRM_WITHIN_MAX).contains(&d) => {
                Err(invalid("a change waits from a second to an hour to be confirmed".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

/// What was refused, and why; the first reasons are told.
pub(super) fn refusal(
    count: usize,
    told: impl Iterator<Item = String>,
    remedy: &str,
) -> Result<(), Problem> {
    let refused: Vec<String> = told.take(REFUSALS_MAX).collect();
    let Some(first) = refused.first() else { return Ok(()) };
    let more = if count > 1 { format!("; {} more like it", count - 1) } else { String::new() };
    let message = format!("{first}{more}; nothing was changed");
    Err(Problem::new(Code::Refused, message).remedy(remedy).details(refused))
}

/// When something of this lifetime ends.
pub(super) fn expiry(ttl: Option<Duration>, now: Now) -> Result<Option<u64>, String> {
    match ttl {
        Some(ttl) if ttl < Duration::from_secs(1) => Err("a lifetime is at least a second".into()),
        Some(ttl) if ttl > TTL_MAX => Err("a lifetime is at most a hundred years".into()),
        ttl => Ok(ttl.map(|ttl| now.wall_s_after(ttl))),
    }
}

impl<F: Filter> Edge<F> {
    /// Does what a request asks for: all of it, or nothing.
    pub(super) fn carry_out(
        &mut self,
        batch: Batch<'_>,
        care: &Care<'_>,
    ) -> Result<Changed, Problem> {
        let now = self.now();
        batch.check(care.file, now)?;
        self.hold_to_guardrails(&batch, care, now)?;
        let done = self.put_batch(batch, care, now);
        self.note_full(done)
    }

    /// Refuses denials that would cut off what must stay reachable.
    pub(super) fn hold_to_guardrails(
        &self,
        batch: &Batch<'_>,
        care: &Care<'_>,
        now: Now,
    ) -> Result<(), Problem> {
        if batch.list == List::Allow || care.force {
            return Ok(());
        }
        let (protected, sessions) = ((self.protected)(), (self.sessions)());
        // There are few scopes, and there may be a million lines.
        let mut by_scope: Vec<(Scope, Protected)> = Vec::new();
        let mut refused = Vec::new();
        self.work.begin(WorkStage::Checking, batch.lines.len());
        for line in batch.lines.iter().filter(|line| !batch.observes(line)) {
            self.work.advance(1);
            let scope = batch.scope_of(line);
            if !by_scope.iter().any(|(of, _)| *of == scope) {
                let all = with_sessions(&protected, &sessions, care.session, scope);
                by_scope.push((scope, all));
            }
            let Some((_, protected)) = by_scope.iter().find(|(of, _)| *of == scope) else {
                continue;
            };
            let last_s = last_s(expiry(line.ttl(), now).map_err(invalid)?);
            let checked = check(line.prefix, scope, protected, &self.desired, last_s);
            let shadowed = matches!(checked, Err(Guardrail::Allowed { .. }));
            if let Err(why) = checked
                && (!shadowed || care.refuse_shadowed)
            {
                refused.push((line.number, why));
            }
        }
        let count = refused.len();
        // In the order of the file, or of the command line.
        refused.sort_by_key(|(number, _)| *number);
        let told = refused.into_iter().map(|(number, why)| match number {
            0 => why.to_string(),
            number => format!("{}:{number}: {why}", care.file),
        });
        refusal(count, told, "give a narrower prefix, or --force if it is meant")
    }

    /// Writes rows in one transaction, and enforces them.
    pub(super) fn put_batch(
        &mut self,
        mut batch: Batch<'_>,
        care: &Care<'_>,
        now: Now,
    ) -> Result<Changed, Problem> {
        let Batch { list, replaces, .. } = batch;
        let lifting = self.lifting(list, care);
        let mut changed = Changed::default();
        if batch.confirm_within.is_some() && self.store.pending()?.len() >= PENDING_MAX {
            let message = format!("{PENDING_MAX} changes wait to be confirmed already");
            return Err(Problem::new(Code::Refused, message)
                .remedy("postern deny confirm, or wait until they end"));
        }
        let mut txn = self.store.begin()?;
        let deadline_s = batch.confirm_within.map(|within| now.wall_s_after(within));
        if let Some(deadline_s) = deadline_s {
            let id = txn.note_pending(batch.source, replaces, now.wall_s(), deadline_s)?;
            let (source, rows) = (batch.source.to_owned(), batch.lines.len() as u64);
            let (made, until) = (Time(now.wall_s()), Time(deadline_s));
            changed.pending = Some(Pending { id, source, rows, made, until });
        }
        let waiting = changed.pending.as_ref().map(|it| format!("{SOURCE_UNCONFIRMED}{}", it.id));
        let (mut updates, mut claims) = (Vec::new(), Vec::new());
        let replaces = replaces && waiting.is_none();
        let kept = batch.lines.iter().filter(|_| replaces).map(|line| line.prefix);
        let kept: Vec<IpNet> = kept.collect();
        self.work.begin(WorkStage::Writing, batch.lines.len());
        // Of a million lines there need not be two copies.
        for line in Draining::new(std::mem::take(&mut batch.lines)) {
            self.work.advance(1);
            let key = (list, line.prefix);
            let rule = batch.rule_of(&line);
            let mut row = batch.row(&line, &rule, deadline_s, now)?;
            row.source = waiting.as_deref().unwrap_or(batch.source);
            let is_first = self.desired.get(key).is_none();
            match txn.put_claiming(list, &row, is_first, &mut claims)? {
                Put::Added => changed.added += 1,
                Put::Updated => changed.updated += 1,
                Put::Unchanged => continue,
            }
            let claim = merge(&claims, now.wall_s());
            if claim != self.desired.get(key) {
                updates.push((key, claim));
            }
            if list == List::Deny
                && self.desired.allow_over(row.prefix, row.scope, now.wall_s()).is_some()
            {
                changed.shadowed += 1;
            }
        }
        if replaces {
            changed.removed += batch.remove_others(&kept, &txn, &mut updates, now)?;
        }
        if let Some(lifting) = &lifting {
            let before = Before { desired: &self.desired, feeds: &self.feeds };
            lifting.check(&before, &updates, now)?;
        }
        self.work.begin(WorkStage::Saving, 0);
        let committed = commit_updates(txn, updates, &self.desired, self.filter.capacity())?;
        changed.warning = self.enforce(committed, now);
        Ok(changed)
    }
}
