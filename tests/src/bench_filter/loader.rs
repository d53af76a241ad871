//! A process that loads lists into our filter and does nothing else, so that its memory is that of
//! loading. It says on standard output what it has done, when it has done it: a word a line, and
//! the seconds of CPU time that it has used so far.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};
use postern::edge::filter::{Filter, MapSizes};
use postern::edge::kernel::{KernelFilter, KernelSettings};
use relay_common::entry::{Entry, List, Scope};

use super::sources::{self, MILLION};

/// Entries that are put or removed at once, as the edge does it.
const STEP: usize = 16_384;

/// What the loader says: a list was read, is in force, and the one before it is gone.
pub(super) const PARSED: &str = "parsed";
pub(super) const ENFORCED: &str = "enforced";
pub(super) const CLEARED: &str = "cleared";

/// Puts lists of prefixes, a line each, in force on eth0 of the namespace it is in, one after the
/// other.
///
/// # Errors
/// The filter cannot be opened, or does not take a list.
pub fn load(pin_dir: PathBuf, lists: &[PathBuf]) -> Result<()> {
    let sizes = MapSizes { feeds_deny: u32::try_from(MILLION)?, ..MapSizes::default() };
    let mut filter =
        KernelFilter::open(&KernelSettings { pin_dir, sizes, ..KernelSettings::on("eth0") })?;
    filter.activate()?;
    for list in lists {
        let entries = parse(&fs::read_to_string(list)?)?;
        say(PARSED)?;
        publish(&mut filter, &entries)?;
        say(ENFORCED)?;
        while !filter.feed_clear(STEP)? {}
        filter.retouch(&mut entries.iter().map(|&(prefix, _)| (List::Deny, prefix)))?;
        say(CLEARED)?;
    }
    Ok(())
}

fn say(word: &str) -> Result<()> {
    let used = Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?);
    println!("{word} {}", used.as_secs_f64());
    Ok(())
}

/// Fills the idle generation, checks it, and puts it in force.
fn publish(filter: &mut KernelFilter, entries: &[(IpNet, Entry)]) -> Result<()> {
    while !filter.feed_clear(STEP)? {}
    for step in entries.chunks(STEP) {
        filter.feed_fill(List::Deny, step)?;
    }
    ensure!(filter.feed_count()? == entries.len() as u64, "not every entry is in the kernel");
    filter.feed_flip(Scope::MX)?;
    Ok(())
}

fn parse(text: &str) -> Result<Vec<(IpNet, Entry)>> {
    let mut entries = Vec::with_capacity(text.lines().count());
    for line in text.lines() {
        let prefix = match line.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => line.parse().with_context(|| format!("no prefix: {line}"))?,
        };
        entries.push((prefix, sources::entry()));
    }
    Ok(entries)
}
