//! One request's changes to the durable lists, as one transaction.

use std::collections::HashMap;

use ipnet::IpNet;
use relay_common::entry::{List, Reason, Scope};
use relay_common::parse::Family;
use rusqlite::{OptionalExtension, Transaction, params};

use super::desired::Claim;
use super::store::*;
use crate::control::api::Row;

/// One request's changes, written whole by [`Txn::commit`] or not at all.
#[derive(Debug)]
pub struct Txn<'a> {
    pub(super) inner: Transaction<'a>,
    pub(super) slots: HashMap<String, u32>,
    /// Slots that were given to a rule; their counters start anew, whatever they counted for before.
    pub counted_anew: Vec<u32>,
    /// Below this no slot is free; above it nobody has looked.
    pub(super) searched: u32,
    /// No number is left that no rule has.
    pub(super) gapless: bool,
}

/// Whether a row was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Added,
    Updated,
    /// The same row was there, word for word.
    Unchanged,
}

/// What confirming a change has done to its source's rows.
#[derive(Debug)]
pub struct Confirmed {
    /// Prefixes of which it said something before.
    pub replaced: Vec<IpNet>,
    /// Prefixes of which it says something now.
    pub confirmed: Vec<IpNet>,
}

/// A row to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewRow<'a> {
    pub prefix: IpNet,
    pub scope: Scope,
    pub observe: bool,
    pub reason: Reason,
    pub rule: &'a str,
    pub source: &'a str,
    pub comment: &'a str,
    pub created_s: u64,
    pub expires_s: Option<u64>,
    /// When it ends once it is confirmed.
    pub confirmed_s: Option<u64>,
}

impl<'a> From<&'a Row> for NewRow<'a> {
    fn from(row: &'a Row) -> Self {
        Self {
            prefix: row.prefix,
            scope: row.scope,
            observe: row.observe,
            reason: row.reason,
            rule: &row.rule,
            source: &row.source,
            comment: &row.comment,
            created_s: row.created.0,
            expires_s: row.expires.map(|at| at.0),
            confirmed_s: None,
        }
    }
}

impl<'a> Txn<'a> {
    pub(super) fn new(inner: Transaction<'a>) -> Self {
        Self { inner, slots: HashMap::new(), counted_anew: Vec::new(), searched: 0, gapless: false }
    }

    /// Adds a row, or replaces what the same source said about the same prefix.
    pub fn put(&mut self, list: List, row: &Row) -> Result<Put, StoreError> {
        self.put_claiming(list, &row.into(), false, &mut Vec::new())
    }

    /// As [`put`](Self::put); unless the row was there, `claims` becomes what all rows on its
    /// prefix say then. With `is_first` no live row stands on it, and none is looked for.
    pub fn put_claiming(
        &mut self,
        list: List,
        row: &NewRow<'_>,
        is_first: bool,
        claims: &mut Vec<Claim>,
    ) -> Result<Put, StoreError> {
        claims.clear();
        let put = if is_first { Put::Added } else { self.compare(list, row, claims)? };
        if put != Put::Unchanged {
            let slot = self.slot_for(row.rule)?;
            self.write(list, row, slot)?;
            let NewRow { scope, observe, reason, expires_s, .. } = *row;
            claims.push(Claim::of_row(scope, observe, reason, slot, expires_s));
        }
        Ok(put)
    }

    /// What putting a row would do, and the claims of other sources on its prefix.
    fn compare(
        &self,
        list: List,
        row: &NewRow<'_>,
        claims: &mut Vec<Claim>,
    ) -> Result<Put, StoreError> {
        let mut statement = self.inner.prepare_cached(
            "SELECT scope, observe, reason, rule, expires_s, source, rule_text, comment, \
             confirmed_s FROM entry WHERE list = ?1 AND prefix = ?2",
        )?;
        let mut found = statement.query(params![list_number(list), prefix_bytes(row.prefix)])?;
        let mut put = Put::Added;
        while let Some(old) = found.next()? {
            let claim = claim_of(old, 0)?;
            let text = |column| -> Result<&str, StoreError> {
                old.get_ref(column)?.as_str().map_err(damaged)
            };
            if text(5)? != row.source {
                claims.push(claim);
                continue;
            }
            let says = Claim::of_row(row.scope, row.observe, row.reason, claim.rule, row.expires_s);
            let confirmed_s = old.get::<_, Option<i64>>(8)?.map(unsigned);
            let same = claim == says && text(6)? == row.rule && text(7)? == row.comment;
            let same = same && confirmed_s == row.confirmed_s;
            put = if same { Put::Unchanged } else { Put::Updated };
        }
        Ok(put)
    }

    fn write(&self, list: List, row: &NewRow<'_>, slot: u32) -> Result<(), StoreError> {
        let mut statement = self.inner.prepare_cached(
            "INSERT INTO entry (list, prefix, source, scope, reason, rule, rule_text, comment, \
             created_s, expires_s, observe, confirmed_s) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) \
             ON CONFLICT (list, prefix, source) DO UPDATE SET scope = ?4, reason = ?5, rule = ?6, \
             rule_text = ?7, comment = ?8, expires_s = ?10, observe = ?11, confirmed_s = ?12",
        )?;
        statement.execute(params![
            list_number(list),
            prefix_bytes(row.prefix),
            row.source,
            row.scope.bits(),
            row.reason as u8,
            slot,
            row.rule,
            row.comment,
            seconds(row.created_s),
            row.expires_s.map(seconds),
            row.observe,
            row.confirmed_s.map(seconds),
        ])?;
        Ok(())
    }

    /// Removes the rows on a prefix, of every source or of one. Says how many there were.
    pub fn remove(&self, key: Key, source: Option<&str>) -> Result<u64, StoreError> {
        let mut statement = self.inner.prepare_cached(
            "DELETE FROM entry WHERE list = ?1 AND prefix = ?2 AND (?3 IS NULL OR source = ?3)",
        )?;
        let gone = statement.execute(params![list_number(key.0), prefix_bytes(key.1), source])?;
        Ok(gone as u64)
    }

    /// The prefixes with a row of this list, of every source or of one.
    pub fn prefixes(&self, list: List, source: Option<&str>) -> Result<Vec<IpNet>, StoreError> {
        self.prefixes_of(
            "SELECT DISTINCT prefix FROM entry WHERE list = ?1 AND (?2 IS NULL OR source = ?2)",
            params![list_number(list), source],
        )
    }

    /// Removes every row that is over, and names the prefixes to be merged anew.
    pub fn expire(&self, wall_s: u64) -> Result<Vec<Key>, StoreError> {
        let mut statement = self
            .inner
            .prepare_cached("DELETE FROM entry WHERE expires_s <= ?1 RETURNING list, prefix")?;
        let mut found = statement.query([seconds(wall_s)])?;
        let mut keys = Vec::new();
        while let Some(row) = found.next()? {
            let prefix = prefix_of(row.get_ref(1)?.as_blob().map_err(damaged)?)?;
            keys.push((list_of(row.get(0)?)?, prefix));
        }
        Ok(keys)
    }

    /// The ban with the least time left of a family, among those that alone deny their prefix.
    pub fn shortest_ban(&self, family: Family) -> Result<Option<IpNet>, StoreError> {
        let mut statement = self.inner.prepare_cached(
            "SELECT prefix FROM entry AS ban WHERE expires_s IS NOT NULL AND list = ?1 \
             AND source = ?2 AND length(prefix) = ?3 AND NOT EXISTS (SELECT 1 FROM entry \
             WHERE list = ?1 AND prefix = ban.prefix AND source <> ?2) \
             ORDER BY expires_s LIMIT 1",
        )?;
        let length = i64::from(family.bits() / 8) + 2;
        let mut found = statement.query(params![list_number(List::Deny), SOURCE_BAN, length])?;
        let Some(row) = found.next()? else { return Ok(None) };
        prefix_of(row.get_ref(0)?.as_blob().map_err(damaged)?).map(Some)
    }

    /// Notes a change that waits to be confirmed, and numbers it.
    pub fn note_pending(
        &self,
        source: &str,
        replaces: bool,
        made_s: u64,
        deadline_s: u64,
    ) -> Result<u64, StoreError> {
        self.inner
            .prepare_cached(
                "INSERT INTO pending (source, replaces, made_s, deadline_s) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![source, replaces, seconds(made_s), seconds(deadline_s)])?;
        Ok(unsigned(self.inner.last_insert_rowid()))
    }

    /// Makes the rows of a change that waits those of its source, each with the end that it was
    /// asked for, in place of what the source said about the same prefixes; or in place of all
    /// that it said, where the change replaces. Names the prefixes to be merged anew; `None` where
    /// no such change waits.
    pub fn confirm(&self, id: u64) -> Result<Option<Confirmed>, StoreError> {
        let id = seconds(id);
        let found: Option<(String, bool)> = self
            .inner
            .prepare_cached("DELETE FROM pending WHERE id = ?1 RETURNING source, replaces")?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((source, replaces)) = found else { return Ok(None) };
        let list = list_number(List::Deny);
        let waiting = format!("{SOURCE_UNCONFIRMED}{id}");
        let replaced = self.prefixes_of(
            "DELETE FROM entry WHERE list = ?1 AND source = ?2 AND (?4 OR prefix IN \
             (SELECT prefix FROM entry WHERE list = ?1 AND source = ?3)) RETURNING prefix",
            params![list, source, waiting, replaces],
        )?;
        let confirmed = self.prefixes_of(
            "UPDATE entry SET source = ?2, expires_s = confirmed_s, confirmed_s = NULL \
             WHERE list = ?1 AND source = ?3 RETURNING prefix",
            params![list, source, waiting],
        )?;
        Ok(Some(Confirmed { replaced, confirmed }))
    }

    fn prefixes_of(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<IpNet>, StoreError> {
        let mut statement = self.inner.prepare_cached(sql)?;
        let mut found = statement.query(params)?;
        let mut prefixes = Vec::new();
        while let Some(row) = found.next()? {
            prefixes.push(prefix_of(row.get_ref(0)?.as_blob().map_err(damaged)?)?);
        }
        Ok(prefixes)
    }

    /// Forgets the changes that were not confirmed in time, and names them.
    pub fn lapse(&self, wall_s: u64) -> Result<Vec<u64>, StoreError> {
        let mut statement =
            self.inner.prepare_cached("DELETE FROM pending WHERE deadline_s <= ?1 RETURNING id")?;
        let ids = statement.query_map([seconds(wall_s)], |row| row.get(0).map(unsigned))?;
        Ok(ids.collect::<Result<_, _>>()?)
    }

    /// What the rows on a prefix say, with this transaction's changes.
    pub fn claims(&self, key: Key) -> Result<Vec<Claim>, StoreError> {
        let mut statement = self.inner.prepare_cached(
            "SELECT scope, observe, reason, rule, expires_s FROM entry \
             WHERE list = ?1 AND prefix = ?2",
        )?;
        let mut found = statement.query(params![list_number(key.0), prefix_bytes(key.1)])?;
        let mut claims = Vec::new();
        while let Some(row) = found.next()? {
            claims.push(claim_of(row, 0)?);
        }
        Ok(claims)
    }

    /// Remembers a ban for the ladder, and forgets what is too old or too much.
    pub fn remember_ban(&self, network: IpNet, ends_s: u64, wall_s: u64) -> Result<(), StoreError> {
        self.inner
            .prepare_cached("INSERT INTO history (network, ends_s) VALUES (?1, ?2)")?
            .execute(params![prefix_bytes(network), seconds(ends_s)])?;
        let since = wall_s.saturating_sub(HISTORY_KEPT.as_secs());
        self.inner
            .prepare_cached("DELETE FROM history WHERE ends_s <= ?1")?
            .execute([seconds(since)])?;
        let newest: i64 =
            self.inner
                .query_row("SELECT coalesce(max(rowid), 0) FROM history", [], |r| r.get(0))?;
        // Row ids grow by one a ban, so those far enough below the newest are the oldest.
        self.inner
            .prepare_cached("DELETE FROM history WHERE rowid <= ?1")?
            .execute([newest.saturating_sub(seconds(HISTORY_ROWS_MAX))])?;
        Ok(())
    }

    /// Forgets the bans of a network: whoever lifts one by hand says that it was a mistake.
    pub fn forgive(&self, network: IpNet) -> Result<(), StoreError> {
        self.inner
            .prepare_cached("DELETE FROM history WHERE network = ?1")?
            .execute([prefix_bytes(network)])?;
        Ok(())
    }

    /// Makes everything durable.
    pub fn commit(self) -> Result<Vec<u32>, StoreError> {
        self.inner.commit()?;
        Ok(self.counted_anew)
    }
}
