//! `cargo xtask build`: what the build needs, then the build.

use anyhow::Result;

use crate::setup::{self, Need};
use crate::workspace;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build optimised
    #[arg(long)]
    release: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    setup::ensure(&[Need::Toolchain])?;
    let mut cargo = workspace::cargo();
    cargo.arg("build");
    if args.release {
        cargo.arg("--release");
    }
    workspace::run(&mut cargo)
}

/// Builds binaries optimised, as the calling user: pairs of package and binary.
///
/// # Errors
/// When cargo fails; it has printed why.
pub(crate) fn release_binaries(binaries: &[(&str, &str)]) -> Result<()> {
    for (package, binary) in binaries {
        let mut cargo = workspace::cargo();
        cargo.args(["build", "--release", "--package", package, "--bin", binary]);
        workspace::run(&mut cargo)?;
    }
    Ok(())
}
