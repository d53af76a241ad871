//! Ending the edge on request: what stays in force is said, or taken off first.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use relay_common::entry::List;
use tokio::sync::mpsc;

use super::daemon::EdgeHandle;
use super::filter::Filter;
use super::report::interface_status;
use super::state::Edge;
use crate::control::api::{Code, Problem, StopRequest, Stopping};
use crate::control::extract::Body;
use crate::run;

/// Why an edge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// SIGTERM or SIGINT.
    Signal,
    /// `postern edge stop`, which has done with the filter what it was told.
    Asked { detached: bool },
}

impl<F: Filter> Edge<F> {
    /// Takes the filter off, if that is asked for, and says what was there.
    pub fn stopping(&mut self, request: StopRequest) -> Result<Stopping, Problem> {
        let interfaces = self.filter.attachments().into_iter().filter_map(interface_status);
        let stopping = Stopping {
            interfaces: interfaces.collect(),
            detached: request.detach,
            entries: List::ALL
                .map(|list| (list.name().to_owned(), self.desired.count(list)))
                .into(),
            feed_entries: self.feeds.entries_in_force(),
            pid: std::process::id(),
            supervised: run::is_supervised(),
        };
        if request.detach {
            // Lest a kill before the end lose it.
            self.keep_counters();
            self.filter.take_off()?;
            tracing::info!("filter detached, as asked for");
        } else {
            self.hold_before_the_end()?;
        }
        Ok(stopping)
    }
}

/// The request that ends the edge. `asked` is told once the answer is known.
pub fn router(edge: EdgeHandle, asked: mpsc::Sender<Ending>) -> Router {
    Router::new().route("/v1/stop", post(stop)).with_state((edge, asked))
}

async fn stop(
    State((edge, asked)): State<(EdgeHandle, mpsc::Sender<Ending>)>,
    Body(request): Body<StopRequest>,
) -> Result<Json<Stopping>, Problem> {
    let stopping = edge.stopping(request).await?;
    let ending = Ending::Asked { detached: stopping.detached };
    // Full: it is about to end already.
    match asked.try_send(ending) {
        Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(Json(stopping)),
        Err(mpsc::error::TrySendError::Closed(_)) => {
            Err(Problem::new(Code::Busy, "the edge is ending already"))
        }
    }
}
