//! The edge's half of the conversation, for a test: says what it is told to, keeps what it gets.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::extract::{Path as Name, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router, body::Bytes};
use relay_common::entry::{List, Scope};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::control::api::{
    Code, FeedAnswer, FeedFailed, FeedFetch, FeedOutcome, FeedPhase, FeedReport, FeedState,
    FeedUnchanged, FeedsReport, Problem, Time, Validators,
};
use crate::control::peer::Access;
use crate::control::server::{ControlSocket, Limits};

/// What the relay brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Got {
    Content(String, Validators, Bytes),
    Unchanged(String),
    Failed(String, String),
}

#[derive(Debug)]
struct Inner {
    feeds: Mutex<Vec<FeedReport>>,
    got: mpsc::UnboundedSender<Got>,
    refuse_content: Mutex<Option<Problem>>,
    /// How often it was asked what is due.
    asked: watch::Sender<u64>,
}

pub(super) struct TestEdge {
    inner: Arc<Inner>,
    got: mpsc::UnboundedReceiver<Got>,
    serving: Option<AbortOnDropHandle<()>>,
}

impl TestEdge {
    pub(super) fn new(feeds: Vec<FeedReport>) -> Self {
        let (give, got) = mpsc::unbounded_channel();
        let (feeds, refuse_content) = (Mutex::new(feeds), Mutex::new(None));
        let asked = watch::Sender::new(0);
        let inner = Arc::new(Inner { feeds, got: give, refuse_content, asked });
        Self { inner, got, serving: None }
    }

    pub(super) fn serve(&mut self, path: &Path) {
        let socket = ControlSocket::bind(path, None).unwrap();
        let router = Router::new()
            .route("/v1/feeds", get(report))
            .route("/v1/feeds/{name}/content", post(content))
            .route("/v1/feeds/{name}/unchanged", post(unchanged))
            .route("/v1/feeds/{name}/failed", post(failed))
            .layer(axum::extract::DefaultBodyLimit::max(64 << 20))
            .with_state(Arc::clone(&self.inner));
        let forever = std::future::pending();
        let serving = socket.serve(router, Access::new(None), Limits::default(), forever);
        self.serving = Some(AbortOnDropHandle::new(tokio::spawn(async { serving.await.unwrap() })));
    }

    /// Ends, as if killed.
    pub(super) async fn go_away(&mut self) {
        let serving = self.serving.take().expect("it is there");
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
    }

    /// Waits until the relay has acted on an answer that was given after this call.
    pub(super) async fn has_been_asked_anew(&self) {
        let mut asked = self.inner.asked.subscribe();
        let before = *asked.borrow();
        asked.wait_for(|&now| now >= before + 3).await.unwrap();
    }

    pub(super) fn refuse_content(&self, why: &str) {
        let problem = Problem::new(Code::Refused, why);
        *self.inner.refuse_content.lock().unwrap() = Some(problem);
    }

    pub(super) fn set_due(&self, name: &str, due: bool) {
        for feed in self.inner.feeds.lock().unwrap().iter_mut().filter(|feed| feed.name == name) {
            feed.fetch.as_mut().unwrap().due = due;
        }
    }

    pub(super) async fn next(&mut self) -> Got {
        let patience = std::time::Duration::from_secs(20);
        tokio::time::timeout(patience, self.got.recv()).await.expect("nothing came").unwrap()
    }

    pub(super) fn nothing_came(&mut self) -> bool {
        self.got.try_recv().is_err()
    }
}

impl Inner {
    /// Takes what came; the feed is no longer due.
    fn took(&self, name: &str, got: Got, outcome: FeedOutcome) -> Json<FeedAnswer> {
        for feed in self.feeds.lock().unwrap().iter_mut().filter(|feed| feed.name == name) {
            feed.fetch.as_mut().unwrap().due = false;
        }
        self.got.send(got).unwrap();
        Json(FeedAnswer { outcome, entries: 2 })
    }
}

type Shared = State<Arc<Inner>>;

async fn report(State(inner): Shared) -> Json<FeedsReport> {
    inner.asked.send_modify(|asked| *asked += 1);
    Json(FeedsReport { feeds: inner.feeds.lock().unwrap().clone() })
}

async fn content(
    State(inner): Shared,
    Name(name): Name<String>,
    Query(validators): Query<Validators>,
    body: Bytes,
) -> Result<Json<FeedAnswer>, Problem> {
    let got = Got::Content(name.clone(), validators, body);
    let answer = inner.took(&name, got, FeedOutcome::Accepted);
    match inner.refuse_content.lock().unwrap().clone() {
        Some(problem) => Err(problem),
        None => Ok(answer),
    }
}

async fn unchanged(
    State(inner): Shared,
    Name(name): Name<String>,
    Json(_): Json<FeedUnchanged>,
) -> Json<FeedAnswer> {
    inner.took(&name, Got::Unchanged(name.clone()), FeedOutcome::Unchanged)
}

async fn failed(
    State(inner): Shared,
    Name(name): Name<String>,
    Json(failed): Json<FeedFailed>,
) -> Json<FeedAnswer> {
    inner.took(&name, Got::Failed(name.clone(), failed.reason), FeedOutcome::Noted)
}

/// A feed from the network, due, whose next refresh lies in the far future.
pub(super) fn due(name: &str, url: &str) -> FeedReport {
    FeedReport {
        name: name.to_owned(),
        source: url.to_owned(),
        list: List::Deny,
        scope: Scope::MX,
        observe: false,
        state: FeedState::Empty,
        phase: FeedPhase::Due,
        progress: None,
        ipv4: 0,
        ipv6: 0,
        in_force: 0,
        read: 0,
        attempts: 0,
        accepted: None,
        refreshed: None,
        lease_ends: None,
        next_refresh: Time(100_000_000_000),
        refusal: None,
        refusals: 0,
        left_out: Vec::new(),
        packets: 0,
        observed: 0,
        last_hit: None,
        fetch: Some(FeedFetch {
            url: url.to_owned(),
            due: true,
            validators: Validators::default(),
            size_bytes_max: 32 << 20,
        }),
    }
}
