//! A rustup nightly with the component rust-src: finding it, and asking rustup to complete it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::{Setup, linker};
use super::{Compiler, MINOR_MIN, Version, version_of};
use crate::workspace::{display, find_program, output_of};

const NIGHTLY: &str = "nightly";

/// A download that takes longer than this is given up.
const FETCH_TIME_MAX: Duration = Duration::from_secs(300);

/// The nightly, if it is there with its sources.
pub(super) fn nightly() -> Option<Compiler> {
    let proxy = find_program("rustup")?.with_file_name("cargo");
    let version = version(NIGHTLY)?;
    if version.minor < MINOR_MIN || !has_sources(NIGHTLY) {
        return None;
    }
    Some(Compiler {
        what: format!("rustup's nightly 1.{}", version.minor),
        cargo: proxy,
        rustc: None,
        toolchain: Some(NIGHTLY.to_owned()),
        bootstrap: false,
        llvm: version.llvm,
    })
}

/// Whether a toolchain is there and has the component rust-src.
pub(super) fn has_sources(toolchain: &str) -> bool {
    let sysroot = rustc(toolchain).and_then(|bin| Some(bin.parent()?.parent()?.to_path_buf()));
    sysroot.is_some_and(|dir| super::has_sources(&dir.join("lib/rustlib/src/rust")))
}

fn version(toolchain: &str) -> Option<Version> {
    version_of(Command::new(rustc(toolchain)?))
}

/// The compiler itself, not the proxy, if the toolchain is there.
fn rustc(toolchain: &str) -> Option<PathBuf> {
    let mut which = Command::new("rustup");
    // To look must not install.
    which.env("RUSTUP_AUTO_INSTALL", "0").args(["which", "--toolchain", toolchain, "rustc"]);
    Some(PathBuf::from(output_of(which.stderr(Stdio::null()))?.trim()))
}

/// Has rustup fetch what the nightly lacks, where a linker for it is there or can be made.
/// Returns whether it is complete now.
pub(super) fn complete_nightly(setup: &mut Setup) -> Result<bool> {
    if find_program("rustup").is_none() {
        return Ok(false);
    }
    let has_linker = !linker::found().is_empty();
    let mut fetch = Command::new("rustup");
    match version(NIGHTLY) {
        Some(_) if has_sources(NIGHTLY) => return Ok(false),
        Some(version) if has_linker || linker::can_make(setup, version.llvm) => {
            fetch.args(["component", "add", "rust-src", "--toolchain", NIGHTLY]);
        }
        None if has_linker => {
            fetch.args(["toolchain", "install", NIGHTLY, "--profile", "minimal"]);
            fetch.args(["--component", "rust-src", "--no-self-update"]);
        }
        _ => return Ok(false),
    }
    setup.act(&display(&fetch));
    // Its errors are sentences; a trace of rustup's own code helps nobody here.
    let child = fetch.env("RUST_BACKTRACE", "0").spawn().context("cannot start rustup")?;
    if !ends_well(child, FETCH_TIME_MAX)? {
        setup.say("rustup could not fetch it; looking for another way");
        return Ok(false);
    }
    Ok(has_sources(NIGHTLY))
}

/// Waits for a child, and ends it when the time is up. Returns whether it succeeded.
fn ends_well(mut child: Child, time_max: Duration) -> Result<bool> {
    let deadline = Instant::now() + time_max;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).spawn().unwrap()
    }

    #[test]
    fn a_child_is_waited_for_but_not_for_ever() {
        let long = Duration::from_secs(60);
        assert!(ends_well(child("exit 0"), long).unwrap());
        assert!(!ends_well(child("exit 1"), long).unwrap());
        assert!(!ends_well(child("exec sleep 60"), Duration::ZERO).unwrap());
    }

    #[test]
    fn an_unknown_toolchain_has_no_sources() {
        assert!(!has_sources("no-such-toolchain"));
    }
}
