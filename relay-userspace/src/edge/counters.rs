//! Counters that outlive the filter.
//!
//! The filter counts, and what stands in it holds. A copy is kept with the lists every few minutes
//! and when the edge ends, and a filter that has counted nothing yet goes on from there: after it
//! was taken off, after a reboot, or under a new layout of the maps. A kill leaves the filter, and
//! so needs no copy; where another process ends such a filter, it makes the copy
//! ([`super::left_behind`]).

use std::collections::BTreeMap;
use std::path::Path;

use relay_common::layout::RuleHits;
use relay_common::totals::{Counter, Totals};
use rusqlite::params;

use super::changes::Txn;
use super::clock::{self, Now};
use super::filter::{Filter, FilterError};
use super::kernel::Counters;
use super::state::Edge;
use super::store::{Store, StoreError, seconds, unsigned};
use crate::control::api::Problem;

/// How often a copy is made while the edge runs: a machine that loses its power loses so much.
pub(super) const KEEP_EVERY_MS: u64 = 5 * 60 * 1000;

/// What a rule has counted, as it is kept: the time of the last hit is wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeptHits {
    hits: u64,
    observed: u64,
    last_hit_s: Option<u64>,
}

impl KeptHits {
    fn of(hits: RuleHits, now: Now) -> Self {
        let RuleHits { hits, observed, last_s } = hits;
        Self { hits, observed, last_hit_s: now.wall_s_at(last_s) }
    }

    fn is_nothing(self) -> bool {
        self.hits == 0 && self.observed == 0
    }

    fn in_filter(self, now: Now) -> RuleHits {
        let last_s = self.last_hit_s.map_or(0, |wall_s| now.boot_s_at(wall_s));
        RuleHits { hits: self.hits, observed: self.observed, last_s }
    }
}

impl Store {
    /// The rules' counter slots, and what was kept of each.
    fn kept_rules(&self) -> Result<Vec<(u32, KeptHits)>, StoreError> {
        let mut statement =
            self.connection.prepare_cached("SELECT slot, hits, observed, last_hit_s FROM rule")?;
        let kept = statement.query_map([], |row| {
            let last_hit_s: Option<i64> = row.get(3)?;
            let (hits, observed) = (unsigned(row.get(1)?), unsigned(row.get(2)?));
            Ok((row.get(0)?, KeptHits { hits, observed, last_hit_s: last_hit_s.map(unsigned) }))
        })?;
        Ok(kept.collect::<Result<_, _>>()?)
    }

    /// What became of packets, by the names of the counters.
    fn kept_totals(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT counter, packets FROM total")?;
        let kept = statement.query_map([], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
        Ok(kept.collect::<Result<_, _>>()?)
    }
}

impl Txn<'_> {
    fn keep_rule(&self, slot: u32, kept: KeptHits) -> Result<(), StoreError> {
        let KeptHits { hits, observed, last_hit_s } = kept;
        self.inner
            .prepare_cached(
                "UPDATE rule SET hits = ?2, observed = ?3, last_hit_s = ?4 WHERE slot = ?1",
            )?
            .execute(params![slot, seconds(hits), seconds(observed), last_hit_s.map(seconds)])?;
        Ok(())
    }

    fn keep_total(&self, counter: &str, packets: u64) -> Result<(), StoreError> {
        self.inner
            .prepare_cached("INSERT OR REPLACE INTO total (counter, packets) VALUES (?1, ?2)")?
            .execute(params![counter, seconds(packets)])?;
        Ok(())
    }
}

/// Makes the copy. Where a rule has counted nothing since the last one, that has the time of its last
/// hit right: the filter's own is in seconds since boot, and the clock may have been set since.
fn keep(
    store: &mut Store,
    totals: Totals,
    hits_of: impl Fn(u32) -> Result<RuleHits, FilterError>,
    now: Now,
) -> Result<(), Problem> {
    let kept = store.kept_totals()?;
    let of_totals = Counter::all().map(|counter| (counter.to_string(), totals.get(counter)));
    let is_new = |name: &String, packets| kept.get(name).copied().unwrap_or_default() != packets;
    let of_totals: Vec<_> = of_totals.filter(|(name, packets)| is_new(name, *packets)).collect();
    let mut of_rules = Vec::new();
    for (slot, kept) in store.kept_rules()? {
        let counted = KeptHits::of(hits_of(slot)?, now);
        if (counted.hits, counted.observed) != (kept.hits, kept.observed) {
            of_rules.push((slot, counted));
        }
    }
    if of_totals.is_empty() && of_rules.is_empty() {
        return Ok(());
    }
    let txn = store.begin()?;
    for (counter, packets) in of_totals {
        txn.keep_total(&counter, packets)?;
    }
    for (slot, counted) in of_rules {
        txn.keep_rule(slot, counted)?;
    }
    txn.commit()?;
    Ok(())
}

/// Keeps what a filter has counted that was left behind, and is ended without an edge.
///
/// # Errors
/// The lists in `database` or the filter's counters cannot be read or written.
pub(super) fn keep_of_left(counters: &Counters, database: &Path) -> anyhow::Result<()> {
    let mut store = Store::open(database)?;
    let kept = counters.totals().map_err(Problem::from).and_then(|totals| {
        keep(&mut store, totals, |rule| counters.rule_hits(rule), clock::system())
    });
    kept.map_err(|problem| anyhow::anyhow!(problem.message))
}

impl<F: Filter> Edge<F> {
    /// Has counters that have counted nothing yet go on from what was kept, each by itself.
    pub(super) fn restore_counters(&mut self, now: Now) {
        if let Err(problem) = self.try_restore_counters(now) {
            tracing::error!(error = problem.message, "counters begin anew");
            self.health.last_failure = Some(problem.message);
        }
    }

    fn try_restore_counters(&mut self, now: Now) -> Result<(), Problem> {
        let mut restored = 0;
        for (slot, kept) in self.store.kept_rules()? {
            if !kept.is_nothing() && self.filter.rule_hits(slot)? == RuleHits::default() {
                self.filter.set_rule(slot, kept.in_filter(now))?;
                restored += 1;
            }
        }
        if self.filter.totals()? == Totals::default() {
            let kept = self.store.kept_totals()?;
            let mut totals = Totals::default();
            for counter in Counter::all() {
                totals.add(counter, kept.get(&counter.to_string()).copied().unwrap_or_default());
            }
            self.filter.set_totals(&totals)?;
        }
        if restored > 0 {
            tracing::info!(rules = restored, "counters go on from what was kept");
        }
        Ok(())
    }

    pub(super) fn tick_counters(&mut self, now: Now) {
        if now.boot_ms >= self.keep_counters_at_ms {
            self.keep_counters_at_ms = now.boot_ms.saturating_add(KEEP_EVERY_MS);
            self.keep_counters();
        }
    }

    /// Makes the copy.
    pub(super) fn keep_counters(&mut self) {
        let (filter, now) = (&self.filter, (self.clock)());
        let kept = filter
            .totals()
            .map_err(Problem::from)
            .and_then(|totals| keep(&mut self.store, totals, |rule| filter.rule_hits(rule), now));
        if let Err(problem) = kept {
            let what = "keeping a copy of the counters: what was counted since the last one is lost \
                        once the filter is off";
            tracing::error!(error = problem.message, "{what}");
            self.health.last_failure = Some(problem.message);
        }
    }

    /// Ends the edge, and takes the filter off, if so. What it has counted is kept before that, lest
    /// a kill in between lose it, and once more for what came until then.
    ///
    /// # Errors
    /// The filter could not be taken off.
    pub fn end(mut self, take_off: bool) -> Result<(), FilterError> {
        self.keep_counters();
        if take_off {
            self.filter.take_off()?;
            self.keep_counters();
        } else {
            // What cannot be held has been told: there is nobody to refuse the end to.
            let _ = self.hold_before_the_end();
        }
        Ok(())
    }
}
