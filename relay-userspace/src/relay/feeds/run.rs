//! All feeds from the network, for as long as the relay runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::hand_over::hand_over;
use super::schedule::{Seen, Step, Turn};
use super::{FetchError, Fetched, Fetcher, Wanted};
use crate::config::{self, Config, FeedSource};
use crate::control::api::{Code, FeedAnswer, FeedFetch, FeedReport, FeedsReport};
use crate::control::client::{Client, ClientError};
use crate::relay::counters::Counters;
use crate::relay::state::{Files, Shared};

/// How often the edge is asked which feeds are due, so that `postern feed refresh` takes effect.
pub const ASK_EVERY: Duration = Duration::from_secs(5);
const EDGE_ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// Fetches under way at once: a slow server must not hold up all other feeds.
const FETCHES_MAX: usize = 4;

/// What fetching needs, given once.
#[derive(Debug)]
pub struct Feeds {
    pub fetcher: Arc<Fetcher>,
    /// For each feed that has one, its own authorities.
    pub authorities: BTreeMap<String, PathBuf>,
    pub edge: Client,
    pub counters: Arc<Counters>,
}

impl Feeds {
    /// `None` where the configuration names no feed from the network.
    pub fn of(config: &Config, files: &Files, shared: &Shared) -> Option<Self> {
        let from_network = |feed: &&config::Feed| matches!(feed.source, FeedSource::Https(_));
        let feeds: Vec<_> = config.feeds.iter().filter(from_network).collect();
        let ca_file = |feed: &&config::Feed| Some((feed.name.clone(), feed.ca_file.clone()?));
        (!feeds.is_empty()).then(|| Self {
            fetcher: Arc::new(Fetcher::new(shared.resolver.clone(), files.feeds.clone())),
            authorities: feeds.iter().filter_map(ca_file).collect(),
            // Not the sessions' impatient client: the edge reads a whole list before it answers.
            edge: Client::edge(&config.server.run_dir),
            counters: Arc::clone(&shared.counters),
        })
    }
}

/// What came of one feed's turn.
struct Ended {
    name: String,
    fetched: Result<Fetched, FetchError>,
    handed_over: Result<FeedAnswer, ClientError>,
}

/// Removes what a relay that was killed left in the folder of content.
pub fn clear(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "left behind by an earlier run");
        }
    }
}

/// Fetches feeds when they are due, until told to stop.
pub async fn run(feeds: Feeds, every: Duration, stop: CancellationToken) {
    clear(&feeds.fetcher.folder);
    let mut course = Course::new(feeds);
    let mut ask = interval(every);
    ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // What is under way ends with this; the edge has the old content.
            () = stop.cancelled() => return,
            _ = ask.tick() => tokio::select! {
                () = stop.cancelled() => return,
                () = course.start_due() => {}
            },
            Some(ended) = course.under_way.join_next() => match ended {
                Ok(ended) => course.note(ended),
                Err(error) => {
                    course.feeds.counters.defects.add();
                    tracing::error!(%error, "a fetch ended by a defect of this program");
                    course.forget_running();
                }
            },
        }
    }
}

struct Course {
    feeds: Feeds,
    turns: BTreeMap<String, Turn>,
    running: BTreeSet<String>,
    under_way: JoinSet<Ended>,
    edge_is_away: bool,
}

impl Course {
    fn new(feeds: Feeds) -> Self {
        let (turns, running) = (BTreeMap::new(), BTreeSet::new());
        Self { feeds, turns, running, under_way: JoinSet::new(), edge_is_away: false }
    }

    async fn start_due(&mut self) {
        let edge = self.feeds.edge.clone().with_timeout(EDGE_ANSWERS_WITHIN);
        let report: FeedsReport = match edge.get("/v1/feeds").await {
            Ok(report) => report,
            Err(error) => {
                if !self.edge_is_away {
                    tracing::warn!(%error, "no feed can be fetched until the edge answers");
                }
                self.edge_is_away = true;
                return;
            }
        };
        if std::mem::take(&mut self.edge_is_away) {
            tracing::info!("the edge answers again: feeds are fetched");
        }
        self.turns.retain(|name, _| report.feeds.iter().any(|feed| feed.name == *name));
        for feed in &report.feeds {
            if let Some(fetch) = &feed.fetch {
                self.start_if_due(feed, fetch);
            }
        }
    }

    fn start_if_due(&mut self, feed: &FeedReport, fetch: &FeedFetch) {
        let name = &feed.name;
        if self.running.contains(name) || self.running.len() == FETCHES_MAX || !is_name(name) {
            return;
        }
        let turn = self.turns.entry(name.clone()).or_default();
        let seen = Seen { due: fetch.due, next_refresh_s: feed.next_refresh.0 };
        let wanted = match turn.step(seen, Instant::now(), wall_s()) {
            Step::Wait => return,
            Step::Fetch => Address::parse(&fetch.url),
            Step::LeaveAlone(left) => Err(FetchError::LeftAlone { left }),
        };
        let wanted = wanted.map(|address| Wanted {
            name: name.clone(),
            address,
            validators: fetch.validators.clone(),
            bytes_max: fetch.size_bytes_max,
            authorities: self.feeds.authorities.get(name).cloned(),
        });
        let (fetcher, edge) = (Arc::clone(&self.feeds.fetcher), self.feeds.edge.clone());
        let name = name.clone();
        self.running.insert(name.clone());
        self.under_way.spawn(async move {
            let mut fetched = match wanted {
                Ok(wanted) => fetcher.fetch(&wanted).await,
                Err(error) => Err(error),
            };
            let handed_over = hand_over(&edge, &name, &mut fetched).await;
            Ended { name, fetched, handed_over }
        });
    }

    /// Puts down what came of a turn. The edge logs what changes of a feed; the log says more here
    /// only of what the edge did not hear.
    fn note(&mut self, ended: Ended) {
        let Ended { name, fetched, handed_over } = ended;
        self.running.remove(&name);
        let turn = self.turns.entry(name.clone()).or_default();
        let (now, random) = (Instant::now(), random());
        let counters = &self.feeds.counters;
        match &fetched {
            Ok(Fetched::Content(_)) => counters.feeds_fetched.add(),
            Ok(Fetched::Unchanged) => counters.feeds_unchanged.add(),
            Err(FetchError::LeftAlone { .. }) => {}
            Err(_) => counters.feeds_failed.add(),
        }
        tracing::debug!(feed = name, ?fetched, ?handed_over, "a feed's turn");
        if let Err(error) = handed_over
            && !heard(&error)
        {
            let wait_s = turn.not_taken(now, random).as_secs();
            tracing::warn!(feed = name, %error, wait_s, "what came of a feed was not taken");
            return;
        }
        match fetched.err() {
            // Nobody was asked: what the server wanted holds on.
            Some(FetchError::LeftAlone { .. }) => {}
            Some(FetchError::Busy { retry_after: Some(after), .. }) => {
                turn.sent_away(now, after, random);
            }
            _ => turn.taken(),
        }
    }

    /// A task that ended by a defect does not say whose it was.
    fn forget_running(&mut self) {
        if self.under_way.is_empty() {
            self.running.clear();
        }
    }
}

/// Whether the edge, though it did not like what it was brought, has put that down.
fn heard(error: &ClientError) -> bool {
    matches!(error, ClientError::Problem(problem)
        if matches!(problem.code, Code::Refused | Code::TooLarge))
}

/// A name that may be part of a file's name and of a request's path.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(fits)
}

fn wall_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// It needs no secrecy.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
