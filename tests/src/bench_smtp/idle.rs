//! Sessions that say EHLO and nothing more: what each costs in memory, and whether a new client is
//! served all the same.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::ClientConfig;

use super::client::{Client, tls_config};
use super::scene::{Scene, Server, Side};
use crate::figure::{Bar, Line, Rounds, Table};

/// Sessions with Postern, where so many files may be open. The peers' are fewer: one for which each is a process would need
/// gigabytes, and what one costs does not depend on their number.
const SESSIONS: usize = 10_000;
const NEW_CLIENTS: usize = 50;
const PLAIN_KIB_AT_MOST: f64 = 10.0;
const TLS_KIB_AT_MOST: f64 = 30.0;
const NEW_CLIENT_MS_AT_MOST: f64 = 50.0;
/// Connections beside the idle ones.
const OTHERS: usize = 100;

/// How many connections Postern is to permit: as many as [`SESSIONS`] and some others, or what the limit
/// on open files allows, if root may not raise that. It wants three for two, and some for itself.
///
/// # Errors
/// The limit cannot be asked for.
pub(super) fn connections() -> Result<usize> {
    const FILES_BESIDES: usize = 1_000;
    let (wanted, (_, hard)) = (SESSIONS + OTHERS, getrlimit(Resource::RLIMIT_NOFILE)?);
    let files = (wanted * 3 / 2 + FILES_BESIDES) as u64;
    let hard = match setrlimit(Resource::RLIMIT_NOFILE, files, hard.max(files)) {
        Ok(()) => files,
        Err(_) => {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
            hard
        }
    };
    Ok(wanted.min(usize::try_from(hard)?.saturating_sub(FILES_BESIDES) * 2 / 3))
}

/// # Errors
/// A session did not come about.
pub(super) fn plain(scene: &Scene) -> Result<Vec<Table>> {
    measure(scene, ["idle_plain", "new_client_plain"], "in plain text", PLAIN_KIB_AT_MOST, None)
}

/// # Errors
/// As [`plain`].
pub(super) fn in_tls(scene: &Scene) -> Result<Vec<Table>> {
    let tls = tls_config()?;
    measure(scene, ["idle_tls", "new_client_tls"], "in TLS", TLS_KIB_AT_MOST, Some(&tls))
}

fn measure(
    scene: &Scene,
    names: [&'static str; 2],
    kind: &str,
    kib_at_most: f64,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Vec<Table>> {
    let (mut memory, mut served) = (Vec::new(), Vec::new());
    for server in &scene.servers {
        let count = sessions(scene, server.side);
        let what = format!("{}, {count} sessions", server.side.name());
        let of_one = || scene.world.out.enter(|| idle(server, count, tls))?;
        let Some((kib, new_ms)) = scene.attempt(server, &format!("idle {kind}"), of_one)? else {
            continue;
        };
        let mut line = Line::new(what.clone(), &Rounds::from_iter([kib]))?;
        let mut new = Line::new(what, &new_ms)?;
        if server.side == Side::Postern {
            line = line.bar(Bar::AtMost(kib_at_most));
            new = new.bar(Bar::AtMost(NEW_CLIENT_MS_AT_MOST));
        }
        memory.push(line);
        served.push(new);
    }
    let memory_title = format!(
        "Memory of idle sessions {kind}, after EHLO: growth of all the server's processes (PSS)"
    );
    let served_title = format!(
        "Connect, banner, EHLO and its reply, beside so many idle sessions {kind}: {NEW_CLIENTS} new \
         clients, one after the other"
    );
    let (unit, unit_of_time) = ("KiB for each session", "milliseconds");
    Ok(vec![
        Table { name: names[0], title: memory_title, unit, lines: memory },
        Table { name: names[1], title: served_title, unit: unit_of_time, lines: served },
    ])
}

fn sessions(scene: &Scene, side: Side) -> usize {
    match side {
        Side::Postern if scene.quick => SESSIONS / 10,
        Side::Postern => scene.connections - OTHERS,
        Side::OpenSmtpd => 400,
        Side::Postfix | Side::Exim | Side::Bare => 200,
    }
}

/// In the clients' namespace.
fn idle(server: &Server, count: usize, tls: Option<&Arc<ClientConfig>>) -> Result<(f64, Rounds)> {
    // What the server sets up once is not the cost of a session.
    drop(open(server, 20.min(count / 10), tls)?);
    server.group.idle()?;
    let before = server.group.pss_kib()?;
    let sessions = open(server, count, tls)?;
    server.group.idle()?;
    let after = server.group.pss_kib()?;
    let mut new_ms = Rounds::default();
    for _ in 0..NEW_CLIENTS {
        let started = Instant::now();
        let mut client = Client::connect(server.address, None)?;
        client.say("EHLO client.foreign.test\r\n", "250")?;
        new_ms.push(started.elapsed().as_secs_f64() * 1e3);
        client.say("QUIT\r\n", "221")?;
    }
    drop(sessions);
    server.group.idle()?;
    Ok(((after as f64 - before as f64) / count as f64, new_ms))
}

/// Sessions that have read the reply to their EHLO, in TLS to their second.
fn open(server: &Server, count: usize, tls: Option<&Arc<ClientConfig>>) -> Result<Vec<TcpStream>> {
    let one = |_| {
        let mut client = Client::connect(server.address, None)?;
        client.say("EHLO client.foreign.test\r\n", "250")?;
        let Some(config) = tls else { return Ok(client.into_stream()) };
        let mut client = client.start_tls(config)?;
        client.say("EHLO client.foreign.test\r\n", "250")?;
        Ok(client.into_stream())
    };
    (0..count).map(one).collect()
}
