//! The committed corpora of `fuzz/`, and every dialogue, through the code that is fuzzed.
//!
//! `cargo xtask fuzz` finds new ones; what it found once stays found here, on stable Rust.

#[path = "../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "a library there, a module here")]
mod fuzz;
#[path = "../../tests/dialogues/script.rs"]
mod script;
#[path = "../../fuzz/seeds.rs"]
mod seeds;

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use script::Script;

/// Panics where a property does not hold.
type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 5] = [
    ("framing", fuzz::framing::check),
    ("command", fuzz::command::check),
    ("address", fuzz::address::check),
    ("session", fuzz::session::check),
    ("reply", fuzz::reply::check),
];

/// What is in a folder of the workspace.
fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_corpus_is_replayed() {
    let mut failed = Vec::new();
    for (target, check) in TARGETS {
        let paths = files(&format!("fuzz/corpus/{target}"));
        assert!(paths.len() >= 20, "only {} files for {target}", paths.len());
        for path in paths {
            let bytes = std::fs::read(&path).expect("a readable file");
            if catch_unwind(|| check(&bytes)).is_err() {
                failed.push(format!("{}: {}", path.display(), bytes.escape_ascii()));
            }
        }
    }
    assert!(failed.is_empty(), "failed:\n{}", failed.join("\n"));
}

/// The dialogues under their own settings, and sessions with each bit of those turned.
#[test]
fn every_dialogue_is_a_seed() {
    for path in files("tests/dialogues") {
        if path.extension().is_none_or(|extension| extension != "smtp") {
            continue;
        }
        for (target, mut bytes) in seeds::of(&Script::read(&path)) {
            let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
            check(&bytes);
            for bit in 0..if target == "session" { 16 } else { 0 } {
                bytes[bit / 8] ^= 1 << (bit % 8);
                check(&bytes);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
