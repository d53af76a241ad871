//! The edge as one: requests against the memory filter, with clocks that a test sets.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnet::IpNet;
use relay_common::entry::{Entry, List, Reason, Scope};
use relay_common::layout::RuleHits;
use relay_common::totals::Totals;
use relay_common::verdict::Verdict;
use relay_core::ban::BanPolicy;
use relay_core::ban::caps::CapSettings;
use relay_core::ban::guardrails::Protected;

use crate::control::api::*;
use crate::edge::clock::Now;
use crate::edge::filter::*;
use crate::edge::lines;
use crate::edge::memory::MemoryFilter;
use crate::edge::state::{Edge, EdgeSettings, OpenError};

mod attaching;
mod bans;
mod counting;
mod enforcing;
mod lifting;
mod observing;
mod pending;
mod verbs;

const START: Now = Now { wall_ms: 1_800_000_000_000, boot_ms: 50_000_000 };

/// A memory filter that a test can look into, change behind the edge's back, and break.
#[derive(Clone)]
pub(super) struct Probe(Arc<Mutex<(MemoryFilter, bool)>>);

impl Probe {
    pub(super) fn new(max: u32) -> Self {
        Self(Arc::new(Mutex::new((
            MemoryFilter::new(MapSizes {
                allow: max,
                deny: max,
                feeds_allow: max,
                feeds_deny: max,
            }),
            false,
        ))))
    }

    pub(super) fn with<T>(&self, f: impl FnOnce(&mut MemoryFilter) -> T) -> T {
        f(&mut self.0.lock().unwrap().0)
    }

    pub(super) fn broken(&self, broken: bool) {
        self.0.lock().unwrap().1 = broken;
    }

    fn write<T>(
        &self,
        f: impl FnOnce(&mut MemoryFilter) -> Result<T, FilterError>,
    ) -> Result<T, FilterError> {
        let mut inner = self.0.lock().unwrap();
        if inner.1 {
            Err(FilterError::Kernel { doing: "a test", source: "broken for a test".into() })
        } else {
            f(&mut inner.0)
        }
    }
}

impl Filter for Probe {
    fn put(&mut self, list: List, prefix: IpNet, entry: Entry) -> Result<(), FilterError> {
        self.write(|filter| filter.put(list, prefix, entry))
    }
    fn remove(&mut self, list: List, prefix: IpNet) -> Result<bool, FilterError> {
        self.write(|filter| filter.remove(list, prefix))
    }
    fn get(&self, list: List, prefix: IpNet) -> Result<Option<Entry>, FilterError> {
        self.with(|filter| filter.get(list, prefix))
    }
    fn entries(&self, list: List) -> Result<Vec<(IpNet, Entry)>, FilterError> {
        self.with(|filter| filter.entries(list))
    }
    fn capacity(&self) -> MapSizes {
        self.with(|filter| filter.capacity())
    }
    fn set_guarded(&mut self, scope: Scope) -> Result<(), FilterError> {
        self.write(|filter| filter.set_guarded(scope))
    }
    fn guarded(&self) -> Result<Scope, FilterError> {
        self.with(|filter| filter.guarded())
    }
    fn set_modes(&mut self, modes: &Modes) -> Result<(), FilterError> {
        self.write(|filter| filter.set_modes(modes))
    }
    fn feed_clear(&mut self, at_most: usize) -> Result<bool, FilterError> {
        self.write(|filter| filter.feed_clear(at_most))
    }
    fn feed_fill(&mut self, list: List, entries: &[(IpNet, Entry)]) -> Result<(), FilterError> {
        self.write(|filter| filter.feed_fill(list, entries))
    }
    fn feed_count(&self) -> Result<u64, FilterError> {
        self.with(|filter| filter.feed_count())
    }
    fn feed_flip(&mut self, guarded: Scope) -> Result<(), FilterError> {
        self.write(|filter| filter.feed_flip(guarded))
    }
    fn feeds(&self, each: &mut dyn FnMut(List, IpNet, Entry)) -> Result<(), FilterError> {
        self.with(|filter| filter.feeds(each))
    }
    fn retouch(
        &mut self,
        prefixes: &mut dyn Iterator<Item = (List, IpNet)>,
    ) -> Result<(), FilterError> {
        self.write(|filter| filter.retouch(prefixes))
    }
    fn verdict(&self, source: IpAddr, class: Scope, now_s: u32) -> Result<Verdict, FilterError> {
        self.with(|filter| filter.verdict(source, class, now_s))
    }
    fn judge(&mut self, source: IpAddr, port: u16, now_s: u32) -> Result<Verdict, FilterError> {
        self.with(|filter| filter.judge(source, port, now_s))
    }
    fn totals(&self) -> Result<Totals, FilterError> {
        self.with(|filter| filter.totals())
    }
    fn rule_hits(&self, rule: u32) -> Result<RuleHits, FilterError> {
        self.with(|filter| filter.rule_hits(rule))
    }
    fn set_totals(&mut self, totals: &Totals) -> Result<(), FilterError> {
        self.write(|filter| filter.set_totals(totals))
    }
    fn set_rule(&mut self, rule: u32, hits: RuleHits) -> Result<(), FilterError> {
        self.write(|filter| filter.set_rule(rule, hits))
    }
    fn activate(&mut self) -> Result<(), FilterError> {
        self.with(|filter| filter.activate())
    }
    fn keep_attached(&mut self) -> Kept {
        self.with(|filter| filter.keep_attached())
    }
    fn take_off(&mut self) -> Result<(), FilterError> {
        self.write(|filter| filter.take_off())
    }
    fn attachments(&self) -> Vec<Attachment> {
        self.with(|filter| filter.attachments())
    }
}

struct Bench {
    edge: Edge<Probe>,
    probe: Probe,
    now: Arc<Mutex<Now>>,
    dir: tempfile::TempDir,
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn protected() -> Protected {
    Protected { gateways: vec!["198.51.100.1".parse().unwrap()], ..Protected::default() }
}

fn bans() -> BanPolicy {
    let caps = CapSettings { new_per_minute_max: 3, live_max: 5 };
    BanPolicy { caps, ..BanPolicy::default() }
}

fn settings(dir: &Path) -> EdgeSettings {
    EdgeSettings { bans: bans(), ..EdgeSettings::new(dir.join("lists.db")) }
}

fn open(path: &Path, probe: &Probe, now: &Arc<Mutex<Now>>) -> Edge<Probe> {
    open_with(settings(path), probe, now)
}

fn open_with(settings: EdgeSettings, probe: &Probe, now: &Arc<Mutex<Now>>) -> Edge<Probe> {
    let clock = now.clone();
    Edge::open(
        settings,
        probe.clone(),
        Box::new(move || *clock.lock().unwrap()),
        Box::new(protected),
    )
    .unwrap()
}

impl Bench {
    fn new() -> Self {
        Self::with_room(1_000)
    }

    fn with_room(max: u32) -> Self {
        Self::with(max, |_| {})
    }

    fn with(max: u32, change: impl FnOnce(&mut EdgeSettings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (probe, now) = (Probe::new(max), Arc::new(Mutex::new(START)));
        let mut settings = settings(dir.path());
        change(&mut settings);
        Self { edge: open_with(settings, &probe, &now), probe, now, dir }
    }

    /// Both clocks go on.
    fn pass(&mut self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        let mut now = self.now.lock().unwrap();
        now.wall_ms += ms;
        now.boot_ms += ms;
    }

    fn add(&mut self, list: List, prefix: &str, scope: Scope, ttl_s: Option<u64>) -> Changed {
        self.edge.add(list, &request(&[prefix], scope, ttl_s)).unwrap()
    }

    fn ban(&mut self, address: &str, scope: Scope) -> BanAnswer {
        self.edge.ban(&ban_request(address, scope)).unwrap()
    }

    fn remove(&mut self, list: List, prefix: &str) -> Changed {
        let request = RemoveRequest { prefixes: vec![prefix.into()], ..RemoveRequest::default() };
        self.edge.remove(list, &request).unwrap()
    }

    /// What the maps answer for a SYN.
    fn verdict(&self, address: &str, port: u16) -> Verdict {
        let now_s = self.now.lock().unwrap().boot_s();
        let class = Scope::of_tcp_port(port);
        self.probe.verdict(address.parse().unwrap(), class, now_s).unwrap()
    }

    fn denied(&self, address: &str, port: u16) -> bool {
        matches!(self.verdict(address, port), Verdict::Denied(..))
    }

    fn observed(&self, address: &str, port: u16) -> bool {
        matches!(self.verdict(address, port), Verdict::Observed(..))
    }

    fn explain(&mut self, address: &str) -> EdgeExplain {
        let address = address.parse().unwrap();
        self.edge.explain(&ExplainQuery { address, port: 25 }).unwrap()
    }

    fn entry(&self, list: List, prefix: &str) -> Option<Entry> {
        self.probe.get(list, net(prefix)).unwrap()
    }

    fn import(&mut self, text: &str, replace: bool) -> Result<Changed, Problem> {
        let query = ImportQuery {
            name: "drop.txt".into(),
            scope: Scope::SMTP,
            replace,
            observe: false,
            force: false,
            confirm_within_s: None,
            session: None,
        };
        let lines = lines::parse(&query.name, text.as_bytes())?;
        self.edge.import(List::Deny, &query, lines)
    }

    fn rows(&self, list: List) -> Vec<Row> {
        self.edge.page(list, &ListQuery::default()).unwrap().rows
    }
}

pub(super) fn request(prefixes: &[&str], scope: Scope, ttl_s: Option<u64>) -> AddRequest {
    AddRequest {
        prefixes: prefixes.iter().map(|&prefix| prefix.into()).collect(),
        scope,
        ttl_s,
        observe: false,
        comment: String::new(),
        force: false,
        confirm_within_s: None,
        session: None,
    }
}

pub(super) fn ban_request(address: &str, scope: Scope) -> BanRequest {
    BanRequest {
        address: address.parse().unwrap(),
        scope,
        reason: Reason::Dnsbl,
        rule: "dnsbl Spamhaus ZEN".into(),
        evidence: "127.0.0.2".into(),
    }
}
