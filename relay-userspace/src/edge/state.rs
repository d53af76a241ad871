//! The edge's state and its one rule: durable first, then the maps.
//!
//! [`Edge`] is driven by one thread ([`super::daemon`]) and knows no other. What the lists call for
//! is kept in memory beside the maps; whatever could not be written is pending, shows in the
//! status, and is written by the next reconciliation.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay_common::entry::List;
use relay_core::ban::BanPolicy;
use relay_core::ban::caps::Caps;
use relay_core::ban::guardrails::Protected;
use thiserror::Error;

use super::attachment::{LOOK_EVERY_MS, Watch};
use super::clock::{Clock, Now};
use super::commit::{Committed, commit, remove_expired};
use super::counters::KEEP_EVERY_MS;
use super::desired::merge;
use super::feeds::Feeds;
use super::filter::{Filter, FilterError, Modes};
use super::lines::Line;
use super::repairs::{Repair, repairs};
use super::sshd::SshSession;
use super::store::{Key, Store, StoreError};
use super::wanted::Desired;
use super::work::Work;
use crate::config::Feed;
use crate::control::api::{Health, Problem};

/// A clock that moves by more than this against the time since boot was set by somebody.
const CLOCK_STEP_MS: u128 = 1_500;
/// After a failed write, how soon to try again.
pub(super) const RETRY_AFTER_MS: u64 = 5_000;
/// The longest sleep, so that a clock that was set and a lost interface are noticed.
const WAKE_AFTER_MAX: Duration = Duration::from_millis(LOOK_EVERY_MS);

/// What the edge is told by the configuration.
#[derive(Clone, Debug)]
pub struct EdgeSettings {
    /// The database of lists.
    pub database: PathBuf,
    pub bans: BanPolicy,
    /// Bans are only observed.
    pub observe_bans: bool,
    /// Where the list is full, a ban ends those with the least time left.
    pub make_room: bool,
    /// What the filter does beyond the lists.
    pub modes: Modes,
    /// The rows of the configuration, the only ones of their source, by list; those that are to
    /// be written yet.
    pub rows: Vec<(List, Vec<Line>)>,
    /// How often lists and maps are compared.
    pub reconcile_every: Duration,
    /// How often interfaces are looked at when the kernel tells of no change.
    pub look_every: Duration,
    pub feeds: Vec<Feed>,
    /// Where what they said last is kept.
    pub feeds_folder: PathBuf,
}

impl EdgeSettings {
    pub fn new(database: PathBuf) -> Self {
        let reconcile_every = Duration::from_secs(60);
        let feeds_folder = database.with_file_name("feeds");
        Self {
            database,
            bans: BanPolicy::default(),
            observe_bans: false,
            make_room: false,
            modes: Modes::default(),
            rows: Vec::new(),
            reconcile_every,
            look_every: Duration::from_millis(LOOK_EVERY_MS),
            feeds: Vec::new(),
            feeds_folder,
        }
    }
}

/// Reads which addresses must stay reachable, as of now.
pub type ReadProtected = Box<dyn Fn() -> Protected + Send>;

/// Reads who is connected over SSH, as of now.
pub type ReadSessions = Box<dyn Fn() -> Vec<SshSession> + Send>;

/// The lists, the maps, and what stands between them.
pub struct Edge<F> {
    pub(super) store: Store,
    pub(super) filter: F,
    pub(super) clock: Clock,
    pub(super) protected: ReadProtected,
    pub(super) sessions: ReadSessions,
    pub(super) settings: EdgeSettings,
    pub(super) desired: Desired,
    pub(super) feeds: Feeds,
    pub(super) health: Health,
    pub(super) caps: Caps,
    pub(super) attachment: Watch,
    pub(super) work: Arc<Work>,
    /// The instant that stands for the boot, to count distances from.
    epoch: Instant,
    pub(super) started_s: u64,
    pub(super) pending: BTreeSet<Key>,
    pub(super) next_expiry_s: Option<u64>,
    pub(super) next_reconcile_ms: u64,
    /// No sweep before this, since the last one failed.
    sweep_not_before_ms: u64,
    /// As long as rows of the configuration are not written, they are not tried before this.
    pub(super) configured_not_before_ms: u64,
    pub(super) keep_counters_at_ms: u64,
    offset_ms: i128,
}

impl<F> std::fmt::Debug for Edge<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edge").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<F: Filter> Edge<F> {
    /// Opens the lists, brings the maps to what they call for, and has the filter enforce them.
    ///
    /// # Errors
    /// The database cannot be opened or read, or the filter cannot be put in place. Maps that cannot
    /// be written are no error here: they are tried again, and the status says so.
    pub fn open(
        settings: EdgeSettings,
        filter: F,
        clock: Clock,
        protected: ReadProtected,
    ) -> Result<Self, OpenError> {
        Self::open_sparing_ssh(settings, filter, clock, protected, Box::new(Vec::new))
    }

    /// The same, and cuts off nobody who is connected over SSH, now or later.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_sparing_ssh(
        settings: EdgeSettings,
        filter: F,
        clock: Clock,
        protected: ReadProtected,
        sessions: ReadSessions,
    ) -> Result<Self, OpenError> {
        let now = clock();
        let lists = |cause| OpenError::Lists { database: settings.database.clone(), cause };
        let mut store = Store::open(&settings.database).map_err(lists)?;
        let mut health = Health::default();
        // A full disk is no reason to filter nothing: a dead row has no say, wherever it stands.
        if let Err(error) = remove_expired(&mut store, now) {
            tracing::error!(%error, "removing what has expired");
            health.last_failure = Some(error.to_string());
        }
        let mut desired = Desired::default();
        store
            .for_each_key(|key, claims| desired.set(key, merge(claims, now.wall_s())))
            .map_err(lists)?;
        let (feeds, counted_anew) = Feeds::open(&settings, &mut store, now);
        let next_expiry_s = store.next_expiry_s().map_err(lists)?;
        let mut edge = Self {
            store,
            filter,
            clock,
            protected,
            sessions,
            caps: Caps::new(settings.bans.caps.clone()),
            settings,
            desired,
            feeds,
            health,
            attachment: Watch::default(),
            work: Arc::default(),
            epoch: Instant::now(),
            started_s: now.wall_s(),
            pending: BTreeSet::new(),
            next_expiry_s,
            next_reconcile_ms: 0,
            sweep_not_before_ms: 0,
            configured_not_before_ms: 0,
            keep_counters_at_ms: now.boot_ms.saturating_add(KEEP_EVERY_MS),
            offset_ms: now.offset_ms(),
        };
        // Rows, then feeds, then the program: whatever it replaces, no packet meets lists half full.
        edge.reset_rules(counted_anew, &mut None);
        edge.restore_counters(now);
        edge.reconcile(now, false);
        edge.write_configured(now)?;
        edge.start_feeds(now);
        edge.forget_old_feeds();
        edge.filter.activate()?;
        edge.tell_attachments();
        Ok(edge)
    }

    /// Gives the filter back; the maps stay as they are.
    pub fn into_filter(self) -> F {
        self.filter
    }

    /// Who has logged in over SSH. Whoever merely holds a connection to the port must not escape a
    /// ban or a feed by it.
    pub(super) fn logged_in(&self) -> Vec<SshSession> {
        (self.sessions)().into_iter().filter(|session| session.logged_in).collect()
    }

    pub(super) fn now(&self) -> Now {
        (self.clock)()
    }

    /// Time since boot as an instant; only distances between two of them mean anything.
    pub(super) fn instant(&self, now: Now) -> Instant {
        self.epoch + Duration::from_millis(now.boot_ms)
    }

    pub(super) fn pending(&self) -> u64 {
        self.pending.len() as u64
    }

    /// Has lists and maps compared within seconds.
    pub(super) fn reconcile_soon(&mut self, now: Now) {
        let soon_ms = now.boot_ms.saturating_add(RETRY_AFTER_MS);
        self.next_reconcile_ms = self.next_reconcile_ms.min(soon_ms);
    }

    /// Does what is due: rows that ended, a clock that was set, writes to be repeated, drift.
    pub fn tick(&mut self) {
        let now = self.now();
        self.watch_attachment(now);
        let stepped = now.offset_ms().abs_diff(self.offset_ms) > CLOCK_STEP_MS;
        if stepped {
            tracing::warn!(
                by_ms = %(now.offset_ms() - self.offset_ms),
                "the clock was set; expiries are converted anew"
            );
            self.health.clock_steps += 1;
        }
        let due = self.next_expiry_s.is_some_and(|at| at <= now.wall_s());
        if due && now.boot_ms >= self.sweep_not_before_ms {
            self.sweep(now);
        }
        if stepped || now.boot_ms >= self.next_reconcile_ms {
            self.reconcile(now, true);
        }
        self.tick_configured(now);
        self.tick_feeds(stepped, now);
        self.tick_counters(now);
    }

    /// How long until [`Edge::tick`] has something to do, at most.
    pub fn next_wake(&self) -> Duration {
        let now = self.now();
        let reconcile_ms = self.next_reconcile_ms.saturating_sub(now.boot_ms);
        let expiry_ms = self.next_expiry_s.map_or(u64::MAX, |at| {
            let in_ms = at.saturating_mul(1000).saturating_sub(now.wall_ms);
            in_ms.max(self.sweep_not_before_ms.saturating_sub(now.boot_ms))
        });
        let wait = Duration::from_millis(reconcile_ms.min(expiry_ms)).min(WAKE_AFTER_MAX);
        wait.min(self.feeds_wake(now))
    }

    fn sweep(&mut self, now: Now) {
        match self.expired(now) {
            Ok(committed) => {
                self.enforce(committed, now);
            }
            Err(error) => {
                // The kernel lets the entries die by itself; only the rows stay a while.
                tracing::error!(%error, "sweeping what has expired");
                self.health.last_failure = Some(error.to_string());
                self.sweep_not_before_ms = now.boot_ms + RETRY_AFTER_MS;
            }
        }
    }

    fn expired(&mut self, now: Now) -> Result<Committed, Problem> {
        let txn = self.store.begin()?;
        let keys: BTreeSet<Key> = txn.expire(now.wall_s())?.into_iter().collect();
        for id in txn.lapse(now.wall_s())? {
            tracing::warn!(id, "denials were not confirmed in time, and are gone");
        }
        commit(txn, keys, &self.desired, self.filter.capacity(), now)
    }

    /// Makes the maps what the lists call for, and counts what nobody asked for as drift.
    pub(super) fn reconcile(&mut self, now: Now, count_drift: bool) {
        self.offset_ms = now.offset_ms();
        let every_ms = u64::try_from(self.settings.reconcile_every.as_millis()).unwrap_or(u64::MAX);
        self.next_reconcile_ms = now.boot_ms.saturating_add(every_ms);
        let mut failure = None;
        let done = self.filter.set_modes(&self.settings.modes);
        self.note(done, &mut failure);
        self.guard(self.guarded(), &mut failure);
        for list in List::ALL {
            match self.filter.entries(list) {
                Ok(mut held) => {
                    held.sort_unstable_by_key(|(prefix, _)| *prefix);
                    let repairs = repairs(&self.desired, list, &held, now);
                    self.repair(list, repairs, count_drift, now, &mut failure);
                }
                Err(error) => self.note(Err(error), &mut failure),
            }
        }
        if self.feeds.may_retouch() {
            self.note_retouched(&mut failure);
        }
        self.health.reconciliations += 1;
        if failure.is_some() {
            self.next_reconcile_ms =
                self.next_reconcile_ms.min(now.boot_ms.saturating_add(RETRY_AFTER_MS));
        }
    }

    /// Has only those sources be looked up that rows and feeds speak about.
    pub(super) fn retouch(&mut self) {
        self.note_retouched(&mut None);
    }

    fn note_retouched(&mut self, failure: &mut Option<String>) {
        let done = self.filter.retouch(&mut self.desired.prefixes().chain(self.feeds.prefixes()));
        self.note(done, failure);
    }

    fn repair(
        &mut self,
        list: List,
        repairs: Vec<Repair>,
        count_drift: bool,
        now: Now,
        failure: &mut Option<String>,
    ) {
        if !count_drift && !repairs.is_empty() {
            tracing::info!(%list, prefixes = repairs.len(), "the filter is brought to the lists");
        }
        let mut keys = Vec::with_capacity(repairs.len());
        for Repair { prefix, drift } in repairs {
            let key = (list, prefix);
            if drift && count_drift && !self.pending.contains(&key) {
                tracing::warn!(%list, %prefix, "the filter differed from the lists; repaired");
                self.health.drift += 1;
            }
            keys.push(key);
        }
        let still_pending = self.write_all(&keys, now, failure);
        self.pending.retain(|(of, _)| *of != list);
        self.pending.extend(still_pending);
    }
}

/// Why an edge cannot begin.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("opening the lists in {}: {cause}", database.display())]
    Lists { database: PathBuf, cause: StoreError },
    #[error("filter.{list}: {problem}")]
    Configured { list: List, problem: Problem },
    #[error(transparent)]
    Filter(#[from] FilterError),
}
