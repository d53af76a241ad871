//! `cargo xtask bench`: the measurements, made by the binary `bench` of tests/ on optimised builds.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::build::release_binaries;
use crate::privilege::Privilege;
use crate::setup::{self, Need};
use crate::workspace::release_binary;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only the measurements whose name contains this, such as `smtp`
    filter: Option<String>,
    /// Of `filter` only these parts, such as `lookup` or `flood,load`
    #[arg(long, value_name = "PARTS", requires = "filter")]
    part: Option<String>,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let privilege = Privilege::detect();
    let postern = release_binary("postern");
    let env = [("POSTERN_BIN", postern.as_path())];
    let mut bench = privilege.command(release_binary("bench"), &env, "the benchmark")?;
    setup::ensure(&[Need::Toolchain, Need::Account, Need::Peers])?;
    setup::offer_filters();
    release_binaries(&[("relay-userspace", "postern"), ("postern-tests", "bench")])?;
    if let Some(parts) = &args.part {
        bench.args(["--part", parts]);
    }
    bench.args(&args.filter).args(args.json.then_some("--json"));
    Err(bench.exec()).context("cannot start the benchmark")
}
