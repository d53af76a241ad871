//! The reading side: what is due, and a message for delivery.

use super::body::{self, BodyFolders, Checksum, Content};
use super::message::{DueCursor, DueRecipient, LoadedMessage, Rest, Route, from_ms, to_ms};
use super::schema::NEVER;
use super::{QueueId, StoreError};
use relay_core::smtp::options::{MailOptions, Notify, OriginalRecipient, RcptOptions, Returned};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::time::SystemTime;

pub(super) type Reader = Connection;

/// A page of what is due.
#[derive(Debug, Default)]
pub(super) struct DuePage {
    pub(super) recipients: Vec<DueRecipient>,
    pub(super) rest: Rest,
    /// Messages with a row here that cannot be read.
    pub(super) damaged: Vec<(QueueId, String)>,
}

pub(super) fn due(
    reader: &Reader,
    now: SystemTime,
    cursor: DueCursor,
    limit: usize,
) -> Result<DuePage, StoreError> {
    let mut statement = reader.prepare_cached(
        "SELECT message, ordinal, address, domain, inbound, rule, attempts, due_ms, notify, orcpt
         FROM recipients
         WHERE due_ms <= ?1 AND (due_ms, message, ordinal) > (?2, ?3, ?4)
         ORDER BY due_ms, message, ordinal LIMIT ?5",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![
        to_ms(now).min(NEVER - 1),
        cursor.due_ms,
        cursor.message,
        cursor.ordinal,
        limit
    ])?;
    let mut page = DuePage::default();
    let mut read = 0;
    let mut last = None;
    while let Some(row) = rows.next()? {
        read += 1;
        last = Some(DueCursor { due_ms: row.get(7)?, message: row.get(0)?, ordinal: row.get(1)? });
        match due_recipient(row).map_err(StoreError::from) {
            Ok(recipient) => page.recipients.push(recipient),
            Err(StoreError::Damaged(reason)) => {
                page.damaged.push((QueueId::from_row(row.get(0)?), reason));
            }
            Err(other) => return Err(other),
        }
    }
    page.rest = match last.filter(|_| read == limit) {
        Some(last) => Rest::More(last),
        None => Rest::Until(next_due(reader, now)?),
    };
    Ok(page)
}

fn due_recipient(row: &Row<'_>) -> rusqlite::Result<DueRecipient> {
    let inbound: bool = row.get(4)?;
    Ok(DueRecipient {
        message: QueueId::from_row(row.get(0)?),
        ordinal: row.get(1)?,
        address: row.get(2)?,
        domain: row.get(3)?,
        route: if inbound { Route::Inbound } else { Route::Relay },
        options: recipient_options(row)?,
        rule: row.get(5)?,
        attempts: row.get(6)?,
        due: from_ms(row.get(7)?),
    })
}

/// What cannot be read was not asked for.
fn recipient_options(row: &Row<'_>) -> rusqlite::Result<RcptOptions> {
    let orcpt: Option<String> = row.get(9)?;
    Ok(RcptOptions {
        notify: row.get::<_, Option<u8>>(8)?.map(Notify::from_bits),
        orcpt: orcpt.and_then(|orcpt| OriginalRecipient::parse(&orcpt)),
    })
}

fn next_due(reader: &Reader, now: SystemTime) -> Result<Option<SystemTime>, StoreError> {
    let mut statement = reader
        .prepare_cached("SELECT min(due_ms) FROM recipients WHERE due_ms > ?1 AND due_ms < ?2")?;
    let ms: Option<i64> = statement.query_row([to_ms(now), NEVER], |row| row.get(0))?;
    Ok(ms.map(from_ms))
}

/// Whether a row says that this message's content is in a file.
pub(super) fn names_body_file(reader: &Reader, id: QueueId) -> Result<bool, StoreError> {
    let mut statement = reader.prepare_cached("SELECT body_file FROM messages WHERE id = ?1")?;
    Ok(statement.query_row([id.row()], |row| row.get(0)).optional()?.unwrap_or(false))
}

pub(super) fn load(
    reader: &Reader,
    folders: &BodyFolders,
    id: QueueId,
) -> Result<Option<LoadedMessage>, StoreError> {
    let mut statement = reader.prepare_cached(
        "SELECT reverse_path, received_ms, size, checksum, eight_bit, body_file,
                binary, utf8, require_tls, ret, envid
         FROM messages WHERE id = ?1",
    )?;
    let row = statement.query_row([id.row()], |row| {
        let size: i64 = row.get(2)?;
        let checksum: i64 = row.get(3)?;
        let in_file: bool = row.get(5)?;
        let message = LoadedMessage {
            id,
            reverse_path: row.get(0)?,
            received: from_ms(row.get(1)?),
            size: size.cast_unsigned(),
            eight_bit: row.get(4)?,
            binary: row.get(6)?,
            options: MailOptions {
                utf8: row.get(7)?,
                require_tls: row.get(8)?,
                ret: row.get::<_, Option<String>>(9)?.and_then(|ret| Returned::parse(&ret)),
                envid: row.get(10)?,
            },
            content: Content::Inline(Default::default()),
        };
        Ok((message, checksum.cast_unsigned(), in_file))
    });
    let Some((mut message, checksum, in_file)) = row.optional()? else { return Ok(None) };
    message.content = if in_file {
        Content::File(body::open_checked(&folders.body(id), message.size, checksum)?)
    } else {
        Content::Inline(inline_checked(reader, id, message.size, checksum)?.into())
    };
    Ok(Some(message))
}

fn inline_checked(
    reader: &Reader,
    id: QueueId,
    size: u64,
    checksum: u64,
) -> Result<Vec<u8>, StoreError> {
    let mut statement = reader.prepare_cached("SELECT content FROM bodies WHERE id = ?1")?;
    let content: Option<Vec<u8>> = statement.query_row([id.row()], |row| row.get(0)).optional()?;
    let Some(content) = content else {
        return Err(StoreError::Damaged(format!("{id} has no content")));
    };
    if (content.len() as u64, Checksum::of(&content)) != (size, checksum) {
        let text = format!("{id}: {} octets that are not the {size} stored", content.len());
        return Err(StoreError::Damaged(text));
    }
    Ok(content)
}
