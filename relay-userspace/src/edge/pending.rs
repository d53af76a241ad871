//! Denials that wait to be confirmed. Their rows stand under a source of their own and end at the
//! deadline, in the kernel too: whoever has cut himself off, and every daemon with him, is let in
//! again. Confirmed in time, they become what was asked for.

use std::collections::BTreeSet;

use relay_common::entry::List;

use super::commit::commit;
use super::filter::Filter;
use super::state::Edge;
use super::store::Key;
use crate::control::api::{Changed, Code, ConfirmRequest, Pending, Problem};

impl<F: Filter> Edge<F> {
    /// The changes that wait, oldest first.
    pub fn pending_changes(&self) -> Result<Vec<Pending>, Problem> {
        Ok(self.store.pending()?)
    }

    /// Confirms changes: all that were named, or none.
    pub fn confirm(&mut self, request: &ConfirmRequest) -> Result<Changed, Problem> {
        let now = self.now();
        let waiting: Vec<u64> = self.store.pending()?.iter().map(|pending| pending.id).collect();
        let ids = chosen(request, &waiting)?;
        let mut changed = Changed::default();
        let mut keys: BTreeSet<Key> = BTreeSet::new();
        let txn = self.store.begin()?;
        for &id in &ids {
            let confirmed = txn.confirm(id)?.ok_or_else(|| not_waiting(id))?;
            let made: BTreeSet<_> = confirmed.confirmed.into_iter().collect();
            let before: BTreeSet<_> = confirmed.replaced.into_iter().collect();
            changed.updated += made.intersection(&before).count() as u64;
            changed.added += made.difference(&before).count() as u64;
            changed.removed += before.difference(&made).count() as u64;
            keys.extend(made.union(&before).map(|&prefix| (List::Deny, prefix)));
        }
        let committed = commit(txn, keys, &self.desired, self.filter.capacity(), now)?;
        changed.warning = self.enforce(committed, now);
        tracing::info!(?ids, "denials confirmed");
        Ok(changed)
    }
}

fn chosen(request: &ConfirmRequest, waiting: &[u64]) -> Result<Vec<u64>, Problem> {
    let nothing = || Problem::new(Code::NotFound, "no change waits to be confirmed");
    match (request.all, request.ids.as_slice(), waiting) {
        (true, [], []) | (false, [], []) => Err(nothing()),
        (true, [], all) => Ok(all.to_vec()),
        (true, ..) => Err(Problem::new(Code::Invalid, "all of them, or some, and not both")),
        (false, [], [only]) => Ok(vec![*only]),
        (false, [], several) => {
            let message = format!("{} changes wait to be confirmed", several.len());
            Err(Problem::new(Code::Invalid, message)
                .remedy("name one as `postern deny pending` shows it, or --all"))
        }
        (false, ids, waiting) => {
            let ids: BTreeSet<u64> = ids.iter().copied().collect();
            match ids.iter().find(|id| !waiting.contains(id)) {
                Some(&id) => Err(not_waiting(id)),
                None => Ok(ids.into_iter().collect()),
            }
        }
    }
}

fn not_waiting(id: u64) -> Problem {
    let message = format!("no change {id} waits to be confirmed; nothing was changed");
    Problem::new(Code::NotFound, message).remedy("it may have ended by itself: deny it again")
}
