//! The benchmarks behind `cargo xtask bench`.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
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
    /// Of that one only these parts
    #[arg(long, value_delimiter = ',', requires = "what")]
    part: Vec<String>,
    /// Of `smtp` a tenth of the load, once: whether it runs, not how well
    #[arg(long)]
    quick: bool,
    /// Load lists into the filter on eth0, and say so: what the measurement of loading starts
    #[arg(long, hide = true, num_args = 2.., value_names = ["PINS", "LIST"])]
    load: Vec<PathBuf>,
    /// Be the bare server that others are measured beside, with a file of its own
    #[arg(long, hide = true, num_args = 3, value_names = ["LISTEN", "NEXT_HOP", "FILE"])]
    bare: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Nanoseconds a packet in the kernel filter
    Filter,
    /// Sessions and messages: time, CPU time and memory, Postfix and others beside it
    Smtp,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let [pins, lists @ ..] = arguments.load.as_slice() {
        return bench_filter::load(pins.clone(), lists);
    }
    if let [listen, next_hop, file] = arguments.bare.as_slice() {
        return bench_smtp::serve_bare(listen, next_hop, Path::new(file));
    }
    let wanted = |what| arguments.what.is_none_or(|only| only == what);
    let tell: &mut dyn FnMut(&dyn Display) = &mut |table| {
        if !arguments.json {
            println!("{table}");
        }
    };
    let mut all = serde_json::Map::new();
    if wanted(What::Filter) {
        let report = bench_filter::run(&parts(&arguments.part)?, tell)?;
        all.insert("filter".to_owned(), report.json());
    }
    if wanted(What::Smtp) {
        let report = bench_smtp::run(&parts(&arguments.part)?, arguments.quick, tell)?;
        all.insert("smtp".to_owned(), report.json());
    }
    if arguments.json {
        println!("{:#}", serde_json::Value::Object(all));
    }
    Ok(())
}

/// The parts of one measurement by their names.
fn parts<T: ValueEnum>(names: &[String]) -> Result<Vec<T>> {
    let known = || T::value_variants().iter().filter_map(T::to_possible_value);
    let known = known().map(|part| part.get_name().to_owned()).collect::<Vec<_>>().join(", ");
    let part = |name: &String| {
        T::from_str(name, false).map_err(|_| anyhow!("no part {name:?}; there are: {known}"))
    };
    names.iter().map(part).collect()
}
