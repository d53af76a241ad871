//! Counter slots: each rule has one, by which the filter counts, for as long as it has rows.

use rusqlite::{OptionalExtension, params};

use super::changes::Txn;
use super::store::{RULE_SLOT_MAX, RULE_SLOT_OTHER, StoreError};

impl Txn<'_> {
    /// The counter slot of a rule: its own, the next unused, one whose rule has no rows any more,
    /// or the shared one.
    pub(super) fn slot_for(&mut self, text: &str) -> Result<u32, StoreError> {
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
    /// also returned are the slots whose counters start anew.
    pub fn slots_of(mut self, rules: &[String]) -> Result<(Vec<u32>, Vec<u32>), StoreError> {
        let slots = rules.iter().map(|rule| self.slot_for(rule)).collect::<Result<_, _>>()?;
        Ok((slots, self.commit()?))
    }

    fn new_slot(&mut self, text: &str) -> Result<u32, StoreError> {
        let last: u32 =
            self.inner.query_row("SELECT coalesce(max(slot), 0) FROM rule", [], |r| r.get(0))?;
        let slot = if last < RULE_SLOT_MAX {
            last + 1
        } else if let Some(gap) = self.gap()? {
            gap
        } else {
            let unused: Option<u32> = self
                .inner
                .query_row(
                    // Feeds have no rows here, and count all the same.
                    "SELECT slot FROM rule WHERE slot > ?1 AND text NOT LIKE 'feed %' AND NOT EXISTS \
                     (SELECT 1 FROM entry WHERE entry.rule = rule.slot) ORDER BY slot LIMIT 1",
                    [self.searched],
                    |row| row.get(0),
                )
                .optional()?;
            // Going on from there, all of a request's rules together cost one walk.
            self.searched = unused.unwrap_or(RULE_SLOT_MAX);
            let Some(slot) = unused else { return Ok(RULE_SLOT_OTHER) };
            // A slot promised to another rule of this very transaction has no row yet.
            self.slots.retain(|_, promised| *promised != slot);
            slot
        };
        self.counted_anew.push(slot);
        self.inner
            .prepare_cached("INSERT OR REPLACE INTO rule (slot, text) VALUES (?1, ?2)")?
            .execute(params![slot, text])?;
        Ok(slot)
    }

    /// A number that no rule has, since its rule was forgotten.
    fn gap(&mut self) -> Result<Option<u32>, StoreError> {
        if self.gapless {
            return Ok(None);
        }
        let mut statement = self.inner.prepare_cached("SELECT slot FROM rule ORDER BY slot")?;
        let mut taken = statement.query([])?;
        let mut expected = RULE_SLOT_OTHER + 1;
        while let Some(row) = taken.next()?
            && row.get::<_, u32>(0)? == expected
        {
            expected += 1;
        }
        self.gapless = expected > RULE_SLOT_MAX;
        Ok((!self.gapless).then_some(expected))
    }

    /// Gives a feed's rule another name, unless a rule bears that already. Its counter goes on.
    pub fn rename_rule(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.inner
            .prepare_cached("UPDATE OR IGNORE rule SET text = ?2 WHERE text = ?1")?
            .execute([from, to])?;
        Ok(())
    }

    /// Forgets the rules of feeds but of those that are still there, and ends the transaction.
    /// Returned are their slots and names.
    pub fn forget_feed_rules(
        self,
        is_there: impl Fn(&str) -> bool,
    ) -> Result<Vec<(u32, String)>, StoreError> {
        let mut statement = self.inner.prepare(
            "SELECT slot, text FROM rule WHERE text GLOB 'feed *' \
             AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.rule = rule.slot)",
        )?;
        let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut gone: Vec<(u32, String)> = found.collect::<Result<_, _>>()?;
        drop(statement);
        gone.retain(|(_, text)| !is_there(text));
        for (slot, _) in &gone {
            self.inner.execute("DELETE FROM rule WHERE slot = ?1", [slot])?;
        }
        self.commit()?;
        Ok(gone)
    }
}
