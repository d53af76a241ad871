//! Who imports whom: between the crates by their manifests, and within them by what the code names.

use std::collections::BTreeMap;

use super::Finding;
use super::source::Source;

/// Our crates, and which of ours each may depend on.
const OURS: [(&str, &[&str]); 7] = [
    ("relay-common", &[]),
    ("relay-core", &["relay-common"]),
    ("relay-ebpf", &["relay-common"]),
    ("relay-userspace", &["relay-common", "relay-core"]),
    ("postern-fuzz", &["relay-core"]),
    ("postern-tests", &["relay-common", "relay-userspace"]),
    ("xtask", &[]),
];

/// What a crate without I/O has no use for.
const IO_CRATES: [&str; 12] = [
    "async-std",
    "aya",
    "caps",
    "getrandom",
    "hickory-resolver",
    "libc",
    "mio",
    "nix",
    "rand",
    "rusqlite",
    "socket2",
    "tokio",
];

const IO_MODULES: [&str; 5] = ["std::env", "std::fs", "std::os", "std::process", "std::thread"];

const IO_TYPES: [&str; 7] = [
    "TcpListener",
    "TcpStream",
    "ToSocketAddrs",
    "UdpSocket",
    "UnixDatagram",
    "UnixListener",
    "UnixStream",
];

/// Dependencies between our crates, and I/O crates in relay-core and relay-common.
pub(super) fn check_manifests(manifests: &BTreeMap<String, String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in manifests {
        let name = text.lines().find_map(|line| line.strip_prefix("name = "));
        let name = name.map_or("", |name| name.trim_matches('"'));
        let Some((_, allowed)) = OURS.iter().find(|(ours, _)| *ours == name) else { continue };
        for (line, dependency) in dependencies(text) {
            let is_ours = OURS.iter().any(|(ours, _)| *ours == dependency);
            let text = if is_ours && !allowed.contains(&dependency) {
                format!("{name} may not depend on {dependency} (ARCHITECTURE.md, who imports whom)")
            } else if pure(path) && IO_CRATES.contains(&dependency) {
                format!("{name} does no I/O: what needs {dependency} belongs in relay-userspace")
            } else {
                continue;
            };
            findings.push(Finding { file: path.clone(), line: line + 1, text });
        }
    }
    findings
}

/// Names in the tables of dependencies, each with its line from 0.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (line, text) in manifest.lines().enumerate() {
        let text = text.trim();
        if let Some(table) = text.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside = table.ends_with("dependencies") && !table.starts_with("workspace");
            // [dependencies.name]
            if let Some((before, name)) = table.rsplit_once('.')
                && before.ends_with("dependencies")
                && !before.starts_with("workspace")
            {
                found.push((line, name));
            }
        } else if inside && !text.starts_with('#') {
            let end = text.find(['.', ' ', '=']).unwrap_or(text.len());
            if end > 0 {
                found.push((line, text[..end].trim_matches('"')));
            }
        }
    }
    found
}

fn pure(path: &str) -> bool {
    path.starts_with("relay-core/") || path.starts_with("relay-common/")
}

/// Whether a file may name aya: the one module that turns rules into map bytes, and the tests.
fn may_name_aya(path: &str) -> bool {
    path.starts_with("relay-userspace/src/edge/kernel/")
        || path == "relay-userspace/src/edge/kernel.rs"
        || path.starts_with("tests/")
}

/// What the code of one file names.
pub(super) fn check(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut say = |at: usize, text: String| {
        let line = source.line_of(at) + 1;
        findings.push(Finding { file: path.to_owned(), line, text });
    };
    if !may_name_aya(path) {
        for name in ["aya", "aya_obj", "aya_log"] {
            for at in roots(source, name) {
                say(at, format!("{name} is named in edge/kernel alone: use the trait Filter"));
            }
        }
    }
    if path.starts_with("relay-userspace/src/cli/") {
        for at in roots(source, "rusqlite") {
            say(at, "the command line speaks only the control sockets: ask their API".to_owned());
        }
    }
    if pure(path) {
        for (at, name) in io_named(source) {
            if !source.line_is_test(source.line_of(at)) {
                say(at, format!("{name} in a crate without I/O: take the value as an argument"));
            }
        }
    }
    if path == "relay-core/src/lib.rs" && !source.code.contains("#![forbid(unsafe_code)]") {
        say(0, "relay-core begins with #![forbid(unsafe_code)]".to_owned());
    }
    findings
}

/// Where `name` begins a path (`name::…`, `use name;`, `use name as …`).
fn roots<'a>(source: &'a Source, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    source.words(name).filter(move |&at| {
        let before = source.code[..at].trim_end();
        let after = source.code[at + name.len()..].trim_start();
        let is_path = after.starts_with("::");
        let is_use =
            before.ends_with("use") && (after.starts_with(';') || after.starts_with("as "));
        (is_path && !before.ends_with("::")) || is_use
    })
}

/// Modules and types of the standard library that do I/O, with their offsets. Crates that do are
/// kept out by the manifest.
fn io_named(source: &Source) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for name in IO_TYPES {
        named.extend(source.words(name).map(|at| (at, name.to_owned())));
    }
    for module in IO_MODULES {
        named.extend(source.words(module).map(|at| (at, module.to_owned())));
    }
    for (at, path) in imports(&source.code) {
        if IO_MODULES
            .iter()
            .any(|module| path == *module || path.starts_with(&format!("{module}::")))
            && !source.code[at..].starts_with(&path)
        {
            named.push((at, path));
        }
    }
    named
}

/// The paths of all `use` items, groups written out, each with the offset of its item's path.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, word) in code.match_indices("use ") {
        let starts_item = code[..at].trim_end_matches(' ').chars().next_back();
        if !matches!(starts_item, None | Some('\n' | ';' | '{' | '}' | ')' | 'b')) {
            continue;
        }
        let start = at + word.len();
        let end = code[start..].find(';').map_or(code.len(), |length| start + length);
        let tree: String = code[start..end].split_whitespace().collect::<Vec<_>>().join(" ");
        let mut paths = Vec::new();
        expand("", &tree, &mut paths);
        found.extend(paths.into_iter().map(|path| (start, path)));
    }
    found
}

/// Writes `a::{b, c::{d}}` out as `a::b` and `a::c::d`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((head, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        paths.push(format!("{prefix}{}", path.trim()));
        return;
    };
    let group = group.trim_end().strip_suffix('}').unwrap_or(group);
    let prefix = format!("{prefix}{}", head.trim());
    let mut depth = 0usize;
    let mut start = 0;
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                expand(&prefix, group[start..at].trim(), paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = group[start..].trim();
    if !last.is_empty() {
        expand(&prefix, last, paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::said;

    #[test]
    fn crates_depend_downwards_only() {
        let core = "[package]\nname = \"relay-core\"\n[dependencies]\nrelay-common.workspace = true\n\
                    relay-userspace = { path = \"..\" }\n[dev-dependencies]\ntokio = \"1\"\n";
        let said = said(&[("relay-core/Cargo.toml", core)]);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].starts_with(
                "relay-core/Cargo.toml:5: relay-core may not depend on relay-userspace"
            )
        );
        assert!(said[1].starts_with("relay-core/Cargo.toml:7: relay-core does no I/O"));
    }

    #[test]
    fn tables_of_their_own_and_targets_count_too() {
        let text = "[dependencies.a]\nversion = \"1\"\n[target.'cfg(unix)'.dependencies]\nb = \"1\"\n\
                    [features]\nc = []\n[workspace.dependencies]\nd = \"1\"\n";
        let names: Vec<&str> = dependencies(text).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn aya_stays_in_its_module() {
        let text = "use aya::maps::LpmTrie;\nlet a = other::aya::x;\nfn f() -> aya::Ebpf {}\n";
        assert_eq!(said(&[("relay-userspace/src/edge/kernel/maps.rs", text)]), [""; 0]);
        assert_eq!(said(&[("tests/tests/kernel/main.rs", text)]), [""; 0]);
        let said = said(&[("relay-userspace/src/edge/daemon.rs", text)]);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[1].starts_with("relay-userspace/src/edge/daemon.rs:3: aya "), "{said:?}");
    }

    #[test]
    fn the_core_does_no_io_but_its_tests_may() {
        let bad = [
            "use std::fs;",
            "use std::{fmt, fs::File};",
            "use std::net::{IpAddr, TcpStream};",
            "fn f() { std::fs::read(\"x\"); }",
            "fn f() { std::thread::sleep(d) }",
        ];
        for text in bad {
            let in_core = said(&[("relay-core/src/smtp/x.rs", text)]);
            assert_eq!(in_core.len(), 1, "{text}: {in_core:?}");
            let test = format!("#[cfg(test)]\nmod tests {{ {text} }}\n");
            assert_eq!(said(&[("relay-core/src/smtp/x.rs", &test)]), [""; 0], "{text}");
            assert_eq!(said(&[("relay-userspace/src/x.rs", text)]), [""; 0], "{text}");
        }
        for text in ["use std::{fmt, net::IpAddr};", "use crate::fs;", "let std = env;"] {
            assert_eq!(said(&[("relay-core/src/smtp/x.rs", text)]), [""; 0], "{text}");
        }
    }

    #[test]
    fn the_core_forbids_unsafe() {
        assert_eq!(said(&[("relay-core/src/lib.rs", "pub mod smtp;\n")]).len(), 1);
        assert_eq!(said(&[("relay-core/src/lib.rs", "#![forbid(unsafe_code)]\n")]), [""; 0]);
    }

    #[test]
    fn the_command_line_opens_no_database() {
        let text = "use rusqlite::Connection;\n";
        assert_eq!(said(&[("relay-userspace/src/cli/queue.rs", text)]).len(), 1);
        assert_eq!(said(&[("relay-userspace/src/queue/store.rs", text)]), [""; 0]);
    }

    #[test]
    fn groups_are_written_out() {
        let mut paths = Vec::new();
        expand("", "a::{b, c::{d as x, e::*}, self}", &mut paths);
        assert_eq!(paths, ["a::b", "a::c::d", "a::c::e::*", "a::self"]);
    }
}
