//! What can go wrong with the queue, sorted by what the client is to be told.

use std::io;

/// Why the queue did not do what it was asked. Nothing was stored or changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk is full or below the reserve: the client may come again (452 4.3.1).
    #[error("no space for the queue: {0}")]
    Full(String),
    /// Too much comes in at once.
    #[error("too much at once for the queue: {0}")]
    Busy(String),
    /// The disk or the file system failed.
    #[error("the queue's disk fails: {0}")]
    Io(String),
    /// A row or a body file is not what was stored.
    #[error("damaged in the queue: {0}")]
    Damaged(String),
    /// The change contradicts what is stored; a fault of this change alone.
    #[error("refused by the queue: {0}")]
    Conflict(String),
    /// A message without recipients cannot be stored; a fault of the caller.
    #[error("a message needs a recipient")]
    NoRecipients,
    /// The queue is being shut down.
    #[error("the queue is closed")]
    Closed,
}

impl StoreError {
    /// Reply code and enhanced status (RFC 3463) for the client that wanted its message stored:
    /// always temporary, because the message is still the client's.
    pub fn status(&self) -> (u16, (u8, u16, u16)) {
        match self {
            Self::Full(_) => (452, (4, 3, 1)),
            Self::Busy(_) => (451, (4, 4, 5)),
            Self::Io(_) | Self::Damaged(_) | Self::Conflict(_) | Self::NoRecipients => {
                (451, (4, 3, 0))
            }
            Self::Closed => (451, (4, 3, 2)),
        }
    }

    /// The disk's fault rather than one request's: asking again at once would not help.
    pub(super) fn is_about_the_disk(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Io(_) | Self::Closed)
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::Full(error.to_string()),
            _ => Self::Io(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::{Error, ErrorCode};
        let text = error.to_string();
        match error {
            Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DiskFull => Self::Full(text),
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Self::Damaged(text),
                ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig => {
                    Self::Conflict(text)
                }
                _ => Self::Io(text),
            },
            // A column that holds another type than was stored, or text that is no UTF-8.
            Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::Utf8Error(..)
            | Error::InvalidColumnType(..) => Self::Damaged(text),
            _ => Self::Io(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_temporary_to_the_client() {
        let full = StoreError::from(io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(full.status(), (452, (4, 3, 1)));
        let io = StoreError::from(io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(io.status(), (451, (4, 3, 0)));
        let sqlite = |code| {
            StoreError::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None))
        };
        assert_eq!(sqlite(rusqlite::ffi::SQLITE_FULL).status(), (452, (4, 3, 1)));
        assert_eq!(sqlite(rusqlite::ffi::SQLITE_IOERR_FSYNC).status(), (451, (4, 3, 0)));
        assert!(matches!(sqlite(rusqlite::ffi::SQLITE_CORRUPT), StoreError::Damaged(_)));
        assert_eq!(StoreError::Busy(String::new()).status(), (451, (4, 4, 5)));
        assert_eq!(StoreError::Closed.status(), (451, (4, 3, 2)));
    }
}
