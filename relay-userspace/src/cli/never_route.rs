//! `never-route`.

use super::args::NeverRouteCommand;
use super::output::{counted, table};
use super::session::{Exit, Failure, Session};
use crate::control::api::*;

pub(super) async fn execute(
    command: NeverRouteCommand,
    on: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let (path, verb, request) = match command {
        NeverRouteCommand::Add { prefixes, reason } => {
            let request = NeverRouteRequest { prefixes, comment: reason };
            ("/v1/never-route", "added", request)
        }
        NeverRouteCommand::Del { prefixes } => {
            let request = NeverRouteRequest { prefixes, comment: String::new() };
            ("/v1/never-route/remove", "removed", request)
        }
        NeverRouteCommand::List => {
            let list: NeverRoutes = on.relay.get("/v1/never-route").await?;
            on.show(&list, |list, out| {
                if list.rules.is_empty() {
                    return writeln!(out, "the never-route list is empty");
                }
                let rows = list.rules.iter().map(|rule| {
                    vec![rule.prefix.to_string(), rule.source.clone(), rule.comment.clone()]
                });
                table(out, Some(&["PREFIX", "SOURCE", "COMMENT"]), rows)
            })?;
            return Ok(Exit::Done);
        }
    };
    let done: Affected = on.relay.post(path, &request).await?;
    tell_affected("never-route list", verb, ("entry", "entries"), &done, on)
}

/// Says how many things the relay changed, and which it does not have.
pub(super) fn tell_affected(
    place: &str,
    verb: &str,
    (one, many): (&str, &str),
    done: &Affected,
    on: &mut Session<'_>,
) -> Result<Exit, Failure> {
    on.show(done, |done, out| writeln!(out, "{place}: {verb} {}", counted(done.count, one, many)))?;
    for missing in &done.missing {
        writeln!(on.err, "{missing} is not in the {place}")?;
    }
    Ok(if done.count == 0 && !done.missing.is_empty() { Exit::Nothing } else { Exit::Done })
}
