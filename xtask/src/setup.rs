//! `cargo xtask setup`: finds or installs what building and testing need, and says each thing it
//! does. A second run finds everything and changes nothing.
//!
//! Three things may be missing: a compiler for the kernel program ([`toolchain`]), the account
//! that the relay runs as ([`account`]), and the programs that the tests talk to ([`peers`]).

mod account;
mod apt;
mod linker;
mod mailers;
mod peers;
mod toolchain;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::privilege::Privilege;
use apt::Apt;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only report what is missing
    #[arg(long)]
    check: bool,
}

/// What a command cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A compiler and a linker for the kernel program.
    Toolchain,
    /// The system user and group `postern`.
    Account,
    /// The programs that the tests, the lab and the benchmarks use.
    Peers,
    /// A mail server that the tests send with and that cannot be installed beside those.
    Exim,
}

/// What setup may do, and what it could not: one sentence for each thing that is still missing,
/// which says what to install.
struct Setup {
    check: bool,
    privilege: Privilege,
    apt: Apt,
    changed: bool,
    missing: Vec<String>,
}

impl Setup {
    fn new(check: bool) -> Self {
        let privilege = Privilege::detect();
        let apt = Apt::new(privilege);
        Self { check, privilege, apt, changed: false, missing: Vec::new() }
    }

    fn say(&self, line: &str) {
        println!("setup: {line}");
    }

    /// Says what is about to change.
    fn act(&mut self, line: &str) {
        self.changed = true;
        self.say(line);
    }
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let all = [Need::Toolchain, Need::Account, Need::Peers, Need::Exim];
    let changed = provide(&all, args.check)?;
    println!("setup: {}", if changed { "done" } else { "nothing missing" });
    Ok(())
}

/// Makes sure of `needs`, saying only what is done or missing.
///
/// # Errors
/// Lists everything that is missing and cannot be installed from here.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    provide(needs, false).map(|_| ())
}

/// Installs, where that is possible, other filters of packets to measure ours beside. What cannot be
/// installed is said, and the benchmark goes without it.
pub(crate) fn offer_filters() {
    let mut setup = Setup::new(false);
    // On standard error: the benchmark's output may be read by a program.
    if let Err(error) = peers::provide_filters(&mut setup) {
        eprintln!("setup: {error:#}");
    }
    setup.missing.iter().for_each(|line| eprintln!("setup: {line}"));
}

/// Unpacks, where that is possible, other mail servers to measure ours beside; returns the folder that
/// they are in. What cannot be had is said, and the benchmark goes without it.
pub(crate) fn offer_mailers() -> PathBuf {
    let mut setup = Setup::new(false);
    mailers::provide(&mut setup, &mailers::ALL);
    setup.missing.iter().for_each(|line| eprintln!("setup: {line}"));
    mailers_folder()
}

/// Where mail servers are unpacked.
pub(crate) fn mailers_folder() -> PathBuf {
    mailers::folder()
}

/// Returns whether anything was changed.
fn provide(needs: &[Need], check: bool) -> Result<bool> {
    let mut setup = Setup::new(check);
    // Peers first: they are quick, and a package manager that refuses is known at once.
    if needs.contains(&Need::Peers) {
        peers::provide(&mut setup)?;
    }
    if needs.contains(&Need::Exim) {
        mailers::provide(&mut setup, &[mailers::EXIM]);
    }
    if needs.contains(&Need::Account) {
        account::provide(&mut setup)?;
    }
    if needs.contains(&Need::Toolchain) {
        toolchain::provide(&mut setup)?;
    }
    if setup.missing.is_empty() {
        return Ok(setup.changed);
    }
    bail!("something is missing\n  - {}", setup.missing.join("\n  - "))
}
