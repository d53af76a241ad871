//! SQLite databases that one connection of one process works with.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Error, ffi};

/// Nobody else should have it open; who looks into it for a moment is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// Opens a database, or makes it, as one that survives a power cut (WAL, synchronous=FULL).
///
/// SQLite keeps an index of its log in a file that processes share, and cannot even read without
/// room for that. On a full disk the index is in memory instead, and no other process can open the
/// database until this connection ends.
///
/// # Errors
/// It is no database, cannot be read, or is to be made and there is no room.
pub(crate) fn open_alone(path: &Path) -> rusqlite::Result<Connection> {
    match open(path, "NORMAL") {
        Err(error) if is_without_room_for_index(&error) => {
            tracing::warn!(database = %path.display(), "no room on the disk: the index is kept in memory");
            open(path, "EXCLUSIVE")
        }
        opened => opened,
    }
}

fn open(path: &Path, locking: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update_and_check(None, "locking_mode", locking, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // The index is needed with the first look, not before.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

fn is_without_room_for_index(error: &Error) -> bool {
    let Error::SqliteFailure(failure, _) = error else { return false };
    failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE
}
