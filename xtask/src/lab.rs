//! `cargo xtask lab`: the whole story in network namespaces, played by the binary `lab` of tests/.

use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};

use crate::build::release_binaries;
use crate::privilege::Privilege;
use crate::setup::{self, Need};
use crate::workspace::release_binary;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave it running, with a shell command to look around
    #[arg(long)]
    keep: bool,
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let privilege = Privilege::detect();
    let postern = release_binary("postern");
    let env = [("POSTERN_BIN", postern.as_path())];
    let mut lab = privilege.command(release_binary("lab"), &env, "the lab")?;
    setup::ensure(&[Need::Toolchain, Need::Account, Need::Peers])?;
    release_binaries(&[("relay-userspace", "postern"), ("postern-tests", "lab")])?;
    if args.keep {
        lab.arg("--keep");
    }
    // Replaces this process, so that Ctrl-C and SIGTERM reach the lab, which cleans up.
    Err(lab.exec()).context("cannot start the lab")
}
