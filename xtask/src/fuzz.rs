//! `cargo xtask fuzz`: feeds what reads the network with whatever libFuzzer comes up with.
//!
//! The targets' bodies stand in `fuzz/bodies.rs`; the ordinary tests replay the corpora through
//! them. Here they run under cargo-fuzz, which is installed when it is missing.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace;

const TARGETS: [&str; 5] = ["framing", "command", "address", "session", "reply"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this target
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// Afterwards leave only those files in the corpus that reach something the others do not
    #[arg(long)]
    minimize: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    provide()?;
    for target in TARGETS {
        if args.target.as_deref().is_some_and(|only| only != target) {
            continue;
        }
        println!("== {target}: {} minutes ==", args.minutes);
        let time = format!("-max_total_time={}", args.minutes * 60);
        let options = ["--", &time, "-max_len=4096", "-timeout=10", "-print_final_stats=1"];
        cargo_fuzz("run", target, &options)?;
        if args.minimize {
            cargo_fuzz("cmin", target, &[])?;
        }
    }
    Ok(())
}

/// The sanitizer's flags are unstable; a stable compiler takes them when it is told so.
fn cargo_fuzz(verb: &str, target: &str, options: &[&str]) -> Result<()> {
    let status = Command::new("cargo")
        .args(["fuzz", verb, target])
        .args(options)
        .env("RUSTC_BOOTSTRAP", "1")
        .current_dir(workspace::root())
        .status()
        .context("starting cargo fuzz")?;
    if !status.success() {
        bail!("cargo fuzz {verb} {target} failed; what it failed on is in fuzz/artifacts/{target}");
    }
    Ok(())
}

fn provide() -> Result<()> {
    let there = Command::new("cargo").args(["fuzz", "--version"]).stdout(Stdio::null()).status();
    if there.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    println!("installing cargo-fuzz");
    let status = Command::new("cargo").args(["install", "cargo-fuzz", "--locked"]).status();
    if !status.context("starting cargo install")?.success() {
        bail!("cargo-fuzz could not be installed; it needs a C++ compiler and crates.io");
    }
    Ok(())
}
