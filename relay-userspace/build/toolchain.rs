//! The descriptor in which `cargo xtask setup` wrote down the toolchain for the kernel program.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Names another descriptor than the workspace's.
const OVERRIDE: &str = "POSTERN_EBPF_TOOLCHAIN";
/// Where `cargo xtask setup` writes it, from the workspace's root.
const DESCRIPTOR: &str = "target/ebpf-toolchain.toml";

/// A cargo, a compiler with its sources, and a linker, all of which know BPF.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Toolchain {
    pub(crate) cargo: PathBuf,
    /// The compiler, where cargo would not find the right one by itself.
    pub(crate) rustc: Option<PathBuf>,
    /// A rustup toolchain, for `cargo +nightly`.
    pub(crate) toolchain: Option<String>,
    pub(crate) bpf_linker: PathBuf,
    /// The compiler is a stable one that must be told to allow unstable options.
    #[serde(default)]
    pub(crate) bootstrap: bool,
}

/// Reads the descriptor.
///
/// # Errors
/// One sentence: that it is missing and what makes it, or what is wrong with it.
pub(crate) fn find(workspace: &Path) -> Result<Toolchain, String> {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let path = std::env::var_os(OVERRIDE).map_or_else(|| workspace.join(DESCRIPTOR), PathBuf::from);
    println!("cargo::rerun-if-changed={}", path.display());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err("the kernel program needs a toolchain that builds for BPF: run \
                        `cargo xtask setup` once, which finds or makes one"
                .to_owned());
        }
        Err(error) => return Err(format!("reading {}: {error}", path.display())),
    };
    toml::from_str(&text).map_err(|error| {
        let what = error.message().to_owned();
        format!("{} is damaged ({what}): run `cargo xtask setup` again", path.display())
    })
}
