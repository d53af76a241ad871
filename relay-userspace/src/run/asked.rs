//! The socket by which `postern run` is asked to end while it has no edge that could be asked: one
//! that crashed and waits to be started again, or that is starting.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::control::api::{Code, Problem, RUN_SOCKET, RunStopping, StopRequest};
use crate::control::extract::Body;
use crate::control::peer::Access;
use crate::control::server::{ControlSocket, Limits};
use crate::edge::server::holding_relay_to_its_own;
use crate::relay::privileges::Identity;

/// Somebody wants the run to end, and to know what became of the filter.
#[derive(Debug)]
pub(super) struct Order {
    pub request: StopRequest,
    pub reply: oneshot::Sender<Result<RunStopping, Problem>>,
}

/// The open socket. Without one, nobody is heard.
#[derive(Debug)]
pub(super) struct Asked(Option<Open>);

#[derive(Debug)]
struct Open {
    orders: mpsc::Receiver<Order>,
    end: Arc<Notify>,
    served: JoinHandle<()>,
}

#[derive(Clone)]
struct Asking {
    orders: mpsc::Sender<Order>,
    edge_serves: Arc<AtomicBool>,
}

impl Asked {
    /// Opens the socket. That it cannot be opened is said, and hinders nothing: as for the edge's
    /// own, the edge says better what is in the way.
    pub(super) fn open(config: &Config, edge_serves: Arc<AtomicBool>) -> Self {
        let open = Self::try_open(config, edge_serves);
        let open = open.inspect_err(|error| {
            let error = format!("{error:#}");
            tracing::warn!(error, "`postern edge stop` cannot reach this run without an edge");
        });
        Self(open.ok())
    }

    fn try_open(config: &Config, edge_serves: Arc<AtomicBool>) -> anyhow::Result<Open> {
        let relay = Identity::find(&config.server.user, &config.server.group)?;
        let group = relay.gid.as_raw();
        let path = config.server.run_dir.join(RUN_SOCKET);
        let socket = ControlSocket::bind(&path, Some(group))?;
        let (give, orders) = mpsc::channel(1);
        let router = holding_relay_to_its_own(router(give, edge_serves), relay.uid.as_raw());
        Ok(Open::serve(socket, router, Access::new(Some(group)), orders))
    }

    pub(super) async fn recv(&mut self) -> Order {
        let order = match &mut self.0 {
            Some(open) => open.orders.recv().await,
            None => None,
        };
        match order {
            Some(order) => order,
            None => pending().await,
        }
    }

    /// Closes the socket once whoever asked has the answer.
    pub(super) async fn close(self) {
        let Some(Open { end, served, .. }) = self.0 else { return };
        end.notify_one();
        if let Err(error) = served.await {
            tracing::error!(%error, "the socket of `postern run`");
        }
    }
}

impl Open {
    fn serve(
        socket: ControlSocket,
        router: Router,
        access: Access,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        let end = Arc::new(Notify::new());
        let until = Arc::clone(&end);
        let served = tokio::spawn(async move {
            let until = until.notified();
            if let Err(error) = socket.serve(router, access, Limits::default(), until).await {
                tracing::error!(%error, "serving the socket of `postern run`");
            }
        });
        Self { orders, end, served }
    }
}

fn router(orders: mpsc::Sender<Order>, edge_serves: Arc<AtomicBool>) -> Router {
    Router::new().route("/v1/stop", post(stop)).with_state(Asking { orders, edge_serves })
}

async fn stop(
    State(asking): State<Asking>,
    Body(request): Body<StopRequest>,
) -> Result<Json<RunStopping>, Problem> {
    if asking.edge_serves.load(Ordering::Relaxed) {
        return Err(Problem::new(Code::Busy, "the edge is running, and has to be asked itself"));
    }
    let ending = || Problem::new(Code::Busy, "`postern run` is ending already");
    let (reply, answer) = oneshot::channel();
    asking.orders.try_send(Order { request, reply }).map_err(|_| ending())?;
    answer.await.map_err(|_| ending())?.map(Json)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::client::{Client, ClientError};

    #[tokio::test]
    async fn an_edge_that_serves_is_asked_itself_and_the_answer_arrives_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let socket = ControlSocket::bind(&dir.path().join(RUN_SOCKET), None).unwrap();
        let (give, orders) = mpsc::channel(1);
        let serves = Arc::new(AtomicBool::new(true));
        let routes = router(give, Arc::clone(&serves));
        let mut asked = Asked(Some(Open::serve(socket, routes, Access::new(None), orders)));
        let client = Client::run(dir.path()).with_timeout(Duration::from_secs(10));
        let request = StopRequest { detach: true };
        let early = client.post::<RunStopping>("/v1/stop", &request).await;
        assert!(
            matches!(&early, Err(ClientError::Problem(problem)) if problem.code == Code::Busy),
            "{early:?}"
        );
        serves.store(false, Ordering::Relaxed);
        let answer =
            tokio::spawn(async move { client.post::<RunStopping>("/v1/stop", &request).await });
        let order = asked.recv().await;
        assert!(order.request.detach);
        let stopping = RunStopping { detached: Vec::new(), stays: false, pid: 7 };
        order.reply.send(Ok(stopping.clone())).unwrap();
        asked.close().await;
        assert_eq!(answer.await.unwrap().unwrap(), stopping);
        assert!(!dir.path().join(RUN_SOCKET).exists());
    }
}
