//! Block lists, asked in parallel, within a deadline, each question once.
//!
//! An answer is kept for its TTL, at least a minute and at most an hour, negative ones too. An
//! error is no opinion and is not kept. A list that fails its tests ([`super::health`]) is not
//! asked and scores nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use moka::sync::Cache;
use relay_core::dnsbl::health::{Health, State};
use relay_core::dnsbl::names::Family;
use relay_core::dnsbl::{Opinion, Zone, meaning, query_name, reply};
use relay_core::policy::recipient::ListedBy;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::resolver::{Answer, DnsError, Resolver};

const TTL_MIN: Duration = Duration::from_secs(60);
const TTL_MAX: Duration = Duration::from_secs(3600);
/// How long a negative answer without an SOA is kept.
const TTL_NEGATIVE: Duration = Duration::from_secs(300);

#[derive(Clone, Debug)]
pub struct DnsblSettings {
    /// In the administrator's order, which is the order of their replies.
    pub zones: Vec<Zone>,
    /// How long a connection waits for all the lists together.
    pub deadline: Duration,
    /// Lookups under way at once; a list that would need one more has no opinion.
    pub lookups_max: usize,
    /// Answers kept at once.
    pub cached_max: u64,
    /// How often every list is tested.
    pub health_interval: Duration,
    /// How often a list is tested while it counts for nothing.
    pub recovery_interval: Duration,
}

impl Default for DnsblSettings {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            deadline: Duration::from_secs(5),
            lookups_max: 1024,
            cached_max: 200_000,
            health_interval: Duration::from_secs(600),
            recovery_interval: Duration::from_secs(60),
        }
    }
}

/// What one list has to say about an address.
#[derive(Clone, Debug)]
pub struct ZoneResult {
    pub zone: Arc<Zone>,
    pub finding: Finding,
    /// Whether the cache knew it.
    pub cached: bool,
}

/// Everything but a listing leaves the source alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    Opinion(Opinion),
    /// The list failed its tests, or has not passed them yet.
    Untrusted(State),
    /// It has no entries of this address family.
    NotAsked,
    Failed(DnsError),
    /// It did not answer within the deadline of the connection.
    TooLate,
}

impl ZoneResult {
    pub fn is_listed(&self) -> bool {
        matches!(&self.finding, Finding::Opinion(opinion) if opinion.is_listed())
    }
}

/// The lists that hold the address, as the recipient decision wants them: order kept, replies
/// filled, keys hidden.
pub fn listed_by(address: IpAddr, results: &[ZoneResult]) -> Vec<ListedBy> {
    let listed = |result: &ZoneResult| match &result.finding {
        Finding::Opinion(opinion @ Opinion::Listed { answers, .. }) => {
            let answers: Vec<String> = answers.iter().map(Ipv4Addr::to_string).collect();
            Some(ListedBy {
                name: result.zone.name.clone(),
                refusal: reply::refusal(address, &result.zone),
                answers: answers.join(", "),
                evidence: opinion.is_evidence(),
            })
        }
        _ => None,
    };
    results.iter().filter_map(listed).collect()
}

/// A zone by its place, and the address: the unit of caching and of asking.
type Key = (usize, IpAddr);

#[derive(Clone)]
struct Kept {
    answers: Arc<[Ipv4Addr]>,
    until: Instant,
}

/// One for the process; share it in an `Arc`.
pub struct DnsblService {
    pub(super) resolver: Resolver,
    pub(super) zones: Vec<Arc<Zone>>,
    pub(super) settings: DnsblSettings,
    /// By the place of the zone.
    pub(super) health: Mutex<Vec<FamilyHealth>>,
    cache: Cache<Key, Kept>,
    lookups: Arc<Semaphore>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FamilyHealth {
    pub(super) v4: Health,
    pub(super) v6: Health,
}

impl FamilyHealth {
    pub(super) fn of(&mut self, family: Family) -> &mut Health {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

impl std::fmt::Debug for DnsblService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.zones.iter().map(|zone| zone.name.as_str()).collect();
        f.debug_struct("DnsblService").field("zones", &names).finish_non_exhaustive()
    }
}

impl DnsblService {
    /// No list counts until [`DnsblService::test_all`] has seen it pass.
    pub fn new(resolver: Resolver, mut settings: DnsblSettings) -> Self {
        let zones: Vec<Arc<Zone>> =
            std::mem::take(&mut settings.zones).into_iter().map(Arc::new).collect();
        Self {
            resolver,
            health: Mutex::new(vec![FamilyHealth::default(); zones.len()]),
            zones,
            cache: Cache::builder().max_capacity(settings.cached_max).time_to_live(TTL_MAX).build(),
            lookups: Arc::new(Semaphore::new(settings.lookups_max)),
            settings,
        }
    }

    /// Asks every list; returns within the deadline. What comes later is still kept for the next
    /// connection.
    pub async fn check(self: &Arc<Self>, address: IpAddr) -> Vec<ZoneResult> {
        let address = address.to_canonical();
        let deadline = Instant::now() + self.settings.deadline;
        let started: Vec<_> =
            (0..self.zones.len()).map(|place| self.start(place, address)).collect();
        let mut results = Vec::with_capacity(started.len());
        for (place, started) in started.into_iter().enumerate() {
            let (finding, cached) = match started {
                Started::Known(finding, cached) => (finding, cached),
                Started::Asking(task) => match tokio::time::timeout_at(deadline, task).await {
                    Ok(Ok(answer)) => (self.finding(place, answer.as_deref()), false),
                    Ok(Err(lost)) => (Finding::Failed(DnsError::Failed(lost.to_string())), false),
                    Err(_) => (Finding::TooLate, false),
                },
            };
            results.push(ZoneResult { zone: self.zones[place].clone(), finding, cached });
        }
        results
    }

    /// What is known without asking, for `explain`; lists of which nothing is known are left out.
    pub fn cached(&self, address: IpAddr) -> Vec<ZoneResult> {
        let address = address.to_canonical();
        let known = |(place, zone): (usize, &Arc<Zone>)| {
            let finding = match self.unasked(place, address) {
                Some(finding) => finding,
                None => self.finding(place, Ok(&self.kept((place, address))?)),
            };
            Some(ZoneResult { zone: zone.clone(), finding, cached: true })
        };
        self.zones.iter().enumerate().filter_map(known).collect()
    }

    /// Every list with the state of its IPv4 and IPv6 halves, for `status`.
    pub fn states(&self) -> Vec<(Arc<Zone>, State, State)> {
        let health = self.health.lock().expect("no holder of this lock can panic");
        let state = |(zone, health): (&Arc<Zone>, &FamilyHealth)| {
            (zone.clone(), health.v4.state(), health.v6.state())
        };
        self.zones.iter().zip(health.iter()).map(state).collect()
    }

    fn start(self: &Arc<Self>, place: usize, address: IpAddr) -> Started {
        if let Some(finding) = self.unasked(place, address) {
            return Started::Known(finding, false);
        }
        let key = (place, address);
        if let Some(answers) = self.kept(key) {
            return Started::Known(self.finding(place, Ok(&answers)), true);
        }
        let Ok(permit) = self.lookups.clone().try_acquire_owned() else {
            return Started::Known(Finding::Failed(DnsError::Busy), false);
        };
        let service = self.clone();
        Started::Asking(tokio::spawn(async move {
            let answer = service.look_up(key).await;
            drop(permit);
            answer
        }))
    }

    /// Why the list is not to be asked about this address at all.
    fn unasked(&self, place: usize, address: IpAddr) -> Option<Finding> {
        let family = Family::of(address);
        if family == Family::V6 && !self.zones[place].v6 {
            return Some(Finding::NotAsked);
        }
        let mut health = self.health.lock().expect("no holder of this lock can panic");
        let health = *health[place].of(family);
        (!health.scores()).then(|| Finding::Untrusted(health.state()))
    }

    /// The same question that is under way already is not sent again: the resolver has its askers
    /// share the answer.
    async fn look_up(&self, key: Key) -> Result<Arc<[Ipv4Addr]>, DnsError> {
        // Since this task was started, another may have brought the answer.
        if let Some(answers) = self.kept(key) {
            return Ok(answers);
        }
        let (place, address) = key;
        let answer = self.resolver.a_records(&query_name(address, &self.zones[place].zone)).await?;
        let until = Instant::now() + ttl(&answer);
        let answers: Arc<[Ipv4Addr]> = answer.records.into();
        self.cache.insert(key, Kept { answers: answers.clone(), until });
        Ok(answers)
    }

    fn kept(&self, key: Key) -> Option<Arc<[Ipv4Addr]>> {
        let kept = self.cache.get(&key)?;
        (Instant::now() < kept.until).then_some(kept.answers)
    }

    fn finding(&self, place: usize, answer: Result<&[Ipv4Addr], &DnsError>) -> Finding {
        match answer {
            Ok(answers) => Finding::Opinion(meaning(answers, &self.zones[place])),
            Err(error) => Finding::Failed(error.clone()),
        }
    }
}

enum Started {
    Known(Finding, bool),
    Asking(tokio::task::JoinHandle<Result<Arc<[Ipv4Addr]>, DnsError>>),
}

/// How long an answer is kept.
fn ttl<T>(answer: &Answer<T>) -> Duration {
    let negative = answer.records.is_empty();
    let own = answer.ttl.or(negative.then_some(TTL_NEGATIVE)).unwrap_or(TTL_MIN);
    own.clamp(TTL_MIN, TTL_MAX)
}

#[cfg(test)]
#[path = "dnsbl_tests.rs"]
mod tests;
