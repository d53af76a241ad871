//! The project's own commands: `cargo xtask setup|build|run|lab|test|bench|fuzz|tidy`, one file each.
//!
//! Nothing here knows the product's code: xtask starts cargo, the package manager and the built
//! binaries, and says what it does. Diagnostics go to standard error, one sentence each; the exit
//! code is 0 when the command did what its name says and 1 otherwise (2 for a wrong command line).

mod bench;
mod build;
mod fuzz;
mod lab;
mod privilege;
mod run;
mod setup;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Postern's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Find or install what building and testing need
    Setup(setup::Args),
    /// Build the workspace, the kernel program included
    Build(build::Args),
    /// Build and start the gateway on an interface
    Run(run::Args),
    /// Play the story in network namespaces, and show the evidence
    Lab(lab::Args),
    /// Run the tests of all four tiers
    Test(test::Args),
    /// Measure the packet path and the mail path
    Bench(bench::Args),
    /// Feed what reads the network with whatever a fuzzer comes up with
    Fuzz(fuzz::Args),
    /// Check the rules of the source tree
    Tidy(tidy::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::main(&args),
        Command::Build(args) => build::main(&args),
        Command::Run(args) => run::main(&args),
        Command::Lab(args) => lab::main(&args),
        Command::Test(args) => test::main(&args),
        Command::Bench(args) => bench::main(&args),
        Command::Fuzz(args) => fuzz::main(&args),
        Command::Tidy(args) => tidy::main(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
