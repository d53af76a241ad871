//! What the kernel filter costs, every figure beside its peers', all in one run. Needs root.
//!
//! Nothing here fails because it is slow: a bar is printed beside the figure that it is for.

mod bpf;
mod edge;
mod flood;
mod loader;
mod loading;
mod lookup;
mod mail;
mod peers;
mod prober;
mod rules;
mod sides;
mod sources;
mod xdp_filter;

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::{Value, json};

pub use loader::load;

use crate::figure::Table;
use peers::Peers;

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Nanoseconds a packet in the program alone
    Lookup,
    /// Nanoseconds a packet of a flood over veth
    Flood,
    /// Messages a second while the flood runs
    Mail,
    /// Seconds, memory and stalls of loading a million entries
    Load,
    /// The same through the edge's own feeds
    Edge,
}

/// All measurements.
#[derive(Debug)]
pub struct Report {
    peers: Peers,
    tables: Vec<Table>,
}

/// Measures all parts, or some. Tells each table as soon as it is there.
///
/// # Errors
/// No root or no BPF, in a sentence; or something decides otherwise than its list says.
pub fn run(parts: &[Part], tell: &mut dyn FnMut(&dyn fmt::Display)) -> Result<Report> {
    let mut report = Report { peers: Peers::find(), tables: Vec::new() };
    tell(&sources::described());
    for &part in Part::value_variants() {
        if !parts.is_empty() && !parts.contains(&part) {
            continue;
        }
        let peers = &mut report.peers;
        let tables = match part {
            Part::Lookup => lookup::measure(peers)?,
            Part::Flood => vec![sides::measure(peers)?],
            Part::Mail => vec![mail::measure()?],
            Part::Load => loading::measure(peers)?,
            Part::Edge => edge::measure()?,
        };
        tables.iter().for_each(|table| tell(table));
        report.tables.extend(tables);
    }
    tell(&report.peers);
    Ok(report)
}

impl Report {
    /// The same figures for a machine to read.
    pub fn json(&self) -> Value {
        json!({
            "sources": sources::described(),
            "peers": self.peers.json(),
            "tables": self.tables.iter().map(Table::json).collect::<Vec<_>>(),
        })
    }
}
