//! The benchmarks behind `cargo xtask bench`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use postern_tests::{bench_filter, bench_smtp};

/// Measures what Postern costs, beside its peers.
#[derive(Debug, Parser)]
struct Arguments {
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Only this one; all of them without it
    what: Option<What>,
    /// Of the filter's measurement only these parts
    #[arg(long, value_delimiter = ',')]
    part: Vec<bench_filter::Part>,
    /// Load lists into the filter on eth0, and say so: what the measurement of loading starts
    #[arg(long, hide = true, num_args = 2.., value_names = ["PINS", "LIST"])]
    load: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Nanoseconds a packet in the kernel filter
    Filter,
    /// Durable messages a second, Postfix beside it
    Smtp,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let [pins, lists @ ..] = arguments.load.as_slice() {
        return bench_filter::load(pins.clone(), lists);
    }
    let wanted = |what| arguments.what.is_none_or(|only| only == what);
    let mut all = serde_json::Map::new();
    if wanted(What::Filter) {
        let report = bench_filter::run(&arguments.part, &mut |table| {
            if !arguments.json {
                println!("{table}");
            }
        })?;
        all.insert("filter".to_owned(), report.json());
    }
    if wanted(What::Smtp) {
        let report = bench_smtp::run()?;
        if !arguments.json {
            println!("{report}");
        }
        all.insert("smtp".to_owned(), report.json());
    }
    if arguments.json {
        println!("{:#}", serde_json::Value::Object(all));
    }
    Ok(())
}
