//! The edge's control socket: each request, and whom it asks.

use axum::body::Body as AxumBody;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use http_body_util::BodyExt;
use relay_common::entry::List;

use super::daemon::EdgeHandle;
use super::feeds;
use super::lines;
use crate::control::api::*;
use crate::control::extract::{Ask, Body};
use crate::control::peer::Peer;

/// The largest file that is imported in one request.
pub const IMPORT_BYTES_MAX: usize = 64 << 20;
/// The largest other request: ten thousand prefixes in their longest form.
const BODY_BYTES_MAX: usize = 2 << 20;

type Answer<T> = Result<Json<T>, Problem>;

/// The edge's requests, to be served by [`crate::control::server::ControlSocket`].
pub fn router(edge: EdgeHandle) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/stats", get(stats))
        .route("/v1/work", get(work))
        .route("/v1/explain", get(explain))
        .route("/v1/judge", post(judge))
        .route("/v1/bans", post(ban))
        .route("/v1/pending", get(pending))
        .route("/v1/pending/confirm", post(confirm))
        .route("/v1/lists/{list}", get(page))
        .route("/v1/lists/{list}/entries", post(add))
        .route("/v1/lists/{list}/remove", post(remove))
        .route("/v1/lists/{list}/flush", post(flush))
        .route("/v1/feeds", get(all_feeds))
        .route("/v1/feeds/{name}", get(feed))
        .route("/v1/feeds/{name}/refresh", post(feed_refresh))
        .route("/v1/feeds/{name}/unchanged", post(feed_unchanged))
        .route("/v1/feeds/{name}/failed", post(feed_failed))
        // Its own limit is the feed's.
        .route("/v1/feeds/{name}/content", post(feed_content))
        // So has this one.
        .route("/v1/lists/{list}/import", post(import))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(edge)
}

/// What the relay may ask. It talks to the internet: if it is ever taken over, whoever did so can
/// neither lift a ban nor deny more than the guardrails and caps of bans permit.
const RELAYS_OWN: [&str; 5] = ["/v1/bans", "/v1/explain", "/v1/feeds", "/v1/judge", "/v1/status"];
/// What the relay may say about a feed: it fetches those from the network.
const RELAYS_OWN_OF_A_FEED: [&str; 3] = ["content", "failed", "unchanged"];

fn is_relays_own(path: &str) -> bool {
    let of_a_feed = path.strip_prefix("/v1/feeds/").and_then(|rest| rest.split_once('/'));
    RELAYS_OWN.contains(&path)
        || of_a_feed.is_some_and(|(_, what)| RELAYS_OWN_OF_A_FEED.contains(&what))
}

/// Holds the relay, known by its user, to the requests that are its own.
pub fn holding_relay_to_its_own(router: Router, relay_uid: u32) -> Router {
    let judge = move |Extension(peer): Extension<Peer>, request: Request, next: Next| async move {
        let relay = peer.uid == relay_uid && relay_uid != 0;
        if relay && !is_relays_own(request.uri().path()) {
            let path = request.uri().path();
            tracing::warn!(path, "the relay asked for what only an administrator may");
            let message =
                "the relay's own user may ask for bans and why, and hand over feeds; nothing else";
            return Problem::new(Code::Forbidden, message).into_response();
        }
        next.run(request).await
    };
    router.layer(from_fn(judge))
}

fn list_of(name: &str) -> Result<List, Problem> {
    list_name::parse(name)
        .ok_or_else(|| Problem::new(Code::NotFound, format!("there is no list {name:?}")))
}

async fn status(State(edge): State<EdgeHandle>) -> Answer<EdgeStatus> {
    edge.status().await.map(Json)
}

async fn stats(State(edge): State<EdgeHandle>) -> Answer<EdgeStats> {
    edge.stats().await.map(Json)
}

async fn work(State(edge): State<EdgeHandle>) -> Json<WorkReport> {
    Json(edge.work())
}

async fn explain(
    State(edge): State<EdgeHandle>,
    Ask(query): Ask<ExplainQuery>,
) -> Answer<EdgeExplain> {
    edge.explain(query).await.map(Json)
}

async fn judge(State(edge): State<EdgeHandle>, Body(query): Body<ExplainQuery>) -> Answer<Judged> {
    edge.judge(query).await.map(Json)
}

async fn ban(State(edge): State<EdgeHandle>, Body(request): Body<BanRequest>) -> Answer<BanAnswer> {
    edge.ban(request).await.map(Json)
}

async fn pending(State(edge): State<EdgeHandle>) -> Answer<Vec<Pending>> {
    edge.pending().await.map(Json)
}

async fn confirm(
    State(edge): State<EdgeHandle>,
    Body(request): Body<ConfirmRequest>,
) -> Answer<Changed> {
    edge.confirm(request).await.map(Json)
}

async fn page(
    State(edge): State<EdgeHandle>,
    Path(list): Path<String>,
    Ask(query): Ask<ListQuery>,
) -> Answer<ListPage> {
    edge.page(list_of(&list)?, query).await.map(Json)
}

async fn add(
    State(edge): State<EdgeHandle>,
    Path(list): Path<String>,
    Body(request): Body<AddRequest>,
) -> Answer<Changed> {
    edge.add(list_of(&list)?, request).await.map(Json)
}

async fn remove(
    State(edge): State<EdgeHandle>,
    Path(list): Path<String>,
    Body(request): Body<RemoveRequest>,
) -> Answer<Changed> {
    edge.remove(list_of(&list)?, request).await.map(Json)
}

async fn flush(
    State(edge): State<EdgeHandle>,
    Path(list): Path<String>,
    Body(request): Body<FlushRequest>,
) -> Answer<Changed> {
    edge.flush(list_of(&list)?, request).await.map(Json)
}

async fn import(
    State(edge): State<EdgeHandle>,
    Path(list): Path<String>,
    Ask(query): Ask<ImportQuery>,
    request: Request,
) -> Answer<Changed> {
    let list = list_of(&list)?;
    let lines = read_lines(&query.name, request.into_body()).await?;
    edge.import(list, query, lines).await.map(Json)
}

/// Reads a file as it comes: it is large, and its text need not be in memory beside its lines.
async fn read_lines(name: &str, mut body: AxumBody) -> Result<Vec<lines::Line>, Problem> {
    let mut reader = lines::Reader::new(name);
    let mut left = IMPORT_BYTES_MAX;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Problem::new(Code::Invalid, format!("the file was cut off: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        left = left.checked_sub(data.len()).ok_or_else(|| {
            let mib = IMPORT_BYTES_MAX >> 20;
            Problem::new(Code::TooLarge, format!("the file is larger than {mib} MiB"))
                .remedy("split it")
        })?;
        reader.push(&data);
    }
    reader.finish()
}

async fn all_feeds(State(edge): State<EdgeHandle>) -> Answer<FeedsReport> {
    edge.feeds().await.map(Json)
}

async fn feed(State(edge): State<EdgeHandle>, Path(name): Path<String>) -> Answer<FeedReport> {
    edge.feed(name).await.map(Json)
}

async fn feed_refresh(
    State(edge): State<EdgeHandle>,
    Path(name): Path<String>,
    Body(request): Body<FeedRefresh>,
) -> Answer<FeedAnswer> {
    edge.feed_refresh(name, request).await.map(Json)
}

async fn feed_unchanged(
    State(edge): State<EdgeHandle>,
    Path(name): Path<String>,
    Body(validators): Body<FeedUnchanged>,
) -> Answer<FeedAnswer> {
    edge.feed_unchanged(name, validators).await.map(Json)
}

async fn feed_failed(
    State(edge): State<EdgeHandle>,
    Path(name): Path<String>,
    Body(failed): Body<FeedFailed>,
) -> Answer<FeedAnswer> {
    edge.feed_failed(name, failed.reason).await.map(Json)
}

async fn feed_content(
    State(edge): State<EdgeHandle>,
    Path(name): Path<String>,
    Ask(validators): Ask<Validators>,
    request: Request,
) -> Answer<FeedAnswer> {
    let upload = edge.feed_upload(name.clone()).await?;
    match feeds::receive(request.into_body(), upload).await {
        Ok(incoming) => edge.feed_content(name, incoming, validators).await.map(Json),
        Err(problem) => {
            if problem.code != Code::Busy {
                // So that whoever looks at the feed reads it, too; here the first one is told.
                let _ = edge.feed_failed(name, problem.message.clone()).await;
            }
            Err(problem)
        }
    }
}
