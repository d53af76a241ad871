//! `cargo xtask fuzz`: feeds what reads the network with whatever libFuzzer comes up with.
//!
//! What must hold stands in `fuzz/src/`; the ordinary tests replay the corpora through it. Here the
//! targets run under cargo-fuzz, which is installed when it is missing. They begin with the committed
//! corpus and with what the golden dialogues say, and write what they find under `target/`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::{self, cargo, run};

const TARGETS: [&str; 5] = ["framing", "command", "address", "session", "reply"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this target
    #[arg(value_parser = TARGETS)]
    target: Option<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Afterwards take into fuzz/corpus what reaches code that nothing there does
    #[arg(long)]
    keep: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    provide()?;
    let seeds = work("seeds");
    let mut write_seeds = cargo();
    write_seeds.args(["run", "--quiet", "--manifest-path", "fuzz/Cargo.toml", "--target-dir"]);
    write_seeds.arg(work("build")).args(["--example", "seeds", "--"]).arg(&seeds);
    run(&mut write_seeds)?;
    for target in TARGETS {
        if args.target.as_deref().is_some_and(|only| only != target) {
            continue;
        }
        println!("== {target}: {} minutes ==", args.minutes);
        let committed = workspace::root().join("fuzz/corpus").join(target);
        let found = work("corpus").join(target);
        std::fs::create_dir_all(&found)
            .with_context(|| format!("making the folder {}", found.display()))?;
        let time = format!("-max_total_time={}", args.minutes * 60);
        let words = format!("-dict={}", workspace::root().join("fuzz/smtp.dict").display());
        let options = [&*time, &words, "-max_len=2048", "-timeout=10", "-print_final_stats=1"];
        fuzz(target, &[&found, &committed, &seeds.join(target)], &options)?;
        if args.keep {
            // By lines alone: how often each was passed would make thousands of files.
            fuzz(target, &[&committed, &found], &["-merge=1", "-use_counters=0"])?;
        }
    }
    Ok(())
}

/// A folder for what is no part of the tree.
fn work(name: &str) -> PathBuf {
    workspace::target_dir().join("fuzz").join(name)
}

/// The sanitizer's flags are unstable; a stable compiler takes them when it is told so. The first
/// folder is written to.
fn fuzz(target: &str, folders: &[&PathBuf], options: &[&str]) -> Result<()> {
    let mut command = cargo();
    command.args(["fuzz", "run", "--target-dir"]).arg(work("build")).arg(target);
    command.args(folders).arg("--").args(options).env("RUSTC_BOOTSTRAP", "1");
    let error = || format!("what it failed on is in fuzz/artifacts/{target}");
    run(&mut command).with_context(error)
}

fn provide() -> Result<()> {
    let there = Command::new("cargo").args(["fuzz", "--version"]).stdout(Stdio::null()).status();
    if there.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    println!("installing cargo-fuzz");
    let status = Command::new("cargo").args(["install", "cargo-fuzz", "--locked"]).status();
    if !status.context("starting cargo install")?.success() {
        bail!(
            "cargo-fuzz could not be installed; it needs a C++ compiler and the registry of crates"
        );
    }
    Ok(())
}
