//! What the mail path costs, beside its peers, all in one run: Postern, Postfix and, where their
//! packages can be had, OpenSMTPD and Exim, on one gateway with one sink behind them. Needs root.
//!
//! Nothing here fails because it is slow: a bar is printed beside the figure that it is for.

mod accepted;
mod bare;
mod body;
mod client;
mod group;
mod idle;
mod refused;
mod scene;

use std::fmt;
use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::figure::Table;
pub use bare::serve as serve_bare;
use scene::Scene;

/// What is measured in one scene.
type Measure = fn(&Scene) -> Result<Vec<Table>>;

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// CPU time of sessions whose recipient is refused
    Refused,
    /// Durable messages a second, in and out, and their CPU time
    Accepted,
    /// Memory of 10,000 idle sessions, plain and in TLS
    Idle,
    /// Memory of a 50 MiB message
    Body,
}

/// All measurements.
#[derive(Debug, Default)]
pub struct Report {
    servers: Vec<(&'static str, String)>,
    missing: Vec<String>,
    tables: Vec<Table>,
}

/// Measures all parts, or some. `quick`: a tenth of the load, once, to see that it runs. Tells each table as soon as it is there.
///
/// # Errors
/// Something could not be started, or mail did not go through.
pub fn run(parts: &[Part], quick: bool, tell: &mut dyn FnMut(&dyn fmt::Display)) -> Result<Report> {
    let mut report = Report::default();
    for &part in Part::value_variants() {
        if !parts.is_empty() && !parts.contains(&part) {
            continue;
        }
        // Each part with servers that were just started, as what they did before stays in their memory.
        let scenes: &[Measure] = match part {
            Part::Refused => &[refused::measure],
            Part::Accepted => &[accepted::measure],
            Part::Idle => &[idle::plain, idle::in_tls],
            Part::Body => &[body::measure],
        };
        for measure in scenes {
            let scene = Scene::new(quick)?;
            if report.servers.is_empty() {
                report.servers = scene.versions();
                tell(&report.sides());
            }
            let tables = measure(&scene).inspect_err(|_| {
                for log in scene.logs() {
                    eprintln!("--- {}\n{}", log.display(), last_lines(&log));
                }
            })?;
            tables.iter().for_each(|table| tell(table));
            report.tables.extend(tables);
            for line in scene.missing() {
                if !report.missing.contains(&line) {
                    tell(&line);
                    report.missing.push(line);
                }
            }
        }
    }
    Ok(report)
}

impl Report {
    fn sides(&self) -> String {
        let here = self.servers.iter().map(|(name, version)| format!("{name} ({version})"));
        format!("Servers: {}\n", here.collect::<Vec<_>>().join(", "))
    }

    /// The same figures for a machine to read.
    pub fn json(&self) -> Value {
        let servers =
            self.servers.iter().map(|(name, version)| json!({ "name": name, "version": version }));
        json!({
            "servers": servers.collect::<Vec<_>>(),
            "missing": self.missing,
            "tables": self.tables.iter().map(Table::json).collect::<Vec<_>>(),
        })
    }
}

/// Of a log of some hundred thousand lines.
fn last_lines(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
