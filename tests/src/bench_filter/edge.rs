//! A million entries through the edge itself: `postern feed refresh` of a file, from the command to
//! the answer that it is in force, and the memory that the edge has had.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};
use relay_common::parse::Family;

use super::loading::peak_kib;
use super::rules::{self, Folder};
use super::sources::{DenyList, MILLION};
use crate::figure::{Bar, Line, Rounds, Table};
use crate::process::until;
use crate::world::World;

const ROUNDS: usize = 3;
const FEED: &str = "million";

/// # Errors
/// No root or no BPF, or the edge refuses a list.
pub(super) fn measure() -> Result<Vec<Table>> {
    let folder = Folder::new()?;
    let hosts = DenyList::hosts_only(Family::V4, MILLION);
    let others = DenyList::other_hosts(Family::V4, MILLION);
    let lists = [
        folder.write("hosts", &rules::lines(&hosts))?,
        folder.write("other-hosts", &rules::lines(&others))?,
    ];
    let (mut load, mut replace) = (Rounds::default(), Rounds::default());
    let (mut idle, mut peak) = (Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        let mut world = World::new()?;
        let source = world.path("million.txt");
        fs::write(&source, "192.0.2.1\n")?;
        let source = source.display();
        world.start(&format!("[[feed]]\nname = \"{FEED}\"\nsource = \"{source}\"\n"))?;
        let shown = |world: &World| world.json(&["feed", "show", FEED]);
        until("the first feed", || Ok((shown(&world)?["phase"] == "idle").then_some(())))?;
        let status = format!("/proc/{}/status", world.daemon_pid("edge")?);
        let mib = || peak_kib(Path::new(&status)).unwrap_or_default() as f64 / 1024.0;
        idle.push(mib());
        for (list, seconds) in lists.iter().zip([&mut load, &mut replace]) {
            fs::copy(list, world.path("coming.txt"))?;
            fs::rename(world.path("coming.txt"), world.path("million.txt"))?;
            let started = Instant::now();
            let said = world.cli_ok(&["feed", "refresh", FEED, "--wait"])?;
            seconds.push(started.elapsed().as_secs_f64());
            // Neighbours are joined, so that there are a few less.
            ensure!(said.contains("prefixes in force"), "{said}");
        }
        peak.push(mib());
        world.stop()?;
    }
    let refreshed = vec![
        Line::new("first loaded", &load)?.bar(Bar::AtMost(2.0)),
        Line::new("replaced by another million", &replace)?,
    ];
    let memory = vec![
        Line::new("the edge before", &idle)?,
        Line::new("the edge at most", &peak)?.bar(Bar::AtMost(150.0)),
    ];
    let title = "A feed of a million IPv4 hosts by `postern feed refresh --wait`: read, checked, \
                 kept on disk and put in force, the generation before cleared away";
    Ok(vec![
        Table { name: "edge", title: title.to_owned(), unit: "seconds", lines: refreshed },
        Table {
            name: "edge_memory",
            title: "The edge that does so: most memory resident (VmHWM)".to_owned(),
            unit: "MiB",
            lines: memory,
        },
    ])
}
