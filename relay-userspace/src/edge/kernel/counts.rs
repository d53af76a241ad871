//! The counters in the kernel: a slot for each CPU, read as their sum.

use std::fmt;
use std::path::Path;

use aya::Pod;
use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuValues};
use relay_common::layout::{self, Cpu, LAYOUT_VERSION, RuleHits};
use relay_common::totals::{Counter, Totals};

use super::AttachError;
use super::maps::kernel;
use super::pins::layout_dir;
use crate::edge::filter::FilterError;

/// The bytes of [`Cpu`].
type OfCpu = [u64; Cpu::WORDS];
/// The bytes of [`RuleHits`]: hits, observed hits, and the second of the latest.
type Hits = [u64; 3];

/// What a filter has counted. What is read stays readable after the filter was taken off.
pub struct Counters {
    totals: PerCpuArray<MapData, OfCpu>,
    hits: PerCpuArray<MapData, Hits>,
    cpus: usize,
}

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
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, error)| AttachError::load("counting the CPUs", error))?;
        Ok(Self { totals, hits, cpus })
    }

    /// Those of a filter of this layout that was left under a pin directory, with or without a
    /// process that owns it; `None` where none is.
    ///
    /// # Errors
    /// What is pinned there is something else.
    pub fn left_in(pin_dir: &Path) -> Result<Option<Self>, AttachError> {
        let dir = layout_dir(pin_dir, LAYOUT_VERSION);
        let [totals, hits] = [layout::CPU, layout::RULE_HITS].map(|name| dir.join(name));
        if !totals.exists() || !hits.exists() {
            return Ok(None);
        }
        let opening = |error: MapError| AttachError::load("opening a pinned map", error);
        let open = |path: &Path| MapData::from_pin(path).and_then(Map::from_map_data);
        let totals = open(&totals).and_then(PerCpuArray::try_from).map_err(opening)?;
        let hits = open(&hits).and_then(PerCpuArray::try_from).map_err(opening)?;
        Self::new(totals, hits).map(Some)
    }

    /// How many slots each counter has.
    pub(super) fn cpus(&self) -> usize {
        self.cpus
    }

    /// # Errors
    /// The kernel's own.
    pub fn totals(&self) -> Result<Totals, FilterError> {
        let mut totals = Totals::default();
        let of_cpus =
            self.totals.get(&0, 0).map_err(|error| kernel("to read the totals", error))?;
        for of_cpu in of_cpus.iter() {
            let counts = of_cpu.iter().skip(Cpu::COUNTERS_AT);
            (0..).zip(counts).for_each(|(index, &count)| totals.add_at(index, count));
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
        // Its clock and its budgets begin anew with the next packet.
        let mut words = [0; Cpu::WORDS];
        for counter in Counter::all() {
            words[Cpu::COUNTERS_AT + counter.index() as usize] = totals.get(counter);
        }
        set(&mut self.totals, 0, words, [0; Cpu::WORDS], self.cpus)
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
