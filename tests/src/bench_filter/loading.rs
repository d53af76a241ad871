//! Loading a million entries, and replacing them by another million: ours, `nft -f` and
//! `ipset restore`. Time, memory, and how long packets stand still meanwhile.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use relay_common::parse::Family;

use super::loader::{CLEARED, ENFORCED, PARSED};
use super::peers::{Peer, Peers};
use super::prober::{self, Arrivals, Prober};
use super::rules::{self, Folder};
use super::sources::{DenyList, MILLION};
use crate::figure::{Bar, Line, Rounds, Table};
use crate::netns::{Netns, veth};

const ROUNDS: usize = 3;
/// What the prober sees while nothing is loaded.
const IDLE: Duration = Duration::from_secs(1);
/// The kernel frees what the round before has left.
const SETTLE: Duration = Duration::from_secs(2);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The lists as files, for all.
struct Files {
    folder: Folder,
    honest: Ipv4Addr,
}

/// What was measured of one program, in rounds.
#[derive(Default)]
struct Measured {
    load_s: Rounds,
    replace_s: Rounds,
    memory_mib: Rounds,
}

/// The same of ours, and what only ours can say.
#[derive(Default)]
struct Ours {
    whole: Measured,
    enforce_s: Rounds,
    enforce_cpu_s: Rounds,
    replace_enforce_s: Rounds,
    replace_enforce_cpu_s: Rounds,
    idle_gap_ms: Rounds,
    fill_gap_ms: Rounds,
    clear_gap_ms: Rounds,
    lost: Rounds,
}

/// Something that the loader said it has done.
#[derive(Clone, Copy)]
struct Step {
    at: Instant,
    /// CPU time that the loader had used by then.
    cpu_s: f64,
}

/// # Errors
/// No root or no BPF, in a sentence.
pub(super) fn measure(peers: &mut Peers) -> Result<Vec<Table>> {
    let files = files()?;
    let (mut hosts, mut mixed) = (Ours::default(), Ours::default());
    let (mut nft, mut ipset) = (Measured::default(), Measured::default());
    for _ in 0..ROUNDS {
        ours(&files, ["hosts", "other-hosts"], &mut hosts)?;
        ours(&files, ["mixed", "hosts"], &mut mixed)?;
        peers.attempt(Peer::Nftables, || {
            let load = ["nft", "-f", "load.nft"];
            peer(&files, load, ["nft", "-f", "replace.nft"], &mut nft)
        });
        peers.attempt(Peer::Ipset, || {
            let load = ["ipset", "restore", "load.ipset"];
            peer(&files, load, ["ipset", "restore", "replace.ipset"], &mut ipset)
        });
    }
    let others = [(Peer::Nftables, "nft -f", &nft), (Peer::Ipset, "ipset restore", &ipset)];
    let others: Vec<_> =
        others.into_iter().filter(|(_, _, measured)| measured.load_s.spread().is_ok()).collect();
    tables(&hosts, &mixed, &others)
}

fn files() -> Result<Files> {
    let folder = Folder::new()?;
    let hosts = DenyList::hosts_only(Family::V4, MILLION);
    let others = DenyList::other_hosts(Family::V4, MILLION);
    let mut mixed = DenyList::mixed(Family::V4, MILLION);
    for (name, list) in [("hosts", &hosts), ("other-hosts", &others), ("mixed", &mixed)] {
        folder.write(name, &rules::lines(list))?;
    }
    let rule = "ip saddr @denied drop";
    folder.write("load.nft", &rules::nft_dropping(&rules::nft_set(&hosts), rule))?;
    folder.write("replace.nft", &rules::nft_replacing(&others))?;
    folder.write("load.ipset", &rules::ipset_lines("denied", &hosts))?;
    let replace = rules::ipset_lines("coming", &others) + "swap coming denied\ndestroy coming\n";
    folder.write("replace.ipset", &replace)?;
    let is_honest = |&source: &std::net::IpAddr| !hosts.covers(source) && !others.covers(source);
    let honest = mixed.honest(100).into_iter().find(is_honest);
    Ok(Files { folder, honest: prober::v4(honest.context("all are listed")?)? })
}

/// A receiver with an interface, and the other end of its wire.
fn wire() -> Result<(Netns, Netns)> {
    let (receiver, sender) = (Netns::new("loading")?, Netns::new("probes")?);
    veth(&receiver, "eth0", &sender, "eth0")?;
    let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
    receiver.run("ip", &["link", "set", "eth0", "address", &mac])?;
    receiver.addr("eth0", "203.0.113.1/24")?;
    Ok((receiver, sender))
}

/// Loads two lists in turn, with the prober running, and takes everything down again.
fn ours(files: &Files, lists: [&str; 2], ours: &mut Ours) -> Result<()> {
    let (receiver, sender) = wire()?;
    let pins = Folder::new()?;
    let mut command = receiver.command(&std::env::current_exe()?.display().to_string());
    command.arg("--load").arg(pins.path("bpf"));
    command.args(lists.map(|list| files.folder.path(list)));
    std::thread::sleep(SETTLE);
    let prober = Prober::start(&sender, &receiver, MAC, files.honest)?;
    let idle_from = Instant::now();
    std::thread::sleep(IDLE);
    let started = Instant::now();
    let steps = steps(&mut command, &mut ours.whole.memory_mib)?;
    let arrivals = prober.stop()?;
    let [parsed, enforced, cleared, parsed_2, enforced_2, cleared_2] = steps[..] else {
        bail!("the loader did not say all that it has done")
    };
    let seconds = |from: Instant, to: Step| (to.at - from).as_secs_f64();
    ours.whole.load_s.push(seconds(started, enforced));
    ours.whole.replace_s.push(seconds(cleared.at, enforced_2));
    ours.enforce_s.push(seconds(parsed.at, enforced));
    ours.enforce_cpu_s.push(enforced.cpu_s - parsed.cpu_s);
    ours.replace_enforce_s.push(seconds(parsed_2.at, enforced_2));
    ours.replace_enforce_cpu_s.push(enforced_2.cpu_s - parsed_2.cpu_s);
    let gap_ms = |arrivals: &Arrivals, from, to| -> Result<f64> {
        Ok(arrivals.longest_gap(from, to)?.as_secs_f64() * 1e3)
    };
    ours.idle_gap_ms.push(gap_ms(&arrivals, idle_from, started)?);
    ours.fill_gap_ms.push(gap_ms(&arrivals, parsed_2.at, enforced_2.at)?);
    ours.clear_gap_ms.push(gap_ms(&arrivals, enforced_2.at, cleared_2.at)?);
    ours.lost.push(arrivals.sent.saturating_sub(arrivals.received() as u64) as f64);
    Ok(())
}

/// Runs the loader, and returns when it said each of its words.
fn steps(command: &mut Command, memory_mib: &mut Rounds) -> Result<Vec<Step>> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let said = child.stdout.take().context("its output was asked for")?;
    let status = format!("/proc/{}/status", child.id());
    let (mut steps, mut most_kib) = (Vec::new(), 0);
    for line in BufReader::new(said).lines() {
        let (line, at) = (line?, Instant::now());
        let (word, cpu_s) = line.split_once(' ').context("the loader said something else")?;
        ensure!([PARSED, ENFORCED, CLEARED].contains(&word), "the loader said {word}");
        steps.push(Step { at, cpu_s: cpu_s.parse()? });
        most_kib = peak_kib(Path::new(&status)).unwrap_or(most_kib);
    }
    ensure!(child.wait()?.success(), "the loader failed");
    memory_mib.push(most_kib as f64 / 1024.0);
    Ok(steps)
}

fn peer(files: &Files, load: [&str; 3], replace: [&str; 3], measured: &mut Measured) -> Result<()> {
    let (receiver, _sender) = wire()?;
    let (load_s, load_mib) = timed(&receiver, files, load)?;
    let (replace_s, replace_mib) = timed(&receiver, files, replace)?;
    measured.load_s.push(load_s);
    measured.replace_s.push(replace_s);
    measured.memory_mib.push(load_mib.max(replace_mib));
    Ok(())
}

/// Runs a program on a file; returns seconds and the most memory that it had, in MiB.
fn timed(ns: &Netns, files: &Files, [program, verb, file]: [&str; 3]) -> Result<(f64, f64)> {
    let input = fs::File::open(files.folder.path(file))?;
    let mut command = ns.command(program);
    command.arg(verb);
    if program == "nft" {
        command.arg(files.folder.path(file));
    }
    let started = Instant::now();
    let mut child = command.stdin(input).stdout(Stdio::null()).spawn()?;
    let status = format!("/proc/{}/status", child.id());
    let mut most_kib = 0;
    let ended = loop {
        if let Some(ended) = child.try_wait()? {
            break ended;
        }
        most_kib = peak_kib(Path::new(&status)).unwrap_or(0).max(most_kib);
        std::thread::sleep(Duration::from_millis(2));
    };
    ensure!(ended.success(), "{program} {verb} failed");
    Ok((started.elapsed().as_secs_f64(), most_kib as f64 / 1024.0))
}

/// The most memory that a process has had resident (VmHWM, proc_pid_status(5)).
pub(super) fn peak_kib(status: &Path) -> Option<u64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn tables(hosts: &Ours, mixed: &Ours, others: &[(Peer, &str, &Measured)]) -> Result<Vec<Table>> {
    let bar = |limit| Some(Bar::AtMost(limit));
    let mut seconds = Vec::new();
    let mut memory = Vec::new();
    let mut gaps = Vec::new();
    for (what, ours) in [("hosts", hosts), ("hosts and 10 % prefixes", mixed)] {
        let Ours { whole, enforce_s, replace_enforce_s, .. } = ours;
        let line = Line::new(format!("Postern, {what}: from start to enforced"), &whole.load_s)?;
        let line = line.against("from parsed to enforced", enforce_s, bar(2.0))?;
        seconds.push(line.against("of CPU time for that", &ours.enforce_cpu_s, None)?);
        let line = Line::new(format!("Postern, {what}: replaced"), &whole.replace_s)?;
        let line = line.against("from parsed to enforced", replace_enforce_s, bar(2.0))?;
        seconds.push(line.against("of CPU time for that", &ours.replace_enforce_cpu_s, None)?);
        let line = Line::new(format!("Postern, {what}"), &whole.memory_mib)?;
        memory.push(line.bar(Bar::AtMost(150.0)));
        let line = Line::new(format!("before loading {what}"), &ours.idle_gap_ms)?;
        gaps.push(line.against("probes lost in all", &ours.lost, None)?);
        gaps.push(Line::new("while a generation is filled and put in force", &ours.fill_gap_ms)?);
        gaps.push(Line::new("while the old one is cleared", &ours.clear_gap_ms)?);
    }
    for (_, name, measured) in others {
        let times = measured.load_s.times(&hosts.whole.load_s)?;
        let line = Line::new(format!("{name}, hosts"), &measured.load_s)?;
        seconds.push(line.against("times ours from start", &times, None)?);
        seconds.push(Line::new(format!("{name}, hosts: replaced"), &measured.replace_s)?);
        let times = measured.memory_mib.times(&hosts.whole.memory_mib)?;
        let line = Line::new(*name, &measured.memory_mib)?;
        memory.push(line.against("times ours", &times, None)?);
    }
    let table = |name, title: String, unit, lines| Table { name, title, unit, lines };
    Ok(vec![
        table(
            "loading",
            format!("Loading a million denied IPv4 entries from a file ({ROUNDS} rounds)"),
            "seconds",
            seconds,
        ),
        table(
            "loading_memory",
            "The process that loads and replaces them: most memory resident (VmHWM)".to_owned(),
            "MiB",
            memory,
        ),
        table(
            "loading_gap",
            "Longest gap between packets of a prober, 1,000 a second, through the filter"
                .to_owned(),
            "milliseconds",
            gaps,
        ),
    ])
}
