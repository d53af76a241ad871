//! `queue`: the messages on their way, asked of the relay.

use super::args::{QueueCommand, QueueSelectArgs};
use super::never_route::tell_affected;
use super::output::{expiry, span, table};
use super::session::{Exit, Failure, Session};
use crate::control::api::*;

pub(super) async fn execute(command: QueueCommand, on: &mut Session<'_>) -> Result<Exit, Failure> {
    match command {
        QueueCommand::List { sender, recipient } => list(sender, recipient, on).await,
        QueueCommand::Show { id } => show(&id, on).await,
        QueueCommand::Retry(select) => change("retry", "to be retried:", select, on).await,
        QueueCommand::Delete(select) => change("delete", "deleted", select, on).await,
    }
}

async fn list(
    sender: Option<String>,
    recipient: Option<String>,
    on: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let mut query = QueueQuery { sender, recipient, ..QueueQuery::default() };
    let mut count = 0usize;
    if on.json {
        write!(on.out, "{{\"messages\":[")?;
    }
    loop {
        let page: QueuePage = on.relay.ask("/v1/queue", &query).await?;
        if on.json {
            for (index, message) in page.messages.iter().enumerate() {
                if count + index > 0 {
                    write!(on.out, ",")?;
                }
                serde_json::to_writer(&mut *on.out, message).map_err(std::io::Error::from)?;
            }
        } else {
            let header = ["ID", "AGE", "BYTES", "SENDER", "RECIPIENTS", "NEXT", "LAST ERROR"];
            let rows = page.messages.iter().map(|message| row(message, on.wall_s));
            table(on.out, (count == 0).then_some(&header[..]), rows)?;
        }
        count += page.messages.len();
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    if on.json {
        writeln!(on.out, "]}}")?;
    } else if count == 0 {
        writeln!(on.out, "the queue is empty")?;
    }
    Ok(Exit::Done)
}

/// An address as in an envelope, so that the empty one shows.
fn path(address: &str) -> String {
    format!("<{}>", escaped(address))
}

/// Text of strangers must not steer the terminal.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
        .collect()
}

fn row(message: &QueueSummary, wall_s: u64) -> Vec<String> {
    let mut recipients = match (&message.first_recipient, message.recipients) {
        (Some(first), 1) => path(first),
        (Some(first), count) => format!("{} and {} more", path(first), count.saturating_sub(1)),
        (None, _) => String::new(),
    };
    if message.badmail > 0 {
        let separator = if recipients.is_empty() { "" } else { ", " };
        recipients = format!("{recipients}{separator}{} in badmail", message.badmail);
    }
    vec![
        message.id.clone(),
        span(wall_s.saturating_sub(message.arrived.0)),
        message.size_bytes.to_string(),
        path(&message.sender),
        recipients,
        message.next_attempt.map_or_else(String::new, |at| expiry(Some(at), wall_s)),
        escaped(message.last_error.as_deref().unwrap_or_default()),
    ]
}

async fn show(id: &str, on: &mut Session<'_>) -> Result<Exit, Failure> {
    // An id is letters, digits and dashes; anything else would be another path.
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        writeln!(on.err, "postern: {id:?} is no queue id (see `postern queue list`)")?;
        return Ok(Exit::Nothing);
    }
    let message: QueueMessage = on.relay.get(&format!("/v1/queue/{id}")).await?;
    let wall_s = on.wall_s;
    on.show(&message, |message, out| {
        let facts = [
            ("id", message.id.clone()),
            ("sender", path(&message.sender)),
            ("bytes", message.size_bytes.to_string()),
            ("arrived", message.arrived.to_string()),
            ("from", message.source.clone().unwrap_or_else(|| "this machine".to_owned())),
            ("account", message.account.clone().unwrap_or_else(|| "none".to_owned())),
            ("helo", escaped(&message.helo)),
            ("listener", message.listener.clone()),
            ("put aside", message.put_aside.clone().unwrap_or_else(|| "no".to_owned())),
        ];
        table(out, None, facts.map(|(name, value)| vec![name.to_owned(), value]))?;
        writeln!(out)?;
        let rows = message.recipients.iter().map(|recipient| {
            vec![
                path(&recipient.address),
                recipient.rule.clone(),
                recipient.state.clone(),
                recipient.attempts.to_string(),
                recipient.next_attempt.map_or_else(String::new, |at| expiry(Some(at), wall_s)),
                escaped(recipient.last_error.as_deref().unwrap_or_default()),
            ]
        });
        let header = ["RECIPIENT", "RULE", "STATE", "ATTEMPTS", "NEXT", "LAST ERROR"];
        table(out, Some(&header), rows)?;
        writeln!(out)?;
        message.headers.lines().try_for_each(|line| {
            // A folded line begins with a tab, which steers nothing.
            let indent = if line.starts_with('\t') { "    " } else { "" };
            writeln!(out, "{indent}{}", escaped(line.trim_start_matches('\t')))
        })
    })?;
    Ok(Exit::Done)
}

async fn change(
    verb: &str,
    done: &str,
    select: QueueSelectArgs,
    on: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let request = QueueSelect { ids: select.ids, all: select.all };
    let affected: Affected = on.relay.post(&format!("/v1/queue/{verb}"), &request).await?;
    tell_affected("queue", done, ("message", "messages"), &affected, on)
}
