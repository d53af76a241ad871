//! The queue verbs.

use axum::{
    Json,
    extract::{Path, State},
};

use super::{Answered, Relay, time};
use crate::{
    control::{
        api::*,
        extract::{Ask, Body},
    },
    queue::{Filter, MessageDetail, MessageSummary, QueueId, StoreError},
};

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(Code::Storage, error.to_string())
    }
}

fn id_of(text: &str) -> Result<QueueId, Problem> {
    text.parse().map_err(|_| {
        Problem::new(Code::NotFound, format!("{text:?} is no queue id"))
            .remedy("`postern queue list` shows them")
    })
}

pub(super) async fn list(State(shared): Relay, Ask(query): Ask<QueueQuery>) -> Answered<QueuePage> {
    let filter = Filter { sender: query.sender, recipient: query.recipient };
    let after = query.after.as_deref().map(id_of).transpose()?;
    let limit = query.limit.unwrap_or(PAGE_ROWS_MAX).clamp(1, PAGE_ROWS_MAX);
    let found = shared.spool.list(filter, after, limit).await?;
    let next = (found.len() == limit).then(|| found.last().map(|last| last.id.to_string()));
    Ok(Json(QueuePage { messages: found.into_iter().map(summary).collect(), next: next.flatten() }))
}

fn summary(message: MessageSummary) -> QueueSummary {
    QueueSummary {
        id: message.id.to_string(),
        sender: message.reverse_path,
        size_bytes: message.size,
        arrived: time(message.received),
        recipients: message.recipients,
        first_recipient: message.first_recipient,
        badmail: message.badmail,
        attempts: message.attempts,
        next_attempt: message.next_attempt.map(time),
        last_error: message.quarantined.or(message.error),
    }
}

pub(super) async fn show(State(shared): Relay, Path(id): Path<String>) -> Answered<QueueMessage> {
    let found = shared.spool.show(id_of(&id)?).await?;
    found.map(detail).map(Json).ok_or_else(|| {
        Problem::new(Code::NotFound, format!("there is no message {id} in the queue"))
    })
}

fn detail(message: MessageDetail) -> QueueMessage {
    let waiting = message.recipients.into_iter().map(|recipient| QueueRecipient {
        address: recipient.address,
        rule: recipient.rule,
        state: "waiting".to_owned(),
        attempts: recipient.attempts,
        next_attempt: recipient.next_attempt.map(time),
        last_error: recipient.error,
    });
    let badmail = message.badmail.into_iter().map(|(address, reason)| QueueRecipient {
        address,
        rule: String::new(),
        state: "badmail".to_owned(),
        attempts: 0,
        next_attempt: None,
        last_error: Some(reason),
    });
    let summary = message.summary;
    QueueMessage {
        id: summary.id.to_string(),
        sender: summary.reverse_path,
        size_bytes: summary.size,
        arrived: time(summary.received),
        source: message.source,
        account: message.account,
        helo: message.helo,
        listener: message.listener,
        put_aside: summary.quarantined,
        recipients: waiting.chain(badmail).collect(),
        headers: String::from_utf8_lossy(&message.headers).into_owned(),
    }
}

pub(super) async fn retry(
    State(shared): Relay,
    Body(select): Body<QueueSelect>,
) -> Answered<Affected> {
    if select.all {
        let count = shared.spool.retry_matching(Filter::default()).await?;
        return Ok(Json(Affected { count, missing: Vec::new() }));
    }
    let (ids, missing) = there(&shared.spool, &select.ids).await?;
    Ok(Json(Affected { count: shared.spool.retry(ids).await?, missing }))
}

pub(super) async fn delete(
    State(shared): Relay,
    Body(select): Body<QueueSelect>,
) -> Answered<Affected> {
    if select.all {
        let count = shared.spool.delete_matching(Filter::default()).await?;
        tracing::warn!(count, "queue: all messages deleted by command");
        return Ok(Json(Affected { count, missing: Vec::new() }));
    }
    let (ids, missing) = there(&shared.spool, &select.ids).await?;
    for id in &ids {
        tracing::warn!(queue_id = %id, "queue: message deleted by command");
    }
    Ok(Json(Affected { count: shared.spool.delete(ids).await?, missing }))
}

/// Those of the named messages that are in the queue, and those that are not.
async fn there(
    spool: &crate::queue::Spool,
    named: &[String],
) -> Result<(Vec<QueueId>, Vec<String>), Problem> {
    if named.len() > PREFIXES_MAX {
        return Err(Problem::new(
            Code::TooLarge,
            format!("more than {PREFIXES_MAX} messages named"),
        ));
    }
    let (mut ids, mut missing) = (Vec::new(), Vec::new());
    for name in named {
        let id = match name.parse::<QueueId>() {
            Ok(id) => spool.show(id).await?.map(|_| id),
            Err(_) => None,
        };
        match id {
            Some(id) => ids.push(id),
            None => missing.push(name.clone()),
        }
    }
    Ok((ids, missing))
}
