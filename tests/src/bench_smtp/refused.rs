//! Sessions whose only recipient is refused: what most of a gateway's work is.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::client::Client;
use super::scene::{MANY_SOURCES, Scene, Server, Side};
use crate::figure::{Bar, Line, Rounds, Table};

const AT_ONCE: usize = 16;
/// Of Postfix's.
const CPU_AT_MOST: f64 = 0.4;

/// Sessions with each server. Exim, which answers in two segments, makes clients wait for most of the
/// time, and OpenSMTPD, whose queue of connections is short, for some of it.
fn sessions(scene: &Scene, side: Side) -> u32 {
    scene.scaled(match side {
        Side::Postern | Side::Postfix | Side::Bare => 5_000,
        Side::OpenSmtpd => 1_500,
        Side::Exim => 500,
    })
}

/// Who is refused.
#[derive(Debug, Clone, Copy)]
enum Who {
    /// One client that always asks for a domain that is not taken.
    One,
    /// Each an address that was never seen, which asks for mail to be relayed: evidence.
    Strangers,
}

impl Who {
    fn recipient(self) -> &'static str {
        match self {
            Self::One => "RCPT TO:<user@refused.test>\r\n",
            Self::Strangers => "RCPT TO:<user@foreign.test>\r\n",
        }
    }
}

#[derive(Debug, Default)]
struct Figures {
    cpu_ms: Rounds,
    rate: Rounds,
    left_out: bool,
}

/// # Errors
/// A session went otherwise.
pub(super) fn measure(scene: &Scene) -> Result<Vec<Table>> {
    let strangers = AtomicU32::new(0);
    let mut tables = Vec::new();
    for (who, name, title) in [
        (Who::One, "refused", "one client, a domain that is not taken"),
        (Who::Strangers, "strangers", "each from an address of its own, relaying"),
    ] {
        let mut all: Vec<Figures> = scene.servers.iter().map(|_| Figures::default()).collect();
        for _ in 0..scene.rounds() {
            for (server, figures) in scene.servers.iter().zip(&mut all) {
                if figures.left_out {
                    continue;
                }
                let measured =
                    scene.attempt(server, name, || refused(scene, server, who, &strangers))?;
                let Some((cpu, took)) = measured else {
                    figures.left_out = true;
                    continue;
                };
                figures
                    .cpu_ms
                    .push(cpu.as_secs_f64() * 1e3 / f64::from(sessions(scene, server.side)));
                figures.rate.push(f64::from(sessions(scene, server.side)) / took.as_secs_f64());
            }
        }
        tables.push(table(scene, &all, name, title)?);
    }
    Ok(tables)
}

fn refused(
    scene: &Scene,
    server: &Server,
    who: Who,
    strangers: &AtomicU32,
) -> Result<(Duration, Duration)> {
    server.group.idle()?;
    let (before, started) = (server.group.cpu()?, Instant::now());
    let left = AtomicU32::new(sessions(scene, server.side));
    let client = || {
        let one_less = |left: u32| left.checked_sub(1);
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            let source = match who {
                Who::One => None,
                Who::Strangers => {
                    let number = strangers.fetch_add(1, Ordering::Relaxed);
                    Some(Ipv4Addr::from(u32::from(MANY_SOURCES) + 1 + number))
                }
            };
            let mut client = Client::connect(server.address, source)?;
            client.say("EHLO client.foreign.test\r\n", "250")?;
            client.say("MAIL FROM:<sender@foreign.test>\r\n", "250")?;
            client.say(who.recipient(), "550")?;
            client.say("QUIT\r\n", "221")?;
        }
        Ok(())
    };
    scene.world.out.enter(|| {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(client)).collect();
            clients.into_iter().try_for_each(|client| -> Result<()> {
                client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    })??;
    let took = started.elapsed();
    server.group.idle()?;
    Ok((server.group.cpu()? - before, took))
}

fn table(scene: &Scene, all: &[Figures], name: &'static str, title: &str) -> Result<Table> {
    let of = |side: Side| {
        scene.servers.iter().zip(all).find(|(server, _)| server.side == side).map(|(_, it)| it)
    };
    let postfix = of(Side::Postfix).context("Postfix was not measured")?;
    let measured = scene.servers.iter().zip(all).filter(|(_, figures)| !figures.left_out);
    let lines = measured.map(|(server, figures)| {
        let bar = (server.side == Side::Postern).then_some(Bar::AtMost(CPU_AT_MOST));
        let mut line = Line::new(server.side.name(), &figures.cpu_ms)?;
        if server.side != Side::Postfix {
            line = line.against("times Postfix's", &figures.cpu_ms.times(&postfix.cpu_ms)?, bar)?;
        }
        line.against("sessions a second", &figures.rate, None)
    });
    let (sessions, rounds) = (sessions(scene, Side::Postern), scene.rounds());
    let title = format!(
        "Refused sessions (connect, EHLO, MAIL, RCPT: 550, QUIT), {title}: up to {sessions} \
         sessions, {AT_ONCE} at once, in each of {rounds} interleaved rounds"
    );
    let unit = "milliseconds of the server's CPU time for a session";
    Ok(Table { name, title, unit, lines: lines.collect::<Result<_>>()? })
}
