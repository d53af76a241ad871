//! `cargo xtask bench`: the measurements, made by the binary `bench` of tests/ on optimised builds.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::build::release_binaries;
use crate::privilege::Privilege;
use crate::setup::{self, Need};
use crate::workspace::release_binary;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the measurements whose name contains this, such as `smtp`
    filter: Option<String>,
    /// Of that one only these parts, such as `lookup` or `flood,load` of `filter`, `refused` or
    /// `accepted,idle` of `smtp`
    #[arg(long, value_name = "PARTS", requires = "filter")]
    part: Option<String>,
    /// Of `smtp` a tenth of the load, once: whether it runs, not how well
    #[arg(long)]
    quick: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let privilege = Privilege::detect();
    let postern = release_binary("postern");
    setup::ensure(&[Need::Toolchain, Need::Account, Need::Peers])?;
    let measures = |what: &str| args.filter.as_deref().is_none_or(|only| only == what);
    if measures("filter") {
        setup::offer_filters();
    }
    let mailers = if measures("smtp") { setup::offer_mailers() } else { PathBuf::new() };
    let env = [("POSTERN_BIN", postern.as_path()), ("POSTERN_PEERS", mailers.as_path())];
    let mut bench = privilege.command(release_binary("bench"), &env, "the benchmark")?;
    release_binaries(&[("relay-userspace", "postern"), ("postern-tests", "bench")])?;
    if let Some(parts) = &args.part {
        bench.args(["--part", parts]);
    }
    bench.args(&args.filter).args(args.json.then_some("--json"));
    bench.args(args.quick.then_some("--quick"));
    Err(bench.exec()).context("cannot start the benchmark")
}
