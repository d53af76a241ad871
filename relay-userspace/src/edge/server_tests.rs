//! The edge's socket as a peer sees it, good or bad.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use relay_common::entry::{List, Scope};
use relay_common::event::{Event, Fate};
use relay_common::parse::Source;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::clock::Now;
use super::daemon;
use super::events::{hub::Hub, routes::routes};
use super::memory::MemoryFilter;
use super::server::router;
use super::state::{Edge, EdgeSettings};
use super::tests::{ban_request, protected, request};
use crate::control::api::*;
use crate::control::client::{Client, ClientError};
use crate::control::peer::Access;
use crate::control::server::{ControlSocket, Limits};
use crate::socket_file::BindError;

struct Served {
    dir: tempfile::TempDir,
    stop: Arc<Notify>,
    task: JoinHandle<()>,
    edge: daemon::EdgeThread<MemoryFilter>,
    hub: Arc<Hub>,
}

impl Served {
    fn start(limits: Limits) -> Self {
        Self::with_access(limits, Access::new(None))
    }

    fn with_access(limits: Limits, access: Access) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = EdgeSettings::new(dir.path().join("lists.db"));
        let edge = Edge::open(
            settings,
            MemoryFilter::default(),
            Box::new(super::clock::system),
            Box::new(protected),
        );
        let edge = daemon::start(edge.unwrap()).unwrap();
        let socket = ControlSocket::bind(&dir.path().join(EDGE_SOCKET), None).unwrap();
        let stop = Arc::new(Notify::new());
        let stopped = stop.clone();
        let hub = Arc::new(Hub::new(true));
        let routes = router(edge.handle()).merge(routes(Arc::clone(&hub)));
        let task = tokio::spawn(async move {
            socket.serve(routes, access, limits, stopped.notified()).await.unwrap();
        });
        Self { dir, stop, task, edge, hub }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(EDGE_SOCKET)
    }

    fn client(&self) -> Client {
        Client::edge(self.dir.path())
    }

    async fn stop(self) -> MemoryFilter {
        self.stop.notify_one();
        self.task.await.unwrap();
        assert!(!self.dir.path().join(EDGE_SOCKET).exists());
        self.edge.stop().unwrap().into_filter()
    }
}

async fn say(path: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // The server may close before all is said.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn lists_bans_and_reports_go_over_the_socket() {
    let served = Served::start(Limits::default());
    let client = served.client();
    let added = client.add(List::Deny, &request(&["192.0.2.0/24"], Scope::MX, Some(60))).await;
    assert_eq!(added.unwrap().added, 1);
    let banned = client.ban(&ban_request("203.0.113.9", Scope::MX)).await.unwrap();
    assert_eq!(banned.outcome, BanOutcome::Banned);
    let page = client.page(List::Deny, &ListQuery::default()).await.unwrap();
    assert_eq!(page.rows.len(), 2);
    let query = ExplainQuery { address: "192.0.2.9".parse().unwrap(), port: 25 };
    let told: EdgeExplain = client.ask("/v1/explain", &query).await.unwrap();
    assert_eq!(told.verdict, PacketVerdict::Denied);
    let status: EdgeStatus = client.get("/v1/status").await.unwrap();
    assert_eq!((status.entries["deny"], status.live_bans), (2, 1));
    let _: EdgeStats = client.get("/v1/stats").await.unwrap();
    let import = ImportQuery {
        name: "a list & more.txt".into(),
        scope: Scope::SMTP,
        replace: false,
        observe: false,
        force: false,
        confirm_within_s: None,
        session: None,
    };
    let wrong = client.import(List::Deny, &import, "192.0.2.1\nnonsense\n".into()).await;
    let Err(ClientError::Problem(problem)) = wrong else { panic!("{wrong:?}") };
    assert!(problem.message.contains("a list & more.txt:2: \"nonsense\""), "{problem}");
    let text = "198.51.100.200\n".repeat(100_000);
    assert_eq!(client.import(List::Deny, &import, text.into()).await.unwrap().added, 1);
    use super::filter::Filter;
    let filter = served.stop().await;
    assert_eq!(filter.entries(List::Deny).unwrap().len(), 3, "what is enforced outlives the edge");
}

#[tokio::test]
async fn following_events_outlasts_the_limits_of_other_requests() {
    let moment = Duration::from_millis(20);
    let limits = Limits { header_timeout: moment, request_timeout: moment, ..Limits::default() };
    let served = Served::start(limits);
    let (client, hub) = (served.client(), Arc::clone(&served.hub));
    let (sender, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let following = tokio::spawn(async move {
        let query = EventsQuery { last: 1, follow: true };
        let each = |line: EventLine| sender.send(line).map_err(|_| unreachable!());
        client.lines::<_, ClientError>("/v1/events", &query, each).await
    });
    let tell = |port| {
        let event = Event {
            at_ns: 0,
            source: Source::from(IpAddr::from([192, 0, 2, 1])),
            port,
            fate: Fate::Dropped,
            rule: 1,
            reason: 0,
            prefix_len: 32,
        };
        hub.publish(&[event], Now { wall_ms: 0, boot_ms: 0 }, |_| String::new());
    };
    tell(1);
    lines.recv().await.unwrap();
    // Not to wait for anything: for the limits to pass.
    tokio::time::sleep(10 * moment).await;
    tell(2);
    let EventLine::Packet(packet) = lines.recv().await.unwrap() else { panic!("no packet") };
    assert_eq!(packet.port, 2);
    served.hub.close();
    following.await.unwrap().unwrap();
    assert!(lines.recv().await.is_none());
    served.stop().await;
}

#[tokio::test]
async fn garbage_gets_an_error_or_nothing_and_ends_nothing() {
    let served = Served::start(Limits::default());
    let path = served.path();
    for (garbage, answer) in [
        (&b"\x00\xff\xfe garbage\r\n\r\n"[..], "400"),
        (b"GET", ""),
        (b"", ""),
        (b"GET /v1/nothing HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        (b"DELETE /v1/status HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        (b"GET /v1/lists/grey HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        (b"GET /v1/explain?address=x&port=25 HTTP/1.1\r\nhost: x\r\n\r\n", "400"),
        (b"POST /v1/bans HTTP/1.1\r\ncontent-length: 999999999999\r\n\r\n{", "400"),
        (b"POST /v1/bans HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}", "400"),
        (b"POST /v1/bans HTTP/1.1\r\ncontent-length: 9\r\n\r\n[[[[[[[[[", "400"),
    ] {
        let said = say(&path, garbage).await;
        let status = said.split(' ').nth(1).unwrap_or_default();
        assert_eq!(status, answer, "{:?}: {said}", String::from_utf8_lossy(garbage));
    }
    let field = br#"{"prefixes":["192.0.2.1"],"scope":"mx","forse":true}"#;
    let head = format!(
        "POST /v1/lists/deny/entries HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        field.len()
    );
    let said = say(&path, &[head.as_bytes(), field].concat()).await;
    assert!(said.contains("unknown field `forse`"), "{said}");
    let large = Client::edge(served.dir.path());
    let large = large.post::<BanAnswer>("/v1/bans", &"x".repeat(3 << 20)).await.unwrap_err();
    assert!(matches!(&large, ClientError::Problem(problem) if problem.code == Code::TooLarge));
    // A fixed sequence of noise: the same in every run.
    let mut seed = 1u64;
    for length in 0..200 {
        let noise: Vec<u8> = (0..length * 7)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed.to_be_bytes()[0]
            })
            .collect();
        say(&path, &noise).await;
    }
    served.client().get::<EdgeStatus>("/v1/status").await.unwrap();
    served.stop().await;
}

#[tokio::test]
async fn ten_thousand_connections_are_bounded_and_the_socket_comes_back() {
    let served = Served::start(Limits {
        connections_max: 16,
        header_timeout: Duration::from_millis(30),
        ..Limits::default()
    });
    let path = served.path();
    let mut idle = std::collections::VecDeque::new();
    let mut refused = 0;
    for _ in 0..10_000 {
        let stream = UnixStream::connect(&path).await.unwrap();
        idle.push_back(stream);
        if idle.len() > 200 {
            let mut oldest = idle.pop_front().unwrap();
            let mut answer = Vec::new();
            let _ = oldest.read_to_end(&mut answer).await;
            refused += u32::from(answer.starts_with(b"HTTP/1.1 503"));
        }
    }
    drop(idle);
    assert!(refused > 5_000, "{refused}");
    let client = served.client();
    let answered = async {
        while client.get::<EdgeStatus>("/v1/status").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), answered).await.unwrap();
    served.stop().await;
}

/// Connects as a user that is neither root nor the daemon's, and reads what is said unasked.
fn connect_as_a_stranger(path: &Path) -> String {
    use std::io::Read;
    if nix::unistd::geteuid().is_root() {
        // SAFETY: plain system calls without pointers to our memory (an empty list of groups). The
        // raw ones change this thread alone, and it ends after the connection.
        let done = unsafe {
            libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>())
                | libc::syscall(libc::SYS_setresgid, 12_345, 12_345, 12_345)
                | libc::syscall(libc::SYS_setresuid, 12_345, 12_345, 12_345)
        };
        assert_eq!(done, 0);
    }
    let mut said = String::new();
    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    stream.read_to_string(&mut said).unwrap();
    said
}

#[tokio::test]
async fn a_peer_without_the_right_is_refused_before_it_speaks() {
    use std::os::unix::fs::PermissionsExt;
    let access = Access { own_uid: u32::MAX, group: Some(54_321) };
    let served = Served::with_access(Limits::default(), access);
    // The file's mode would keep a stranger out already; here the second wall is meant.
    for (path, mode) in [(served.dir.path().to_owned(), 0o755), (served.path(), 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let path = served.path();
    let thread = std::thread::spawn(move || connect_as_a_stranger(&path));
    let said = tokio::task::spawn_blocking(|| thread.join().unwrap()).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 403") && said.contains("forbidden"), "{said}");
    served.stop().await;
}

#[tokio::test]
async fn a_living_daemon_keeps_its_socket_and_a_dead_ones_is_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let served = Served::start(Limits::default());
    let path = served.path();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let taken = ControlSocket::bind(&path, None).unwrap_err();
    assert!(matches!(taken, BindError::Running { .. }), "{taken}");
    served.client().get::<EdgeStatus>("/v1/status").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join(EDGE_SOCKET);
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    let nobody = Client::edge(dir.path()).get::<EdgeStatus>("/v1/status").await.unwrap_err();
    assert!(matches!(nobody, ClientError::NotReachable { .. }), "{nobody}");
    drop(ControlSocket::bind(&stale, None).unwrap());
    std::fs::write(&stale, "precious").unwrap();
    let in_the_way = ControlSocket::bind(&stale, None).unwrap_err();
    assert!(matches!(in_the_way, BindError::NotASocket { .. }), "{in_the_way}");
    assert_eq!(std::fs::read(&stale).unwrap(), b"precious");
    served.stop().await;
}
