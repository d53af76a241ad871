//! The relay's control socket: the queue, the accounts, the never-route list, and its share of
//! `status`, `stats` and `explain`.

mod accounts;
mod explain;
mod never_route;
mod queue;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    routing::{get, post},
};
use relay_core::dnsbl::health::State as ListState;

use super::state::Shared;
use crate::{control::api::*, queue::QueueStats};

/// The largest request: the ids of ten thousand messages.
const BODY_BYTES_MAX: usize = 1 << 20;

type Relay = State<Arc<Shared>>;
type Answered<T> = Result<Json<T>, Problem>;

/// The relay's requests, to be served by [`crate::control::server::ControlSocket`].
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/stats", get(stats))
        .route("/v1/explain", get(explain::explain))
        .route("/v1/queue", get(queue::list))
        .route("/v1/queue/{id}", get(queue::show))
        .route("/v1/queue/retry", post(queue::retry))
        .route("/v1/queue/delete", post(queue::delete))
        .route("/v1/accounts", get(accounts::list).post(accounts::add))
        .route("/v1/accounts/password", post(accounts::set_password))
        .route("/v1/accounts/disable", post(accounts::disable))
        .route("/v1/accounts/enable", post(accounts::enable))
        .route("/v1/accounts/delete", post(accounts::delete))
        .route("/v1/never-route", get(never_route::list).post(never_route::add))
        .route("/v1/never-route/remove", post(never_route::remove))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

fn time(at: SystemTime) -> Time {
    Time(at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

async fn status(State(shared): Relay) -> Answered<RelayStatus> {
    let queue = queue_stats(&shared).await?;
    let mut notices = shared.notices.clone();
    for (zone, v4, v6) in shared.dnsbl.iter().flat_map(|lists| lists.states()) {
        for (family, state) in [("IPv4", v4), ("IPv6", v6)] {
            if let ListState::Unhealthy { fault, .. } = state {
                notices.push(format!(
                    "block list {} counts for nothing ({family}): {fault}",
                    zone.name
                ));
            }
        }
    }
    if let Some(why) = shared.spool.closed_for() {
        notices.push(format!(
            "new mail is refused with 452 and nothing is delivered: the queue cannot be opened \
             ({why}); make room on its disk, and it opens by itself"
        ));
    } else if let Some((free, reserve)) = shared.spool.short_of_space()? {
        notices.push(format!(
            "new mail is refused with 452: {} MiB free for the queue, below queue.min_free of {} \
             MiB",
            free >> 20,
            reserve >> 20
        ));
    }
    if queue.quarantined > 0 {
        notices.push(format!("{} damaged messages were put aside in the queue", queue.quarantined));
    }
    if queue.badmail > 0 {
        notices.push(format!("{} recipients could be neither reached nor reported", queue.badmail));
    }
    let mut listeners = Vec::new();
    for listener in shared.listeners.iter().chain(&shared.local) {
        let addresses = listener.addresses.iter().map(ToString::to_string);
        let socket = listener.socket.iter().map(|path| path.display().to_string());
        listeners.extend(addresses.chain(socket).map(|address| ListenerStatus {
            name: listener.name.clone(),
            address,
            relays: listener.relays.clone(),
        }));
    }
    let edge_reachable = shared.edge.get::<EdgeStatus>("/v1/status").await.is_ok();
    Ok(Json(RelayStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: time(SystemTime::now()),
        started: time(shared.started),
        hostname: shared.hostname.clone(),
        listeners,
        sessions: shared.admission.open_now() as u64,
        queue_messages: queue.messages,
        edge_reachable,
        notices,
    }))
}

/// What is in the queue; nothing, while it cannot be opened.
async fn queue_stats(shared: &Shared) -> Result<QueueStats, Problem> {
    match shared.spool.closed_for() {
        Some(_) => Ok(QueueStats::default()),
        None => Ok(shared.spool.stats().await?),
    }
}

async fn stats(State(shared): Relay) -> Answered<RelayStats> {
    let mut counters = shared.counters.by_name();
    let queue = queue_stats(&shared).await?;
    for (name, count) in [
        ("queue_messages", queue.messages),
        ("queue_bytes", queue.bytes),
        ("queue_recipients_due", queue.due),
        ("queue_recipients_deferred", queue.deferred),
        ("queue_badmail", queue.badmail),
        ("queue_put_aside", queue.quarantined),
        ("queue_damaged_met", shared.spool.damaged_total()),
    ] {
        counters.insert(name.to_owned(), count);
    }
    Ok(Json(RelayStats { counters }))
}
