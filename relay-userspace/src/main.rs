//! The `postern` binary: the daemons, their supervisor, and the command line over them.

use std::process::ExitCode;

use postern::cli;

mod commands;

fn main() -> ExitCode {
    cli::main(&commands::Commands)
}
