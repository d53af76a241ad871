//! The counters in the kernel: a slot for each CPU, read as their sum.

use std::fmt;
use std::path::Path;

use aya::Pod;
use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuValues};
use relay_common::layout::{self, Cpu, LAYOUT_VERSION, RuleHits};
use relay_common::totals::{COUNTERS, Counter, Totals};

use super::maps::kernel;
use super::pins::layout_dir;
use super::{AttachError, earlier};
use crate::edge::filter::FilterError;

/// The bytes of [`Cpu`].
type OfCpu = [u64; Cpu::WORDS];
/// The bytes of [`RuleHits`]: hits, observed hits, and the second of the latest.
type Hits = [u64; 3];

/// What a filter has counted. What is read stays readable after the filter was taken off.
pub struct Counters {
    totals: Slots,
    hits: PerCpuArray<MapData, Hits>,
    cpus: usize,
}

/// Where the totals stand.
enum Slots {
    /// With whatever else a CPU has for itself.
    OfCpu(PerCpuArray<MapData, OfCpu>),
    /// Each by itself, as in layouts up to 4.
    Single(PerCpuArray<MapData, u64>),
}

/// The map of single totals.
const TOTALS: &str = "TOTALS";

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counters").field("cpus", &self.cpus).finish_non_exhaustive()
    }
}

impl Counters {
    pub(super) fn new(
        totals: PerCpuArray<MapData, OfCpu>,
        hits: PerCpuArray<MapData, Hits>,
    ) -> Result<Self, AttachError> {
        Self::of(Slots::OfCpu(totals), hits)
    }

    fn of(totals: Slots, hits: PerCpuArray<MapData, Hits>) -> Result<Self, AttachError> {
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, error)| AttachError::load("counting the CPUs", error))?;
        Ok(Self { totals, hits, cpus })
    }

    /// Those of a filter that was left under a pin directory, with or without a process that owns it: of
    /// this layout, or else of another; `None` where none is.
    ///
    /// # Errors
    /// What is pinned there is something else.
    pub fn left_in(pin_dir: &Path) -> Result<Option<Self>, AttachError> {
        match Self::pinned_in(&layout_dir(pin_dir, LAYOUT_VERSION))? {
            None => Self::of_another_layout(pin_dir),
            own => Ok(own),
        }
    }

    /// Those of a filter of another layout, where none of this one is; the latest there is.
    ///
    /// # Errors
    /// As of [`left_in`](Self::left_in).
    pub fn of_another_layout(pin_dir: &Path) -> Result<Option<Self>, AttachError> {
        let own = layout_dir(pin_dir, LAYOUT_VERSION);
        if Self::pinned_in(&own)?.is_some() {
            return Ok(None);
        }
        for dir in earlier::layouts(pin_dir)?.into_iter().rev().filter(|dir| *dir != own) {
            if let Some(found) = Self::pinned_in(&dir)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn pinned_in(dir: &Path) -> Result<Option<Self>, AttachError> {
        let opening = |error: MapError| AttachError::load("opening a pinned map", error);
        let open = |name: &str| match dir.join(name) {
            path if path.exists() => MapData::from_pin(path).and_then(Map::from_map_data).map(Some),
            _ => Ok(None),
        };
        let Some(hits) = open(layout::RULE_HITS).map_err(opening)? else { return Ok(None) };
        let totals = if let Some(map) = open(layout::CPU).map_err(opening)? {
            Slots::OfCpu(map.try_into().map_err(opening)?)
        } else if let Some(map) = open(TOTALS).map_err(opening)? {
            Slots::Single(map.try_into().map_err(opening)?)
        } else {
            return Ok(None);
        };
        Self::of(totals, hits.try_into().map_err(opening)?).map(Some)
    }

    /// How many slots each counter has.
    pub(super) fn cpus(&self) -> usize {
        self.cpus
    }

    /// # Errors
    /// The kernel's own.
    pub fn totals(&self) -> Result<Totals, FilterError> {
        let failed = |error| kernel("to read the totals", error);
        let mut totals = Totals::default();
        match &self.totals {
            Slots::OfCpu(map) => {
                for of_cpu in map.get(&0, 0).map_err(failed)?.iter() {
                    let counts = of_cpu.iter().skip(Cpu::COUNTERS_AT);
                    (0..).zip(counts).for_each(|(index, &count)| totals.add_at(index, count));
                }
            }
            Slots::Single(map) => {
                for index in 0..map.len().min(COUNTERS) {
                    let of_cpus = map.get(&index, 0).map_err(failed)?;
                    of_cpus.iter().for_each(|&count| totals.add_at(index, count));
                }
            }
        }
        Ok(totals)
    }

    /// # Errors
    /// There is no such rule, or the kernel's own.
    pub fn rule_hits(&self, rule: u32) -> Result<RuleHits, FilterError> {
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

    pub(super) fn set_totals(&mut self, totals: &Totals) -> Result<(), FilterError> {
        match &mut self.totals {
            Slots::OfCpu(map) => {
                // Its clock and its budgets begin anew with the next packet.
                let mut words = [0; Cpu::WORDS];
                for counter in Counter::all() {
                    words[Cpu::COUNTERS_AT + counter.index() as usize] = totals.get(counter);
                }
                set(map, 0, words, [0; Cpu::WORDS], self.cpus)
            }
            Slots::Single(map) => Counter::all().try_for_each(|counter| {
                set(map, counter.index(), totals.get(counter), 0, self.cpus)
            }),
        }
    }

    pub(super) fn set_rule(&mut self, rule: u32, hits: RuleHits) -> Result<(), FilterError> {
        has_counter(rule)?;
        let RuleHits { hits, observed, last_s } = hits;
        let hits = [hits, observed, last_s.cast_unsigned()];
        set(&mut self.hits, rule, hits, Hits::default(), self.cpus)
    }
}

fn has_counter(rule: u32) -> Result<(), FilterError> {
    if rule < layout::RULES { Ok(()) } else { Err(FilterError::NoSuchRule { rule }) }
}

/// Gives a value to the first CPU's slot, and another to the rest.
fn set<T: Pod>(
    map: &mut PerCpuArray<MapData, T>,
    index: u32,
    value: T,
    rest: T,
    cpus: usize,
) -> Result<(), FilterError> {
    let failed = |error| kernel("to set a counter", error);
    let mut values = vec![rest; cpus];
    if let Some(first) = values.first_mut() {
        *first = value;
    }
    let values =
        PerCpuValues::try_from(values).map_err(|error| kernel("to set a counter", error))?;
    map.set(index, values, 0).map_err(failed)
}
