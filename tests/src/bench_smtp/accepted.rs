//! Durable messages, in and out: accepted from smtp-source, delivered on to smtp-sink meanwhile.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::bare;
use super::scene::{Scene, Server, Side};
use crate::figure::{Bar, Line, Rounds, Table};
use crate::netns::Netns;
use crate::process::Process;
use crate::world::INSIDE_HOST;

const MESSAGE_BYTES: usize = 4096;
const SESSIONS: [usize; 4] = [1, 10, 50, 200];
/// What is asked of Postern, in terms of its peers' figures.
const ACCEPTED_AT_LEAST: f64 = 3.0;
const ACCEPTED_WITH_REUSE_AT_LEAST: f64 = 4.0;
const THROUGH_AT_LEAST: f64 = 3.0;
const CPU_AT_MOST: f64 = 0.25;
const CPU_OF_OPENSMTPD_AT_MOST: f64 = 1.0;

/// One server at one load, round by round.
#[derive(Debug, Default)]
struct Figures {
    accepted_per_s: Rounds,
    through_per_s: Rounds,
    cpu_s: Rounds,
}

/// One line of each table.
#[derive(Debug)]
struct Row {
    /// `None`: smtp-source straight into smtp-sink, which stores nothing. No server can be faster.
    side: Option<Side>,
    load: Load,
    figures: Figures,
    left_out: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    sessions: usize,
    /// Messages share connections (smtp-source -d), in place of a session each.
    reuse: bool,
}

impl Load {
    fn named(self) -> String {
        let Self { sessions, reuse } = self;
        format!("{sessions} at once, {}", if reuse { "reused" } else { "a session each" })
    }

    /// Enough for a second or so.
    fn messages(self, side: Option<Side>) -> u32 {
        match (side, self.sessions) {
            (Some(Side::Exim), 1) => 30,
            (Some(Side::Exim), _) => 100,
            // It hands on some 25 a second, and on a busy machine its short queue of connections
            // makes clients wait for seconds.
            (Some(Side::OpenSmtpd), _) => 150,
            (Some(Side::Postern | Side::Bare) | None, 1) => 2_000,
            (_, 1) => 1_000,
            (Some(Side::Postern | Side::Bare) | None, _) => 4_000,
            _ => 2_000,
        }
    }
}

/// # Errors
/// Mail did not go through.
pub(super) fn measure(scene: &Scene) -> Result<Vec<Table>> {
    let bare = bare::start(&scene.world)?;
    let mut rows = Vec::new();
    for reuse in [false, true] {
        for sessions in SESSIONS {
            let load = Load { sessions, reuse };
            let row = |side| Row { side, load, figures: Figures::default(), left_out: false };
            let servers = || scene.servers.iter().chain((sessions == 1).then_some(&bare));
            let mut all: Vec<Row> = servers().map(|server| row(Some(server.side))).collect();
            let mut nothing = row(None);
            for _ in 0..scene.rounds() {
                straight(scene, load, &mut nothing.figures)?;
                for (server, row) in servers().zip(&mut all) {
                    let figures = &mut row.figures;
                    row.left_out = row.left_out
                        || scene
                            .attempt(server, &load.named(), || run(scene, server, load, figures))?
                            .is_none();
                }
            }
            rows.extend(all.into_iter().filter(|row| !row.left_out).chain([nothing]));
        }
    }
    tables(&rows, scene.rounds())
}

fn run(scene: &Scene, server: &Server, load: Load, figures: &mut Figures) -> Result<()> {
    server.group.idle()?;
    let cpu = server.group.cpu()?;
    let source = &scene.world.out;
    let sent = send(scene, Some(server.side), load, source, &server.address.to_string())?;
    server.group.idle()?;
    let cpu_s = (server.group.cpu()? - cpu).as_secs_f64();
    figures.accepted_per_s.push(sent.accepted_per_s);
    figures.through_per_s.push(sent.through_per_s);
    figures.cpu_s.push(cpu_s * 1000.0 / f64::from(sent.messages));
    Ok(())
}

fn straight(scene: &Scene, load: Load, figures: &mut Figures) -> Result<()> {
    // From the gateway: over one wire, as from outside to a server.
    let sent = send(scene, None, load, &scene.world.gw, INSIDE_HOST)?;
    figures.accepted_per_s.push(sent.accepted_per_s);
    Ok(())
}

/// What became of a load.
struct Sent {
    messages: u32,
    accepted_per_s: f64,
    through_per_s: f64,
}

fn send(scene: &Scene, side: Option<Side>, load: Load, from: &Netns, host: &str) -> Result<Sent> {
    let messages = scene.scaled(load.messages(side)).max(u32::try_from(load.sessions)?);
    let arrived = scene.sink.messages();
    let mut source = from.command("smtp-source");
    source.args(["-s", &load.sessions.to_string(), "-m", &messages.to_string()]);
    source.args(load.reuse.then_some("-d"));
    source.args(["-l", &MESSAGE_BYTES.to_string(), "-f", "load@foreign.test"]);
    source.args(["-t", "user@inside.test", &format!("{host}:25")]);
    let started = Instant::now();
    let ended = Process::start(source.stdout(Stdio::null()))?.wait()?;
    ensure!(ended.success(), "smtp-source failed");
    let accepted_s = started.elapsed().as_secs_f64();
    let mut last = (scene.sink.messages(), Instant::now());
    while scene.sink.messages() - arrived < u64::from(messages) {
        let now = scene.sink.messages();
        if now > last.0 {
            last = (now, Instant::now());
        }
        let gone = now - arrived;
        ensure!(last.1.elapsed() < crate::process::PATIENCE, "only {gone} of {messages} arrived");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let through_s = started.elapsed().as_secs_f64();
    let per_s = |seconds| f64::from(messages) / seconds;
    Ok(Sent { messages, accepted_per_s: per_s(accepted_s), through_per_s: per_s(through_s) })
}

fn name(side: Option<Side>) -> &'static str {
    side.map_or("smtp-sink alone, nothing stored", Side::name)
}

/// Postern against everybody; the yardsticks against the server that bars speak of, to show what there
/// is to be had.
fn is_set_against(side: Option<Side>, other: Option<Side>) -> bool {
    match side {
        Some(Side::Postern) => other != Some(Side::Postern),
        Some(Side::Bare) | None => other == Some(Side::Postfix),
        _ => false,
    }
}

/// What a table shows of the rows, and what is asked there of Postern.
struct Column {
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    of: fn(&Figures) -> &Rounds,
    bar: fn(Load, Side) -> Option<Bar>,
}

const COLUMNS: [Column; 3] = [
    Column {
        name: "accepted",
        title: "Durable messages accepted",
        unit: "messages a second",
        of: |figures| &figures.accepted_per_s,
        bar: |load, against| {
            let least = if load.reuse { ACCEPTED_WITH_REUSE_AT_LEAST } else { ACCEPTED_AT_LEAST };
            (against == Side::Postfix).then_some(Bar::AtLeast(least))
        },
    },
    Column {
        name: "through",
        title: "The same, until the last of them is with smtp-sink",
        unit: "messages a second",
        of: |figures| &figures.through_per_s,
        bar: |_, against| (against == Side::Postfix).then_some(Bar::AtLeast(THROUGH_AT_LEAST)),
    },
    Column {
        name: "cpu",
        title: "The server's CPU time for them, in and out",
        unit: "seconds for 1,000 messages",
        of: |figures| &figures.cpu_s,
        bar: |_, against| match against {
            Side::Postfix => Some(Bar::AtMost(CPU_AT_MOST)),
            Side::OpenSmtpd => Some(Bar::AtMost(CPU_OF_OPENSMTPD_AT_MOST)),
            _ => None,
        },
    },
];

fn tables(rows: &[Row], rounds: usize) -> Result<Vec<Table>> {
    let table = |column: &Column| {
        let rows = rows.iter().filter(|row| !(column.of)(&row.figures).is_empty());
        let lines = rows.clone().map(|row| {
            let figure = (column.of)(&row.figures);
            let mut line = Line::new(format!("{}: {}", row.load.named(), name(row.side)), figure)?;
            let others = rows.clone().filter(|other| other.load == row.load);
            for other in others.filter(|other| is_set_against(row.side, other.side)) {
                let ratio = figure.times((column.of)(&other.figures))?;
                let asked = other.side.filter(|_| row.side == Some(Side::Postern));
                let bar = asked.and_then(|side| (column.bar)(row.load, side));
                let what = other.side.map_or_else(
                    || "of smtp-sink alone".to_owned(),
                    |side| format!("times {}'s", side.name()),
                );
                line = line.against(what, &ratio, bar)?;
            }
            Ok(line)
        });
        let title = format!(
            "{}: {MESSAGE_BYTES} bytes each, by smtp-source, {rounds} interleaved rounds",
            column.title
        );
        let lines = lines.collect::<Result<_>>()?;
        Ok(Table { name: column.name, title, unit: column.unit, lines })
    };
    COLUMNS.iter().map(table).collect()
}
