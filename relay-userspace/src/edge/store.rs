//! The durable lists: one SQLite database that only the edge's owner task opens.
//!
//! A row is one source's word about one prefix of one list. Everything a request changes is one
//! transaction, synced before the maps are touched (WAL, synchronous=FULL). Time in rows is wall
//! time in seconds, since it must outlive a reboot.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use relay_common::entry::{List, Reason, Scope};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use thiserror::Error;

use super::changes::Txn;
use super::desired::Claim;
use crate::control::api::{Pending, Row, Time};
use crate::database::open_alone;

/// Counter slots for rules. Slot 0 is shared by the rules that found none free.
pub const RULE_SLOT_MAX: u32 = 65_535;
/// The slot of rules without one of their own.
pub const RULE_SLOT_OTHER: u32 = 0;
/// The database's name in the edge's folder.
pub const LISTS: &str = "lists.db";
/// How long a ban is remembered after its end.
pub const HISTORY_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Bans remembered for the ladder; beyond it the oldest are forgotten.
pub(super) const HISTORY_ROWS_MAX: u64 = 200_000;
/// Bans of one network that are looked at; no ladder is that long.
const HISTORY_OF_ONE_MAX: u64 = 100;
/// The source of rows that bans make.
pub const SOURCE_BAN: &str = "ban";

/// The source of rows that wait to be confirmed, before their number.
pub(super) const SOURCE_UNCONFIRMED: &str = "unconfirmed:";

const SCHEMA_VERSION: i64 = 3;
/// The version of which all is known that the lists need.
const VERSION_MIN: i64 = 2;
/// The tables of version 1; what came since stands in [`SINCE_VERSION_1`] and after it.
const SCHEMA_1: &str = "
CREATE TABLE entry (
    list INTEGER NOT NULL, prefix BLOB NOT NULL, source TEXT NOT NULL,
    scope INTEGER NOT NULL, reason INTEGER NOT NULL, rule INTEGER NOT NULL, rule_text TEXT NOT NULL,
    comment TEXT NOT NULL, created_s INTEGER NOT NULL, expires_s INTEGER,
    PRIMARY KEY (list, prefix, source)
) WITHOUT ROWID;
CREATE INDEX entry_expires ON entry (expires_s) WHERE expires_s IS NOT NULL;
CREATE INDEX entry_source ON entry (list, source);
CREATE INDEX entry_rule ON entry (rule);
CREATE TABLE rule (slot INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE history (network BLOB NOT NULL, ends_s INTEGER NOT NULL);
CREATE INDEX history_network ON history (network, ends_s);
CREATE INDEX history_ends ON history (ends_s);
";
/// `confirmed_s`: when a row that waits to be confirmed ends once it is; NULL for never.
const SINCE_VERSION_1: &str = "
ALTER TABLE entry ADD COLUMN observe INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entry ADD COLUMN confirmed_s INTEGER;
CREATE TABLE pending (
    id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, replaces INTEGER NOT NULL,
    made_s INTEGER NOT NULL, deadline_s INTEGER NOT NULL
);
";
/// What the filter has counted: by rule, and by what became of packets.
const SINCE_VERSION_2: &str = "
ALTER TABLE rule ADD COLUMN hits INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rule ADD COLUMN observed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rule ADD COLUMN last_hit_s INTEGER;
CREATE TABLE total (counter TEXT PRIMARY KEY, packets INTEGER NOT NULL) WITHOUT ROWID;
";

/// Why the durable lists could not be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    #[error("the database of lists failed: {0}")]
    Sqlite(rusqlite::Error),
    #[error("the database of lists has version {found}, and this program knows {SCHEMA_VERSION}")]
    Version { found: i64 },
    #[error("the database of lists holds a row that cannot be read: {0}")]
    Damaged(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// A prefix in one of the lists.
pub type Key = (List, IpNet);

/// The open database.
#[derive(Debug)]
pub struct Store {
    pub(super) connection: Connection,
}

impl Store {
    /// Opens or makes the database.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::prepare(open_alone(path)?)
    }

    fn prepare(connection: Connection) -> Result<Self, StoreError> {
        connection.set_prepared_statement_cache_capacity(32);
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let all = [SCHEMA_1, SINCE_VERSION_1, SINCE_VERSION_2];
        let known = usize::try_from(found).ok().and_then(|found| all.get(found..));
        let missing = known.ok_or(StoreError::Version { found })?.concat();
        if missing.is_empty() {
            return Ok(Self { connection });
        }
        let version = format!("PRAGMA user_version = {SCHEMA_VERSION};");
        let steps = format!("BEGIN IMMEDIATE;{missing}{version}COMMIT;");
        match connection.execute_batch(&steps) {
            // A disk without room is no reason to filter nothing.
            Err(error) if found >= VERSION_MIN => {
                tracing::error!(
                    %error,
                    "the database of lists cannot be brought to version {SCHEMA_VERSION}: until the \
                     next start the counters are not kept"
                );
                if !connection.is_autocommit() {
                    connection.execute_batch("ROLLBACK")?;
                }
            }
            done => done?,
        }
        Ok(Self { connection })
    }

    pub fn begin(&mut self) -> Result<Txn<'_>, StoreError> {
        let inner = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Ok(Txn::new(inner))
    }

    /// Calls `each` with every prefix and the claims on it, in order of list and prefix.
    pub fn for_each_key(&self, mut each: impl FnMut(Key, &[Claim])) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT list, prefix, scope, observe, reason, rule, expires_s FROM entry \
             ORDER BY list, prefix",
        )?;
        let mut found = statement.query([])?;
        let mut current: Option<Key> = None;
        let mut claims = Vec::new();
        while let Some(row) = found.next()? {
            let key =
                (list_of(row.get(0)?)?, prefix_of(row.get_ref(1)?.as_blob().map_err(damaged)?)?);
            if current != Some(key) {
                if let Some(done) = current.replace(key) {
                    each(done, &claims);
                }
                claims.clear();
            }
            claims.push(claim_of(row, 2)?);
        }
        if let Some(done) = current {
            each(done, &claims);
        }
        Ok(())
    }

    /// The rows on one prefix.
    pub fn rows_on(&self, key: Key) -> Result<Vec<Row>, StoreError> {
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {ROW_COLUMNS} FROM entry WHERE list = ?1 AND prefix = ?2 ORDER BY source"
        ))?;
        let mut found = statement.query(params![list_number(key.0), prefix_bytes(key.1)])?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            rows.push(row_of(row)?);
        }
        Ok(rows)
    }

    /// Up to `limit` rows of a list behind `after`, in order of prefix and source.
    pub fn page(
        &self,
        list: List,
        source: Option<&str>,
        after: Option<(IpNet, &str)>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let (after_prefix, after_source) =
            after.map_or((Vec::new(), ""), |(prefix, source)| (prefix_bytes(prefix), source));
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {ROW_COLUMNS} FROM entry WHERE list = ?1 AND (prefix, source) > (?2, ?3) \
             AND (?4 IS NULL OR source = ?4) ORDER BY prefix, source LIMIT ?5"
        ))?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut found = statement.query(params![
            list_number(list),
            after_prefix,
            after_source,
            source,
            limit
        ])?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            rows.push(row_of(row)?);
        }
        Ok(rows)
    }

    /// Rows by list and source.
    pub fn count_by_source(&self) -> Result<BTreeMap<List, BTreeMap<String, u64>>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT list, source, count(*) FROM entry GROUP BY list, source")?;
        let mut found = statement.query([])?;
        let mut counts: BTreeMap<List, BTreeMap<String, u64>> = BTreeMap::new();
        while let Some(row) = found.next()? {
            counts
                .entry(list_of(row.get(0)?)?)
                .or_default()
                .insert(row.get(1)?, unsigned(row.get(2)?));
        }
        Ok(counts)
    }

    /// Rows of bans that are still in force.
    pub fn live_bans(&self, wall_s: u64) -> Result<u64, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT count(*) FROM entry WHERE list = ?1 AND source = ?2 AND expires_s > ?3",
        )?;
        let count = statement
            .query_row(params![list_number(List::Deny), SOURCE_BAN, seconds(wall_s)], |row| {
                row.get(0)
            })?;
        Ok(unsigned(count))
    }

    /// The second at which the next row, or the wait for a confirmation, ends.
    pub fn next_expiry_s(&self) -> Result<Option<u64>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT min(at) FROM (SELECT min(expires_s) AS at FROM entry \
             WHERE expires_s IS NOT NULL UNION ALL SELECT min(deadline_s) FROM pending)",
        )?;
        let next: Option<i64> = statement.query_row([], |row| row.get(0))?;
        Ok(next.map(unsigned))
    }

    /// When the remembered bans of a network ended or will end, oldest first.
    pub fn ban_ends(&self, network: IpNet) -> Result<Vec<u64>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT ends_s FROM (SELECT ends_s FROM history WHERE network = ?1 \
             ORDER BY ends_s DESC LIMIT ?2) ORDER BY ends_s",
        )?;
        let limit = seconds(HISTORY_OF_ONE_MAX);
        let ends = statement.query_map(params![prefix_bytes(network), limit], |row| row.get(0))?;
        Ok(ends.map(|end| end.map(unsigned)).collect::<Result<_, _>>()?)
    }

    /// Changes that wait to be confirmed, oldest first.
    pub fn pending(&self) -> Result<Vec<Pending>, StoreError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, source, made_s, deadline_s, (SELECT count(*) FROM entry \
             WHERE list = ?1 AND entry.source = ?2 || pending.id) FROM pending ORDER BY id",
        )?;
        let found =
            statement.query_map(params![list_number(List::Deny), SOURCE_UNCONFIRMED], |row| {
                Ok(Pending {
                    id: unsigned(row.get(0)?),
                    source: row.get(1)?,
                    made: Time(unsigned(row.get(2)?)),
                    until: Time(unsigned(row.get(3)?)),
                    rows: unsigned(row.get(4)?),
                })
            })?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Rules and their counter slots.
    pub fn rules(&self) -> Result<Vec<(u32, String)>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT slot, text FROM rule ORDER BY slot")?;
        let rules = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rules.collect::<Result<_, _>>()?)
    }

    /// The rule of a counter slot.
    pub fn rule_of(&self, slot: u32) -> Result<Option<String>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT text FROM rule WHERE slot = ?1")?;
        Ok(statement.query_row([slot], |row| row.get(0)).optional()?)
    }

    /// The counter slot of a rule.
    pub fn slot_of(&self, rule: &str) -> Result<u32, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT slot FROM rule WHERE text = ?1")?;
        let slot = statement.query_row([rule], |row| row.get(0)).optional()?;
        Ok(slot.unwrap_or(RULE_SLOT_OTHER))
    }
}

pub(super) const ROW_COLUMNS: &str =
    "prefix, source, scope, observe, reason, rule_text, comment, created_s, expires_s";

pub(super) fn row_of(row: &rusqlite::Row<'_>) -> Result<Row, StoreError> {
    Ok(Row {
        prefix: prefix_of(row.get_ref(0)?.as_blob().map_err(damaged)?)?,
        source: row.get(1)?,
        scope: Scope::from_bits(row.get(2)?),
        observe: row.get(3)?,
        reason: reason_of(row.get(4)?)?,
        rule: row.get(5)?,
        comment: row.get(6)?,
        created: Time(unsigned(row.get(7)?)),
        expires: row.get::<_, Option<i64>>(8)?.map(unsigned).map(Time),
    })
}

/// The columns from `first`: scope, observe, reason, rule, expires_s.
pub(super) fn claim_of(row: &rusqlite::Row<'_>, first: usize) -> Result<Claim, StoreError> {
    Ok(Claim::of_row(
        Scope::from_bits(row.get(first)?),
        row.get(first + 1)?,
        reason_of(row.get(first + 2)?)?,
        row.get(first + 3)?,
        row.get::<_, Option<i64>>(first + 4)?.map(unsigned),
    ))
}

pub(super) fn list_number(list: List) -> u8 {
    match list {
        List::Allow => 0,
        List::Deny => 1,
    }
}

pub(super) fn list_of(number: u8) -> Result<List, StoreError> {
    List::ALL
        .into_iter()
        .find(|list| list_number(*list) == number)
        .ok_or_else(|| StoreError::Damaged(format!("list {number}")))
}

fn reason_of(number: u8) -> Result<Reason, StoreError> {
    Reason::from_number(number).ok_or_else(|| StoreError::Damaged(format!("reason {number}")))
}

/// SQLite's integers are signed; no time or count here comes near the difference.
pub(super) fn seconds(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Nothing negative is ever written; a hand that did so meant the beginning of time.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Family, address, length: sorts as prefixes do.
pub(super) fn prefix_bytes(prefix: IpNet) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(18);
    match prefix.network() {
        IpAddr::V4(address) => {
            bytes.push(4);
            bytes.extend(address.octets());
        }
        IpAddr::V6(address) => {
            bytes.push(6);
            bytes.extend(address.octets());
        }
    }
    bytes.push(prefix.prefix_len());
    bytes
}

pub(super) fn prefix_of(bytes: &[u8]) -> Result<IpNet, StoreError> {
    let read = || -> Option<IpNet> {
        let (&family, rest) = bytes.split_first()?;
        let (&len, address) = rest.split_last()?;
        let address = match family {
            4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
            6 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
            _ => return None,
        };
        IpNet::new(address, len).ok()
    };
    read().ok_or_else(|| StoreError::Damaged(format!("prefix {bytes:02x?}")))
}

pub(super) fn damaged(error: rusqlite::types::FromSqlError) -> StoreError {
    StoreError::Damaged(error.to_string())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
