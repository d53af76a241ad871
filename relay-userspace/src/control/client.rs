//! The calling end of a control socket, for the CLI and for the relay.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::Connection;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use relay_common::entry::List;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::api::*;
use super::file_body::FileBody;

/// The largest answer that is taken: a full page of a list is well below it.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Lines that may come in one piece: as many events as a daemon keeps, at their longest.
const LINES_BYTES_MAX: usize = 4 << 20;

/// Why a daemon gave no good answer.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("the {daemon} is not running, or not at {path} (start it, or give --socket-dir)")]
    NotReachable { daemon: &'static str, path: PathBuf },
    #[error("no permission to use {path} (be root, or a member of the socket's group)")]
    NoPermission { path: PathBuf },
    #[error("{0}")]
    Problem(Problem),
    #[error("the {daemon} gave no answer within {after_s} s (see its log)")]
    TimedOut { daemon: &'static str, after_s: u64 },
    #[error("the {daemon} gave an answer that cannot be read: {why} (is it of this version?)")]
    Garbled { daemon: &'static str, why: String },
}

/// What can be the body of a request.
trait Sent:
    Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static
{
}

impl<B> Sent for B where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static
{
}

/// Calls one daemon. Each call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
    daemon: &'static str,
    timeout: Duration,
}

impl Client {
    pub fn edge(socket_dir: &Path) -> Self {
        Self::new(socket_dir.join(EDGE_SOCKET), "edge")
    }

    pub fn relay(socket_dir: &Path) -> Self {
        Self::new(socket_dir.join(RELAY_SOCKET), "relay")
    }

    /// `postern run`, which is asked where there is no edge.
    pub fn run(socket_dir: &Path) -> Self {
        Self::new(socket_dir.join(RUN_SOCKET), "run")
    }

    /// `daemon` is what messages call it.
    pub fn new(path: PathBuf, daemon: &'static str) -> Self {
        Self { path, daemon, timeout: Duration::from_secs(320) }
    }

    /// How long a call may take in all; a little more than the server's own limit by default.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None, Full::default()).await
    }

    /// GET with a query.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.get(&with_query(path, query).map_err(|why| self.garbled(why))?).await
    }

    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(request).map_err(|error| self.garbled(error))?;
        self.call(Method::POST, path, Some("application/json"), Full::from(body)).await
    }

    /// Asks the edge to ban a source.
    pub async fn ban(&self, request: &BanRequest) -> Result<BanAnswer, ClientError> {
        self.post("/v1/bans", request).await
    }

    pub async fn add(&self, list: List, request: &AddRequest) -> Result<Changed, ClientError> {
        self.post(&format!("/v1/lists/{list}/entries"), request).await
    }

    pub async fn remove(
        &self,
        list: List,
        request: &RemoveRequest,
    ) -> Result<Changed, ClientError> {
        self.post(&format!("/v1/lists/{list}/remove"), request).await
    }

    pub async fn flush(&self, list: List, request: &FlushRequest) -> Result<Changed, ClientError> {
        self.post(&format!("/v1/lists/{list}/flush"), request).await
    }

    pub async fn page(&self, list: List, query: &ListQuery) -> Result<ListPage, ClientError> {
        self.ask(&format!("/v1/lists/{list}"), query).await
    }

    pub async fn import(
        &self,
        list: List,
        query: &ImportQuery,
        text: Bytes,
    ) -> Result<Changed, ClientError> {
        let path = with_query(&format!("/v1/lists/{list}/import"), query);
        let path = path.map_err(|why| self.garbled(why))?;
        self.call(Method::POST, &path, Some("text/plain"), Full::new(text)).await
    }

    /// POST with a query, and a file as it is for a body.
    pub async fn post_file<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        file: FileBody,
    ) -> Result<T, ClientError> {
        let path = with_query(path, query).map_err(|why| self.garbled(why))?;
        self.call(Method::POST, &path, Some("application/octet-stream"), file).await
    }

    async fn call<T: DeserializeOwned, B: Sent>(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: B,
    ) -> Result<T, ClientError> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, "postern");
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request.body(body).map_err(|error| self.garbled(error))?;
        let (status, bytes) =
            timeout(self.timeout, self.exchange(request)).await.map_err(|_| {
                ClientError::TimedOut { daemon: self.daemon, after_s: self.timeout.as_secs() }
            })??;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|error| self.garbled(error));
        }
        Err(self.refused(status, &bytes))
    }

    /// GET whose answer is a line of JSON after the other, for as long as the daemon likes. There
    /// is no time limit; an error of `each` ends it.
    ///
    /// # Errors
    /// As with the others, and what `each` returns.
    pub async fn lines<T: DeserializeOwned, E: From<ClientError>>(
        &self,
        path: &str,
        query: &impl Serialize,
        mut each: impl FnMut(T) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = with_query(path, query).map_err(|why| self.garbled(why))?;
        let request = Request::builder().uri(path).header(HOST, "postern");
        let request = request.body(Full::default()).map_err(|error| self.garbled(error))?;
        let (status, mut body, connection) = self.begin(request).await?;
        // Driven beside the body, until the daemon closes.
        let connection = AbortOnDrop(tokio::spawn(connection));
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            // The daemon was killed: it ends its lines in order otherwise.
            let frame = frame.map_err(|_| self.gone())?;
            let Ok(data) = frame.into_data() else { continue };
            text.extend_from_slice(&data);
            let limit = if status.is_success() { LINES_BYTES_MAX } else { ANSWER_BYTES_MAX };
            if text.len() > limit {
                return Err(self.garbled("a line without an end").into());
            }
            if status.is_success() {
                let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
                for line in text[..whole].split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
                    each(serde_json::from_slice(line).map_err(|error| self.garbled(error))?)?;
                }
                text.drain(..whole);
            }
        }
        drop(connection);
        if status.is_success() { Ok(()) } else { Err(self.refused(status, &text).into()) }
    }

    /// Why a daemon's answer is not a good one.
    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(body) if body.error.code == Code::Forbidden => {
                ClientError::NoPermission { path: self.path.clone() }
            }
            Ok(body) => ClientError::Problem(body.error),
            Err(_) => self.garbled(format!("status {status}")),
        }
    }

    async fn exchange<B: Sent>(
        &self,
        request: Request<B>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let (status, body, connection) = self.begin(request).await?;
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect();
        tokio::pin!(body);
        tokio::pin!(connection);
        let mut ended = false;
        let body = loop {
            tokio::select! {
                body = &mut body => break body.map_err(|error| self.garbled(error))?,
                _ = &mut connection, if !ended => ended = true,
            }
        };
        Ok((status, body.to_bytes()))
    }

    /// Sends a request and waits for the head of its answer. The connection must be driven for the
    /// body to come.
    async fn begin<B: Sent>(
        &self,
        request: Request<B>,
    ) -> Result<(StatusCode, Incoming, Conversation<B>), ClientError> {
        let stream = UnixStream::connect(&self.path).await.map_err(|error| self.absent(&error))?;
        let (mut sender, mut connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| self.garbled(error))?;
        let conversation = async {
            let answer = sender.send_request(request).await?;
            Ok::<_, hyper::Error>((answer.status(), answer.into_body()))
        };
        // The connection must be driven beside the request.
        let mut ended = false;
        tokio::pin!(conversation);
        let (status, body) = loop {
            tokio::select! {
                answer = &mut conversation => break answer.map_err(|error| self.unanswered(&error))?,
                _ = &mut connection, if !ended => ended = true,
            }
        };
        Ok((status, body, Conversation { connection, ended }))
    }

    fn absent(&self, error: &io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::PermissionDenied => {
                ClientError::NoPermission { path: self.path.clone() }
            }
            _ => self.gone(),
        }
    }

    /// Closed without a word: the daemon was killed, or its start has failed.
    fn unanswered(&self, error: &hyper::Error) -> ClientError {
        if error.is_parse() { self.garbled(error) } else { self.gone() }
    }

    fn gone(&self) -> ClientError {
        ClientError::NotReachable { daemon: self.daemon, path: self.path.clone() }
    }

    fn garbled(&self, why: impl ToString) -> ClientError {
        ClientError::Garbled { daemon: self.daemon, why: why.to_string() }
    }
}

/// The two directions of a connection. Ready when it has ended, and ever after.
struct Conversation<B: Sent> {
    connection: Connection<TokioIo<UnixStream>, B>,
    ended: bool,
}

impl<B: Sent> Future for Conversation<B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if !self.ended {
            // How it ended, whoever reads the body learns.
            let _ = std::task::ready!(Pin::new(&mut self.connection).poll(context));
            self.ended = true;
        }
        Poll::Ready(())
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A path with a query, escaped. Field by field by way of JSON, which every request type has.
fn with_query(path: &str, query: &impl Serialize) -> Result<String, String> {
    let fields = serde_json::to_value(query).map_err(|error| error.to_string())?;
    let fields = fields.as_object().ok_or("a query is a set of fields")?;
    let mut text = String::from(path);
    let mut separator = '?';
    for (name, value) in fields {
        let value = match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        text.push(separator);
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            // RFC 3986 section 2.3: everything but the unreserved is escaped.
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
        separator = '&';
    }
    Ok(text)
}
