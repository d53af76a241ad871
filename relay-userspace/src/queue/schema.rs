//! The database's layout, and how connections to it are opened.

use super::StoreError;
use rusqlite::{Connection, OpenFlags, config::DbConfig};
use std::path::Path;
use std::time::Duration;

/// Carried in `user_version`; a database with another number is not touched.
const LAYOUT: i64 = 2;

/// `due_ms` of a recipient that waits for the administrator, not for a time.
pub(super) const NEVER: i64 = i64::MAX;

/// From the layout before to the present one. Nothing is lost: mail of then asked for nothing.
const FROM_LAYOUT_1: &str = "
ALTER TABLE messages ADD COLUMN binary INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN utf8 INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN require_tls INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN ret TEXT;
ALTER TABLE messages ADD COLUMN envid TEXT;
ALTER TABLE recipients ADD COLUMN notify INTEGER;
ALTER TABLE recipients ADD COLUMN orcpt TEXT;
";

// Times are milliseconds since 1970. `messages.id` is the queue id's number. A message lives while
// a recipient or a badmail row names it. `body_file` says that the content is the file
// `bodies/ID`; otherwise it is in `bodies`. The id floor keeps ids rising over restarts.
const TABLES: &str = "
CREATE TABLE messages (
  id INTEGER PRIMARY KEY,
  reverse_path TEXT NOT NULL,
  received_ms INTEGER NOT NULL,
  size INTEGER NOT NULL,
  checksum INTEGER NOT NULL,
  eight_bit INTEGER NOT NULL,
  body_file INTEGER NOT NULL,
  source TEXT, account TEXT, helo TEXT NOT NULL, listener TEXT NOT NULL,
  binary INTEGER NOT NULL DEFAULT 0,
  utf8 INTEGER NOT NULL DEFAULT 0,
  require_tls INTEGER NOT NULL DEFAULT 0,
  ret TEXT,
  envid TEXT
);
CREATE TABLE bodies (id INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE TABLE recipients (
  message INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  address TEXT NOT NULL,
  domain TEXT NOT NULL,
  inbound INTEGER NOT NULL,
  rule TEXT NOT NULL,
  due_ms INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  attempt_ms INTEGER,
  error TEXT,
  notify INTEGER,
  orcpt TEXT,
  PRIMARY KEY (message, ordinal)
) WITHOUT ROWID;
CREATE INDEX recipients_due ON recipients (due_ms, message, ordinal);
CREATE TABLE badmail (
  message INTEGER NOT NULL,
  ordinal INTEGER NOT NULL,
  address TEXT NOT NULL,
  reason TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  PRIMARY KEY (message, ordinal)
) WITHOUT ROWID;
CREATE TABLE quarantine (
  message INTEGER PRIMARY KEY,
  reason TEXT NOT NULL,
  at_ms INTEGER NOT NULL
);
CREATE TABLE id_floor (id INTEGER NOT NULL);
INSERT INTO id_floor VALUES (0);
";

/// Opens the one writing connection, making the database on first use.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    // A 4 KiB message and its row fit one page of 8 KiB without an overflow chain.
    connection.pragma_update(None, "page_size", 8192)?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(StoreError::Io(format!("{}: no WAL on this file system", path.display())));
    }
    // FULL: COMMIT returns after the log is on disk. Without it a power cut loses answered mail.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // 2,000 pages: 16 MiB are written back at once, between two commits.
    connection.pragma_update(None, "wal_autocheckpoint", 2000)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    harden(&connection)?;
    let layout: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match layout {
        0 => connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {LAYOUT}; COMMIT;"
        ))?,
        1 => connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {FROM_LAYOUT_1} PRAGMA user_version = {LAYOUT}; COMMIT;"
        ))?,
        LAYOUT => {}
        other => {
            return Err(StoreError::Damaged(format!(
                "{} has layout {other}; this program knows {LAYOUT}",
                path.display()
            )));
        }
    }
    Ok(connection)
}

/// Opens a connection that can only read. It never waits for the writer, nor the writer for it.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    harden(&connection)?;
    Ok(connection)
}

fn harden(connection: &Connection) -> Result<(), StoreError> {
    connection.set_prepared_statement_cache_capacity(64);
    // Else every statement with a range is compiled anew for each value that is bound to it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    connection.pragma_update(None, "cell_size_check", "ON")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(())
}
