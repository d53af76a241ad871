//! Writing what the lists call for into the filter. What fails is told, kept and tried again.

use ipnet::IpNet;
use relay_common::entry::{Entry, List, Scope};
use relay_common::layout::RuleHits;

use super::clock::Now;
use super::commit::Committed;
use super::desired::Claim;
use super::draining::Draining;
use super::filter::{Filter, FilterError};
use super::state::{Edge, RETRY_AFTER_MS};
use super::store::Key;
use crate::control::api::{Code, Problem, WorkStage};

/// Entries that are given to the filter at once.
const BATCH_MAX: usize = 32_768;

impl<F: Filter> Edge<F> {
    /// Enforces what is on disk. A failure is not the request's: it is told, kept and retried.
    pub(super) fn enforce(&mut self, committed: Committed, now: Now) -> Option<String> {
        let guarded_before = self.guarded();
        let mut failure = None;
        self.reset_rules(committed.counted_anew, &mut failure);
        // Widened before an entry needs it, narrowed after the last that did is gone.
        let denied = committed.updates.iter().filter(|((list, _), _)| *list == List::Deny);
        let spoken = denied.filter_map(|(_, claim)| claim.as_ref()).map(Claim::speaks);
        let meanwhile = spoken.fold(guarded_before, Scope::union);
        if meanwhile != guarded_before {
            self.guard(meanwhile, &mut failure);
        }
        self.work.begin(WorkStage::Enforcing, committed.updates.len());
        let mut updates = committed.updates;
        // What comes is in force before what goes is gone, unless it needs its room.
        if self.desired.lacks_room(&updates, self.filter.capacity()) {
            updates.sort_unstable_by_key(|((list, _), claim)| (*list, claim.is_some()));
        }
        let mut updates = Draining::new(updates);
        let mut keys = Vec::new();
        loop {
            keys.clear();
            for (key, claim) in updates.by_ref().take(BATCH_MAX) {
                self.desired.set(key, claim);
                keys.push(key);
            }
            if keys.is_empty() {
                break;
            }
            let failed = self.write_all(&keys, now, &mut failure);
            for key in &keys {
                self.pending.remove(key);
            }
            self.pending.extend(failed);
            if keys.iter().any(|(list, _)| *list == List::Allow) {
                self.feeds.look_soon();
            }
        }
        if self.guarded() != meanwhile {
            self.guard(self.guarded(), &mut failure);
        }
        if failure.is_some() {
            self.next_reconcile_ms = self.next_reconcile_ms.min(now.boot_ms + RETRY_AFTER_MS);
        }
        self.next_expiry_s = self.store.next_expiry_s().unwrap_or(Some(now.wall_s()));
        failure.map(|error| {
            format!("saved, but not yet enforced, and tried again in seconds: {error}")
        })
    }

    pub(super) fn reset_rules(&mut self, slots: Vec<u32>, failure: &mut Option<String>) {
        for slot in slots {
            let done = self.filter.set_rule(slot, RuleHits::default());
            self.note(done, failure);
        }
    }

    /// Counts a refusal for want of room.
    pub(super) fn note_full<T>(&mut self, done: Result<T, Problem>) -> Result<T, Problem> {
        if let Err(problem) = &done
            && problem.code == Code::Full
        {
            self.health.list_full += 1;
        }
        done
    }

    pub(super) fn guard(&mut self, scope: Scope, failure: &mut Option<String>) {
        let done = self.filter.set_guarded(scope);
        self.note(done, failure);
    }

    pub(super) fn note(&mut self, done: Result<(), FilterError>, failure: &mut Option<String>) {
        if let Err(error) = done {
            let is_full = matches!(error, FilterError::Full { .. });
            let error = error.to_string();
            // One of a run is enough for the log; the status has the count.
            if failure.is_none() {
                tracing::error!(%error, "writing the filter");
            }
            self.health.write_failures += 1;
            self.health.list_full += u64::from(is_full);
            self.health.last_failure = Some(error.clone());
            failure.get_or_insert(error);
        }
    }

    /// Writes one prefix as it should be now.
    pub(super) fn write(&mut self, (list, prefix): Key, now: Now) -> Result<(), FilterError> {
        match self.desired.get((list, prefix)).and_then(|claim| claim.entry(prefix, now)) {
            Some(entry) => self.filter.put(list, prefix, entry),
            None => self.filter.remove(list, prefix).map(drop),
        }
    }

    /// Writes prefixes as they should be now: many at once, and one by one where that fails, so
    /// that each failure is known. Returns those that could not be written.
    pub(super) fn write_all(
        &mut self,
        keys: &[Key],
        now: Now,
        failure: &mut Option<String>,
    ) -> Vec<Key> {
        let mut failed = Vec::new();
        for keys in keys.chunk_by(|a, b| a.0 == b.0).flat_map(|keys| keys.chunks(BATCH_MAX)) {
            let entry_of = |key: &Key| self.desired.get(*key)?.entry(key.1, now);
            let puts = keys.iter().filter_map(|key| Some((key.1, entry_of(key)?)));
            let puts: Vec<(IpNet, Entry)> = puts.collect();
            let list = keys[0].0;
            let all_put = puts.len() > 1 && self.filter.put_all(list, &puts).is_ok();
            for &key in keys {
                if all_put && self.desired.get(key).and_then(|it| it.entry(key.1, now)).is_some() {
                    continue;
                }
                let done = self.write(key, now);
                if done.is_err() {
                    failed.push(key);
                }
                self.note(done, failure);
            }
            self.work.advance(keys.len());
        }
        failed
    }
}
