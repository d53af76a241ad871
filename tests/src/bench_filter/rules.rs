//! The same list for the peers: what nft and ipset read, and a BPF file system for our own pins.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use super::sources::DenyList;

/// What is dropped where packets come in by eth0.
pub(super) fn nft_dropping(set: &str, rule: &str) -> String {
    format!(
        "table netdev postern_bench {{\n{set}chain ingress {{\n\
         type filter hook ingress device \"eth0\" priority 0; policy accept;\n{rule}\n}}\n}}\n"
    )
}

/// A set of addresses, to be named `@denied` in rules.
pub(super) fn nft_set(hosts: &DenyList) -> String {
    let mut text = "set denied {\ntype ipv4_addr\nelements = {".to_owned();
    push_addresses(&mut text, hosts, "", ",\n");
    text.push_str("}\n}\n");
    text
}

/// What replaces a set's elements in one transaction.
pub(super) fn nft_replacing(hosts: &DenyList) -> String {
    let mut text = "flush set netdev postern_bench denied\n\
                    add element netdev postern_bench denied {"
        .to_owned();
    push_addresses(&mut text, hosts, "", ",\n");
    text.push_str("}\n");
    text
}

/// A set of this name, for `ipset restore`.
pub(super) fn ipset_lines(name: &str, hosts: &DenyList) -> String {
    let mut text = format!("create {name} hash:ip family inet hashsize 1048576 maxelem 1048576\n");
    push_addresses(&mut text, hosts, &format!("add {name} "), "\n");
    text
}

/// A prefix a line.
pub(super) fn lines(list: &DenyList) -> String {
    let mut text = String::new();
    for prefix in list.prefixes() {
        writeln!(text, "{prefix}").expect("a String takes every byte");
    }
    text
}

fn push_addresses(text: &mut String, hosts: &DenyList, before: &str, after: &str) {
    for prefix in hosts.prefixes() {
        write!(text, "{before}{}{after}", prefix.addr()).expect("a String takes every byte");
    }
}

/// A folder for files and for pins; what is mounted in it goes with it.
#[derive(Debug)]
pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("postern-bench-").tempdir()?))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let below = fs::read_dir(self.0.path()).into_iter().flatten().filter_map(Result::ok);
        for entry in below {
            // The BPF file systems of pins; the other entries are no mounts.
            let _no_mount = umount2(&entry.path() as &Path, MntFlags::MNT_DETACH);
        }
    }
}
