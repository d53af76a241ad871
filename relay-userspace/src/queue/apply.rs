//! What each change does to the tables, inside the writer's transaction.

use super::body::{BodyFile, Checksum, Content};
use super::id::IdFloor;
use super::message::Stored;
use super::message::{Attempt, Bounce, NewMessage, Route, SenderReport, domain_of, to_ms};
use super::schema::NEVER;
use super::writer::Change;
use super::{QueueId, StoreError};
use relay_core::smtp::options::Notify;
use rusqlite::{Transaction, params};
use std::time::SystemTime;

/// How many messages a change touched.
pub(super) type Applied = u64;

/// What a transaction means for the world outside the database, once it is committed.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Body files that no row names any more.
    pub(super) files_unnamed: Vec<QueueId>,
    /// Recipients may have become due, but for those of new messages.
    pub(super) due_changed: bool,
    /// Messages were deleted or put aside.
    pub(super) removed: bool,
    /// The highest id of a new message.
    pub(super) highest: Option<QueueId>,
}

/// Makes a change; recipients of new messages are due from `now`.
pub(super) fn change(
    tx: &Transaction<'_>,
    change: &Change,
    now: SystemTime,
    effects: &mut Effects,
) -> Result<Applied, StoreError> {
    match change {
        Change::Store(stored) => store(tx, stored, now, effects),
        Change::Record(attempt) => record(tx, attempt, now, effects),
        Change::Retry { messages, now_ms } => retry(tx, messages, *now_ms, effects),
        Change::Delete { messages } => delete(tx, messages, effects),
        Change::Quarantine { message, reason, now_ms } => {
            quarantine(tx, *message, reason, *now_ms, effects)
        }
        #[cfg(test)]
        Change::LimitPages(_) => Ok(0),
    }
}

pub(super) fn raise_id_floor(tx: &Transaction<'_>, floor: IdFloor) -> Result<(), StoreError> {
    tx.prepare_cached("UPDATE id_floor SET id = ?1")?.execute([floor.id().row()])?;
    Ok(())
}

fn store(
    tx: &Transaction<'_>,
    stored: &Stored,
    now: SystemTime,
    effects: &mut Effects,
) -> Result<Applied, StoreError> {
    insert(tx, stored, now)?;
    effects.highest = effects.highest.max(Some(stored.id));
    Ok(1)
}

fn insert(tx: &Transaction<'_>, stored: &Stored, now: SystemTime) -> Result<(), StoreError> {
    let NewMessage { reverse_path, recipients, options, binary, source, account, helo, listener } =
        &stored.message;
    let id = stored.id.row();
    let in_file = matches!(stored.content, Content::<BodyFile>::File(_));
    tx.prepare_cached(
        "INSERT INTO messages VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16)",
    )?
    .execute(params![
        id,
        reverse_path,
        stored.received_ms,
        stored.size.cast_signed(),
        stored.checksum.cast_signed(),
        stored.eight_bit,
        in_file,
        source.map(|address| address.to_string()),
        account,
        helo,
        listener,
        binary,
        options.utf8,
        options.require_tls,
        options.ret.map(|ret| ret.to_string()),
        options.envid,
    ])?;
    if let Content::Inline(content) = &stored.content {
        tx.prepare_cached("INSERT INTO bodies VALUES (?1,?2)")?
            .execute(params![id, content.as_ref()])?;
    }
    let mut row = tx.prepare_cached(
        "INSERT INTO recipients
         (message, ordinal, address, domain, inbound, rule, due_ms, notify, orcpt)
         VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)",
    )?;
    // Due from now, not from its arrival: what becomes due is found in the order of this time.
    let due_ms = to_ms(now);
    for (ordinal, recipient) in (0i64..).zip(recipients) {
        row.execute(params![
            id,
            ordinal,
            recipient.address,
            domain_of(&recipient.address),
            recipient.route == Route::Inbound,
            recipient.rule,
            due_ms,
            recipient.options.notify.map(Notify::bits),
            recipient.options.orcpt.as_ref().map(ToString::to_string),
        ])?;
    }
    Ok(())
}

fn record(
    tx: &Transaction<'_>,
    attempt: &Attempt,
    now: SystemTime,
    effects: &mut Effects,
) -> Result<Applied, StoreError> {
    let id = attempt.message.row();
    let at_ms = to_ms(attempt.at);
    let mut told = 0;
    let about: &[u32] = match &attempt.report {
        SenderReport::Bounce(bounce) => &bounce.about,
        _ => &[],
    };
    for ordinal in &attempt.delivered {
        let removed = remove_recipient(tx, id, *ordinal)?;
        told += if about.contains(ordinal) { removed } else { 0 };
    }
    let mut later = tx.prepare_cached(
        "UPDATE recipients SET due_ms = ?3, attempts = attempts + 1, attempt_ms = ?4, error = ?5
         WHERE message = ?1 AND ordinal = ?2",
    )?;
    for deferral in &attempt.deferred {
        later.execute(params![id, deferral.ordinal, to_ms(deferral.due), at_ms, deferral.error])?;
        effects.due_changed = true;
    }
    for failure in &attempt.failed {
        if matches!(attempt.report, SenderReport::Badmail) {
            tx.prepare_cached(
                "INSERT INTO badmail SELECT message, ordinal, address, ?3, ?4 FROM recipients
                 WHERE message = ?1 AND ordinal = ?2",
            )?
            .execute(params![id, failure.ordinal, failure.reason, at_ms])?;
        }
        let removed = remove_recipient(tx, id, failure.ordinal)?;
        told += if about.contains(&failure.ordinal) { removed } else { 0 };
    }
    // Nobody is told of recipients that the administrator deleted during the attempt.
    if let SenderReport::Bounce(bounce) = &attempt.report
        && told > 0
    {
        insert_bounce(tx, bounce, at_ms, now)?;
        effects.highest = effects.highest.max(Some(bounce.id));
        effects.due_changed = true;
    }
    drop_if_done(tx, attempt.message, effects)?;
    Ok(1)
}

fn insert_bounce(
    tx: &Transaction<'_>,
    bounce: &Bounce,
    received_ms: i64,
    now: SystemTime,
) -> Result<(), StoreError> {
    let stored = Stored {
        id: bounce.id,
        message: bounce.message.clone(),
        received_ms,
        size: bounce.content.len() as u64,
        checksum: Checksum::of(&bounce.content),
        eight_bit: !bounce.content.is_ascii(),
        content: Content::Inline(bounce.content.clone().into()),
    };
    insert(tx, &stored, now)
}

fn remove_recipient(tx: &Transaction<'_>, id: i64, ordinal: u32) -> Result<usize, StoreError> {
    let mut gone =
        tx.prepare_cached("DELETE FROM recipients WHERE message = ?1 AND ordinal = ?2")?;
    Ok(gone.execute(params![id, ordinal])?)
}

/// Removes the message and its content once no recipient and no badmail row needs them.
fn drop_if_done(
    tx: &Transaction<'_>,
    message: QueueId,
    effects: &mut Effects,
) -> Result<(), StoreError> {
    let id = message.row();
    let needed = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM recipients WHERE message = ?1)
                 OR EXISTS (SELECT 1 FROM badmail WHERE message = ?1)",
        )?
        .query_row([id], |row| row.get::<_, bool>(0))?;
    if !needed {
        remove_message(tx, message, effects)?;
    }
    Ok(())
}

fn remove_message(
    tx: &Transaction<'_>,
    message: QueueId,
    effects: &mut Effects,
) -> Result<bool, StoreError> {
    let id = message.row();
    let gone = tx.prepare_cached("DELETE FROM messages WHERE id = ?1")?.execute([id])?;
    let inline = tx.prepare_cached("DELETE FROM bodies WHERE id = ?1")?.execute([id])?;
    tx.prepare_cached("DELETE FROM quarantine WHERE message = ?1")?.execute([id])?;
    if inline == 0 && gone > 0 {
        effects.files_unnamed.push(message);
    }
    Ok(gone > 0)
}

fn retry(
    tx: &Transaction<'_>,
    messages: &[QueueId],
    now_ms: i64,
    effects: &mut Effects,
) -> Result<Applied, StoreError> {
    let mut due = tx.prepare_cached("UPDATE recipients SET due_ms = ?2 WHERE message = ?1")?;
    let mut free = tx.prepare_cached("DELETE FROM quarantine WHERE message = ?1")?;
    let mut touched = 0;
    for message in messages {
        touched += u64::from(due.execute([message.row(), now_ms])? > 0);
        free.execute([message.row()])?;
    }
    effects.due_changed = true;
    Ok(touched)
}

fn delete(
    tx: &Transaction<'_>,
    messages: &[QueueId],
    effects: &mut Effects,
) -> Result<Applied, StoreError> {
    let mut recipients = tx.prepare_cached("DELETE FROM recipients WHERE message = ?1")?;
    let mut badmail = tx.prepare_cached("DELETE FROM badmail WHERE message = ?1")?;
    let mut touched = 0;
    for message in messages {
        recipients.execute([message.row()])?;
        badmail.execute([message.row()])?;
        touched += u64::from(remove_message(tx, *message, effects)?);
    }
    effects.removed = true;
    Ok(touched)
}

fn quarantine(
    tx: &Transaction<'_>,
    message: QueueId,
    reason: &str,
    now_ms: i64,
    effects: &mut Effects,
) -> Result<Applied, StoreError> {
    // A message deleted while it was being read looks damaged to the reader; it is no news.
    let there = tx
        .prepare_cached(
            "INSERT OR REPLACE INTO quarantine SELECT id, ?2, ?3 FROM messages WHERE id = ?1",
        )?
        .execute(params![message.row(), reason, now_ms])?;
    tx.prepare_cached("UPDATE recipients SET due_ms = ?2 WHERE message = ?1")?
        .execute([message.row(), NEVER])?;
    effects.removed = true;
    Ok(there as u64)
}
