//! One connection to a next hop: the sans-I/O dialogue over a stream, with its deadlines.

use crate::queue::{Content, LoadedMessage};
use bytes::Bytes;
use relay_core::smtp::client::{
    ClientAction, ClientJob, ClientSession, DotStuffer, Outcome, OutgoingMessage,
};
use rustls::pki_types::ServerName;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

/// Octets of content read, stuffed and written at a time.
const CHUNK: usize = 64 << 10;

/// A stream to a next hop: TCP, TLS over it, or memory in tests.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// How TLS is begun on a link, when the dialogue asks for it.
#[derive(Debug, Clone)]
pub(super) struct TlsStart {
    pub(super) config: Option<Arc<rustls::ClientConfig>>,
    /// The name that the certificate must bear.
    pub(super) host: String,
    pub(super) handshake_timeout: Duration,
}

impl TlsStart {
    pub(super) async fn handshake(
        &self,
        stream: Box<dyn Stream>,
    ) -> Result<Box<dyn Stream>, String> {
        let config = self.config.clone().ok_or("no TLS is configured for this next hop")?;
        let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
        let connecting = TlsConnector::from(config).connect(name, stream);
        match timeout(self.handshake_timeout, connecting).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the handshake timed out".to_owned()),
        }
    }
}

/// A connection over which messages go one after the other.
pub(super) struct Link {
    /// `None` once the connection is of no more use.
    stream: Option<Box<dyn Stream>>,
    session: ClientSession,
    tls: TlsStart,
    /// The host and address it leads to, for log and DSN.
    pub(super) peer: String,
    pub(super) messages: usize,
    /// The handshake failed: an opportunistic sender may try again without TLS.
    pub(super) handshake_failed: bool,
    /// Goes out before the content.
    preface: Option<String>,
    /// The peer reads no more. It may have said why: that is still to be read.
    write_failed: bool,
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl Link {
    pub(super) fn new(
        stream: Box<dyn Stream>,
        job: ClientJob,
        tls: TlsStart,
        peer: String,
    ) -> Self {
        Self {
            stream: Some(stream),
            session: ClientSession::new(job, now()),
            tls,
            peer,
            messages: 0,
            handshake_failed: false,
            preface: None,
            write_failed: false,
        }
    }

    /// Carries the message that the session was made with, or was given last, to its end.
    pub(super) async fn settle(&mut self, message: &LoadedMessage) -> Outcome {
        loop {
            while let Some(action) = self.session.next_action() {
                match action {
                    ClientAction::Write(bytes) => self.write(&bytes).await,
                    ClientAction::StartTls => self.start_tls().await,
                    ClientAction::SendBody => self.send_body(message, true).await,
                    ClientAction::SendExactly => self.send_body(message, false).await,
                    ClientAction::Close => self.stream = None,
                    ClientAction::Done(outcome) => {
                        self.messages += 1;
                        return outcome;
                    }
                }
            }
            self.read().await;
        }
    }

    /// What goes out before the content of the next message.
    pub(super) fn set_preface(&mut self, preface: Option<String>) {
        self.preface = preface;
    }

    /// Gives the link its next message; returns it when the connection takes no more.
    pub(super) fn next(&mut self, message: OutgoingMessage) -> Result<(), OutgoingMessage> {
        self.session.next_message(message, now())
    }

    /// Takes leave. Whatever happens now, all messages are settled.
    pub(super) async fn quit(mut self) {
        while self.stream.is_some() {
            match self.session.next_action() {
                Some(ClientAction::Write(bytes)) => self.write(&bytes).await,
                Some(ClientAction::Close) => return,
                Some(_) => {}
                None => self.read().await,
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) {
        let deadline = Instant::from_std(self.session.deadline());
        let Some(stream) = self.stream.as_mut().filter(|_| !self.write_failed) else { return };
        let writing = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        match timeout_at(deadline, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => self.write_failed = true,
            Err(_) => {
                self.write_failed = true;
                self.session.timed_out();
            }
        }
    }

    async fn read(&mut self) {
        let deadline = Instant::from_std(self.session.deadline());
        let Some(stream) = self.stream.as_mut() else { return self.session.peer_closed() };
        let mut buffer = [0u8; 4096];
        match timeout_at(deadline, stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => self.session.peer_closed(),
            Ok(Ok(length)) => self.session.push(&buffer[..length], now()),
            Err(_) => self.session.timed_out(),
        }
    }

    async fn start_tls(&mut self) {
        let Some(stream) = self.stream.take() else { return self.session.peer_closed() };
        match self.tls.handshake(stream).await {
            Ok(stream) => {
                self.stream = Some(stream);
                self.session.tls_started(now());
            }
            Err(reason) => {
                self.handshake_failed = true;
                self.session.tls_failed(reason);
            }
        }
    }

    /// As DATA wants it, or the exact content, as BDAT does.
    async fn send_body(&mut self, message: &LoadedMessage, stuffed: bool) {
        let mut stuffer = DotStuffer::new();
        let mut wire = Vec::new();
        let mut offset = 0;
        if let Some(preface) = self.preface.take() {
            // A field: it begins with no dot.
            self.write(preface.as_bytes()).await;
        }
        loop {
            let chunk = match chunk_at(&message.content, offset).await {
                // A file that ends before its time must not look like a whole message.
                Ok(chunk) if chunk.is_empty() && offset != message.size => {
                    tracing::error!(queue_id = %message.id, "the body file is cut off");
                    return self.session.content_failed();
                }
                Ok(chunk) => chunk,
                Err(error) => {
                    tracing::error!(queue_id = %message.id, %error, "a message could not be read while it was sent");
                    return self.session.content_failed();
                }
            };
            offset += chunk.len() as u64;
            // The end goes out with what stands before it: most messages are one write.
            let is_last = offset == message.size;
            if stuffed {
                wire.clear();
                wire.reserve(chunk.len() + chunk.len() / 8);
                stuffer.encode(&chunk, &mut wire);
                if is_last {
                    stuffer.finish(&mut wire);
                }
                self.write(&wire).await;
            } else {
                self.write(&chunk).await;
            }
            if self.write_failed {
                return;
            }
            if is_last {
                return self.session.content_sent(now());
            }
            self.session.content_progress(now());
        }
    }
}

/// The content from `offset` on, at most a chunk of it; empty at its end.
async fn chunk_at(content: &Content<File>, offset: u64) -> io::Result<Bytes> {
    match content {
        Content::Inline(bytes) => {
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            Ok(bytes.slice(start..bytes.len().min(start + CHUNK)))
        }
        Content::File(file) => {
            let file = file.try_clone()?;
            let read = move || {
                let mut chunk = vec![0; CHUNK];
                let length = file.read_at(&mut chunk, offset)?;
                chunk.truncate(length);
                Ok(chunk.into())
            };
            tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
        }
    }
}
