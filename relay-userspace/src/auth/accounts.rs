//! The account store: `accounts.db`, readable by its owner alone.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use thiserror::Error;
use tokio::sync::Semaphore;

use super::password::{self, PasswordError};
use crate::database::open_alone;

/// Bytes of an account name; that of a mail address (RFC 5321 section 4.5.3.1.3) fits.
pub const NAME_BYTES_MAX: usize = 254;
const LAYOUT: i64 = 1;

#[derive(Debug, Error)]
pub enum AccountError {
    #[error("{0:?} is no account name: letters, digits and . _ - + @ of ASCII, at most 254")]
    Name(String),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("account {0} exists already")]
    Exists(String),
    #[error("there is no account {0}")]
    Unknown(String),
    #[error("the account store has layout {0}, this program knows {LAYOUT}")]
    Layout(i64),
    #[error("account store: {0}")]
    Store(#[from] rusqlite::Error),
    #[error("account store: {0}")]
    Io(#[from] std::io::Error),
    #[error("the work on the account store was lost: {0}")]
    Lost(String),
}

/// An account as it is listed. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Account {
    pub name: String,
    pub disabled: bool,
    pub created_s: i64,
    pub password_set_s: i64,
}

/// The name in the one form that is stored and compared, lower case.
///
/// ASCII alone: two names that look the same must be the same, and none can carry a quote, a space
/// or a NUL into a log, a query or a directory.
pub fn fold_name(name: &str) -> Result<String, AccountError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-+@".contains(&b);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(AccountError::Name(name.chars().take(80).collect()));
    }
    Ok(name.to_ascii_lowercase())
}

/// A handle; clones share the store and the limits.
#[derive(Clone, Debug)]
pub struct Accounts {
    pub(super) store: Arc<Mutex<Connection>>,
    /// Verifications that may wait or run; beyond them the answer is "later".
    pub(super) waiting: Arc<Semaphore>,
    /// Hashes computed at once: each takes a core and 19 MiB.
    pub(super) hashing: Arc<Semaphore>,
}

impl Accounts {
    /// Opens the store, or makes it. Blocks; meant for start-up.
    pub fn open(path: &Path) -> Result<Self, AccountError> {
        // SQLite would make it by the umask; its WAL takes over the mode of the database.
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let store = open_alone(path)?;
        let layout: i64 = store.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match layout {
            // Written this once alone: a full disk must not keep anyone from logging in.
            0 => store.execute_batch(&format!(
                "BEGIN IMMEDIATE;
                 CREATE TABLE IF NOT EXISTS accounts (
                     name TEXT PRIMARY KEY NOT NULL,
                     hash TEXT NOT NULL,
                     disabled INTEGER NOT NULL DEFAULT 0,
                     created_s INTEGER NOT NULL,
                     password_set_s INTEGER NOT NULL
                 ) STRICT;
                 PRAGMA user_version = {LAYOUT};
                 COMMIT;"
            ))?,
            LAYOUT => {}
            other => return Err(AccountError::Layout(other)),
        }
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            store: Arc::new(Mutex::new(store)),
            waiting: Arc::new(Semaphore::new(64 * cores)),
            hashing: Arc::new(Semaphore::new(cores)),
        })
    }

    /// Makes an account; it can authenticate at once.
    pub async fn add(&self, name: &str, password: &str) -> Result<(), AccountError> {
        let (name, hash) = (fold_name(name)?, self.hash(password).await?);
        self.with_store(move |store| {
            let now = now_s();
            let sql = "INSERT INTO accounts (name, hash, created_s, password_set_s)
                       VALUES (?1, ?2, ?3, ?3)";
            match store.execute(sql, params![name, hash, now]) {
                Err(rusqlite::Error::SqliteFailure(e, _))
                    if e.code == ErrorCode::ConstraintViolation =>
                {
                    Err(AccountError::Exists(name))
                }
                other => other.map(|_| ()).map_err(AccountError::from),
            }
        })
        .await
    }

    pub async fn set_password(&self, name: &str, password: &str) -> Result<(), AccountError> {
        let (name, hash) = (fold_name(name)?, self.hash(password).await?);
        self.with_store(move |store| {
            let sql = "UPDATE accounts SET hash = ?2, password_set_s = ?3 WHERE name = ?1";
            one(store.execute(sql, params![name, hash, now_s()])?, name)
        })
        .await
    }

    /// A disabled account keeps its password and cannot authenticate.
    pub async fn set_disabled(&self, name: &str, disabled: bool) -> Result<(), AccountError> {
        let name = fold_name(name)?;
        self.with_store(move |store| {
            let sql = "UPDATE accounts SET disabled = ?2 WHERE name = ?1";
            one(store.execute(sql, params![name, disabled])?, name)
        })
        .await
    }

    pub async fn delete(&self, name: &str) -> Result<(), AccountError> {
        let name = fold_name(name)?;
        self.with_store(move |store| {
            one(store.execute("DELETE FROM accounts WHERE name = ?1", params![name])?, name)
        })
        .await
    }

    /// Every account, by name.
    pub async fn list(&self) -> Result<Vec<Account>, AccountError> {
        self.with_store(|store| {
            let mut query = store.prepare_cached(
                "SELECT name, disabled, created_s, password_set_s FROM accounts ORDER BY name",
            )?;
            let rows = query.query_map([], |row| {
                Ok(Account {
                    name: row.get(0)?,
                    disabled: row.get(1)?,
                    created_s: row.get(2)?,
                    password_set_s: row.get(3)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The stored hash, and whether the account is disabled.
    pub(super) async fn stored(
        &self,
        name: String,
    ) -> Result<Option<(String, bool)>, AccountError> {
        self.with_store(move |store| {
            let mut query =
                store.prepare_cached("SELECT hash, disabled FROM accounts WHERE name = ?1")?;
            Ok(query.query_row([name], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
        })
        .await
    }

    async fn hash(&self, password: &str) -> Result<String, AccountError> {
        let password = password.to_owned();
        let permit = self.hashing.clone().acquire_owned().await;
        let permit = permit.map_err(|closed| AccountError::Lost(closed.to_string()))?;
        let hash = tokio::task::spawn_blocking(move || {
            let hash = password::hash(&password);
            drop(permit);
            hash
        });
        Ok(hash.await.map_err(|lost| AccountError::Lost(lost.to_string()))??)
    }

    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, AccountError> + Send + 'static,
    ) -> Result<T, AccountError> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&lock(&store))).await;
        done.map_err(|lost| AccountError::Lost(lost.to_string()))?
    }
}

/// A holder that panicked has left no statement half done: SQLite rolls back.
fn lock(store: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    store.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn one(changed: usize, name: String) -> Result<(), AccountError> {
    if changed == 0 { Err(AccountError::Unknown(name)) } else { Ok(()) }
}

fn now_s() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn accounts_are_made_changed_listed_and_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts.db");
        let accounts = Accounts::open(&path).unwrap();
        accounts.add("Bob@Example.org", "secret").await.unwrap();
        accounts.add("alice", "secret").await.unwrap();
        let twice = accounts.add("ALICE", "other").await;
        assert!(matches!(twice, Err(AccountError::Exists(name)) if name == "alice"));
        accounts.set_disabled("Alice", true).await.unwrap();
        let before = accounts.stored("alice".to_owned()).await.unwrap().unwrap();
        accounts.set_password("alice", "new").await.unwrap();
        let after = accounts.stored("alice".to_owned()).await.unwrap().unwrap();
        assert!(before.0 != after.0 && before.1 && after.1);
        // What is stored survives the handle.
        drop(accounts);
        let accounts = Accounts::open(&path).unwrap();
        let listed = accounts.list().await.unwrap();
        let listed: Vec<_> = listed.iter().map(|a| (a.name.as_str(), a.disabled)).collect();
        assert_eq!(listed, [("alice", true), ("bob@example.org", false)]);
        accounts.delete("alice").await.unwrap();
        for gone in [
            accounts.delete("alice").await,
            accounts.set_password("alice", "x").await,
            accounts.set_disabled("alice", false).await,
        ] {
            assert!(matches!(gone, Err(AccountError::Unknown(_))));
        }
    }

    #[tokio::test]
    async fn the_store_is_for_its_owner_alone_and_holds_no_password() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts.db");
        let accounts = Accounts::open(&path).unwrap();
        accounts.add("alice", "a-very-long-password").await.unwrap();
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
            let bytes = std::fs::read(file.path()).unwrap();
            assert!(!bytes.windows(20).any(|w| w == b"a-very-long-password"));
        }
    }

    #[tokio::test]
    async fn another_layout_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts.db");
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
        assert!(matches!(Accounts::open(&path), Err(AccountError::Layout(7))));
        std::fs::write(&path, "this is no database at all, not even nearly").unwrap();
        assert!(matches!(Accounts::open(&path), Err(AccountError::Store(_))));
    }

    #[test]
    fn names_are_plain() {
        assert_eq!(fold_name("Alice.B+x@Example.org").unwrap(), "alice.b+x@example.org");
        for name in ["", "a b", "a\0", "a'b", "a\"b", "a\r\nb", "ä", "a\u{200b}", "a|b", "a%b"] {
            assert!(fold_name(name).is_err(), "{name:?}");
        }
        assert!(fold_name(&"a".repeat(254)).is_ok() && fold_name(&"a".repeat(255)).is_err());
    }
}
