//! Runs the second cargo that builds relay-ebpf for the BPF target.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::toolchain::Toolchain;

/// What a user's environment says about cargo's home and network is as true for the inner cargo.
/// All else that begins like this was set by or for the outer build, and would mislead it.
const KEPT: [&str; 6] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_NET_",
    "CARGO_REGISTRIES_",
    "CARGO_REGISTRY_",
    "RUSTUP_HOME",
];
const SCRUBBED: [&str; 3] = ["CARGO", "RUSTC", "RUSTDOC"];
const SCRUBBED_NAMES: [&str; 4] = ["RUSTFLAGS", "RUSTUP_TOOLCHAIN", "TARGET", "MAKEFLAGS"];

/// Builds the program, always optimised: the verifier accepts no debug build.
///
/// # Errors
/// One sentence; the compiler's own words are on standard error.
pub(crate) fn build(
    toolchain: &Toolchain,
    workspace: &Path,
    out_dir: &Path,
) -> Result<PathBuf, String> {
    let target = match crate::variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let target_dir = out_dir.join("ebpf");
    let output = command(toolchain)?
        .current_dir(workspace)
        .args(["build", "--locked", "--release", "--package", "relay-ebpf"])
        .args(["--target", target, "-Z", "build-std=core", "--target-dir"])
        .arg(&target_dir)
        .output()
        .map_err(|error| {
            let cargo = toolchain.cargo.display();
            format!("starting {cargo}: {error}; run `cargo xtask setup` again")
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "{said}\nbuilding the kernel program failed, for the reason above; if its toolchain has \
             changed, run `cargo xtask setup` again"
        ));
    }
    Ok(target_dir.join(target).join("release").join("postern-xdp"))
}

fn command(toolchain: &Toolchain) -> Result<Command, String> {
    let mut command = Command::new(&toolchain.cargo);
    if let Some(name) = &toolchain.toolchain {
        command.arg(format!("+{name}"));
    }
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(leaks) {
            command.env_remove(name);
        }
    }
    if let Some(rustc) = &toolchain.rustc {
        command.env("RUSTC", rustc);
    }
    if toolchain.bootstrap {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    let flags = [
        // aya-ebpf's bindings differ with the architecture the program will run on.
        format!("--cfg=bpf_target_arch=\"{}\"", crate::variable("CARGO_CFG_TARGET_ARCH")?),
        // The maps' and the program's types, for bpftool and for the verifier's messages.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // A packet's addresses stand where they stand: without this, the compiler reads them byte by
        // byte. An LLVM that does not know it (before 22) goes on without. Kernels that refuse it are
        // those of processors that would trap (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS unset).
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
        format!("-Clinker={}", toolchain.bpf_linker.display()),
    ];
    // The encoded form, because a path may hold spaces.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    Ok(command)
}

fn leaks(name: &str) -> bool {
    let kept = KEPT.iter().any(|prefix| name.starts_with(prefix));
    let scrubbed = SCRUBBED.iter().any(|prefix| name.starts_with(prefix));
    !kept && (scrubbed || SCRUBBED_NAMES.contains(&name))
}
