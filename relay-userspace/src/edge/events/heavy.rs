//! The most frequent of a stream, in bounded memory: the space-saving sketch (Metwally, Agrawal and
//! El Abbadi, 2005) over weights that halve with time. Pure: the time is an argument.

use std::collections::HashMap;
use std::hash::Hash;

/// Beyond this the weights are written anew, long before a number loses its small parts.
const WEIGHT_MAX: f64 = 1e9;

/// Counts of up to `room` keys. A key that is new when all room is taken displaces the least, and
/// inherits its count as a possible error.
#[derive(Debug)]
pub struct Heavy<K> {
    room: usize,
    half_life_ms: f64,
    counts: HashMap<K, Count>,
    /// Weight of all that was added.
    total: f64,
    /// When a weight was 1, and the latest time seen.
    unit_ms: u64,
    latest_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    /// Never less than the truth.
    most: f64,
    /// How much of it may belong to keys that were displaced.
    error: f64,
}

/// A frequent key: its events, each halved for every half-life since.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frequent<K> {
    pub key: K,
    pub at_least: f64,
    pub at_most: f64,
}

impl<K: Copy + Eq + Hash + Ord> Heavy<K> {
    pub fn new(room: usize, half_life_ms: u32) -> Self {
        let (counts, half_life_ms) = (HashMap::with_capacity(room), f64::from(half_life_ms));
        Self { room: room.max(1), half_life_ms, counts, total: 0.0, unit_ms: 0, latest_ms: 0 }
    }

    /// The weight of an event at this time; never less than an earlier one's.
    fn weight(&mut self, at_ms: u64) -> f64 {
        self.latest_ms = self.latest_ms.max(at_ms);
        let weight = self.weight_at(self.latest_ms);
        if weight < WEIGHT_MAX {
            return weight;
        }
        self.unit_ms = self.latest_ms;
        self.total /= weight;
        for count in self.counts.values_mut() {
            count.most /= weight;
            count.error /= weight;
        }
        1.0
    }

    fn weight_at(&self, at_ms: u64) -> f64 {
        let passed_ms = at_ms.saturating_sub(self.unit_ms) as f64;
        (passed_ms / self.half_life_ms).exp2()
    }

    /// Counts one event of a key.
    pub fn add(&mut self, key: K, at_ms: u64) {
        let weight = self.weight(at_ms);
        self.total += weight;
        if let Some(count) = self.counts.get_mut(&key) {
            count.most += weight;
            return;
        }
        let mut displaced = 0.0;
        if self.counts.len() >= self.room {
            let least = self.counts.iter().min_by(|a, b| a.1.most.total_cmp(&b.1.most));
            if let Some((&least, count)) = least {
                displaced = count.most;
                self.counts.remove(&least);
            }
        }
        self.counts.insert(key, Count { most: displaced + weight, error: displaced });
    }

    /// The weight of all events at this time.
    pub fn total(&self, at_ms: u64) -> f64 {
        self.total / self.weight_at(at_ms.max(self.latest_ms))
    }

    /// The keys that are surely the most frequent, those first.
    pub fn top(&self, count: usize, at_ms: u64) -> Vec<Frequent<K>> {
        let weight = self.weight_at(at_ms.max(self.latest_ms));
        let mut all: Vec<Frequent<K>> = self
            .counts
            .iter()
            .map(|(&key, count)| Frequent {
                key,
                at_least: (count.most - count.error) / weight,
                at_most: count.most / weight,
            })
            .collect();
        all.sort_by(|a, b| b.at_least.total_cmp(&a.at_least).then_with(|| a.key.cmp(&b.key)));
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HALF_LIFE_MS: u32 = 1_000;

    fn exact(events: &[(u8, u64)], key: Option<u8>, now_ms: u64) -> f64 {
        let of = events.iter().filter(|(of, _)| key.is_none_or(|key| *of == key));
        of.map(|(_, at)| (-((now_ms - at) as f64) / f64::from(HALF_LIFE_MS)).exp2()).sum()
    }

    proptest! {
        #[test]
        fn the_truth_lies_between_the_bounds_and_what_is_frequent_is_kept(
            steps in proptest::collection::vec((0u8..40, 0u64..3_000), 1..300),
            room in 1usize..12,
            later_ms in 0u64..5_000,
        ) {
            let mut now_ms = 77;
            let mut heavy = Heavy::new(room, HALF_LIFE_MS);
            let mut events = Vec::new();
            for (key, step_ms) in steps {
                now_ms += step_ms;
                heavy.add(key, now_ms);
                events.push((key, now_ms));
            }
            now_ms += later_ms;
            let top = heavy.top(usize::MAX, now_ms);
            prop_assert!(top.len() <= room);
            let slack = |value: f64| value.abs() * 1e-9 + 1e-12;
            let total = exact(&events, None, now_ms);
            prop_assert!((heavy.total(now_ms) - total).abs() <= slack(total));
            for found in &top {
                let truth = exact(&events, Some(found.key), now_ms);
                prop_assert!(found.at_least <= truth + slack(total), "{found:?} {truth}");
                prop_assert!(found.at_most + slack(total) >= truth, "{found:?} {truth}");
            }
            for key in 0..40 {
                if exact(&events, Some(key), now_ms) > total / room as f64 + slack(total) {
                    prop_assert!(top.iter().any(|found| found.key == key), "{key} is missing");
                }
            }
        }
    }

    #[test]
    fn counts_halve_and_survive_the_rewriting_of_weights() {
        let mut heavy = Heavy::new(4, 1_000);
        for _ in 0..8 {
            heavy.add('a', 5_000);
        }
        let at = |heavy: &Heavy<char>, ms| heavy.top(1, ms)[0].at_least;
        assert!((at(&heavy, 6_000) - 4.0).abs() < 1e-9);
        // Thirty half-lives: 2^30 is beyond the largest weight.
        heavy.add('b', 35_000);
        assert!((at(&heavy, 35_000) - 1.0).abs() < 1e-6);
        assert_eq!(heavy.top(1, 35_000)[0].key, 'b');
        // A clock that goes back changes nothing.
        heavy.add('b', 1);
        assert!((at(&heavy, 35_000) - 2.0).abs() < 1e-6);
    }
}
