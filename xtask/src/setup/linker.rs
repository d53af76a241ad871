//! bpf-linker: found on the machine, or built against the LLVM that Debian packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Setup, apt};
use crate::workspace::{self, display, find_program, output_of};

pub(super) const VERSION: &str = "0.13.0";

/// The LLVM that ours is built against; it reads what compilers with this LLVM or an older one wrote.
const LLVM: u32 = 22;
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
pub(super) const LLVM_PACKAGES: [&str; 2] = ["llvm-22-dev", "libpolly-22-dev"];

/// Linkers on this machine that run, ours first.
pub(super) fn found() -> Vec<PathBuf> {
    let others = [find_program("bpf-linker"), home().map(|dir| dir.join(".cargo/bin/bpf-linker"))];
    let mut linkers = Vec::new();
    for linker in ours().into_iter().chain(others.into_iter().flatten()) {
        if !linkers.contains(&linker) && runs(&linker) {
            linkers.push(linker);
        }
    }
    linkers
}

/// Whether [`make`] could serve a compiler whose LLVM is `llvm`.
pub(super) fn can_make(setup: &Setup, llvm: u32) -> bool {
    llvm <= LLVM && (has_llvm() || (setup.apt.is_usable() && packaged()))
}

/// Builds ours for a compiler whose LLVM is `llvm`, with LLVM from apt where it is missing.
/// Returns nothing where it cannot be, or where ours was there before.
pub(super) fn make(setup: &mut Setup, llvm: u32) -> Result<Option<PathBuf>> {
    let Some(root) = root() else { return Ok(None) };
    let linker = root.join("bin/bpf-linker");
    if runs(&linker) || !can_make(setup, llvm) {
        return Ok(None);
    }
    if !has_llvm() && !setup.install(&LLVM_PACKAGES, "LLVM, for bpf-linker")? {
        return Ok(None);
    }
    let mut cargo = workspace::cargo();
    cargo.args([
        "install",
        "bpf-linker",
        "--version",
        VERSION,
        "--locked",
        "--no-default-features",
    ]);
    cargo.args(["--features", &format!("llvm-{LLVM}"), "--root"]).arg(&root);
    cargo.env("LLVM_PREFIX", LLVM_PREFIX);
    // It is no part of this workspace: its target directory is cargo's temporary one.
    cargo.env_remove("CARGO_TARGET_DIR");
    setup.act(&format!("LLVM_PREFIX={LLVM_PREFIX} {}   # a minute or two", display(&cargo)));
    if let Err(error) = workspace::run(&mut cargo) {
        setup.say(&error.to_string());
        return Ok(None);
    }
    Ok(runs(&linker).then_some(linker))
}

fn packaged() -> bool {
    LLVM_PACKAGES.iter().all(|package| apt::is_available(package))
}

fn has_llvm() -> bool {
    let prefix = Path::new(LLVM_PREFIX);
    prefix.join("bin/llvm-config").exists() && prefix.join("lib/libPolly.a").exists()
}

fn ours() -> Option<PathBuf> {
    root().map(|root| root.join("bin/bpf-linker"))
}

/// The version of the linker and of LLVM is in the name, so a new pair never meets an old build.
fn root() -> Option<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if Path::new(&dir).is_absolute() => PathBuf::from(dir),
        _ => home()?.join(".cache"),
    };
    Some(cache.join(format!("postern/bpf-linker-{VERSION}-llvm-{LLVM}")))
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).filter(|dir| dir.is_absolute())
}

fn runs(linker: &Path) -> bool {
    output_of(Command::new(linker).arg("--version")).is_some_and(|text| is_linker(&text))
}

fn is_linker(version: &str) -> bool {
    version.starts_with("bpf-linker ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_names_both_versions() {
        let root = root().unwrap();
        assert!(root.ends_with("postern/bpf-linker-0.13.0-llvm-22"), "{}", root.display());
    }

    #[test]
    fn only_bpf_linker_will_do() {
        assert!(is_linker("bpf-linker 0.13.0\n"));
        assert!(!is_linker("LLD 22.1.8 (compatible with GNU linkers)\n"));
        assert!(!runs(Path::new("/no/such/bpf-linker")));
    }
}
