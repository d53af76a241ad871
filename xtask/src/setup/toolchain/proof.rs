//! Proof that a toolchain builds kernel programs: it builds one.

use std::path::Path;
use std::process::Command;

use super::Toolchain;
use crate::workspace;

const MANIFEST: &str = r#"[package]
name = "ebpf-proof"
edition = "2024"

[lib]
path = "lib.rs"
crate-type = ["cdylib"]

[workspace]
"#;

/// Returns XDP_PASS. The slice makes it need `core`, and a panic handler.
const SOURCE: &str = r#"#![no_std]
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
pub extern "C" fn pass(_: *mut u8) -> u32 {
    [1u32, 2].iter().copied().max().unwrap_or(2)
}
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
"#;

/// Builds a small kernel program.
///
/// # Errors
/// The last lines that cargo printed.
pub(super) fn build(toolchain: &Toolchain) -> Result<(), String> {
    let dir = workspace::root().join("target/ebpf-proof");
    prepare(&dir).map_err(|error| format!("cannot write {}: {error}", dir.display()))?;
    let output =
        command(toolchain).current_dir(&dir).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    Err(lines[lines.len().saturating_sub(5)..].join("\n    "))
}

fn prepare(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("Cargo.toml"), MANIFEST)?;
    // Written again each time, so that cargo links again with a linker it does not know about.
    std::fs::write(dir.join("lib.rs"), SOURCE)
}

fn command(toolchain: &Toolchain) -> Command {
    let linker = toolchain.bpf_linker.display();
    let flags = [
        format!("-Clinker={linker}"),
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Cpanic=abort".to_owned(),
    ];
    let mut cargo = Command::new(&toolchain.cargo);
    // What the cargo that started us set for itself would choose its compiler.
    for name in ["RUSTUP_TOOLCHAIN", "RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(name);
    }
    cargo.env_remove("CARGO_BUILD_TARGET").env_remove("RUSTFLAGS");
    cargo.env("CARGO_TARGET_DIR", "target");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    if let Some(rustc) = &toolchain.rustc {
        cargo.env("RUSTC", rustc);
    }
    if let Some(name) = &toolchain.toolchain {
        cargo.env("RUSTUP_TOOLCHAIN", name);
    }
    if toolchain.bootstrap {
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    cargo.args(["build", "--release", "--target", "bpfel-unknown-none", "-Zbuild-std=core"]);
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_cargo_is_said() {
        let toolchain = Toolchain {
            cargo: "/no/such/cargo".into(),
            rustc: None,
            toolchain: None,
            bpf_linker: "/no/such/linker".into(),
            bootstrap: false,
        };
        let reason = build(&toolchain).unwrap_err();
        assert!(reason.contains("No such file"), "{reason}");
    }
}
