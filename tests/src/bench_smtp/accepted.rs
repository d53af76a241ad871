//! Durable messages, in and out: accepted from smtp-source, delivered on to smtp-sink meanwhile.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::scene::{Scene, Server, Side};
use crate::figure::{Bar, Line, Rounds, Table};
use crate::process::Process;

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
    side: Side,
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
    fn messages(self, side: Side) -> u32 {
        match (side, self.sessions) {
            (Side::Exim, 1) => 30,
            (Side::Exim, _) => 100,
            // It hands on some 25 a second, and on a busy machine its short queue of connections
            // makes clients wait for seconds.
            (Side::OpenSmtpd, _) => 150,
            (_, 1) => 500,
            (Side::Postern, _) => 4_000,
            _ => 2_000,
        }
    }
}

/// # Errors
/// Mail did not go through.
pub(super) fn measure(scene: &Scene) -> Result<Vec<Table>> {
    let mut rows = Vec::new();
    for reuse in [false, true] {
        for sessions in SESSIONS {
            let load = Load { sessions, reuse };
            let mut all: Vec<Row> = scene
                .servers
                .iter()
                .map(|server| Row {
                    side: server.side,
                    load,
                    figures: Figures::default(),
                    left_out: false,
                })
                .collect();
            for _ in 0..scene.rounds() {
                for (server, row) in scene.servers.iter().zip(&mut all) {
                    let figures = &mut row.figures;
                    row.left_out = row.left_out
                        || scene
                            .attempt(server, &load.named(), || run(scene, server, load, figures))?
                            .is_none();
                }
            }
            rows.extend(all.into_iter().filter(|row| !row.left_out));
        }
    }
    tables(&rows, scene.rounds())
}

fn run(scene: &Scene, server: &Server, load: Load, figures: &mut Figures) -> Result<()> {
    let messages = scene.scaled(load.messages(server.side)).max(u32::try_from(load.sessions)?);
    server.group.idle()?;
    let (cpu, arrived) = (server.group.cpu()?, scene.sink.messages());
    let mut source = scene.world.out.command("smtp-source");
    source.args(["-s", &load.sessions.to_string(), "-m", &messages.to_string()]);
    source.args(load.reuse.then_some("-d"));
    source.args(["-l", &MESSAGE_BYTES.to_string(), "-f", "load@foreign.test"]);
    source.args(["-t", "user@inside.test", &format!("{}:25", server.address)]);
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
    server.group.idle()?;
    let cpu_s = (server.group.cpu()? - cpu).as_secs_f64();
    figures.accepted_per_s.push(f64::from(messages) / accepted_s);
    figures.through_per_s.push(f64::from(messages) / through_s);
    figures.cpu_s.push(cpu_s * 1000.0 / f64::from(messages));
    Ok(())
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
        let lines = rows.iter().map(|row| {
            let figure = (column.of)(&row.figures);
            let mut line = Line::new(format!("{}: {}", row.load.named(), row.side.name()), figure)?;
            let others = rows.iter().filter(|other| other.load == row.load);
            for other in others.filter(|_| row.side == Side::Postern) {
                if other.side != Side::Postern {
                    let ratio = figure.times((column.of)(&other.figures))?;
                    let what = format!("times {}'s", other.side.name());
                    line = line.against(what, &ratio, (column.bar)(row.load, other.side))?;
                }
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
