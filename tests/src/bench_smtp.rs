//! How many durable messages a second Postern accepts, with Postfix beside it in the same run:
//! the same load by smtp-source, the same sink behind both.

use std::{
    fmt::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    postfix::Postfix,
    process::{Process, until},
    world::{GATEWAY, World},
};

/// Messages of one run, and their size.
const MESSAGES: usize = 2000;
const MESSAGE_BYTES: usize = 4096;
const SESSIONS: [usize; 3] = [1, 10, 50];
const RUNS: usize = 3;

const CONFIG: &str = r#"
[[listener]]
name = "mx"
address = ["203.0.113.1:25"]

[limits]
connections_per_source = 1000
messages = 100000
"#;

/// The rates of one server at one number of sessions, messages a second, sorted.
#[derive(Debug, Clone)]
struct Rates(Vec<f64>);

impl Rates {
    fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    fn json(&self) -> serde_json::Value {
        json!({ "median": self.median(), "min": self.0[0], "max": self.0[self.0.len() - 1] })
    }
}

/// What was measured at one number of sessions.
#[derive(Debug)]
struct Row {
    sessions: usize,
    postern: Rates,
    postfix: Rates,
}

/// The whole measurement, for people ([`std::fmt::Display`]) and programs ([`Report::json`]).
#[derive(Debug)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub fn json(&self) -> serde_json::Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "sessions": row.sessions,
                "postern_per_s": row.postern.json(),
                "postfix_per_s": row.postfix.json(),
                "ratio": row.postern.median() / row.postfix.median(),
            })
        });
        json!({ "messages": MESSAGES, "bytes": MESSAGE_BYTES, "rows": rows.collect::<Vec<_>>() })
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "durable messages accepted a second: {MESSAGES} of {MESSAGE_BYTES} bytes by smtp-source, \
             a session each,\ndelivered on to smtp-sink meanwhile; median (min to max) of {RUNS} runs"
        )?;
        writeln!(f, "{:>8}  {:>22}  {:>22}  {:>6}", "sessions", "Postern", "Postfix", "ratio")?;
        for row in &self.rows {
            let cell = |rates: &Rates| {
                let mut text = String::new();
                let (min, max) = (rates.0[0], rates.0[rates.0.len() - 1]);
                write!(text, "{:.0} ({min:.0} to {max:.0})", rates.median()).map(|()| text)
            };
            let ratio = row.postern.median() / row.postfix.median();
            let (postern, postfix) = (cell(&row.postern)?, cell(&row.postfix)?);
            writeln!(f, "{:>8}  {postern:>22}  {postfix:>22}  {ratio:>6.1}", row.sessions)?;
        }
        Ok(())
    }
}

/// Runs the whole measurement; needs root and what `cargo xtask setup` installs.
///
/// # Errors
/// Something could not be started, or a load did not go through.
pub fn run() -> Result<Report> {
    let mut world = World::new()?;
    let mut sink = world.inside.command("smtp-sink");
    sink.args(["-u", "nobody", "10.0.0.25:25", "1000"]).stdout(Stdio::null());
    let _sink = Process::start(&mut sink)?;
    world.start(CONFIG)?;
    // On the inner side of the gateway: the same kernel, the same wire to the sink.
    let settings = [
        ("relayhost", "[10.0.0.25]"),
        ("mynetworks", "0.0.0.0/0"),
        ("default_process_limit", "200"),
    ];
    let _postfix = Postfix::start(&world.gw, &world.path("postfix"), "10.0.0.1", &settings)
        .context("starting the peer")?;
    world.out.route("10.0.0.0/24", GATEWAY)?;
    let rows = SESSIONS.into_iter().map(|sessions| {
        let rates = |server: &str| -> Result<Rates> {
            let mut rates: Vec<f64> = (0..RUNS)
                .map(|_| accepted_per_s(&world, server, sessions))
                .collect::<Result<_>>()?;
            rates.sort_by(f64::total_cmp);
            Ok(Rates(rates))
        };
        Ok(Row { sessions, postern: rates(GATEWAY)?, postfix: rates("10.0.0.1")? })
    });
    Ok(Report { rows: rows.collect::<Result<_>>()? })
}

fn accepted_per_s(world: &World, server: &str, sessions: usize) -> Result<f64> {
    let mut load: Command = world.out.command("smtp-source");
    load.args(["-s", &sessions.to_string(), "-m", &MESSAGES.to_string()]);
    load.args(["-l", &MESSAGE_BYTES.to_string(), "-f", "load@foreign.test"]);
    load.args(["-t", "user@inside.test", &format!("{server}:25")]).stdout(Stdio::null());
    let started = Instant::now();
    let mut load = Process::start(&mut load)?;
    ensure!(load.wait()?.success(), "smtp-source against {server} failed:\n{}", world.log());
    let rate = MESSAGES as f64 / started.elapsed().as_secs_f64();
    drained(world, server)?;
    Ok(rate)
}

/// Waits until the server has handed everything on, so that one run does not burden the next.
fn drained(world: &World, server: &str) -> Result<()> {
    until("the queue to run empty", || {
        let empty = if server == GATEWAY {
            let queue = world.json(&["queue", "list"])?;
            queue["messages"].as_array().is_some_and(Vec::is_empty)
        } else {
            let queue = world.path("postfix").join("queue");
            let waiting =
                |name: &str| Ok::<_, std::io::Error>(std::fs::read_dir(queue.join(name))?.count());
            waiting("active")? + waiting("incoming")? == 0
        };
        std::thread::sleep(Duration::from_millis(50));
        Ok(empty.then_some(()))
    })
}
