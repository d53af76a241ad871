//! `deny` and `allow`.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use relay_common::entry::List;
use serde::Serialize;

use super::args::{
    AddArgs, AllowArgs, AllowCommand, DelArgs, DenyArgs, DenyCommand, FlushArgs, ImportArgs,
    ListCommand,
};
use super::output::{counted, expiry, table};
use super::session::{Exit, Failure, Session};
use super::{called, progress};
use crate::control::api::*;
use crate::edge::lines;
use crate::edge::server::IMPORT_BYTES_MAX;

pub(super) async fn deny(command: DenyCommand, on: &mut Session<'_>) -> Result<Exit, Failure> {
    match command {
        DenyCommand::Add { what, how } => add(List::Deny, what, how, on).await,
        DenyCommand::Import { what, how } => import(List::Deny, what, how, on).await,
        DenyCommand::Del(what) => del(List::Deny, what, false, on).await,
        DenyCommand::Flush(what) => flush(List::Deny, what, false, on).await,
        DenyCommand::Confirm { ids, all } => {
            let request = ConfirmRequest { ids, all };
            let changed: Changed = on.edge.post("/v1/pending/confirm", &request).await?;
            tell(List::Deny, None, &changed, on)
        }
        DenyCommand::Pending => pending(on).await,
        DenyCommand::Other(command) => other(List::Deny, command, on).await,
    }
}

pub(super) async fn allow(command: AllowCommand, on: &mut Session<'_>) -> Result<Exit, Failure> {
    let how = |AllowArgs { scope, force }| DenyArgs {
        scope,
        observe: false,
        confirm_within: None,
        force: force.force,
    };
    match command {
        AllowCommand::Add { what, args } => add(List::Allow, what, how(args), on).await,
        AllowCommand::Import { what, args } => import(List::Allow, what, how(args), on).await,
        AllowCommand::Del { what, force } => del(List::Allow, what, force.force, on).await,
        AllowCommand::Flush { what, force } => flush(List::Allow, what, force.force, on).await,
        AllowCommand::Other(command) => other(List::Allow, command, on).await,
    }
}

async fn add(
    list: List,
    what: AddArgs,
    how: DenyArgs,
    on: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let request = AddRequest {
        prefixes: what.prefixes,
        scope: how.scope,
        ttl_s: what.ttl.map(|ttl| ttl.as_secs()),
        observe: how.observe,
        comment: what.reason,
        force: how.force,
        confirm_within_s: how.confirm_within.map(|within| within.as_secs()),
        session: on.from,
    };
    let changed = on.edge.add(list, &request).await?;
    tell(list, None, &changed, on)
}

async fn pending(on: &mut Session<'_>) -> Result<Exit, Failure> {
    let waiting: Vec<Pending> = on.edge.get("/v1/pending").await?;
    let wall_s = on.wall_s;
    on.show(&waiting, |waiting, out| {
        if waiting.is_empty() {
            return writeln!(out, "nothing waits to be confirmed");
        }
        let rows = waiting.iter().map(|it| {
            let ends = expiry(Some(it.until), wall_s);
            vec![
                it.id.to_string(),
                it.source.clone(),
                it.rows.to_string(),
                it.made.to_string(),
                ends,
            ]
        });
        table(out, Some(&["ID", "SOURCE", "ENTRIES", "MADE", "ENDS"]), rows)
    })?;
    Ok(Exit::Done)
}

async fn import(
    list: List,
    what: ImportArgs,
    how: DenyArgs,
    on: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let from_input = what.file == Path::new("-");
    let shown = if from_input { "stdin".into() } else { what.file.display().to_string() };
    let failed = |error| Failure::Said(format!("cannot read {shown}: {error}"));
    let mut text = Vec::new();
    let limit = IMPORT_BYTES_MAX as u64 + 1;
    if from_input {
        (&mut *on.input).take(limit).read_to_end(&mut text).map_err(failed)?;
    } else {
        let file = File::open(&what.file).map_err(failed)?;
        file.take(limit).read_to_end(&mut text).map_err(failed)?;
    }
    if text.len() > IMPORT_BYTES_MAX {
        let mib = IMPORT_BYTES_MAX >> 20;
        return Err(Failure::Said(format!("{shown} is larger than {mib} MiB (split it)")));
    }
    let file_name = what.file.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = what.name.or(file_name.filter(|_| !from_input)).unwrap_or_else(|| "stdin".into());
    let query = ImportQuery {
        name,
        scope: how.scope,
        replace: what.replace,
        observe: how.observe,
        force: how.force,
        confirm_within_s: how.confirm_within.map(|within| within.as_secs()),
        session: on.from,
    };
    let edge = on.edge.clone();
    let request = edge.import(list, &query, text.into());
    let changed = match progress::of_the_edge(called(list), request, &edge, on).await? {
        Err(crate::control::client::ClientError::Problem(problem)) if !on.json => {
            // The first is in the message itself.
            for detail in problem.details.iter().skip(1) {
                writeln!(on.err, "{detail}")?;
            }
            return Err(crate::control::client::ClientError::Problem(problem).into());
        }
        other => other?,
    };
    tell(list, None, &changed, on)
}

async fn del(
    list: List,
    what: DelArgs,
    force: bool,
    on: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let DelArgs { prefixes, source } = what;
    // A ban can be lifted at an edge of an earlier version, too.
    let session = on.from.filter(|_| list == List::Allow);
    let request = RemoveRequest { prefixes, source, force, session };
    let changed = on.edge.remove(list, &request).await?;
    tell(list, request.source.as_deref(), &changed, on)
}

async fn flush(
    list: List,
    what: FlushArgs,
    force: bool,
    on: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let session = on.from.filter(|_| list == List::Allow);
    let request = FlushRequest { source: what.source, force, session };
    let changed = on.edge.flush(list, &request).await?;
    tell(list, None, &changed, on)
}

async fn other(list: List, command: ListCommand, on: &mut Session<'_>) -> Result<Exit, Failure> {
    match command {
        ListCommand::List { source } => show(list, source, on).await,
        ListCommand::Export { source } => export(list, source, on).await,
    }
}

/// Says what was changed, what was not found (in what `source` listed), and what is wrong.
fn tell(
    list: List,
    source: Option<&str>,
    changed: &Changed,
    on: &mut Session<'_>,
) -> Result<Exit, Failure> {
    on.show(changed, |changed, out| {
        let mut parts = Vec::new();
        for (count, verb) in
            [(changed.added, "added"), (changed.updated, "updated"), (changed.removed, "removed")]
        {
            if count > 0 {
                parts.push(format!("{verb} {}", counted(count, "entry", "entries")));
            }
        }
        if parts.is_empty() {
            parts.push("nothing changed".to_owned());
        }
        writeln!(out, "{}: {}", called(list), parts.join(", "))
    })?;
    if let Some(pending) = changed.pending.as_ref().filter(|_| !on.json) {
        let Pending { id, until, .. } = pending;
        let ends = expiry(Some(*until), on.wall_s);
        writeln!(on.out, "it ends {ends}, unless you confirm it: postern deny confirm {id}")?;
    }
    if changed.shadowed > 0 {
        let rows = counted(changed.shadowed, "entry has", "entries have");
        writeln!(on.err, "{rows} no effect, since the allow list covers more")?;
    }
    for Missing { prefix, covered_by } in &changed.missing {
        write!(on.err, "{prefix} is not on the {}", called(list))?;
        if let Some(source) = source {
            write!(on.err, " from {source}")?;
        }
        match covered_by {
            Some(wider) => writeln!(on.err, "; {wider} covers it")?,
            None => writeln!(on.err)?,
        }
    }
    if let Some(warning) = &changed.warning {
        writeln!(on.err, "postern: {warning}")?;
        return Ok(Exit::Failed);
    }
    let nothing = changed.added + changed.updated + changed.removed == 0;
    let asked_to_remove = !changed.missing.is_empty();
    Ok(if asked_to_remove && nothing { Exit::Nothing } else { Exit::Done })
}

/// Calls `each` with every page of a list.
async fn pages(
    list: List,
    source: Option<String>,
    on: &mut Session<'_>,
    mut each: impl FnMut(&ListPage, &mut Session<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut query = ListQuery { source, ..ListQuery::default() };
    loop {
        let page = on.edge.page(list, &query).await?;
        each(&page, on)?;
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(()),
        }
    }
}

/// What a row closes, or would.
pub(super) fn scope_of(row: &Row) -> String {
    if row.observe { format!("{} (observed)", row.scope) } else { row.scope.to_string() }
}

/// A row, and what its rule did to packets. Absent where the rule shares its counter with others.
#[derive(Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    row: &'a Row,
    #[serde(skip_serializing_if = "Option::is_none")]
    hits: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_hit: Option<Time>,
}

impl<'a> Listed<'a> {
    fn new(row: &'a Row, rule: Option<&RuleStats>) -> Self {
        Self {
            row,
            hits: rule.map(|rule| rule.packets),
            observed: rule.map(|rule| rule.observed),
            last_hit: rule.and_then(|rule| rule.last_hit),
        }
    }
}

fn header(observed: bool) -> Vec<&'static str> {
    let mut header = vec!["PREFIX", "SCOPE", "REASON", "SOURCE", "RULE", "HITS"];
    header.extend(observed.then_some("OBSERVED"));
    header.extend(["LAST HIT", "EXPIRES", "COMMENT"]);
    header
}

/// A rule that is the row's own bears its prefix, which stands in the row already.
fn rule_text(row: &Row) -> String {
    let own =
        row.rule.strip_suffix(&row.prefix.to_string()).and_then(|rule| rule.strip_suffix(' '));
    own.unwrap_or(&row.rule).to_owned()
}

fn line(row: &Row, rule: Option<&RuleStats>, observed: bool, wall_s: u64) -> Vec<String> {
    let count =
        |of: fn(&RuleStats) -> u64| rule.map_or("-".to_owned(), |rule| of(rule).to_string());
    let mut cells = vec![
        row.prefix.to_string(),
        scope_of(row),
        row.reason.to_string(),
        row.source.clone(),
        rule_text(row),
        count(|rule| rule.packets),
    ];
    cells.extend(observed.then(|| count(|rule| rule.observed)));
    let last_hit = rule.and_then(|rule| rule.last_hit);
    cells.extend([
        last_hit.map_or_else(|| "-".to_owned(), |at| at.to_string()),
        expiry(row.expires, wall_s),
        row.comment.clone(),
    ]);
    cells
}

async fn show(list: List, source: Option<String>, on: &mut Session<'_>) -> Result<Exit, Failure> {
    let mut count = 0u64;
    // As the first page has it, since all pages are one table.
    let mut observed = false;
    if on.json {
        write!(on.out, "{{\"rows\":[")?;
    }
    let from = source.as_ref().map(|source| format!(" from {source}"));
    pages(list, source, on, |page, on| {
        let first = count == 0;
        count += page.rows.len() as u64;
        let rules: HashMap<&str, &RuleStats> =
            page.rules.iter().map(|rule| (rule.rule.as_str(), rule)).collect();
        let hits = |row: &Row| rules.get(row.rule.as_str()).copied();
        if on.json {
            for (index, row) in page.rows.iter().enumerate() {
                if !first || index > 0 {
                    write!(on.out, ",")?;
                }
                let listed = Listed::new(row, hits(row));
                serde_json::to_writer(&mut *on.out, &listed).map_err(std::io::Error::from)?;
            }
            return Ok(());
        }
        if first {
            observed = page.rules.iter().any(|rule| rule.observed > 0);
        }
        let rows = page.rows.iter().map(|row| line(row, hits(row), observed, on.wall_s));
        let header = header(observed);
        Ok(table(on.out, first.then_some(&header[..]), rows)?)
    })
    .await?;
    if on.json {
        writeln!(on.out, "]}}")?;
    } else if count == 0 {
        match from {
            Some(from) => writeln!(on.out, "the {} has nothing{from}", called(list))?,
            None => writeln!(on.out, "the {} is empty", called(list))?,
        }
    }
    Ok(Exit::Done)
}

async fn export(list: List, source: Option<String>, on: &mut Session<'_>) -> Result<Exit, Failure> {
    if on.json {
        return show(list, source, on).await;
    }
    pages(list, source, on, |page, on| {
        for row in &page.rows {
            writeln!(on.out, "{}", lines::format(row, on.wall_s))?;
        }
        Ok(())
    })
    .await?;
    Ok(Exit::Done)
}
