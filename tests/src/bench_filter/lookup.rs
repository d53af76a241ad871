//! What a packet costs in the program itself, measured by the kernel (BPF_PROG_TEST_RUN) with
//! another source for each packet, beside xdp-filter's program in the same rounds.
//!
//! The figures are above those of a program of two instructions that only answers, driven in the
//! same way: so the cost of measuring is in none of them.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use postern::config;
use postern::edge::filter::{Filter, MapSizes};
use postern::edge::kernel::{Answer, Drive, Plain, Probe, Program};
use postern::edge::serve::modes;
use relay_common::entry::{Entry, List, Reason, Scope};
use relay_common::parse::Family;

use super::peers::{Peer, Peers};
use super::sources::{self, DenyList, MILLION, Random};
use super::xdp_filter::XdpFilter;
use crate::figure::{Bar, Line, Rounds, Table};

const ROUNDS: usize = 7;
/// Packets of one run, each from another source, after as many others that are not measured: what
/// the caches hold is left by packets of the same kind, not by the measurement before.
const PACKETS: u32 = 250_000;
/// Sources of each kind, which come in turn.
const SOURCES: usize = 1_000_000;
/// Entries of the allow list.
const ALLOWED: usize = 1_000;
/// The kernel's own maps by themselves, without scope, expiry and rule: how dear memory is here.
const HASH_HIT: &str = "a plain hash of the hosts: hit";
const TRIE_MISS: &str = "a plain LPM trie of all: miss";
/// The least that any list of the hosts costs: one load from as much memory as their lines take
/// here, 4 bytes or 8 a host.
const BARE: &str = "bare: one load from as large a table";
/// What is measured of sources that come again stands above this.
const EMPTY_AGAIN: &str = "empty lists, sources that come again";
/// Entries of a list that costs nothing but the way to find that out.
const FEW: usize = 10;

/// Where the million stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The generation of feeds.
    Feeds,
    /// An administrator's own rows.
    Rows,
}

/// One figure to be measured: a program, driven with sources.
struct Case<'a> {
    name: &'static str,
    program: &'a Program,
    drive: &'a Drive,
    drops: bool,
    rounds: Rounds,
}

/// Frames of one family from each kind of source.
struct Drives {
    honest: Drive,
    honest_again: Drive,
    host_again: Drive,
    clean: Drive,
    neighbour: Drive,
    host: Drive,
    prefix: Drive,
    allowed: Drive,
    unguarded: Drive,
}

/// Measures both families.
///
/// # Errors
/// No root or no BPF, in a sentence; or a program decides otherwise than its list says.
pub(super) fn measure(peers: &mut Peers) -> Result<Vec<Table>> {
    Family::ALL.into_iter().map(|family| of_family(family, peers)).collect()
}

fn of_family(family: Family, peers: &mut Peers) -> Result<Table> {
    let mut list = DenyList::mixed(family, MILLION);
    let mut random = Random::new(0xa110_3ed0);
    let allowed: Vec<IpAddr> = (0..ALLOWED).map(|_| random.source(family)).collect();
    // The same ones throughout: xdp-filter knows single addresses alone.
    let hosts = list.denied_hosts();
    let drives = drives(&mut list, &hosts, &allowed)?;
    let mut empty = Probe::load(MapSizes { allow: 1, deny: 1, ..MapSizes::default() })?;
    empty.filter.set_guarded(Scope::MX)?;
    let mut few = loaded(Place::Rows, &DenyList::mixed(family, FEW), &allowed[..1])?;
    let mut feeds = loaded(Place::Feeds, &list, &allowed)?;
    let mut rows = loaded(Place::Rows, &list, &allowed)?;
    let nothing = Program::answering(Answer::Pass)?;
    let (empty, few) = (empty.program()?, few.program()?);
    let (feeds, rows) = (feeds.program()?, rows.program()?);
    let plain_hash = Program::looking_up(Plain::Hash, family, &list.host_entries())?;
    let plain_trie = Program::looking_up(Plain::Trie, family, &list.entries())?;
    let words = match family {
        Family::V4 => 4 << 20 >> 3,
        Family::V6 => 8 << 20 >> 3,
    };
    let bare = Program::of_one_load(family, Some(words))?;
    let xdp_filter =
        peers.attempt(Peer::XdpFilter, || Ok((XdpFilter::alone(&[])?, XdpFilter::alone(&hosts)?)));
    let mut floor = vec![
        Case::new("", &nothing, &drives.honest, false),
        Case::new("", &nothing, &drives.unguarded, false),
        Case::new("", &nothing, &drives.honest_again, false),
        Case::new("", &nothing, &drives.host_again, false),
    ];
    let mut cases = vec![
        Case::new("unguarded port, a million in feeds", &feeds, &drives.unguarded, false),
        Case::new("empty lists", &empty, &drives.honest, false),
        Case::new(EMPTY_AGAIN, &empty, &drives.honest_again, false),
        Case::new("ten rows: honest source", &few, &drives.honest, false),
        Case::new("feeds: honest source", &feeds, &drives.honest, false),
        Case::new("feeds: honest sources that come again", &feeds, &drives.honest_again, false),
        Case::new("feeds: clean source", &feeds, &drives.clean, false),
        Case::new("feeds: honest neighbour of a listed one", &feeds, &drives.neighbour, false),
        Case::new("feeds: denied host", &feeds, &drives.host, true),
        Case::new("feeds: denied hosts that come again", &feeds, &drives.host_again, true),
        Case::new("feeds: denied by a prefix", &feeds, &drives.prefix, true),
        Case::new("feeds: allowed source", &feeds, &drives.allowed, false),
        Case::new("rows: honest source", &rows, &drives.honest, false),
        Case::new("rows: honest sources that come again", &rows, &drives.honest_again, false),
        Case::new("rows: denied hosts that come again", &rows, &drives.host_again, true),
        Case::new("rows: denied host", &rows, &drives.host, true),
        Case::new("rows: denied by a prefix", &rows, &drives.prefix, true),
    ];
    cases.extend([
        Case::new(BARE, &bare, &drives.host, true),
        Case::new(HASH_HIT, &plain_hash, &drives.host, true),
        Case::new(TRIE_MISS, &plain_trie, &drives.honest, false),
    ]);
    if let Some((unfilled, filled)) = &xdp_filter {
        cases.push(Case::new(
            "xdp-filter, no entries: miss",
            unfilled.program(),
            &drives.honest,
            false,
        ));
        cases.push(Case::new("xdp-filter, hosts: miss", filled.program(), &drives.honest, false));
        cases.push(Case::new("xdp-filter, hosts: hit", filled.program(), &drives.host, true));
    }
    for _ in 0..ROUNDS {
        floor.iter_mut().chain(&mut cases).try_for_each(Case::run)?;
    }
    table(family, &floor, &cases)
}

fn drives(list: &mut DenyList, hosts: &[IpAddr], allowed: &[IpAddr]) -> Result<Drives> {
    let count = SOURCES;
    let honest = list.honest(count);
    let drive = |sources: &[IpAddr], port| -> Result<Drive> {
        let first = *sources.first().context("no sources")?;
        Ok(Drive::new(&syn(first, port), sources)?)
    };
    let mut again = Random::new(0x5e1f_5a3e);
    Ok(Drives {
        honest_again: drive(&again.come_again(&honest, count), 25)?,
        host_again: drive(&again.come_again(hosts, count), 25)?,
        unguarded: drive(&honest, 22)?,
        honest: drive(&honest, 25)?,
        clean: drive(&list.clean(count), 25)?,
        neighbour: drive(&list.neighbours(count), 25)?,
        host: drive(hosts, 25)?,
        prefix: drive(&list.denied_by_prefix(count)?, 25)?,
        allowed: drive(allowed, 25)?,
    })
}

fn loaded(place: Place, list: &DenyList, allowed: &[IpAddr]) -> Result<Probe> {
    let room = u32::try_from(MILLION)?;
    let mut sizes = MapSizes { allow: u32::try_from(ALLOWED)?, deny: 1, ..MapSizes::default() };
    match place {
        Place::Feeds => sizes.feeds_deny = room,
        Place::Rows => sizes.deny = room,
    }
    let mut probe = Probe::load(sizes)?;
    let filter = &mut probe.filter;
    // As by default: drops are told, within a budget.
    filter.set_modes(&modes(&config::embedded().filter))?;
    let allow = Entry::new(Scope::MX, Reason::Manual, 2);
    let allowed: Vec<_> = allowed.iter().map(|&source| (sources::host(source), allow)).collect();
    filter.put_all(List::Allow, &allowed)?;
    match place {
        Place::Feeds => {
            filter.feed_fill(List::Deny, &list.entries())?;
            filter.feed_flip(Scope::MX)?;
        }
        Place::Rows => {
            filter.put_all(List::Deny, &list.entries())?;
            filter.set_guarded(Scope::MX)?;
        }
    }
    // As the edge does when a list has changed.
    let allowed = allowed.iter().map(|&(net, _)| (List::Allow, net));
    filter.retouch(&mut allowed.chain(list.prefixes().iter().map(|&net| (List::Deny, net))))?;
    Ok(probe)
}

impl<'a> Case<'a> {
    fn new(name: &'static str, program: &'a Program, drive: &'a Drive, drops: bool) -> Self {
        Self { name, program, drive, drops, rounds: Rounds::default() }
    }

    fn run(&mut self) -> Result<()> {
        self.drive.run(self.program, PACKETS)?;
        let outcome = self.drive.run(self.program, PACKETS)?;
        ensure!(outcome.drops == self.drops, "{}: the program decided otherwise", self.name);
        self.rounds.push(nanoseconds(outcome.duration));
        Ok(())
    }
}

fn table(family: Family, floor: &[Case<'_>], cases: &[Case<'_>]) -> Result<Table> {
    let net = |case: &Case<'_>| {
        let of_same_frame = floor.iter().find(|floor| std::ptr::eq(floor.drive, case.drive));
        case.rounds.above(&of_same_frame.unwrap_or(&floor[0]).rounds)
    };
    let named = |name: &str| cases.iter().find(|case| case.name == name).map(net).transpose();
    let empty = named("empty lists")?.context("the empty lists are always measured")?;
    let empty_again = named(EMPTY_AGAIN)?.context("the empty lists are always measured")?;
    let mut lines = Vec::new();
    for case in cases {
        let figure = net(case)?;
        let mut line = Line::new(case.name, &figure)?;
        let bar = match case.name {
            "ten rows: honest source"
            | "feeds: denied by a prefix"
            | "rows: denied by a prefix" => None,
            name if name.contains(": honest source") || name.contains(": clean") => Some(15.0),
            name if name.contains(": denied host") => Some(120.0),
            _ => None,
        };
        let is_ours =
            ["feeds: ", "rows: ", "ten rows: "].iter().any(|it| case.name.starts_with(it));
        if is_ours {
            let again = case.name.ends_with("that come again");
            let above = figure.above(if again { &empty_again } else { &empty })?;
            line = line.against("above empty lists", &above, bar.map(Bar::AtMost))?;
        }
        let plain = match case.name {
            "feeds: denied host" | "rows: denied host" => Some((HASH_HIT, "times a plain hash")),
            "feeds: honest source" | "rows: honest source" => {
                Some((TRIE_MISS, "times a plain LPM trie"))
            }
            _ => None,
        };
        if let Some((plain, what)) = plain
            && let Some(plain) = named(plain)?
        {
            line = line.against(what, &figure.times(&plain)?, None)?;
        }
        if case.name.starts_with("unguarded") {
            line = line.against("above an empty program", &figure, Some(Bar::AtMost(15.0)))?;
        }
        if case.name == "empty lists"
            && let Some(miss) = named("xdp-filter, no entries: miss")?
        {
            let times = figure.times(&miss)?;
            line = line.against("times xdp-filter's miss", &times, Some(Bar::AtMost(1.3)))?;
        }
        lines.push(line);
    }
    let title = format!(
        "In the program alone, {}: a SYN to port 25 unless it says otherwise, above an empty program \
         (BPF_PROG_TEST_RUN, {ROUNDS} rounds of {PACKETS} packets behind as many others, from \
         {SOURCES} sources in turn; every listed host, and {ALLOWED} allowed ones)",
        family.name()
    );
    let name = if family == Family::V4 { "lookup_v4" } else { "lookup_v6" };
    Ok(Table { name, title, unit: "nanoseconds a packet", lines })
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

/// The first packet of a connection.
fn syn(source: IpAddr, port: u16) -> Vec<u8> {
    let ethernet = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = match source {
        IpAddr::V4(v4) => ethernet.ipv4(v4.octets(), [192, 0, 2, 1], 64),
        IpAddr::V6(v6) => ethernet.ipv6(v6.octets(), [0x20; 16], 64),
    };
    let mut frame = Vec::with_capacity(80);
    ip.tcp(40_000, port, 1, 65_535).syn().write(&mut frame, &[]).expect("a Vec takes every byte");
    frame
}
