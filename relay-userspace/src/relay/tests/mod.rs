//! The relay over real sockets on loopback, inside one process. There is no edge: nobody is on a
//! list, and bans go nowhere.

mod crowds;
mod endings;
mod evidence;
mod implicit_tls;
mod lists;
mod local;
mod memory;
mod pregreet;
mod proxy;
mod stopping;
mod tls_sessions;
mod upstream;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    accepting,
    listener::{self, Bound},
    local::Local,
    serve::{self, Orders},
    state::{Files, Shared},
};
use crate::{config, queue::Content, tls};

/// Whatever is waited for comes within this time, or never.
const PATIENCE: Duration = Duration::from_secs(20);

/// What every test's configuration begins with. Nobody answers at the name server's place.
const CONFIG: &str = r#"
[server]
hostname = "mx.gateway.test"
state_dir = "{folder}/state"
run_dir = "{folder}/run"

[dns]
servers = ["127.0.0.1:1"]
timeout = "1s"

[[domain]]
name = "inside.test"
route = "inbound"
host = ["10.0.0.25:25"]
"#;

/// One listener for everybody, on a port of the kernel's choice.
const MX: &str = "[[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:0\"]\ndnsbl = false\n";

/// A relay whose listeners are bound; once it serves, it does so until it is dropped.
struct Gateway {
    shared: Arc<Shared>,
    /// Of each listener, in the configuration's order.
    addresses: Vec<SocketAddr>,
    bound: Vec<Bound>,
    local: Option<Local>,
    sessions: JoinSet<()>,
    stop: CancellationToken,
    _orders: Orders,
    folder: tempfile::TempDir,
}

impl Gateway {
    /// Binds, and serves nobody yet.
    fn bind(extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text =
            (CONFIG.to_owned() + extra).replace("{folder}", &folder.path().display().to_string());
        let config = config::parse(Path::new("test.toml"), &text).unwrap();
        let files = Files::of(&config);
        for path in [&files.queue, &files.tls, &config.server.run_dir] {
            fs::create_dir_all(path).unwrap();
        }
        let bound = listener::bind_all(&config.listeners).unwrap();
        let local = config.lmtp.as_ref().map(|lmtp| Local::open(lmtp).unwrap());
        let tls = tls::load_or_make(&files.tls, &config.server.hostname, SystemTime::now());
        let doors = (&bound[..], local.as_ref());
        let (shared, orders) = serve::share(&config, &files, doors, &tls.unwrap()).unwrap();
        Self {
            shared,
            addresses: bound.iter().map(|bound| bound.address).collect(),
            bound,
            local,
            sessions: JoinSet::new(),
            stop: CancellationToken::new(),
            _orders: orders,
            folder,
        }
    }

    fn serve(&mut self) {
        let bound = std::mem::take(&mut self.bound);
        let local = self.local.take();
        self.sessions = accepting::accept_all(&self.shared, bound, local, &self.stop).unwrap();
    }

    fn start(extra: &str) -> Self {
        let mut gateway = Self::bind(extra);
        gateway.serve();
        gateway
    }

    /// A connection to the first listener from an address of loopback.
    async fn connect(&self, from: &str) -> Client<TcpStream> {
        self.connect_to(0, from).await
    }

    async fn connect_to(&self, listener: usize, from: &str) -> Client<TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        let from: IpAddr = from.parse().unwrap();
        socket.bind(SocketAddr::new(from, 0)).unwrap();
        Client::new(socket.connect(self.addresses[listener]).await.unwrap())
    }

    fn counted(&self, name: &str) -> u64 {
        self.shared.counters.by_name()[name]
    }

    async fn messages(&self) -> u64 {
        self.shared.spool.stats().await.unwrap().messages
    }

    /// What was stored, by the reply that acknowledged it.
    async fn stored(&self, reply: &str) -> String {
        let id = reply.rsplit(' ').next().unwrap().parse().unwrap();
        let content = match self.shared.spool.load(id).await.unwrap().unwrap().content {
            Content::Inline(bytes) => bytes.to_vec(),
            Content::File(file) => std::io::read_to_string(file).unwrap().into_bytes(),
        };
        String::from_utf8(content).unwrap()
    }

    /// Waits until no session is left.
    async fn until_idle(&self) {
        let idle = async {
            while self.shared.admission.open_now() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, idle).await.expect("a session does not end");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A client that says exactly what a test wants said.
struct Client<S> {
    stream: BufReader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next reply, its lines joined by `\n`; empty when the connection has ended.
    async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            let read = timeout(PATIENCE, self.stream.read_line(&mut line));
            if read.await.expect("no reply").unwrap_or(0) == 0 {
                return reply;
            }
            reply.push_str(line.trim_end());
            if line.as_bytes().get(3) != Some(&b'-') {
                return reply;
            }
            reply.push('\n');
        }
    }

    async fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    /// Says a line and expects a reply that begins so.
    async fn expect(&mut self, line: &str, start: &str) -> String {
        let reply = self.say(line).await;
        assert!(reply.starts_with(start), "{line}: {reply}");
        reply
    }

    /// Waits for the other side to close, having said nothing more.
    async fn closed(&mut self) {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut rest));
        // A reset is an end as well.
        let _length_or_reset = read.await.expect("the connection stays open");
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }

    /// Through to the content of a message for us.
    async fn start_message(&mut self) {
        self.expect("EHLO client.test", "250").await;
        self.expect("MAIL FROM:<a@foreign.test>", "250").await;
        self.expect("RCPT TO:<b@inside.test>", "250").await;
        self.expect("DATA", "354").await;
    }
}

impl Client<TcpStream> {
    /// The handshake, with whatever certificate.
    async fn into_tls(self) -> std::io::Result<Client<TlsStream<TcpStream>>> {
        let connector = TlsConnector::from(tls::opportunistic().unwrap());
        let name = ServerName::try_from("mx.gateway.test").unwrap();
        let stream = timeout(PATIENCE, connector.connect(name, self.stream.into_inner()));
        Ok(Client::new(stream.await.expect("no handshake")?))
    }
}
