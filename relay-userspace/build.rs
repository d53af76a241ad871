//! Builds the kernel program and puts its object where edge/kernel includes it from.
//!
//! The toolchain that can build for BPF is not the one that builds this crate: it needs the
//! standard library's sources and bpf-linker. `cargo xtask setup` finds or makes it, and writes
//! down what it found; see `build/toolchain.rs`.

#[path = "build/program.rs"]
mod program;
#[path = "build/toolchain.rs"]
mod toolchain;

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    // Not `panic!`: this prints the sentence alone, without a backtrace's frame around it.
    if let Err(sentence) = build() {
        // Each line by itself: cargo shows nothing else of a build script that failed so.
        sentence.lines().for_each(|line| println!("cargo::error={line}"));
    }
}

fn build() -> Result<(), String> {
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest_dir.parent().ok_or("relay-userspace stands outside its workspace")?;
    for source in ["relay-ebpf", "relay-common/src", "relay-common/Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    let toolchain = toolchain::find(workspace)?;
    let object = program::build(&toolchain, workspace, &out_dir)?;
    copy(&object, &out_dir.join("postern-xdp"))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    std::fs::copy(from, to)
        .map(drop)
        .map_err(|error| format!("copying {} to {}: {error}", from.display(), to.display()))
}

fn variable(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|error| format!("{name}: {error}"))
}
