//! The corpora of `fuzz/`, and every dialogue, through what the fuzz targets try.

#[path = "../../fuzz/bodies.rs"]
mod bodies;
#[path = "../../tests/dialogues/script.rs"]
#[allow(dead_code)]
mod script;

use std::path::{Path, PathBuf};

use script::{Script, Step};

fn files(folder: &str, extension: Option<&str>) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder);
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        extension.is_none_or(|wanted| path.extension().is_some_and(|have| have == wanted))
    });
    paths.sort();
    paths
}

type Body = fn(&[u8]);

#[test]
fn every_corpus_is_replayed() {
    let targets: [(&str, Body); 5] = [
        ("framing", bodies::framing),
        ("command", bodies::command),
        ("address", bodies::address),
        ("session", bodies::session),
        ("reply", bodies::reply),
    ];
    for (name, body) in targets {
        let corpus = files(&format!("fuzz/corpus/{name}"), None);
        assert!(corpus.len() >= 10, "only {} files for {name}", corpus.len());
        for path in corpus {
            let data = std::fs::read(&path).unwrap();
            let tried = std::panic::catch_unwind(|| body(&data));
            assert!(tried.is_ok(), "{name} fails on {}", path.display());
        }
    }
}

/// All that the clients of a dialogue say, in one stream, under all modes and some answers.
#[test]
fn every_dialogue_is_a_seed() {
    for path in files("tests/dialogues", Some("smtp")) {
        let mut said = Vec::new();
        for (_, step) in Script::read(&path).steps {
            if let Step::Send(bytes) = step {
                said.extend(bytes);
            }
        }
        // Some send megabytes to reach a limit, which is another test's.
        said.truncate(4096);
        for modes in 0..=u8::MAX {
            let answers = modes.rotate_left(3);
            let data = [[modes, answers, 4].as_slice(), &said].concat();
            bodies::session(&data);
        }
        bodies::framing(&[[1, 4].as_slice(), &said].concat());
    }
}
