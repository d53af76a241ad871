//! The ledger of evidence: so many pieces of one kind from one network within the window make an
//! order, and then the count starts anew.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;
use relay_common::entry::Reason;

use super::order::BanOrder;
use super::{BanPolicy, network_of};
use crate::prefix::canonical_ip;

/// One refusal that speaks against its source.
///
/// Never made from an unknown recipient, a policy listing, a DNSBL's error code or a handshake
/// that was not completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub source: IpAddr,
    pub reason: Reason,
    /// The rule that refused.
    pub rule: String,
    /// Why, in one sentence.
    pub detail: String,
}

/// Counts by network and reason. Memory is bounded by [`BanPolicy::networks_max`] and the
/// thresholds; when it is full, what was touched longest ago is forgotten.
#[derive(Debug)]
pub struct EvidenceLedger {
    policy: BanPolicy,
    counts: BTreeMap<Key, Count>,
    /// The keys by when they were last touched.
    by_touch: BTreeMap<u64, Key>,
    touches: u64,
}

type Key = (IpNet, Reason);

#[derive(Debug)]
struct Count {
    touch: u64,
    /// When each piece came in, oldest first; shorter than the threshold.
    times: VecDeque<Instant>,
}

impl EvidenceLedger {
    pub fn new(policy: BanPolicy) -> Self {
        Self { policy, counts: BTreeMap::new(), by_touch: BTreeMap::new(), touches: 0 }
    }

    pub fn policy(&self) -> &BanPolicy {
        &self.policy
    }

    /// A changed policy judges what is remembered from the next piece on.
    pub fn set_policy(&mut self, policy: BanPolicy) {
        self.policy = policy;
        self.evict();
    }

    /// Enters a piece; the order when it is the one that was missing.
    pub fn record(&mut self, evidence: Evidence, now: Instant) -> Option<BanOrder> {
        let network = network_of(evidence.source);
        let threshold = self.policy.threshold_of(evidence.reason);
        let key = (network, evidence.reason);
        let mut times = self.take(&key);
        while times.front().is_some_and(|&t| self.is_stale(t, now)) {
            times.pop_front();
        }
        times.push_back(now);
        let count = times.len();
        if count < usize::try_from(threshold).unwrap_or(usize::MAX) {
            self.put(key, times);
            self.evict();
            return None;
        }
        Some(BanOrder {
            address: canonical_ip(evidence.source),
            network,
            scope: self.policy.scope_of(evidence.reason),
            reason: evidence.reason,
            rule: evidence.rule,
            evidence: format!(
                "{count} × {} within {} s; the last: {}",
                evidence.reason,
                self.policy.window.as_secs(),
                evidence.detail
            ),
        })
    }

    /// What counts against the source now, by reason, for `explain`: the count and its threshold.
    pub fn against(&self, source: IpAddr, now: Instant) -> Vec<(Reason, usize, u32)> {
        let network = network_of(source);
        let live = |reason: Reason| {
            let times = &self.counts.get(&(network, reason))?.times;
            let count = times.iter().filter(|&&t| !self.is_stale(t, now)).count();
            (count > 0).then(|| (reason, count, self.policy.threshold_of(reason)))
        };
        Reason::ALL.into_iter().filter_map(live).collect()
    }

    /// Forgets what is held against a network, as when its ban is lifted by hand.
    pub fn forgive(&mut self, source: IpAddr) {
        for reason in Reason::ALL {
            self.take(&(network_of(source), reason));
        }
    }

    /// Counts held: networks times kinds.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn is_stale(&self, time: Instant, now: Instant) -> bool {
        now.saturating_duration_since(time) >= self.policy.window
    }

    fn take(&mut self, key: &Key) -> VecDeque<Instant> {
        let Some(count) = self.counts.remove(key) else { return VecDeque::new() };
        self.by_touch.remove(&count.touch);
        count.times
    }

    fn put(&mut self, key: Key, times: VecDeque<Instant>) {
        self.touches += 1;
        self.by_touch.insert(self.touches, key);
        self.counts.insert(key, Count { touch: self.touches, times });
    }

    fn evict(&mut self) {
        while self.counts.len() > self.policy.networks_max.max(1) {
            let Some((_, key)) = self.by_touch.pop_first() else { return };
            self.counts.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use relay_common::entry::Scope;

    use super::*;

    #[allow(clippy::disallowed_methods)] // an Instant has no other beginning; only distances count
    fn origin() -> Instant {
        Instant::now()
    }

    fn piece(source: &str, reason: Reason) -> Evidence {
        Evidence {
            source: source.parse().unwrap(),
            reason,
            rule: "dnsbl Test".to_owned(),
            detail: "listed".to_owned(),
        }
    }

    #[test]
    fn the_third_piece_within_the_window_makes_the_order() {
        let start = origin();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut ledger = EvidenceLedger::new(BanPolicy::default());
        let hit = || piece("192.0.2.1", Reason::Dnsbl);
        assert_eq!(ledger.record(hit(), at(0)), None);
        assert_eq!(ledger.record(hit(), at(300)), None);
        // The first has left the window when the third comes.
        assert_eq!(ledger.record(hit(), at(600)), None);
        assert_eq!(ledger.against("192.0.2.1".parse().unwrap(), at(600)), [(Reason::Dnsbl, 2, 3)]);
        let order = ledger.record(hit(), at(899)).unwrap();
        assert_eq!(order.network.to_string(), "192.0.2.1/32");
        assert_eq!((order.scope, order.reason), (Scope::MX, Reason::Dnsbl));
        assert_eq!(order.rule, "dnsbl Test");
        assert!(order.evidence.contains("3 × dnsbl within 600 s"), "{}", order.evidence);
        // The count starts anew.
        assert!(ledger.is_empty());
        assert_eq!(ledger.record(hit(), at(900)), None);
    }

    #[test]
    fn networks_and_kinds_are_counted_apart_and_a_v6_subnet_together() {
        let now = origin();
        let mut ledger = EvidenceLedger::new(BanPolicy::default());
        for source in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            assert_eq!(ledger.record(piece(source, Reason::Dnsbl), now), None);
        }
        for reason in [Reason::RelayProbe, Reason::Pregreet, Reason::Protocol] {
            assert_eq!(ledger.record(piece("192.0.2.1", reason), now), None);
        }
        assert_eq!(ledger.record(piece("2001:db8::1", Reason::Dnsbl), now), None);
        assert_eq!(ledger.record(piece("2001:db8::2", Reason::Dnsbl), now), None);
        let order = ledger.record(piece("2001:db8::3", Reason::Dnsbl), now).unwrap();
        assert_eq!(order.network.to_string(), "2001:db8::/64");
    }

    #[test]
    fn a_threshold_of_one_bans_at_once_and_forgiving_starts_anew() {
        let now = origin();
        let once = BanPolicy { threshold: 1, ..BanPolicy::default() };
        let mut ledger = EvidenceLedger::new(once);
        assert!(ledger.record(piece("::ffff:192.0.2.1", Reason::NeverRoute), now).is_some());
        ledger.set_policy(BanPolicy { threshold: 2, ..BanPolicy::default() });
        assert!(ledger.record(piece("192.0.2.1", Reason::Dnsbl), now).is_none());
        ledger.forgive("192.0.2.1".parse().unwrap());
        assert!(ledger.record(piece("192.0.2.1", Reason::Dnsbl), now).is_none());
        assert!(ledger.record(piece("192.0.2.1", Reason::Dnsbl), now).is_some());
    }

    #[test]
    fn memory_is_bounded_and_the_longest_untouched_goes_first() {
        let now = origin();
        let policy = BanPolicy { networks_max: 2, ..BanPolicy::default() };
        let mut ledger = EvidenceLedger::new(policy);
        for source in ["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3"] {
            ledger.record(piece(source, Reason::Dnsbl), now);
        }
        assert_eq!(ledger.len(), 2);
        assert!(ledger.against("192.0.2.2".parse().unwrap(), now).is_empty());
        assert!(ledger.record(piece("192.0.2.1", Reason::Dnsbl), now).is_some());
    }

    proptest! {
        /// Against a plain list of all pieces: an order comes exactly when the threshold is met.
        #[test]
        fn orders_agree_with_a_plain_list(
            pieces in prop::collection::vec((0u8..3, 0u64..400), 1..60), threshold in 1u32..5,
        ) {
            let start = origin();
            let policy = BanPolicy { threshold, ..BanPolicy::default() };
            let mut ledger = EvidenceLedger::new(policy.clone());
            let mut plain: Vec<(u8, u64)> = Vec::new();
            let mut now_s = 0;
            for (host, pause_s) in pieces {
                now_s += pause_s;
                plain.push((host, now_s));
                let live = |&&(h, t): &&(u8, u64)| h == host && now_s - t < policy.window.as_secs();
                let due = plain.iter().filter(live).count() >= threshold as usize;
                let source = format!("192.0.2.{host}");
                let order = ledger.record(piece(&source, Reason::Dnsbl), start + Duration::from_secs(now_s));
                prop_assert_eq!(order.is_some(), due);
                if due {
                    plain.retain(|&(h, _)| h != host);
                }
                prop_assert_eq!(ledger.by_touch.len(), ledger.counts.len());
            }
        }
    }
}
