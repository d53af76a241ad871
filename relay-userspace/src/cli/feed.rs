//! `feed`: the lists that others publish.

use std::io::{self, Write};
use std::time::Duration;

use super::args::FeedCommand;
use super::output::{counted, expiry, span, table};
use super::progress::Progress;
use super::session::{Exit, Failure, Session};
use crate::control::api::*;

/// How often the edge is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// Longer than any file takes to read, and than the relay takes to fetch one.
const WAIT_MAX: Duration = Duration::from_secs(900);

pub(super) async fn feed(command: FeedCommand, on: &mut Session<'_>) -> Result<Exit, Failure> {
    match command {
        FeedCommand::List => list(on).await,
        FeedCommand::Show { name } => {
            let report: FeedReport = on.edge.get(&path(&name, "")).await?;
            let wall_s = on.wall_s;
            on.show(&report, |report, out| show(report, wall_s, out))?;
            Ok(Exit::Done)
        }
        FeedCommand::Refresh { name, force, wait } => refresh(&name, force, wait, on).await,
    }
}

/// A name that no feed can have would be another request.
fn path(name: &str, what: &str) -> String {
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    format!("/v1/feeds/{name}{what}")
}

async fn list(on: &mut Session<'_>) -> Result<Exit, Failure> {
    let report: FeedsReport = on.edge.get("/v1/feeds").await?;
    let wall_s = on.wall_s;
    on.show(&report, |report, out| {
        if report.feeds.is_empty() {
            return writeln!(out, "no feed is configured");
        }
        let header = ["FEED", "LIST", "SCOPE", "STATE", "PREFIXES", "REFRESHED", "PACKETS", "WHY"];
        let rows = report.feeds.iter().map(|feed| {
            let refreshed = feed.refreshed.map_or_else(
                || "never".to_owned(),
                |at| format!("{} ago", span(wall_s.saturating_sub(at.0))),
            );
            let observes = if feed.observe { " (observed)" } else { "" };
            vec![
                feed.name.clone(),
                feed.list.to_string(),
                format!("{}{observes}", feed.scope),
                state(feed),
                (feed.ipv4 + feed.ipv6).to_string(),
                refreshed,
                (feed.packets + feed.observed).to_string(),
                why(feed)
                    .into_iter()
                    .chain(left_out(&feed.left_out))
                    .collect::<Vec<_>>()
                    .join("; "),
            ]
        });
        table(out, Some(&header), rows)
    })?;
    Ok(Exit::Done)
}

/// The reason of the latest failure, while it is the latest of all.
fn why(feed: &FeedReport) -> Option<String> {
    let refusal = feed.refusal.as_ref().filter(|_| feed.state != FeedState::Good);
    refusal.map(|refusal| refusal.why.clone())
}

/// What is not enforced, and why, in a few words.
pub(super) fn left_out(left_out: &[FeedLeftOut]) -> Option<String> {
    let first = left_out.first()?;
    let more = match left_out.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Some(format!("without {first}{more}"))
}

fn state(feed: &FeedReport) -> String {
    let state = feed.state.name();
    match phase(feed) {
        Some(phase) => format!("{state}, {phase}"),
        None => state.to_owned(),
    }
}

fn phase(feed: &FeedReport) -> Option<String> {
    let so_far = match feed.progress {
        Some(FeedProgress { done, of: Some(of) }) => format!(" {done} of {of}"),
        Some(FeedProgress { done, of: None }) => format!(" {done}"),
        None => String::new(),
    };
    match feed.phase {
        FeedPhase::Idle => None,
        FeedPhase::Due if feed.fetch.is_some() => Some("to be fetched".to_owned()),
        FeedPhase::Due => Some("to be read".to_owned()),
        FeedPhase::Reading => Some(format!("reading{so_far}")),
        FeedPhase::Publishing => Some(format!("publishing{so_far}")),
    }
}

fn show(feed: &FeedReport, wall_s: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut facts = Vec::new();
    let mut say = |name: &str, value: String| facts.push(vec![name.to_owned(), value]);
    say("feed", feed.name.clone());
    say("source", feed.source.clone());
    let observes = if feed.observe { ", only observed" } else { "" };
    say("list", format!("{}, scope {}{observes}", feed.list, feed.scope));
    say("state", state(feed));
    let (ipv4, ipv6, read) = (feed.ipv4, feed.ipv6, feed.read);
    let in_force = feed.in_force;
    say("prefixes", format!("{ipv4} IPv4, {ipv6} IPv6; {read} were read, {in_force} are in force"));
    let ago = |at: Time| format!("{at} ({} ago)", span(wall_s.saturating_sub(at.0)));
    say("accepted", feed.accepted.map_or_else(|| "never".to_owned(), ago));
    say("refreshed", feed.refreshed.map_or_else(|| "never".to_owned(), ago));
    say("next refresh", expiry(Some(feed.next_refresh), wall_s));
    if let Some(end) = feed.lease_ends {
        say("lease ends", expiry(Some(end), wall_s));
    }
    if let Some(FeedRefusal { at, why }) = &feed.refusal {
        say("last refusal", format!("{}: {why}", ago(*at)));
        say("refusals", feed.refusals.to_string());
    }
    for out in &feed.left_out {
        say("left out", out.to_string());
    }
    say("packets", format!("{} decided, {} observed", feed.packets, feed.observed));
    if let Some(at) = feed.last_hit {
        say("last hit", ago(at));
    }
    table(out, None, facts)
}

async fn refresh(
    name: &str,
    force: bool,
    wait: bool,
    on: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let before: FeedReport = on.edge.get(&path(name, "")).await?;
    let request = FeedRefresh { force };
    let answer: FeedAnswer = on.edge.post(&path(name, "/refresh"), &request).await?;
    if !wait {
        on.show(&answer, |_, out| match &before.fetch {
            Some(_) => writeln!(out, "{name}: the relay fetches it within seconds"),
            None => writeln!(out, "{name}: it is being read"),
        })?;
        return Ok(Exit::Done);
    }
    let report = ended(&before, on).await?;
    on.show(&report, |report, out| {
        let entries = counted(report.in_force, "prefix", "prefixes");
        match why(report) {
            None => writeln!(out, "{name}: {entries} in force"),
            Some(why) => writeln!(out, "{name}: {why}; {entries} stay as they were"),
        }
    })?;
    Ok(if report.state == FeedState::Good { Exit::Done } else { Exit::Failed })
}

/// Waits until the next refresh has ended, and what came of it is in force. Says how far it is.
async fn ended(before: &FeedReport, on: &mut Session<'_>) -> Result<FeedReport, Failure> {
    let mut progress = Progress::default();
    let mut waited = Duration::ZERO;
    // One that was under way already may have begun before the administrator's change.
    let under_way = before.phase == FeedPhase::Reading;
    let wanted = before.attempts + if under_way { 2 } else { 1 };
    loop {
        let report: FeedReport = on.edge.get(&path(&before.name, "")).await?;
        let at_work = matches!(report.phase, FeedPhase::Reading | FeedPhase::Publishing);
        if report.attempts >= wanted && !at_work {
            progress.end(on)?;
            return Ok(report);
        }
        if let Some(phase) = phase(&report) {
            progress.say(format!("{}: {phase}", before.name), on)?;
        }
        if waited >= WAIT_MAX {
            progress.end(on)?;
            let minutes = WAIT_MAX.as_secs() / 60;
            let message = format!("{} was not refreshed within {minutes} minutes", before.name);
            return Err(Failure::Said(message));
        }
        tokio::time::sleep(ASK_EVERY).await;
        waited += ASK_EVERY;
    }
}
