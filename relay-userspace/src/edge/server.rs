//! The edge's control socket: each request, and whom it asks.

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::routing::{get, post};
use relay_common::entry::List;

use super::daemon::EdgeHandle;
use super::lines;
use crate::control::api::*;
use crate::control::extract::{Ask, Body, Raw};

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
        .route("/v1/explain", get(explain))
        .route("/v1/bans", post(ban))
        .route("/v1/lists/{list}", get(page))
        .route("/v1/lists/{list}/entries", post(add))
        .route("/v1/lists/{list}/remove", post(remove))
        .route("/v1/lists/{list}/flush", post(flush))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .merge(
            Router::new()
                .route("/v1/lists/{list}/import", post(import))
                .layer(DefaultBodyLimit::max(IMPORT_BYTES_MAX)),
        )
        .with_state(edge)
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

async fn explain(
    State(edge): State<EdgeHandle>,
    Ask(query): Ask<ExplainQuery>,
) -> Answer<EdgeExplain> {
    edge.explain(query).await.map(Json)
}

async fn ban(State(edge): State<EdgeHandle>, Body(request): Body<BanRequest>) -> Answer<BanAnswer> {
    edge.ban(request).await.map(Json)
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
    Raw(text): Raw,
) -> Answer<Changed> {
    let list = list_of(&list)?;
    let name = query.name.clone();
    // A big file takes a while to read, and the owner should not be the one to do it.
    let lines = tokio::task::spawn_blocking(move || lines::parse(&name, &text))
        .await
        .map_err(|_| Problem::new(Code::Internal, "the file could not be read"))??;
    edge.import(list, query, lines).await.map(Json)
}
