//! The counters in the kernel: a slot for each CPU, read as their sum.

use aya::Pod;
use aya::maps::{MapData, PerCpuArray, PerCpuValues};
use relay_common::layout::{self, RuleHits};
use relay_common::totals::{COUNTERS, Counter, Totals};

use super::maps::{Maps, cpus, kernel};
use crate::edge::filter::FilterError;

/// The bytes of [`RuleHits`]: hits, observed hits, and the second of the latest.
pub(super) type Hits = [u64; 3];

impl Maps {
    pub(super) fn totals(&self) -> Result<Totals, FilterError> {
        let mut totals = Totals::default();
        for index in 0..COUNTERS {
            let values =
                self.totals.get(&index, 0).map_err(|error| kernel("to read the totals", error))?;
            values.iter().for_each(|&count| totals.add_at(index, count));
        }
        Ok(totals)
    }

    pub(super) fn rule_hits(&self, rule: u32) -> Result<RuleHits, FilterError> {
        has_counter(rule)?;
        let values =
            self.hits.get(&rule, 0).map_err(|error| kernel("to read a rule's hits", error))?;
        let of_cpus = values.iter().map(|&[hits, observed, last_s]| RuleHits {
            hits,
            observed,
            last_s: last_s.cast_signed(),
        });
        Ok(of_cpus.fold(RuleHits::default(), RuleHits::merge))
    }

    pub(super) fn reset_rule(&mut self, rule: u32) -> Result<(), FilterError> {
        has_counter(rule)?;
        let doing = "to reset a rule's hits";
        set(&mut self.hits, rule, [0; 3], cpus(doing)?, doing)
    }

    /// Has every counter go on from here, and those of these rules.
    pub(super) fn set_counters(
        &mut self,
        totals: &Totals,
        rules: &[(u32, RuleHits)],
    ) -> Result<(), FilterError> {
        let doing = "to set the counters";
        let cpus = cpus(doing)?;
        for counter in Counter::all() {
            set(&mut self.totals, counter.index(), totals.get(counter), cpus, doing)?;
        }
        for &(rule, RuleHits { hits, observed, last_s }) in rules {
            has_counter(rule)?;
            set(&mut self.hits, rule, [hits, observed, last_s.cast_unsigned()], cpus, doing)?;
        }
        Ok(())
    }
}

fn has_counter(rule: u32) -> Result<(), FilterError> {
    if rule < layout::RULES { Ok(()) } else { Err(FilterError::NoSuchRule { rule }) }
}

/// Gives a value to the first CPU's slot, and none to the others.
fn set<T: Pod + Default>(
    map: &mut PerCpuArray<MapData, T>,
    index: u32,
    value: T,
    cpus: usize,
    doing: &'static str,
) -> Result<(), FilterError> {
    let mut values = vec![T::default(); cpus];
    if let Some(first) = values.first_mut() {
        *first = value;
    }
    let values = PerCpuValues::try_from(values).map_err(|error| kernel(doing, error))?;
    map.set(index, values, 0).map_err(|error| kernel(doing, error))
}
