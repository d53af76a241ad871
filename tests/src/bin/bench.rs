//! The benchmarks behind `cargo xtask bench`.

use anyhow::Result;
use clap::{Parser, Subcommand};
use postern_tests::bench_filter;

#[derive(Debug, Parser)]
#[command(about = "Measures what Postern costs")]
struct Arguments {
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Nanoseconds a packet in the kernel filter.
    Filter,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.what {
        What::Filter => {
            let report = bench_filter::run()?;
            if arguments.json {
                println!("{:#}", report.json());
            } else {
                print!("{report}");
            }
        }
    }
    Ok(())
}
