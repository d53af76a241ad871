//! What the kernel filter costs, every figure beside its peers', all in one run. Needs root.
//!
//! Nothing here fails because it is slow: a bar is printed beside the figure that it is for.

mod bpf;
mod edge;
mod figure;
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

use figure::Table;
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

/// All measurements; prints itself as tables.
#[derive(Debug)]
pub struct Report {
    peers: Peers,
    tables: Vec<Table>,
}

/// Measures all parts, or some.
///
/// # Errors
/// No root or no BPF, in a sentence; or something decides otherwise than its list says.
pub fn run(parts: &[Part]) -> Result<Report> {
    let mut peers = Peers::find();
    let wanted = |part| parts.is_empty() || parts.contains(&part);
    let mut tables = Vec::new();
    if wanted(Part::Lookup) {
        tables.extend(lookup::measure(&mut peers)?);
    }
    if wanted(Part::Flood) {
        tables.push(sides::measure(&mut peers)?);
    }
    if wanted(Part::Mail) {
        tables.push(mail::measure()?);
    }
    if wanted(Part::Load) {
        tables.extend(loading::measure(&mut peers)?);
    }
    if wanted(Part::Edge) {
        tables.extend(edge::measure()?);
    }
    Ok(Report { peers, tables })
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}", sources::described(), self.peers)?;
        self.tables.iter().try_for_each(|table| writeln!(f, "{table}"))
    }
}
