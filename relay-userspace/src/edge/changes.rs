//! One request's changes to the durable lists, as one transaction.

use std::collections::HashMap;

use ipnet::IpNet;
use relay_common::entry::List;
use rusqlite::{OptionalExtension, Transaction, params};

use super::desired::Claim;
use super::store::*;
use crate::control::api::Row;

/// One request's changes, written whole by [`Txn::commit`] or not at all.
#[derive(Debug)]
pub struct Txn<'a> {
    pub(super) inner: Transaction<'a>,
    slots: HashMap<String, u32>,
    /// Slots that were taken from a rule without rows; their counters start anew.
    pub recycled: Vec<u32>,
}

/// Whether a row was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Added,
    Updated,
    /// The same row was there, word for word.
    Unchanged,
}

impl<'a> Txn<'a> {
    pub(super) fn new(inner: Transaction<'a>) -> Self {
        Self { inner, slots: HashMap::new(), recycled: Vec::new() }
    }

    /// Adds a row, or replaces what the same source said about the same prefix.
    pub fn put(&mut self, list: List, row: &Row) -> Result<Put, StoreError> {
        let before = self.row(list, row.prefix, &row.source)?;
        if let Some(before) = &before
            && (Row { created: row.created, ..before.clone() }) == *row
        {
            return Ok(Put::Unchanged);
        }
        let slot = self.slot_for(&row.rule)?;
        let mut statement = self.inner.prepare_cached(
            "INSERT INTO entry (list, prefix, source, scope, reason, rule, rule_text, comment, \
             created_s, expires_s) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
             ON CONFLICT (list, prefix, source) DO UPDATE SET scope = ?4, reason = ?5, rule = ?6, \
             rule_text = ?7, comment = ?8, expires_s = ?10",
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
            seconds(row.created.0),
            row.expires.map(|at| seconds(at.0)),
        ])?;
        Ok(if before.is_some() { Put::Updated } else { Put::Added })
    }

    fn row(&self, list: List, prefix: IpNet, source: &str) -> Result<Option<Row>, StoreError> {
        let mut statement = self.inner.prepare_cached(&format!(
            "SELECT {ROW_COLUMNS} FROM entry WHERE list = ?1 AND prefix = ?2 AND source = ?3"
        ))?;
        let mut found =
            statement.query(params![list_number(list), prefix_bytes(prefix), source])?;
        found.next()?.map(row_of).transpose()
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
        let mut statement = self.inner.prepare_cached(
            "SELECT DISTINCT prefix FROM entry WHERE list = ?1 AND (?2 IS NULL OR source = ?2)",
        )?;
        let mut found = statement.query(params![list_number(list), source])?;
        let mut prefixes = Vec::new();
        while let Some(row) = found.next()? {
            prefixes.push(prefix_of(row.get_ref(0)?.as_blob().map_err(damaged)?)?);
        }
        Ok(prefixes)
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

    /// What the rows on a prefix say, with this transaction's changes.
    pub fn claims(&self, key: Key) -> Result<Vec<Claim>, StoreError> {
        let mut statement = self.inner.prepare_cached(
            "SELECT scope, reason, rule, expires_s FROM entry WHERE list = ?1 AND prefix = ?2",
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

    /// The counter slot of a rule: its own, the next unused, one whose rule has no rows any more,
    /// or the shared one.
    fn slot_for(&mut self, text: &str) -> Result<u32, StoreError> {
        if let Some(&slot) = self.slots.get(text) {
            return Ok(slot);
        }
        let known = self
            .inner
            .prepare_cached("SELECT slot FROM rule WHERE text = ?1")?
            .query_row([text], |row| row.get(0))
            .optional()?;
        let slot = match known {
            Some(slot) => slot,
            None => self.new_slot(text)?,
        };
        self.slots.insert(text.to_owned(), slot);
        Ok(slot)
    }

    /// The counter slots of rules that have no rows: those of the feeds. Ends the transaction;
    /// also returned are the slots that were another rule's before.
    pub fn slots_of(mut self, rules: &[String]) -> Result<(Vec<u32>, Vec<u32>), StoreError> {
        let slots = rules.iter().map(|rule| self.slot_for(rule)).collect::<Result<_, _>>()?;
        Ok((slots, self.commit()?))
    }

    fn new_slot(&mut self, text: &str) -> Result<u32, StoreError> {
        let last: u32 =
            self.inner.query_row("SELECT coalesce(max(slot), 0) FROM rule", [], |r| r.get(0))?;
        let slot = if last < RULE_SLOT_MAX {
            last + 1
        } else {
            let unused: Option<u32> = self
                .inner
                .query_row(
                    // Feeds have no rows here, and count all the same.
                    "SELECT slot FROM rule WHERE text NOT LIKE 'feed %' AND NOT EXISTS \
                     (SELECT 1 FROM entry WHERE entry.rule = rule.slot) LIMIT 1",
                    [],
                    |row| row.get(0),
                )
                .optional()?;
            let Some(slot) = unused else { return Ok(RULE_SLOT_OTHER) };
            // A slot promised to another rule of this very transaction has no row yet.
            self.slots.retain(|_, promised| *promised != slot);
            self.recycled.push(slot);
            slot
        };
        self.inner
            .prepare_cached("INSERT OR REPLACE INTO rule (slot, text) VALUES (?1, ?2)")?
            .execute(params![slot, text])?;
        Ok(slot)
    }

    /// Makes everything durable.
    pub fn commit(self) -> Result<Vec<u32>, StoreError> {
        self.inner.commit()?;
        Ok(self.recycled)
    }
}
