//! Looking into the queue: `queue list`, `queue show`, `queue stats`.

use super::body::BodyFolders;
use super::message::{from_ms, to_ms};
use super::read::Reader;
use super::schema::NEVER;
use super::{QueueId, StoreError};
use rusqlite::{OptionalExtension, Row, params};
use std::fs::File;
use std::io::Read;
use std::time::SystemTime;

/// Octets of the header section that `show` reads.
const HEADERS_BYTES_MAX: usize = 64 << 10;

/// Which messages are meant. Every part given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The reverse-path: `user@example.org`, `@example.org` for all of a domain, empty for null.
    pub sender: Option<String>,
    /// A recipient that still waits: `user@example.org`, or `example.org` or `@example.org` for
    /// all of a domain.
    pub recipient: Option<String>,
}

impl Filter {
    fn sender(&self) -> Option<String> {
        self.sender.as_deref().map(str::to_ascii_lowercase)
    }

    fn recipient(&self) -> Option<String> {
        self.recipient.as_deref().map(str::to_ascii_lowercase)
    }
}

const MATCHES: &str = "
  (?1 IS NULL OR lower(reverse_path) = ?1
    OR (substr(?1, 1, 1) = '@' AND substr(lower(reverse_path), -length(?1)) = ?1))
  AND (?2 IS NULL OR EXISTS
    (SELECT 1 FROM recipients r WHERE r.message = m.id
      AND (r.domain = ltrim(?2, '@') OR lower(r.address) = ?2)))";

/// One line of `queue list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageSummary {
    pub id: QueueId,
    pub reverse_path: String,
    pub received: SystemTime,
    pub size: u64,
    /// Still to be delivered.
    pub recipients: u32,
    /// Address of the first of them.
    pub first_recipient: Option<String>,
    /// The most attempts any of them has seen.
    pub attempts: u32,
    /// When the next attempt is due; `None` when none is.
    pub next_attempt: Option<SystemTime>,
    /// Why a recipient could not be reached.
    pub error: Option<String>,
    /// Recipients in badmail.
    pub badmail: u32,
    /// Why the message was put aside as damaged.
    pub quarantined: Option<String>,
}

/// `queue show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageDetail {
    pub summary: MessageSummary,
    pub source: Option<String>,
    pub account: Option<String>,
    pub helo: String,
    pub listener: String,
    pub recipients: Vec<RecipientDetail>,
    /// Address and reason of each recipient in badmail.
    pub badmail: Vec<(String, String)>,
    /// The header section up to 64 KiB; empty where the content cannot be read.
    pub headers: Vec<u8>,
}

/// A recipient that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientDetail {
    pub address: String,
    pub rule: String,
    pub attempts: u32,
    /// `None` while the message is put aside.
    pub next_attempt: Option<SystemTime>,
    pub last_attempt: Option<SystemTime>,
    pub error: Option<String>,
}

/// `queue stats`. Recipients are counted where not said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueStats {
    pub messages: u64,
    /// Octets of all contents.
    pub bytes: u64,
    /// Due now: waiting for a connection or in flight.
    pub due: u64,
    /// Waiting for the time of their next attempt.
    pub deferred: u64,
    pub badmail: u64,
    /// Messages put aside as damaged.
    pub quarantined: u64,
    /// Arrival of the oldest message.
    pub oldest: Option<SystemTime>,
}

const SUMMARY: &str = "
  SELECT m.id, m.reverse_path, m.received_ms, m.size,
    (SELECT count(*) FROM recipients r WHERE r.message = m.id),
    (SELECT address FROM recipients r WHERE r.message = m.id ORDER BY ordinal LIMIT 1),
    (SELECT max(attempts) FROM recipients r WHERE r.message = m.id),
    (SELECT min(due_ms) FROM recipients r WHERE r.message = m.id),
    (SELECT error FROM recipients r WHERE r.message = m.id AND error IS NOT NULL
      ORDER BY attempt_ms DESC LIMIT 1),
    (SELECT count(*) FROM badmail b WHERE b.message = m.id),
    (SELECT reason FROM quarantine q WHERE q.message = m.id),
    m.source, m.account, m.helo, m.listener, m.body_file
  FROM messages m WHERE";

fn summary(row: &Row<'_>) -> rusqlite::Result<MessageSummary> {
    Ok(MessageSummary {
        id: QueueId::from_row(row.get(0)?),
        reverse_path: row.get(1)?,
        received: from_ms(row.get(2)?),
        size: row.get::<_, i64>(3)?.cast_unsigned(),
        recipients: row.get(4)?,
        first_recipient: row.get(5)?,
        attempts: row.get::<_, Option<u32>>(6)?.unwrap_or(0),
        next_attempt: row.get::<_, Option<i64>>(7)?.filter(|ms| *ms != NEVER).map(from_ms),
        error: row.get(8)?,
        badmail: row.get(9)?,
        quarantined: row.get(10)?,
    })
}

/// A row that cannot be read is listed all the same, so that it can be deleted.
fn summary_or_damage(row: &Row<'_>) -> rusqlite::Result<MessageSummary> {
    summary(row).or_else(|error| {
        Ok(MessageSummary {
            id: QueueId::from_row(row.get(0)?),
            reverse_path: String::new(),
            received: SystemTime::UNIX_EPOCH,
            size: 0,
            recipients: 0,
            first_recipient: None,
            attempts: 0,
            next_attempt: None,
            error: None,
            badmail: 0,
            quarantined: Some(format!("the row cannot be read: {error}")),
        })
    })
}

pub(super) fn list(
    reader: &Reader,
    filter: &Filter,
    after: Option<QueueId>,
    limit: usize,
) -> Result<Vec<MessageSummary>, StoreError> {
    let sql = format!("{SUMMARY} {MATCHES} AND m.id > ?3 ORDER BY m.id LIMIT ?4");
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let after = after.map_or(-1, QueueId::row);
    let mut statement = reader.prepare_cached(&sql)?;
    let rows = statement
        .query_map(params![filter.sender(), filter.recipient(), after, limit], summary_or_damage)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Ids of all messages that match.
pub(super) fn ids(reader: &Reader, filter: &Filter) -> Result<Vec<QueueId>, StoreError> {
    let sql = format!("SELECT m.id FROM messages m WHERE {MATCHES}");
    let mut statement = reader.prepare_cached(&sql)?;
    let rows = statement.query_map(params![filter.sender(), filter.recipient()], |row| {
        Ok(QueueId::from_row(row.get(0)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn show(
    reader: &Reader,
    folders: &BodyFolders,
    id: QueueId,
) -> Result<Option<MessageDetail>, StoreError> {
    let mut statement = reader.prepare_cached(&format!("{SUMMARY} m.id = ?1"))?;
    let found = statement.query_row([id.row()], |row| {
        let detail = MessageDetail {
            summary: summary(row)?,
            source: row.get(11)?,
            account: row.get(12)?,
            helo: row.get(13)?,
            listener: row.get(14)?,
            recipients: Vec::new(),
            badmail: Vec::new(),
            headers: Vec::new(),
        };
        Ok((detail, row.get::<_, bool>(15)?))
    });
    let Some((mut detail, in_file)) = found.optional()? else { return Ok(None) };
    detail.recipients = recipients(reader, id)?;
    let mut badmail = reader.prepare_cached(
        "SELECT address, reason FROM badmail WHERE message = ?1 ORDER BY ordinal",
    )?;
    let rows = badmail.query_map([id.row()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    detail.badmail = rows.collect::<Result<_, _>>()?;
    // What is damaged can still be shown, without what is missing.
    detail.headers = headers(reader, folders, id, in_file).unwrap_or_default();
    Ok(Some(detail))
}

fn recipients(reader: &Reader, id: QueueId) -> Result<Vec<RecipientDetail>, StoreError> {
    let mut statement = reader.prepare_cached(
        "SELECT address, rule, attempts, due_ms, attempt_ms, error FROM recipients
         WHERE message = ?1 ORDER BY ordinal",
    )?;
    let rows = statement.query_map([id.row()], |row| {
        Ok(RecipientDetail {
            address: row.get(0)?,
            rule: row.get(1)?,
            attempts: row.get(2)?,
            next_attempt: Some(row.get(3)?).filter(|ms| *ms != NEVER).map(from_ms),
            last_attempt: row.get::<_, Option<i64>>(4)?.map(from_ms),
            error: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn headers(
    reader: &Reader,
    folders: &BodyFolders,
    id: QueueId,
    in_file: bool,
) -> Result<Vec<u8>, StoreError> {
    let mut start = Vec::new();
    if in_file {
        File::open(folders.body(id))?.take(HEADERS_BYTES_MAX as u64).read_to_end(&mut start)?;
    } else {
        let mut statement =
            reader.prepare_cached("SELECT substr(content, 1, ?2) FROM bodies WHERE id = ?1")?;
        start =
            statement.query_row(params![id.row(), HEADERS_BYTES_MAX as i64], |row| row.get(0))?;
    }
    start.truncate(header_length(&start));
    Ok(start)
}

/// Octets of the header section of a message, or of what there is of it, without the empty line.
pub(crate) fn header_length(content: &[u8]) -> usize {
    if content.starts_with(b"\r\n") {
        return 0;
    }
    let end = content.windows(4).position(|four| four == b"\r\n\r\n");
    end.map_or(content.len(), |end| end + 2)
}

pub(super) fn stats(reader: &Reader, now: SystemTime) -> Result<QueueStats, StoreError> {
    let mut statement = reader.prepare_cached(
        "SELECT
           (SELECT count(*) FROM messages), (SELECT coalesce(sum(size), 0) FROM messages),
           (SELECT count(*) FROM recipients WHERE due_ms <= ?1),
           (SELECT count(*) FROM recipients WHERE due_ms > ?1 AND due_ms < ?2),
           (SELECT count(*) FROM badmail), (SELECT count(*) FROM quarantine),
           (SELECT received_ms FROM messages ORDER BY id LIMIT 1)",
    )?;
    let stats = statement.query_row([to_ms(now), NEVER], |row| {
        let count =
            |column: usize| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.cast_unsigned());
        Ok(QueueStats {
            messages: count(0)?,
            bytes: count(1)?,
            due: count(2)?,
            deferred: count(3)?,
            badmail: count(4)?,
            quarantined: count(5)?,
            oldest: row.get::<_, Option<i64>>(6)?.map(from_ms),
        })
    })?;
    Ok(stats)
}
