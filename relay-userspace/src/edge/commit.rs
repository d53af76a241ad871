//! Changes of the durable lists, and what they come to for the maps.

use std::collections::BTreeSet;

use super::changes::Txn;
use super::clock::Now;
use super::desired::{Claim, merge};
use super::filter::MapSizes;
use super::store::{Key, Store, StoreError};
use super::wanted::Desired;
use crate::control::api::{Code, Problem};

/// Changes that are on disk and are now to be enforced.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) updates: Vec<(Key, Option<Claim>)>,
    /// Slots whose counters start anew.
    pub(super) counted_anew: Vec<u32>,
}

/// Removes the rows that are over, without a look at the maps.
pub(super) fn remove_expired(store: &mut Store, now: Now) -> Result<(), StoreError> {
    let txn = store.begin()?;
    txn.expire(now.wall_s())?;
    for id in txn.lapse(now.wall_s())? {
        tracing::warn!(id, "denials were not confirmed in time, and are gone");
    }
    txn.commit().map(drop)
}

/// Merges the touched prefixes anew, checks that there is room, and makes the transaction durable.
pub(super) fn commit(
    txn: Txn<'_>,
    keys: BTreeSet<Key>,
    desired: &Desired,
    capacity: MapSizes,
    now: Now,
) -> Result<Committed, Problem> {
    let updates = updates_of(&txn, keys, desired, now)?;
    commit_updates(txn, updates, desired, capacity)
}

/// What the touched prefixes come to, where that is something else than before.
pub(super) fn updates_of(
    txn: &Txn<'_>,
    keys: BTreeSet<Key>,
    desired: &Desired,
    now: Now,
) -> Result<Vec<(Key, Option<Claim>)>, StoreError> {
    let mut updates = Vec::with_capacity(keys.len());
    for key in keys {
        let claim = merge(&txn.claims(key)?, now.wall_s());
        if claim != desired.get(key) {
            updates.push((key, claim));
        }
    }
    Ok(updates)
}

/// As [`commit`], where it is known what the prefixes come to.
pub(super) fn commit_updates(
    txn: Txn<'_>,
    updates: Vec<(Key, Option<Claim>)>,
    desired: &Desired,
    capacity: MapSizes,
) -> Result<Committed, Problem> {
    desired.room(&updates, capacity)?;
    Ok(Committed { updates, counted_anew: txn.commit()? })
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(Code::Storage, format!("{error}; nothing was changed"))
            .remedy("see that the disk has room and the database can be written")
    }
}
