//! Events over the control socket: an answer that goes on for as long as both sides like.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc::Receiver;

use super::hub::Hub;
use crate::control::api::{EventsQuery, Problem, Top};
use crate::control::extract::Ask;
use crate::control::server::Unending;
use crate::edge::clock;

/// The requests about events, to be merged with the edge's others.
pub fn routes(hub: Arc<Hub>) -> Router {
    Router::new().route("/v1/events", get(events)).route("/v1/top", get(top)).with_state(hub)
}

async fn top(State(hub): State<Arc<Hub>>) -> Json<Top> {
    Json(hub.top(clock::system()))
}

async fn events(
    State(hub): State<Arc<Hub>>,
    unending: Option<Extension<Unending>>,
    Ask(query): Ask<EventsQuery>,
) -> Result<Response, Problem> {
    let lines = hub.subscribe(query)?;
    if let Some(Extension(unending)) = unending.filter(|_| query.follow) {
        unending.permit();
    }
    let body = axum::body::Body::new(Lines(lines));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// A body that ends when the hub lets go of it.
struct Lines(Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}
