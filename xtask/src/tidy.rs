//! `cargo xtask tidy`: the rules of the source tree, as tests of the tree. One file a rule.
//!
//! It reads text, not types: enough for rules about layout, and it compiles in seconds. Each
//! finding names file and line, and what to do.

mod imports;
mod marks;
mod ratchet;
mod safety;
mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace;
use source::Source;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Lower the recorded sizes in xtask/ratchet.toml to what the tree has now
    #[arg(long)]
    bless: bool,
}

/// A breach of a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    /// From 1.
    line: usize,
    /// What is wrong, and the remedy.
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.file, self.line, self.text)
    }
}

/// The files that the rules look at, by path from the root with `/`.
#[derive(Debug, Default)]
struct Tree {
    sources: BTreeMap<String, Source>,
    manifests: BTreeMap<String, String>,
}

impl Tree {
    fn add(&mut self, path: &str, text: String) {
        if path.ends_with("Cargo.toml") {
            self.manifests.insert(path.to_owned(), text);
        } else if path.ends_with(".rs") {
            self.sources.insert(path.to_owned(), Source::new(path, &text));
        }
    }

    /// Reads what is under `root`, but for build products and hidden directories.
    fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        let mut directories = vec![root.to_path_buf()];
        while let Some(directory) = directories.pop() {
            let entries = std::fs::read_dir(&directory)
                .with_context(|| format!("cannot list {}", directory.display()))?;
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    if name != "target" && !name.starts_with('.') {
                        directories.push(path);
                    }
                } else if name.ends_with(".rs") || name == "Cargo.toml" {
                    let text = std::fs::read_to_string(&path)
                        .with_context(|| format!("cannot read {}", path.display()))?;
                    tree.add(&path.strip_prefix(root)?.to_string_lossy(), text);
                }
            }
        }
        tree.mark_test_files();
        Ok(tree)
    }

    /// A file that another declares as `#[cfg(test)] mod name;` is test code as a whole.
    fn mark_test_files(&mut self) {
        let named: Vec<String> =
            self.sources.iter().flat_map(|(path, source)| source.test_files(path)).collect();
        for path in named {
            if let Some(source) = self.sources.get_mut(&path) {
                source.is_test = true;
            }
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let mut findings = imports::check_manifests(&self.manifests);
        for (path, source) in &self.sources {
            findings.extend(imports::check(path, source));
            findings.extend(marks::check(path, source));
            findings.extend(safety::check(path, source));
        }
        findings
    }
}

pub(crate) fn main(args: &Args) -> Result<()> {
    let tree = Tree::read(&workspace::root())?;
    let mut findings = tree.findings();
    findings.extend(ratchet::check(&tree.sources, args.bless)?);
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings", findings.len());
    }
    println!("tidy: {} files, nothing to say", tree.sources.len() + tree.manifests.len());
    Ok(())
}

/// A tree made of paths and texts, for the rules' own tests.
#[cfg(test)]
fn fixture(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    for (path, text) in files {
        tree.add(path, (*text).to_owned());
    }
    tree.mark_test_files();
    tree
}

/// The findings of a fixture, as they are printed.
#[cfg(test)]
fn said(files: &[(&str, &str)]) -> Vec<String> {
    let mut findings = fixture(files).findings();
    findings.sort();
    findings.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_like_a_compiler_error() {
        let finding = Finding { file: "a/b.rs".into(), line: 3, text: "is wrong".into() };
        assert_eq!(finding.to_string(), "a/b.rs:3: is wrong");
    }

    #[test]
    fn files_declared_as_tests_are_tests() {
        let bad = "fn f() { g().unwrap(); }\n";
        let files = [
            ("a/src/lib.rs", "#[cfg(test)]\nmod golden;\nmod plain;\n"),
            ("a/src/golden.rs", bad),
            ("a/src/plain.rs", bad),
            ("a/src/deep.rs", "#[cfg(test)]\nmod cases;\n"),
            ("a/src/deep/cases.rs", bad),
            ("a/src/wide.rs", "#[cfg(test)]\n#[path = \"wide_tests.rs\"]\nmod tests;\n"),
            ("a/src/wide_tests.rs", bad),
            ("a/tests/it.rs", bad),
        ];
        let said = said(&files);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("a/src/plain.rs:1: "), "{said:?}");
    }

    #[test]
    fn this_tree_can_be_read() {
        let tree = Tree::read(&workspace::root()).unwrap();
        assert!(tree.manifests.contains_key("Cargo.toml"));
        assert!(tree.sources.contains_key("xtask/src/tidy/source.rs"));
        assert!(!tree.sources.keys().any(|path| path.starts_with("target/")));
    }
}
