//! A toolchain for the kernel program, found or made, proved by building with it, and written down
//! in `target/ebpf-toolchain.toml` for the build script of relay-userspace.
//!
//! Stable Rust cannot build `core` for bpfel-unknown-none. Two compilers can: a rustup nightly with
//! the component rust-src, and Debian's own rustc with its sources. Each is paired with a bpf-linker
//! whose LLVM is at least as new as the compiler's.

mod proof;
mod rustup;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Setup, apt, linker};
use crate::workspace::{self, output_of};

/// Debian's second toolchain, and LLVM for its linker.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Where Debian's rustc keeps its sources.
const DEBIAN_SOURCES: &str = "/usr/lib/rustlib/src/rust";

/// aya-ebpf 0.2.1 and the 2024 edition of this workspace.
const MINOR_MIN: u32 = 95;

/// How to build the kernel program; the file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Toolchain {
    /// Cargo: Debian's, or rustup's proxy, which obeys RUSTUP_TOOLCHAIN and `+toolchain`.
    pub(super) cargo: PathBuf,
    /// The value for RUSTC, where the proxy does not choose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rustc: Option<PathBuf>,
    /// The rustup toolchain to name, where `cargo` is rustup's proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) toolchain: Option<String>,
    pub(super) bpf_linker: PathBuf,
    /// Whether RUSTC_BOOTSTRAP=1 is needed for `-Z build-std`.
    pub(super) bootstrap: bool,
}

/// A compiler that could do, without a linker yet.
#[derive(Debug, Clone)]
pub(super) struct Compiler {
    pub(super) what: String,
    pub(super) cargo: PathBuf,
    pub(super) rustc: Option<PathBuf>,
    pub(super) toolchain: Option<String>,
    pub(super) bootstrap: bool,
    pub(super) llvm: u32,
}

impl Compiler {
    fn with(&self, bpf_linker: PathBuf) -> Toolchain {
        Toolchain {
            cargo: self.cargo.clone(),
            rustc: self.rustc.clone(),
            toolchain: self.toolchain.clone(),
            bpf_linker,
            bootstrap: self.bootstrap,
        }
    }
}

pub(super) fn provide(setup: &mut Setup) -> Result<()> {
    if written_down().is_some_and(|toolchain| still_there(&toolchain)) {
        return Ok(());
    }
    if try_compilers(setup)? || setup.check {
        if setup.check {
            setup.missing.push("target/ebpf-toolchain.toml: run `cargo xtask setup`".to_owned());
        }
        return Ok(());
    }
    // Nothing on the machine will do as it is: the system's own packages first, or else rustup.
    if debian().is_none() && available(&DEBIAN_COMPILER) && setup.apt.is_usable() {
        let mut packages = DEBIAN_COMPILER.to_vec();
        packages.extend(linker::LLVM_PACKAGES);
        let purpose = "a Rust compiler with its sources, and LLVM, for the kernel program";
        if !setup.install(&packages, purpose)? {
            return Ok(());
        }
        if try_compilers(setup)? {
            return Ok(());
        }
    }
    if rustup::complete_nightly(setup)? && try_compilers(setup)? {
        return Ok(());
    }
    setup.missing.push(by_hand());
    Ok(())
}

fn available(packages: &[&str]) -> bool {
    packages.iter().all(|package| apt::is_available(package))
}

/// What to type where setup cannot help itself.
fn by_hand() -> String {
    format!(
        "a toolchain for the kernel program; either of:\n      \
         rustup toolchain install nightly --component rust-src && cargo binstall bpf-linker@{}\n      \
         apt-get install --no-install-recommends {} {}   (Debian 12, as root)\n    \
         and then `cargo xtask setup` again",
        linker::VERSION,
        DEBIAN_COMPILER.join(" "),
        linker::LLVM_PACKAGES.join(" "),
    )
}

/// Pairs each compiler on the machine with each linker until a pair builds. With a compiler and no
/// linker for it, makes the linker. Returns whether a toolchain was written down.
fn try_compilers(setup: &mut Setup) -> Result<bool> {
    let compilers: Vec<Compiler> = rustup::nightly().into_iter().chain(debian()).collect();
    if setup.check {
        return Ok(false);
    }
    for compiler in &compilers {
        for linker in linker::found() {
            if settle(setup, compiler, &linker)? {
                return Ok(true);
            }
        }
    }
    for compiler in &compilers {
        if let Some(linker) = linker::make(setup, compiler.llvm)?
            && settle(setup, compiler, &linker)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Proves a pair by building with it, and writes it down.
fn settle(setup: &mut Setup, compiler: &Compiler, linker: &Path) -> Result<bool> {
    let toolchain = compiler.with(linker.to_path_buf());
    let pair = format!("{} with {}", compiler.what, linker.display());
    setup.act(&format!("building a small kernel program by {pair}"));
    if let Err(reason) = proof::build(&toolchain) {
        setup.say(&format!("{pair} does not do: {reason}"));
        return Ok(false);
    }
    let file = descriptor();
    let text = format!(
        "# How the kernel program is built. Made by `cargo xtask setup`; remove it to choose anew.\n{}",
        toml::to_string(&toolchain)?
    );
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    // In one step: a build that runs meanwhile sees the old file or the new one.
    let draft = file.with_extension("toml.new");
    std::fs::write(&draft, text)
        .and_then(|()| std::fs::rename(&draft, &file))
        .with_context(|| format!("cannot write {}", file.display()))?;
    setup.say(&format!("it works; wrote {}", file.display()));
    Ok(true)
}

/// The build script looks there, whatever CARGO_TARGET_DIR says.
fn descriptor() -> PathBuf {
    workspace::root().join("target/ebpf-toolchain.toml")
}

fn written_down() -> Option<Toolchain> {
    toml::from_str(&std::fs::read_to_string(descriptor()).ok()?).ok()
}

/// Whether what was written down still runs. That it builds was proved when it was written.
fn still_there(toolchain: &Toolchain) -> bool {
    let sources = match &toolchain.toolchain {
        Some(name) => rustup::has_sources(name),
        None => has_sources(Path::new(DEBIAN_SOURCES)),
    };
    let runs = |program: &Path| output_of(Command::new(program).arg("--version")).is_some();
    sources && runs(&toolchain.cargo) && runs(&toolchain.bpf_linker)
}

fn has_sources(root: &Path) -> bool {
    root.join("library/core/src/lib.rs").is_file()
}

/// Debian's compiler, if it is there with its sources and new enough.
fn debian() -> Option<Compiler> {
    let (cargo, rustc) = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
    if !cargo.is_file() || !has_sources(Path::new(DEBIAN_SOURCES)) {
        return None;
    }
    let version = version_of(Command::new(&rustc))?;
    if version.minor < MINOR_MIN {
        return None;
    }
    Some(Compiler {
        what: format!("Debian's rustc 1.{}", version.minor),
        cargo,
        rustc: Some(rustc),
        toolchain: None,
        bootstrap: true,
        llvm: version.llvm,
    })
}

/// What matters of `rustc --version --verbose`.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    /// The x of 1.x.
    minor: u32,
    /// The major version of its LLVM.
    llvm: u32,
}

fn version_of(mut rustc: Command) -> Option<Version> {
    parse_version(&output_of(rustc.args(["--version", "--verbose"]))?)
}

fn parse_version(text: &str) -> Option<Version> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let minor = value("release: 1.")?.split('.').next()?.parse().ok()?;
    let llvm = value("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some(Version { minor, llvm })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rustcs_version() {
        let text = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\n\
                    release: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(parse_version(text), Some(Version { minor: 97, llvm: 22 }));
        assert_eq!(parse_version("error: toolchain is not installed"), None);
    }

    #[test]
    fn the_file_says_what_the_build_script_expects() {
        let debian = Toolchain {
            cargo: "/usr/bin/cargo".into(),
            rustc: Some("/usr/bin/rustc".into()),
            toolchain: None,
            bpf_linker: "/c/bpf-linker".into(),
            bootstrap: true,
        };
        let text = toml::to_string(&debian).unwrap();
        assert_eq!(
            text,
            "cargo = \"/usr/bin/cargo\"\nrustc = \"/usr/bin/rustc\"\n\
             bpf_linker = \"/c/bpf-linker\"\nbootstrap = true\n"
        );
        assert_eq!(toml::from_str::<Toolchain>(&text).unwrap(), debian);
    }

    #[test]
    fn what_was_written_down_must_still_be_there() {
        let gone = Toolchain {
            cargo: "/usr/bin/cargo".into(),
            rustc: None,
            toolchain: Some("no-such-toolchain".to_owned()),
            bpf_linker: "/no/such/bpf-linker".into(),
            bootstrap: false,
        };
        assert!(!still_there(&gone));
    }
}
