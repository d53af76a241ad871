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

use super::clock::Now;
use super::filter::*;
use super::lines;
use super::memory::MemoryFilter;
use super::state::{Edge, EdgeSettings};
use crate::control::api::*;

const START: Now = Now { wall_ms: 1_800_000_000_000, boot_ms: 50_000_000 };

/// A memory filter that a test can look into, change behind the edge's back, and break.
#[derive(Clone)]
pub(super) struct Probe(Arc<Mutex<(MemoryFilter, bool)>>);

impl Probe {
    pub(super) fn new(max: u32) -> Self {
        Self(Arc::new(Mutex::new((MemoryFilter::new(MapSizes { allow: max, deny: max }), false))))
    }

    fn with<T>(&self, f: impl FnOnce(&mut MemoryFilter) -> T) -> T {
        f(&mut self.0.lock().unwrap().0)
    }

    fn broken(&self, broken: bool) {
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
    fn verdict(&self, source: IpAddr, class: Scope, now_s: u32) -> Result<Verdict, FilterError> {
        self.with(|filter| filter.verdict(source, class, now_s))
    }
    fn totals(&self) -> Result<Totals, FilterError> {
        self.with(|filter| filter.totals())
    }
    fn rule_hits(&self, rule: u32) -> Result<RuleHits, FilterError> {
        self.with(|filter| filter.rule_hits(rule))
    }
    fn reset_rule(&mut self, rule: u32) -> Result<(), FilterError> {
        self.with(|filter| filter.reset_rule(rule))
    }
    fn attachment(&self) -> Attachment {
        self.with(|filter| filter.attachment())
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

fn open(path: &Path, probe: &Probe, now: &Arc<Mutex<Now>>) -> Edge<Probe> {
    let clock = now.clone();
    let settings = EdgeSettings { bans: bans(), ..EdgeSettings::new(path.join("lists.db")) };
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
        let dir = tempfile::tempdir().unwrap();
        let (probe, now) = (Probe::new(max), Arc::new(Mutex::new(START)));
        Self { edge: open(dir.path(), &probe, &now), probe, now, dir }
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
        let request = RemoveRequest { prefixes: vec![prefix.into()], source: None };
        self.edge.remove(list, &request).unwrap()
    }

    /// What the maps answer for a SYN.
    fn denied(&self, address: &str, port: u16) -> bool {
        let now_s = self.now.lock().unwrap().boot_s();
        let class = Scope::of_tcp_port(port);
        let verdict = self.probe.verdict(address.parse().unwrap(), class, now_s).unwrap();
        matches!(verdict, Verdict::Denied(..))
    }

    fn entry(&self, list: List, prefix: &str) -> Option<Entry> {
        self.probe.get(list, net(prefix)).unwrap()
    }

    fn import(&mut self, text: &str, replace: bool) -> Result<Changed, Problem> {
        let query = ImportQuery {
            name: "drop.txt".into(),
            scope: Scope::SMTP,
            replace,
            force: false,
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
        comment: String::new(),
        force: false,
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

#[test]
fn an_entry_is_enforced_until_it_ends_and_its_row_goes_with_it() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.0/24", Scope::MX, Some(600));
    assert!(bench.denied("192.0.2.9", 25) && !bench.denied("192.0.2.9", 587));
    bench.pass(Duration::from_secs(599));
    bench.edge.tick();
    assert!(bench.denied("192.0.2.9", 25));
    bench.pass(Duration::from_secs(1));
    // The kernel ends it, the daemon may be dead; then the daemon sweeps.
    assert!(!bench.denied("192.0.2.9", 25));
    assert!(bench.entry(List::Deny, "192.0.2.0/24").is_some());
    assert_eq!(bench.edge.next_wake(), Duration::ZERO);
    bench.edge.tick();
    assert_eq!(bench.entry(List::Deny, "192.0.2.0/24"), None);
    assert!(bench.rows(List::Deny).is_empty());
    assert_eq!(bench.edge.status().unwrap().health.drift, 0);
}

#[test]
fn a_ban_under_an_administrators_entry_merges_and_separates_again() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.9", Scope::SUBMISSION, None);
    let answer = bench.ban("192.0.2.9", Scope::MX);
    assert_eq!(answer.outcome, BanOutcome::Banned);
    assert!(bench.denied("192.0.2.9", 25) && bench.denied("192.0.2.9", 587));
    bench.pass(Duration::from_secs(600));
    bench.edge.tick();
    assert!(!bench.denied("192.0.2.9", 25) && bench.denied("192.0.2.9", 587));
    assert_eq!(bench.entry(List::Deny, "192.0.2.9/32").unwrap().expires_s, 0);
}

#[test]
fn a_restart_restores_what_lives_and_removes_what_the_lists_do_not_have() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.0/24", Scope::SMTP, None);
    bench.add(List::Deny, "2001:db8::/32", Scope::SMTP, Some(60));
    bench.add(List::Allow, "192.0.2.7", Scope::ALL, None);
    let Bench { edge, now, dir, .. } = bench;
    drop(edge);
    {
        let mut now = now.lock().unwrap();
        // A reboot, and a minute gone: boot time starts anew, wall time does not.
        *now = Now { wall_ms: now.wall_ms + 61_000, boot_ms: 9_000 };
    }
    let probe = Probe::new(1_000);
    let stale = Entry { expires_s: 0, rule: 9, reason: 0, scope: Scope::ALL, prefix_len: 32 };
    probe.with(|filter| filter.put(List::Deny, net("203.0.113.5/32"), stale).unwrap());
    let bench = Bench { edge: open(dir.path(), &probe, &now), probe, now, dir };
    assert!(bench.denied("192.0.2.9", 25) && !bench.denied("192.0.2.7", 25));
    assert!(!bench.denied("2001:db8::1", 25) && !bench.denied("203.0.113.5", 25));
    assert_eq!(bench.rows(List::Deny).len(), 1);
    assert_eq!(bench.edge.status().unwrap().health.drift, 0);
}

#[test]
fn a_failed_write_is_told_shows_in_the_status_and_heals() {
    let mut bench = Bench::new();
    bench.probe.broken(true);
    let changed = bench.add(List::Deny, "192.0.2.0/24", Scope::SMTP, None);
    assert!(changed.warning.unwrap().contains("broken for a test"));
    let health = bench.edge.status().unwrap().health;
    assert_eq!(health.pending, 1);
    assert!(health.write_failures > 0 && health.last_failure.is_some());
    assert!(!bench.denied("192.0.2.9", 25));
    bench.probe.broken(false);
    bench.pass(Duration::from_secs(6));
    bench.edge.tick();
    assert!(bench.denied("192.0.2.9", 25));
    let health = bench.edge.status().unwrap().health;
    assert_eq!((health.pending, health.drift), (0, 0));
}

#[test]
fn drift_is_repaired_and_counted() {
    let mut bench = Bench::new();
    for n in 0..4 {
        bench.add(List::Deny, &format!("192.0.2.{n}"), Scope::SMTP, None);
    }
    let odd = Entry { expires_s: 0, rule: 77, reason: 0, scope: Scope::ALL, prefix_len: 32 };
    bench.probe.with(|filter| {
        filter.remove(List::Deny, net("192.0.2.1/32")).unwrap();
        filter.put(List::Deny, net("192.0.2.2/32"), odd).unwrap();
        filter.put(List::Allow, net("203.0.113.0/24"), odd).unwrap();
    });
    bench.pass(Duration::from_secs(61));
    bench.edge.tick();
    assert!(bench.denied("192.0.2.1", 25) && !bench.denied("192.0.2.2", 22));
    assert_eq!(bench.entry(List::Allow, "203.0.113.0/24"), None);
    assert_eq!(bench.edge.status().unwrap().health.drift, 3);
    bench.pass(Duration::from_secs(61));
    bench.edge.tick();
    assert_eq!(bench.edge.status().unwrap().health.drift, 3);
}

#[test]
fn a_clock_that_is_set_moves_no_end() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.9", Scope::SMTP, Some(7_200));
    let before = bench.entry(List::Deny, "192.0.2.9/32").unwrap().expires_s;
    bench.now.lock().unwrap().wall_ms += 3_600_000;
    bench.edge.tick();
    // The row ends at a wall time, and that is now an hour nearer.
    let after = bench.entry(List::Deny, "192.0.2.9/32").unwrap().expires_s;
    assert_eq!(before - after, 3_600);
    let health = bench.edge.status().unwrap().health;
    assert_eq!((health.clock_steps, health.drift), (1, 0));
}

#[test]
fn the_guarded_scope_follows_the_deny_list() {
    let mut bench = Bench::new();
    let guarded = |bench: &Bench| bench.edge.status().unwrap().guarded;
    assert_eq!(guarded(&bench), "nothing");
    bench.add(List::Deny, "192.0.2.9", Scope::MX, None);
    bench.add(List::Allow, "192.0.2.10", Scope::ALL, None);
    assert_eq!(guarded(&bench), "mx");
    bench.add(List::Deny, "192.0.2.11", Scope::ALL, Some(60));
    assert_eq!(guarded(&bench), "all");
    assert!(bench.denied("192.0.2.11", 22));
    bench.pass(Duration::from_secs(60));
    bench.edge.tick();
    assert_eq!(guarded(&bench), "mx");
}

#[test]
fn guardrails_refuse_by_name_and_force_goes_past_them() {
    let mut bench = Bench::new();
    bench.add(List::Allow, "203.0.113.0/24", Scope::SMTP, None);
    for (prefix, scope, why) in [
        ("198.51.100.0/24", Scope::MX, "holds 198.51.100.1, a gateway"),
        ("0.0.0.0/0", Scope::SMTP, "holds 198.51.100.1, a gateway"),
        ("203.0.113.9", Scope::MX, "on the allow list by 203.0.113.0/24"),
    ] {
        let all = ["192.0.2.1", prefix];
        let problem = bench.edge.add(List::Deny, &request(&all, scope, None)).unwrap_err();
        assert_eq!(problem.code, Code::Refused);
        assert!(problem.message.contains(why), "{problem}");
        assert!(bench.rows(List::Deny).is_empty(), "all or nothing");
        let forced = AddRequest { force: true, ..request(&[prefix], scope, None) };
        bench.edge.add(List::Deny, &forced).unwrap();
        bench.remove(List::Deny, prefix);
    }
    // Allowed for good, it may be covered: the allow entry keeps it reachable.
    bench.add(List::Allow, "198.51.100.1", Scope::ALL, None);
    bench.add(List::Deny, "198.51.100.0/24", Scope::MX, None);
    // Wider than what is allowed, it has an effect.
    bench.add(List::Deny, "203.0.113.9", Scope::TCP, None);
}

#[test]
fn wrong_prefixes_are_named_and_nothing_is_done() {
    let mut bench = Bench::new();
    let wrong = request(&["192.0.2.1", "10.0.0.1/8", "x"], Scope::MX, None);
    let problem = bench.edge.add(List::Deny, &wrong).unwrap_err();
    assert_eq!(problem.code, Code::Invalid);
    assert!(problem.message.contains("10.0.0.0/8"), "{problem}");
    assert_eq!(problem.details.len(), 2);
    assert!(bench.edge.add(List::Deny, &request(&[], Scope::MX, None)).is_err());
    assert!(bench.edge.add(List::Deny, &request(&["192.0.2.1"], Scope::MX, Some(0))).is_err());
    assert!(
        bench.edge.add(List::Deny, &request(&["192.0.2.1"], Scope::MX, Some(u64::MAX))).is_err()
    );
    assert!(bench.rows(List::Deny).is_empty());
}

#[test]
fn what_is_removed_passes_at_once_and_what_is_missing_is_explained() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.0/24", Scope::SMTP, None);
    bench.ban("203.0.113.9", Scope::MX);
    let changed = bench.remove(List::Deny, "192.0.2.9");
    assert_eq!(changed.removed, 0);
    assert_eq!(changed.missing[0].covered_by, Some(net("192.0.2.0/24")));
    assert_eq!(bench.remove(List::Deny, "203.0.113.9").removed, 1);
    assert!(!bench.denied("203.0.113.9", 25));
    // Forgiven: the next ban is a first one.
    assert_eq!(bench.ban("203.0.113.9", Scope::MX).duration_s, Some(600));
    let only = |source: &str| FlushRequest { source: Some(source.into()) };
    assert_eq!(bench.edge.flush(List::Deny, &only("ban")).unwrap().removed, 1);
    assert_eq!(bench.rows(List::Deny).len(), 1);
    assert_eq!(bench.edge.flush(List::Deny, &FlushRequest { source: None }).unwrap().removed, 1);
    assert!(!bench.denied("192.0.2.9", 25));
}

#[test]
fn an_import_is_all_or_nothing_and_replace_drops_what_the_file_dropped() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.1", Scope::MX, None);
    let changed = bench.import("192.0.2.1\n203.0.113.0/24 ttl=1h # x\n", false).unwrap();
    assert_eq!(changed.added, 2);
    for wrong in ["192.0.2.5\n10.0.0.1/8\n", "192.0.2.5\n198.51.100.0/24\n"] {
        let problem = bench.import(wrong, true).unwrap_err();
        assert!(!problem.details.is_empty());
        assert_eq!(bench.rows(List::Deny).len(), 3);
        assert!(!bench.denied("192.0.2.5", 25) && bench.denied("203.0.113.9", 25));
    }
    let changed = bench.import("192.0.2.1\n192.0.2.6\n", true).unwrap();
    assert_eq!((changed.added, changed.updated, changed.removed), (1, 0, 1));
    assert!(!bench.denied("203.0.113.9", 25) && bench.denied("192.0.2.6", 25));
    assert!(bench.denied("192.0.2.1", 25));
}

#[test]
fn an_export_imported_into_an_empty_list_is_the_same_list() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.0/24", Scope::TCP, Some(3_600));
    bench.add(List::Deny, "2001:db8::/32", Scope::SMTP, None);
    bench.ban("203.0.113.9", Scope::MX);
    let wall_s = START.wall_s();
    let facts = |rows: Vec<Row>| -> Vec<_> {
        rows.into_iter().map(|row| (row.prefix, row.scope, row.expires, row.comment)).collect()
    };
    let rows = bench.rows(List::Deny);
    let text: String = rows.iter().map(|row| lines::format(row, wall_s) + "\n").collect();
    let mut other = Bench::new();
    other.import(&text, false).unwrap();
    assert_eq!(facts(other.rows(List::Deny)), facts(rows));
}

#[test]
fn a_full_map_refuses_whole_and_changes_nothing() {
    let mut bench = Bench::with_room(2);
    bench.add(List::Deny, "192.0.2.1", Scope::MX, None);
    let problem =
        bench.edge.add(List::Deny, &request(&["192.0.2.2", "192.0.2.3"], Scope::MX, None));
    let problem = problem.unwrap_err();
    assert_eq!(problem.code, Code::Refused);
    assert!(problem.message.contains("room for 2"), "{problem}");
    assert_eq!(bench.rows(List::Deny).len(), 1);
    // The other family and the other list have rooms of their own.
    bench.add(List::Deny, "2001:db8::1", Scope::MX, None);
    bench.add(List::Allow, "192.0.2.3", Scope::MX, None);
    bench.add(List::Deny, "192.0.2.2", Scope::MX, None);
    bench.add(List::Deny, "192.0.2.2", Scope::ALL, None);
}

#[test]
fn the_ladder_lengthens_with_each_ban_and_forgets_after_a_month() {
    let mut bench = Bench::new();
    let mut durations = Vec::new();
    for _ in 0..4 {
        let answer = bench.ban("192.0.2.9", Scope::MX);
        assert_eq!(answer.outcome, BanOutcome::Banned);
        durations.push(answer.duration_s.unwrap());
        bench.pass(Duration::from_secs(answer.duration_s.unwrap()));
        bench.edge.tick();
        assert!(!bench.denied("192.0.2.9", 25));
    }
    assert_eq!(durations, [600, 3_600, 86_400, 86_400]);
    bench.pass(BanPolicy::default().forget_after + Duration::from_secs(1));
    assert_eq!(bench.ban("192.0.2.9", Scope::MX).duration_s, Some(600));
}

#[test]
fn whoever_is_banned_already_is_told_until_when_and_a_wider_scope_widens() {
    let mut bench = Bench::new();
    let first = bench.ban("2001:db8::1", Scope::MX);
    assert_eq!(first.prefix, net("2001:db8::/64"));
    bench.pass(Duration::from_secs(10));
    let again = bench.ban("2001:db8::2", Scope::MX);
    assert_eq!(again.outcome, BanOutcome::AlreadyBanned);
    assert_eq!(again.until, first.until);
    let wider = bench.ban("2001:db8::2", Scope::SUBMISSION);
    assert_eq!(wider.outcome, BanOutcome::Banned);
    assert!(bench.denied("2001:db8::3", 25) && bench.denied("2001:db8::3", 587));
    bench.add(List::Deny, "203.0.113.0/24", Scope::SMTP, None);
    let covered = bench.ban("203.0.113.9", Scope::MX);
    assert_eq!((covered.outcome, covered.until), (BanOutcome::AlreadyBanned, None));
}

#[test]
fn the_protected_and_the_allowed_are_never_banned() {
    let mut bench = Bench::new();
    bench.add(List::Allow, "203.0.113.0/24", Scope::SUBMISSION, None);
    bench.add(List::Allow, "2001:db8::5", Scope::ALL, None);
    for address in ["198.51.100.1", "::ffff:198.51.100.1", "203.0.113.9", "2001:db8::5"] {
        let answer = bench.ban(address, Scope::MX);
        assert_eq!(answer.outcome, BanOutcome::Protected, "{address}");
        assert!(answer.message.is_some());
    }
    assert!(bench.rows(List::Deny).is_empty());
    assert_eq!(bench.edge.status().unwrap().health.bans_protected, 4);
}

#[test]
fn caps_stop_a_storm_of_bans() {
    let mut bench = Bench::new();
    let mut outcomes = Vec::new();
    for n in 0..4 {
        outcomes.push(bench.ban(&format!("192.0.2.{n}"), Scope::MX).outcome);
    }
    assert_eq!(outcomes[2..], [BanOutcome::Banned, BanOutcome::Capped]);
    bench.pass(Duration::from_secs(61));
    bench.edge.tick();
    for n in 4..7 {
        outcomes.push(bench.ban(&format!("192.0.2.{n}"), Scope::MX).outcome);
    }
    assert_eq!(outcomes[4..], [BanOutcome::Banned, BanOutcome::Banned, BanOutcome::Capped]);
    let status = bench.edge.status().unwrap();
    assert_eq!((status.live_bans, status.health.bans_capped), (5, 2));
    bench.pass(Duration::from_secs(600));
    bench.edge.tick();
    assert_eq!(bench.ban("192.0.2.9", Scope::MX).outcome, BanOutcome::Banned);
}

#[test]
fn explain_asks_the_maps_and_says_when_the_lists_differ() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.0/24", Scope::MX, None);
    bench.ban("192.0.2.9", Scope::SMTP);
    let ask = |bench: &Bench, port| {
        let address = "::ffff:192.0.2.9".parse().unwrap();
        bench.edge.explain(&ExplainQuery { address, port }).unwrap()
    };
    let told = ask(&bench, 25);
    assert_eq!((told.verdict, told.agrees), (PacketVerdict::Denied, true));
    assert_eq!(told.decided_by, Some(net("192.0.2.9/32")));
    assert_eq!(told.rows[0].row.rule, "dnsbl Spamhaus ZEN");
    assert_eq!((told.rows.len(), told.bans), (2, 1));
    assert!(!ask(&bench, 587).rows[1].in_scope);
    bench.probe.with(|filter| {
        filter.remove(List::Deny, net("192.0.2.9/32")).unwrap();
        filter.remove(List::Deny, net("192.0.2.0/24")).unwrap();
    });
    let told = ask(&bench, 25);
    assert_eq!((told.verdict, told.desired), (PacketVerdict::Pass, PacketVerdict::Denied));
    assert!(!told.agrees);
}

#[test]
fn configured_entries_replace_each_other_and_leave_others_alone() {
    let mut bench = Bench::new();
    bench.add(List::Deny, "192.0.2.1", Scope::MX, None);
    let rows = |texts: &[&str]| texts.iter().map(|text| (net(text), Scope::SMTP)).collect();
    bench.edge.replace(List::Deny, "config", rows(&["192.0.2.1/32", "192.0.2.2/32"])).unwrap();
    bench.edge.replace(List::Deny, "config", rows(&["192.0.2.3/32"])).unwrap();
    assert!(bench.denied("192.0.2.1", 25) && !bench.denied("192.0.2.1", 587));
    assert!(!bench.denied("192.0.2.2", 25) && bench.denied("192.0.2.3", 587));
}
