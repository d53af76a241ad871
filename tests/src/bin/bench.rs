//! The benchmarks behind `cargo xtask bench`.

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
    let wanted = |what| arguments.what.is_none_or(|only| only == what);
    let mut all = serde_json::Map::new();
    if wanted(What::Filter) {
        let report = bench_filter::run(&arguments.part)?;
        if !arguments.json {
            println!("{report}");
        }
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
