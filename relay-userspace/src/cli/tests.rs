//! Golden outputs of the client commands, over real sockets and parsed from real command lines.

mod feeds;
mod relay;

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use clap::{CommandFactory, Parser};
use relay_core::ban::guardrails::Protected;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::args::{Cli, Command};
use super::execute;
use super::session::{Exit, Session};
use crate::control::api::*;
use crate::control::client::Client;
use crate::control::peer::Access;
use crate::control::server::{ControlSocket, Limits};
use crate::edge::clock::Now;
use crate::edge::daemon;
use crate::edge::filter::MapSizes;
use crate::edge::memory::MemoryFilter;
use crate::edge::server::router;
use crate::edge::state::{Edge, EdgeSettings};

/// 2027-01-15T08:00:00Z.
const WALL_S: u64 = 1_800_000_000;

struct World {
    dir: tempfile::TempDir,
    stop: Arc<Notify>,
    tasks: Vec<JoinHandle<()>>,
    edge: Option<daemon::EdgeThread<MemoryFilter>>,
}

struct Said {
    exit: Exit,
    out: String,
    err: String,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, stop: Arc::new(Notify::new()), tasks: Vec::new(), edge: None }
    }

    fn with_edge() -> Self {
        Self::with_feeds(&[])
    }

    /// An edge with feeds of these names and contents.
    fn with_feeds(feeds: &[(&str, &str)]) -> Self {
        let mut world = Self::new();
        let mut config = String::new();
        for (name, content) in feeds {
            let file = world.dir.path().join(name);
            std::fs::write(&file, content).unwrap();
            config += &format!("[[feed]]\nname = \"{name}\"\nsource = \"{}\"\n", file.display());
        }
        let config = crate::config::parse("postern.toml".as_ref(), &config).unwrap();
        let now = Now { wall_ms: WALL_S * 1000, boot_ms: 1_000_000 };
        let gateway = || Protected {
            gateways: vec!["198.51.100.1".parse().unwrap()],
            ..Protected::default()
        };
        let edge = Edge::open(
            EdgeSettings {
                feeds: config.feeds,
                ..EdgeSettings::new(world.dir.path().join("lists.db"))
            },
            MemoryFilter::new(MapSizes { feeds_deny: 1_000, ..MapSizes::default() }),
            Box::new(move || now),
            Box::new(gateway),
        );
        let edge = daemon::start(edge.unwrap()).unwrap();
        world.serve(EDGE_SOCKET, router(edge.handle()));
        world.edge = Some(edge);
        world
    }

    fn serve(&mut self, name: &str, routes: Router) {
        let socket = ControlSocket::bind(&self.dir.path().join(name), None).unwrap();
        let stop = self.stop.clone();
        self.tasks.push(tokio::spawn(async move {
            let access = Access::new(None);
            socket.serve(routes, access, Limits::default(), stop.notified()).await.unwrap();
        }));
    }

    async fn said(&self, line: &str, mut input: &[u8]) -> Said {
        let words = std::iter::once("postern").chain(line.split_whitespace());
        let cli = Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
        let Command::Client(command) = cli.command else { panic!("{line} is no client command") };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut session = Session {
            edge: Client::edge(self.dir.path()),
            relay: Client::relay(self.dir.path()),
            run: Client::run(self.dir.path()),
            json: cli.global.json,
            wall_s: WALL_S,
            from: Some("203.0.113.77".parse().unwrap()),
            input: &mut input,
            interactive: false,
            shows_progress: false,
            out: &mut out,
            err: &mut err,
        };
        let done = execute(command, &mut session).await;
        let mut err = String::from_utf8(err).unwrap();
        let exit = done.unwrap_or_else(|failure| {
            err.push_str(&format!("postern: {failure}\n"));
            failure.exit()
        });
        Said { exit, out: String::from_utf8(out).unwrap(), err }
    }

    async fn check(&self, line: &str, exit: Exit, out: &str, err: &str) {
        let said = self.said(line, b"").await;
        assert_eq!((said.out.as_str(), said.err.as_str()), (out, err), "{line}");
        assert_eq!(said.exit, exit, "{line}");
    }
}

#[test]
fn the_command_tree_is_sound_and_documents_its_exit_codes() {
    Cli::command().debug_assert();
    let help = Cli::command().render_help().to_string();
    for code in 0..=5 {
        assert!(help.contains(&format!("\n  {code}  ")), "{help}");
    }
    for wrong in [
        "deny flush",
        "deny add",
        "deny add 192.0.2.1 --scope ftp",
        "deny add 192.0.2.1 --ttl 0s",
        "queue delete",
        "queue delete --all 17",
        "explain nobody",
        "edge --interface eth0 stop",
        "edge stop --detach-on-exit",
    ] {
        let words = std::iter::once("postern").chain(wrong.split_whitespace());
        let error = Cli::try_parse_from(words).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{wrong}");
    }
    let error = Cli::try_parse_from(["postern", "deny", "flush"]).unwrap_err().to_string();
    assert!(error.contains("--yes"), "{error}");
    for right in [
        "run --filter userspace --json",
        "run --interface eth0 --interface eth1",
        "edge --interface eth0 --detach-on-exit",
        "edge stop --detach --socket-dir /x",
    ] {
        Cli::try_parse_from(std::iter::once("postern").chain(right.split_whitespace())).unwrap();
    }
}

#[tokio::test]
async fn the_deny_list_is_kept_by_hand() {
    let world = World::with_edge();
    let done = Exit::Done;
    world.check("deny list", done, "the deny list is empty\n", "").await;
    world
        .check(
            "deny add 192.0.2.0/24 2001:db8::1 --ttl 9min58s --reason abuse",
            done,
            "deny list: added 2 entries\n",
            "",
        )
        .await;
    world
        .check(
            "deny list",
            done,
            "PREFIX           SCOPE  REASON  SOURCE  RULE  HITS  LAST HIT  EXPIRES                           COMMENT\n\
             192.0.2.0/24     smtp   manual  cli     cli   0     -         2027-01-15T08:09:58Z (in 9m 58s)  abuse\n\
             2001:db8::1/128  smtp   manual  cli     cli   0     -         2027-01-15T08:09:58Z (in 9m 58s)  abuse\n",
            "",
        )
        .await;
    world
        .check(
            "deny export",
            done,
            "192.0.2.0/24 scope=smtp ttl=598s # abuse\n2001:db8::1/128 scope=smtp ttl=598s # abuse\n",
            "",
        )
        .await;
    world
        .check(
            "deny del 192.0.2.7",
            Exit::Nothing,
            "deny list: nothing changed\n",
            "192.0.2.7/32 is not on the deny list; 192.0.2.0/24 covers it\n",
        )
        .await;
    world
        .check(
            "deny del 192.0.2.0/24 --source ban",
            Exit::Nothing,
            "deny list: nothing changed\n",
            "192.0.2.0/24 is not on the deny list from ban\n",
        )
        .await;
    world.check("deny list --source ban", done, "the deny list has nothing from ban\n", "").await;
    world.check("deny del 192.0.2.0/24", done, "deny list: removed 1 entry\n", "").await;
    world.check("deny flush --source cli", done, "deny list: removed 1 entry\n", "").await;
    world.check("deny flush --yes", done, "deny list: nothing changed\n", "").await;
}

#[tokio::test]
async fn refusals_are_one_sentence_with_a_remedy() {
    let world = World::with_edge();
    for (line, part) in [
        ("deny add 10.0.0.1/8", "the network is 10.0.0.0/8; nothing was changed ("),
        ("deny add 198.51.100.0/24", "holds 198.51.100.1, a gateway"),
        ("deny add 203.0.113.0/24 --scope all", "where an administrator is logged in from"),
        ("deny import -", "stdin:2: \"nonsense\" is not an IP address; nothing was imported ("),
        ("deny import /nonexistent/file", "cannot read /nonexistent/file: No such file"),
    ] {
        let said = world.said(line, b"192.0.2.1\nnonsense\n").await;
        assert_eq!(said.exit, Exit::Failed, "{line}");
        assert!(said.err.starts_with("postern: ") && said.err.contains(part), "{}", said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        assert_eq!(said.out, "");
    }
    let done = world.said("allow add 203.0.113.77", b"").await.exit;
    assert_eq!(done, Exit::Done);
    world.said("deny add 203.0.113.0/24 --scope all", b"").await;
    for line in ["allow del 203.0.113.77", "allow flush --yes"] {
        let said = world.said(line, b"").await;
        assert_eq!(
            said.err,
            "postern: 203.0.113.77/32 keeps 203.0.113.77, where an administrator is logged in \
             from, out of the denial of 203.0.113.0/24; nothing was changed (lift the denial \
             first, or --force if it is meant)\n"
        );
        let forced = world.said(&format!("{line} --force"), b"").await;
        assert_eq!(forced.out, "allow list: removed 1 entry\n");
        world.said("allow add 203.0.113.77", b"").await;
    }
    let file = b"192.0.2.1\n# ours\n198.51.100.1\n198.51.100.0/28 ttl=1h\n";
    let said = world.said("deny import - --name list", file).await;
    assert_eq!(
        said.err,
        "list:4: 198.51.100.0/28 holds 198.51.100.1, a gateway; put that on the allow list first\n\
         postern: list:3: 198.51.100.1/32 holds 198.51.100.1, a gateway; put that on the allow \
         list first; 1 more like it; nothing was changed (give a narrower prefix, or --force if \
         it is meant)\n"
    );
    let said = world.said("deny import - --name list", b"\n192.0.2.1 ttl=200years\n").await;
    assert!(said.err.starts_with("postern: list:2: 192.0.2.1/32: a lifetime"), "{}", said.err);
    let done = world.said("deny add 198.51.100.0/24 --force", b"").await;
    assert_eq!(done.exit, Exit::Done, "{}", done.err);
    let done = world.said("deny add 203.0.113.0/24", b"").await;
    assert_eq!(done.exit, Exit::Done, "a mail scope cuts off no session: {}", done.err);
}

#[tokio::test]
async fn a_denial_can_wait_to_be_confirmed_and_can_be_observed_only() {
    let world = World::with_edge();
    world
        .check(
            "deny add 192.0.2.0/24 --confirm-within 60s",
            Exit::Done,
            "deny list: added 1 entry\n\
             it ends 2027-01-15T08:01:00Z (in 1m), unless you confirm it: postern deny confirm 1\n",
            "",
        )
        .await;
    let waiting = world.said("deny pending", b"").await.out;
    assert!(waiting.contains("ID  SOURCE  ENTRIES") && waiting.contains("(in 1m)"), "{waiting}");
    assert!(world.said("deny list", b"").await.out.contains("unconfirmed:1"));
    let json = world.said("deny pending --json", b"").await.out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json[0]["id"], &json[0]["rows"]), (&1.into(), &1.into()));
    world.check("deny confirm", Exit::Done, "deny list: added 1 entry\n", "").await;
    world.check("deny pending", Exit::Done, "nothing waits to be confirmed\n", "").await;
    let said = world.said("deny confirm 1", b"").await;
    assert_eq!(said.exit, Exit::Nothing, "{}", said.err);
    let said = world.said("deny add 192.0.2.1 --confirm-within 2h", b"").await;
    assert!(said.err.contains("from a second to an hour"), "{}", said.err);
    world.said("deny import - --name try --observe", b"203.0.113.9\n").await;
    assert!(world.said("deny list", b"").await.out.contains("smtp (observed)"));
    let told = world.said("explain 203.0.113.9", b"").await.out;
    assert!(told.contains("would be dropped, but for being observed only"), "{told}");
    world
        .check(
            "deny export --source import:try",
            Exit::Done,
            "203.0.113.9/32 scope=smtp observe\n",
            "",
        )
        .await;
}

#[tokio::test]
async fn export_goes_into_import() {
    let world = World::with_edge();
    world.said("deny add 192.0.2.0/24 --scope tcp --ttl 1h", b"").await;
    world.said("deny add 2001:db8::/32", b"").await;
    let exported = world.said("deny export", b"").await.out;
    let other = World::with_edge();
    let said = other.said("deny import - --name moved", exported.as_bytes()).await;
    assert_eq!((said.out.as_str(), said.exit), ("deny list: added 2 entries\n", Exit::Done));
    assert_eq!(other.said("deny export --source import:moved", b"").await.out, exported);
    let json = other.said("deny list --json", b"").await.out;
    assert_eq!(other.said("deny export --json", b"").await.out, json);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["rows"][0]["scope"], "tcp");
    assert_eq!(json["rows"][0]["expires"], "2027-01-15T09:00:00Z");
}

#[tokio::test]
async fn explain_and_status_tell_what_they_can_when_the_relay_is_down() {
    let world = World::with_edge();
    world.said("deny add 192.0.2.0/24 --scope mx", b"").await;
    let said = world.said("explain 192.0.2.9", b"").await;
    assert_eq!(said.exit, Exit::NotReachable);
    assert!(
        said.out.starts_with(
            "192.0.2.9 to port 25 is refused at accept by the filter, by 192.0.2.0/24\n"
        ),
        "{}",
        said.out
    );
    assert!(
        said.out.contains("SINCE") && said.out.contains("2027-01-15T08:00:00Z"),
        "{}",
        said.out
    );
    assert!(said.err.contains("the relay is not running"), "{}", said.err);
    let said = world.said("explain 192.0.2.9 --port 587", b"").await;
    assert!(said.out.contains("passes the filter") && !said.out.contains("drop"), "{}", said.out);
    let said = world.said("status", b"").await;
    assert_eq!(said.exit, Exit::NotReachable);
    assert!(said.out.contains("userspace; looks up mx"), "{}", said.out);
    assert!(said.out.contains("1 prefix (cli 1)"), "{}", said.out);
    let said = world.said("stats --json", b"").await;
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(json["edge"]["packets"]["dropped"].is_number() && json["relay"].is_null());
}

#[tokio::test]
async fn nobody_at_home_is_exit_four() {
    let world = World::new();
    for line in ["deny list", "queue list", "account list", "never-route list", "deny add ::1"] {
        let said = world.said(line, b"").await;
        assert_eq!(said.exit, Exit::NotReachable, "{line}");
        assert!(said.err.contains("is not running"), "{}", said.err);
    }
}
