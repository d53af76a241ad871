//! A scripted next hop: a small SMTP server that answers as the test says.

use super::HostPort;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;

/// What the sink does at some point of the dialogue.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// The usual.
    Usual,
    Say(&'static str),
    Drop,
    /// Never says anything again.
    Hang,
    /// The usual, once the test has said so.
    Held(Arc<Notify>),
}

/// Called with a command line, or `connect`, `content` (the middle of DATA) and `end`.
pub(super) type Script = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// A message the sink has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) from: String,
    pub(super) to: Vec<String>,
    /// Dots unstuffed.
    pub(super) content: Vec<u8>,
    pub(super) tls: bool,
    pub(super) auth: Option<String>,
}

#[derive(Debug)]
pub(super) struct Sink {
    pub(super) address: SocketAddr,
    pub(super) taken: mpsc::UnboundedReceiver<Taken>,
    pub(super) connections: Arc<AtomicUsize>,
}

impl Sink {
    pub(super) async fn usual() -> Self {
        Self::start(Arc::new(|_| Answer::Usual), None).await
    }

    /// Answers `answer` to what begins with `at`, and as usual otherwise.
    pub(super) async fn at(at: &'static str, answer: Answer) -> Self {
        let script = move |line: &str| {
            if line.starts_with(at) { answer.clone() } else { Answer::Usual }
        };
        Self::start(Arc::new(script), None).await
    }

    pub(super) async fn start(script: Script, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, taken) = mpsc::unbounded_channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                socket.set_nodelay(true).unwrap();
                let peer =
                    Peer { script: Arc::clone(&script), taken: sender.clone(), tls: tls.clone() };
                tokio::spawn(peer.serve(socket));
            }
        });
        Self { address, taken, connections }
    }

    pub(super) fn host(&self) -> HostPort {
        HostPort { host: self.address.ip().to_string(), port: self.address.port() }
    }

    pub(super) async fn next(&mut self) -> Taken {
        let waiting = tokio::time::timeout(std::time::Duration::from_secs(20), self.taken.recv());
        waiting.await.expect("a message within 20 s").unwrap()
    }

    pub(super) fn is_empty(&mut self) -> bool {
        self.taken.try_recv().is_err()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

struct Peer {
    script: Script,
    taken: mpsc::UnboundedSender<Taken>,
    tls: Option<TlsAcceptor>,
}

fn blank(tls: bool, auth: Option<String>) -> Taken {
    Taken { from: String::new(), to: vec![], content: vec![], tls, auth }
}

impl Peer {
    async fn serve(self, socket: TcpStream) {
        let mut socket = BufReader::new(socket);
        if !self.say(&mut socket, "connect", "220 sink").await {
            return;
        }
        let offer = if self.tls.is_some() { "STARTTLS" } else { "HELP" };
        if self.talk(&mut socket, offer, false).await {
            let acceptor = self.tls.clone().unwrap();
            let Ok(tls) = acceptor.accept(socket.into_inner()).await else { return };
            self.talk(&mut BufReader::new(tls), "AUTH PLAIN", true).await;
        }
    }

    /// Until QUIT, or STARTTLS: then true.
    async fn talk<S>(&self, socket: &mut BufReader<S>, offer: &str, tls: bool) -> bool
    where
        S: tokio::io::AsyncRead + AsyncWriteExt + Unpin,
    {
        let mut now = blank(tls, None);
        let mut line = Vec::new();
        loop {
            line.clear();
            if socket.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 {
                return false;
            }
            assert!(line.ends_with(b"\r\n"), "{line:?}");
            let command = String::from_utf8(line.clone()).unwrap().trim_end().to_owned();
            let path =
                || command[command.find('<').unwrap() + 1..command.find('>').unwrap()].to_owned();
            let verb = command.split([' ', ':']).next().unwrap().to_ascii_uppercase();
            let usual = match verb.as_str() {
                "EHLO" => format!(
                    "250-sink\r\n250-{offer}\r\n250-SIZE 900000\r\n250-PIPELINING\r\n250 8BITMIME"
                ),
                "STARTTLS" => "220 go".to_owned(),
                "AUTH" => "235 ok".to_owned(),
                "DATA" => "354 go".to_owned(),
                _ => "250 ok".to_owned(),
            };
            if !self.say(socket, &command, &usual).await {
                return false;
            }
            let accepted = matches!((self.script)(&command), Answer::Usual);
            match verb.as_str() {
                "STARTTLS" if accepted => return true,
                "QUIT" => return false,
                "AUTH" => now.auth = command.strip_prefix("AUTH PLAIN ").map(str::to_owned),
                "MAIL" => now = Taken { from: path(), ..blank(tls, now.auth.clone()) },
                "RCPT" if accepted => now.to.push(path()),
                "DATA" if accepted => {
                    if !self.content(socket, &mut now.content).await {
                        return false;
                    }
                    let accepted = matches!((self.script)("end"), Answer::Usual);
                    if !self.say(socket, "end", "250 2.0.0 taken").await {
                        return false;
                    }
                    if accepted {
                        let _ = self.taken.send(now.clone());
                    }
                }
                _ => {}
            }
        }
    }

    async fn content<S>(&self, socket: &mut BufReader<S>, content: &mut Vec<u8>) -> bool
    where
        S: tokio::io::AsyncRead + AsyncWriteExt + Unpin,
    {
        let mut line = Vec::new();
        loop {
            line.clear();
            if socket.read_until(b'\n', &mut line).await.unwrap_or(0) == 0 {
                return false;
            }
            match (self.script)("content") {
                Answer::Usual => {}
                Answer::Say(text) => {
                    let _ = socket.write_all(format!("{text}\r\n").as_bytes()).await;
                    return false;
                }
                Answer::Drop => return false,
                Answer::Hang => std::future::pending().await,
                Answer::Held(gate) => gate.notified().await,
            }
            if line == b".\r\n" {
                return true;
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }

    async fn say<S: AsyncWriteExt + Unpin>(&self, socket: &mut S, at: &str, usual: &str) -> bool {
        let text = match (self.script)(at) {
            Answer::Usual => usual,
            Answer::Say(text) => text,
            Answer::Drop => return false,
            Answer::Hang => std::future::pending().await,
            Answer::Held(gate) => {
                gate.notified().await;
                usual
            }
        };
        socket.write_all(format!("{text}\r\n").as_bytes()).await.is_ok()
    }
}
