//! A control socket: HTTP/1.1 over a Unix socket, for peers that may speak.
//!
//! A connection carries one request. Who the peer is, is asked of the kernel before a byte of
//! theirs is read. Everything is bounded: connections, header, body, and time for each.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::api::{Code, ErrorBody, Problem};
use super::peer::{self, Access, Peer};
use crate::socket_file::{self, BindError, SocketFile};

const SOCKET_MODE: u32 = 0o660;
const BACKLOG: i32 = 128;
/// How long requests under way may take once the socket closes.
const DRAIN: Duration = Duration::from_secs(5);

/// The bounds of one control socket.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections_max: usize,
    pub header_timeout: Duration,
    /// For a whole request, its body included.
    pub request_timeout: Duration,
    pub header_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 64,
            header_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(300),
            header_bytes_max: 16 * 1024,
        }
    }
}

/// With each request: permits an answer without an end, for which the time limits do not hold. Its
/// body ends when the peer goes, and must end by itself when the daemon does.
#[derive(Clone, Debug, Default)]
pub struct Unending(Arc<AtomicBool>);

impl Unending {
    pub fn permit(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_permitted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// An open control socket, not yet served.
#[derive(Debug)]
pub struct ControlSocket(SocketFile);

impl ControlSocket {
    /// Opens the socket with mode 0660 for `group`.
    ///
    /// # Errors
    /// As [`SocketFile::bind`].
    pub fn bind(path: &Path, group: Option<u32>) -> Result<Self, BindError> {
        let access = socket_file::Access { mode: SOCKET_MODE, group, backlog: BACKLOG };
        SocketFile::bind(path, access).map(Self)
    }

    /// Serves until `shutdown` is ready; each request carries its [`Peer`] as an extension. Then
    /// lets the requests under way end.
    ///
    /// # Errors
    /// The runtime does not take the socket.
    pub async fn serve(
        self,
        router: Router,
        access: Access,
        limits: Limits,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        // Opened without a runtime, since the relay opens it before it starts its threads.
        let listener = self.0.serve()?;
        let router = router
            .fallback(|| async { not_found() })
            .method_not_allowed_fallback(|| async { not_found() })
            .layer(from_fn(move |request: Request, next: Next| within(limits, request, next)));
        let room = Arc::new(Semaphore::new(limits.connections_max));
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => accepted,
                // Ended ones are taken out, so that the set is bounded by the semaphore.
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a control request failed");
                    }
                    continue;
                }
            };
            match accepted {
                Ok((stream, _)) => {
                    if let Some((peer, permit)) = admit(&stream, access, &room) {
                        let router = router.clone().layer(Extension(peer));
                        connections.spawn(converse(stream, permit, router, limits));
                    }
                }
                Err(error) => {
                    // Out of descriptors, most likely: they come back as connections end.
                    tracing::error!(%error, "accepting on the control socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("control requests were cut off at shutdown");
        }
        Ok(())
    }
}

/// Asks the kernel who it is, and whether there is room; whoever is refused is told why, once.
fn admit(
    stream: &UnixStream,
    access: Access,
    room: &Arc<Semaphore>,
) -> Option<(Peer, OwnedSemaphorePermit)> {
    let refuse = |status: &str, problem: Problem| {
        let body = serde_json::to_string(&ErrorBody { error: problem }).unwrap_or_default();
        let head = "content-type: application/json\r\nconnection: close\r\ncontent-length";
        let answer = format!("HTTP/1.1 {status}\r\n{head}: {}\r\n\r\n{body}", body.len());
        // One try: a peer that does not read is owed nothing.
        let _ = stream.try_write(answer.as_bytes());
        None
    };
    let peer = match peer::of(stream) {
        Ok(peer) if access.permits(&peer) => peer,
        Ok(peer) => {
            tracing::warn!(
                uid = peer.uid,
                "control request refused: neither root nor in the group"
            );
            let problem = Problem::new(Code::Forbidden, "you may not use this control socket")
                .remedy("be root, or a member of the socket's group");
            return refuse("403 Forbidden", problem);
        }
        Err(error) => {
            tracing::warn!(%error, "control request refused: the kernel does not say whose it is");
            return None;
        }
    };
    let permit = room.clone().try_acquire_owned().ok();
    permit.map(|permit| (peer, permit)).or_else(|| {
        let problem = Problem::new(Code::Busy, "too many control connections are open")
            .remedy("try again in a moment");
        refuse("503 Service Unavailable", problem)
    })
}

async fn converse(
    stream: UnixStream,
    permit: OwnedSemaphorePermit,
    router: Router,
    limits: Limits,
) {
    let unending = Unending::default();
    let router = router.layer(Extension(unending.clone()));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // The sum bounds a peer that does not read its answer, too.
    let whole = limits.header_timeout + 2 * limits.request_timeout;
    tokio::pin!(connection);
    let ended = match timeout(whole, &mut connection).await {
        Err(_) if unending.is_permitted() => Ok(connection.await),
        ended => ended,
    };
    if let Ok(Err(error)) = ended {
        tracing::debug!(%error, "a control connection ended badly");
    }
    drop(permit);
}

async fn within(limits: Limits, request: Request, next: Next) -> Result<Response, Infallible> {
    let answer = timeout(limits.request_timeout, next.run(request)).await;
    Ok(answer.unwrap_or_else(|_| {
        Problem::new(Code::Busy, "the request took too long; it may still be carried out")
            .remedy("look at `postern status`")
            .into_response()
    }))
}

fn not_found() -> Response {
    Problem::new(Code::NotFound, "there is no such control request")
        .remedy("use a postern of the daemon's version")
        .into_response()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match self.code {
            Code::Invalid => StatusCode::BAD_REQUEST,
            Code::Refused | Code::Full => StatusCode::CONFLICT,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Forbidden => StatusCode::FORBIDDEN,
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Code::Storage | Code::Filter | Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, axum::Json(ErrorBody { error: self })).into_response()
    }
}
