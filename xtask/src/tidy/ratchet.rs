//! Sizes of files and functions, with a ratchet: what is too big today is recorded in
//! `xtask/ratchet.toml` and may only shrink.
//!
//! A file's size is its lines outside test modules; a function's is its lines of code, comments and
//! blank lines not counted. Who explains or tests more is not punished for it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Finding;
use super::source::Source;
use crate::workspace;

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

const RECORD: &str = "xtask/ratchet.toml";
const RECORD_HEAD: &str = "\
# Files above 400 lines and functions above 70, and the size that each may not exceed. Entries shrink
# and vanish, by `cargo xtask tidy --bless`; they are never added or raised.
";

/// Lines of each file (by path) and function (by `path::name`) above the limits.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sizes {
    #[serde(default)]
    files: BTreeMap<String, usize>,
    #[serde(default)]
    functions: BTreeMap<String, usize>,
}

/// Compares the tree with the record. With `bless`, lowers the record first; where there is none,
/// makes it.
///
/// # Errors
/// When the record cannot be read or written.
pub(super) fn check(sources: &BTreeMap<String, Source>, bless: bool) -> Result<Vec<Finding>> {
    let (actual, places) = measure(sources);
    let file = record_file();
    let recorded = match std::fs::read_to_string(&file) {
        Ok(text) => Some(toml::from_str(&text).with_context(|| format!("cannot read {RECORD}"))?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {RECORD}")),
    };
    if !bless {
        return Ok(compare(&recorded.unwrap_or_default(), &actual, &places));
    }
    let blessed = recorded.map_or_else(|| actual.clone(), |recorded| lowered(&recorded, &actual));
    std::fs::write(&file, format!("{RECORD_HEAD}{}", toml::to_string(&blessed)?))
        .with_context(|| format!("cannot write {RECORD}"))?;
    Ok(compare(&blessed, &actual, &places))
}

fn record_file() -> PathBuf {
    workspace::root().join(RECORD)
}

/// What is above the limits, and where it stands (file, line from 1).
fn measure(sources: &BTreeMap<String, Source>) -> (Sizes, BTreeMap<String, (String, usize)>) {
    let mut sizes = Sizes::default();
    let mut places = BTreeMap::new();
    for (path, source) in sources {
        let lines = file_lines(source);
        if lines > FILE_LINES_MAX {
            sizes.files.insert(path.clone(), lines);
            places.insert(path.clone(), (path.clone(), 1));
        }
        for function in source.functions() {
            let lines =
                source.lines().skip(function.first).take(function.last + 1 - function.first);
            let lines = lines.filter(|(_, line)| !line.trim().is_empty()).count();
            let name = format!("{path}::{}", function.name);
            // Of several with one name, the longest counts.
            if lines > FUNCTION_LINES_MAX && sizes.functions.get(&name).is_none_or(|&n| n < lines) {
                sizes.functions.insert(name.clone(), lines);
                places.insert(name, (path.clone(), function.first + 1));
            }
        }
    }
    (sizes, places)
}

fn file_lines(source: &Source) -> usize {
    // The text after the last newline is no line of its own.
    let lines = source.lines().filter(|&(line, _)| source.is_test || !source.line_is_test(line));
    lines.count() - usize::from(source.code.ends_with('\n'))
}

/// The record with each entry lowered to what is there, and without those that went.
fn lowered(recorded: &Sizes, actual: &Sizes) -> Sizes {
    let lower = |recorded: &BTreeMap<String, usize>, actual: &BTreeMap<String, usize>| {
        recorded
            .iter()
            .filter_map(|(name, &old)| Some((name.clone(), old.min(*actual.get(name)?))))
            .collect()
    };
    Sizes {
        files: lower(&recorded.files, &actual.files),
        functions: lower(&recorded.functions, &actual.functions),
    }
}

fn compare(
    recorded: &Sizes,
    actual: &Sizes,
    places: &BTreeMap<String, (String, usize)>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let kinds = [
        (
            &recorded.files,
            &actual.files,
            "file",
            FILE_LINES_MAX,
            "move a part into a file that says what it is",
        ),
        (&recorded.functions, &actual.functions, "function", FUNCTION_LINES_MAX, "name its steps"),
    ];
    for (recorded, actual, kind, limit, remedy) in kinds {
        for (name, &lines) in actual {
            let allowed = recorded.get(name).copied().unwrap_or(limit);
            if lines > allowed {
                let (file, line) = places.get(name).cloned().unwrap_or((name.clone(), 1));
                let name = name.rsplit("::").next().unwrap_or(name);
                let text =
                    format!("{kind} {name} has {lines} lines, {allowed} are allowed: {remedy}");
                findings.push(Finding { file, line, text });
            }
        }
        for (name, &lines) in recorded {
            let now = actual.get(name).copied().unwrap_or(0);
            if now < lines {
                findings.push(Finding {
                    file: RECORD.to_owned(),
                    line: 1,
                    text: format!(
                        "{kind} {name} shrank below {lines} lines: run `cargo xtask tidy --bless`"
                    ),
                });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::fixture;

    const PATH: &str = "relay-core/src/x.rs";

    fn sizes(text: &str) -> (Sizes, BTreeMap<String, (String, usize)>) {
        measure(&fixture(&[(PATH, text)]).sources)
    }

    fn function(lines: usize) -> String {
        format!("\nfn long() {{\n{}}}\n", "    step();\n".repeat(lines - 2))
    }

    fn record(files: &[(&str, usize)], functions: &[(&str, usize)]) -> Sizes {
        let owned = |pairs: &[(&str, usize)]| {
            pairs.iter().map(|&(name, size)| (name.to_owned(), size)).collect()
        };
        Sizes { files: owned(files), functions: owned(functions) }
    }

    #[test]
    fn the_limits_are_inclusive() {
        assert_eq!(sizes(&function(70)).0, Sizes::default());
        let (over, places) = sizes(&function(71));
        assert_eq!(over, record(&[], &[("relay-core/src/x.rs::long", 71)]));
        let said = compare(&Sizes::default(), &over, &places);
        assert_eq!(said.len(), 1);
        let text = said[0].to_string();
        assert!(
            text.starts_with("relay-core/src/x.rs:2: function long has 71 lines, 70 are"),
            "{text}"
        );

        assert_eq!(sizes(&"use a;\n".repeat(400)).0, Sizes::default());
        assert_eq!(sizes(&"use a;\n".repeat(401)).0, record(&[(PATH, 401)], &[]));
    }

    #[test]
    fn comments_and_tests_are_free() {
        let body = format!("{}{}", "    step();\n".repeat(60), "    // why\n\n".repeat(60));
        assert_eq!(sizes(&format!("fn f() {{\n{body}}}\n")).0, Sizes::default());
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "use a;\n".repeat(500));
        assert_eq!(sizes(&tests).0, Sizes::default());
    }

    #[test]
    fn the_record_may_only_shrink() {
        let name = "relay-core/src/x.rs::long";
        let recorded = record(&[], &[(name, 80)]);
        let said = |lines| {
            let (actual, places) = sizes(&function(lines));
            compare(&recorded, &actual, &places).len()
        };
        assert_eq!(said(80), 0, "as recorded");
        assert_eq!(said(81), 1, "grown");
        assert_eq!(said(79), 1, "shrunk, and not yet blessed");
        assert_eq!(said(60), 1, "no exception any more");

        let bless = |lines| lowered(&recorded, &sizes(&function(lines)).0);
        assert_eq!(bless(75), record(&[], &[(name, 75)]));
        assert_eq!(bless(90), recorded, "never raised");
        assert_eq!(bless(60), Sizes::default());
        assert_eq!(lowered(&Sizes::default(), &bless(75)), Sizes::default(), "never added");
    }
}
