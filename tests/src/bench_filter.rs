//! What a packet costs in the kernel filter, in nanoseconds, measured by the kernel itself
//! (BPF_PROG_TEST_RUN) over random sources and lists of several sizes. Needs root.
//!
//! Two figures for each source. *Cold*: the source's first packet, as in a flood from many
//! addresses, when the path through the trie is in no cache; the cost of measuring, taken from a
//! frame that is no IP, is subtracted. *Warm*: the mean of many packets on end from one source.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use postern::edge::filter::{Filter, MapSizes};
use postern::edge::kernel::Probe;
use relay_common::entry::{Entry, List, Reason, Scope};
use relay_common::parse::Family;
use serde_json::{Value, json};

const ENTRIES: [u32; 3] = [1, 1_000, 1_000_000];
/// Sources whose first packet is measured, for each line of the table.
const SOURCES: usize = 1_000;
/// Sources that are measured warm. Fewer: for a repeated run the kernel patches its dispatcher and
/// waits for every CPU, some 20 ms each time.
const WARM_SOURCES: usize = 50;
const WARM_REPEAT: u32 = 1_000;

/// What becomes of the packets of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// In neither list: two lookups that find nothing.
    Pass,
    Allow,
    Deny,
}

impl Case {
    const ALL: [Self; 3] = [Self::Pass, Self::Allow, Self::Deny];

    fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// The distribution of a figure over the sources, in nanoseconds a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    pub median_ns: u64,
    pub min_ns: u64,
    pub max_ns: u64,
}

#[derive(Clone, Debug)]
pub struct Line {
    pub family: Family,
    pub case: Case,
    /// Entries in each of the two lists.
    pub entries: u32,
    pub cold: Spread,
    pub warm: Spread,
}

/// All measurements; prints itself as a table.
#[derive(Clone, Debug)]
pub struct Report {
    /// A frame that is no IP, warm: what the program costs before it has looked at anything.
    pub floor: Spread,
    /// Traffic that no entry speaks about, warm.
    pub unguarded: Spread,
    pub lines: Vec<Line>,
}

/// Measures every family, list size and case.
///
/// # Errors
/// No root or no BPF, in a sentence; or the program decides otherwise than the lists say.
pub fn run() -> Result<Report> {
    let mut probe = Probe::load(MapSizes { allow: 1, deny: 1, ..MapSizes::default() })?;
    let floor = warm(&mut probe, &[not_ip()])?;
    let any_source: Vec<Vec<u8>> = Sources::new(Family::V4).take(SOURCES).map(syn).collect();
    let unguarded = warm(&mut probe, &any_source)?;
    drop(probe);
    let mut lines = Vec::new();
    for family in Family::ALL {
        for entries in ENTRIES {
            lines.extend(measure(family, entries)?);
        }
    }
    Ok(Report { floor, unguarded, lines })
}

fn measure(family: Family, entries: u32) -> Result<Vec<Line>> {
    let mut probe = Probe::load(MapSizes { allow: entries, deny: entries, ..MapSizes::default() })?;
    let mut sources = Sources::new(family);
    let mut listed = |list, probe: &mut Probe| -> Result<Vec<IpAddr>> {
        let of_list: Vec<IpAddr> = sources.by_ref().take(entries as usize).collect();
        for &source in &of_list {
            let entry = Entry::new(Scope::MX, Reason::Manual, 1);
            probe.filter.put(list, network(source)?, entry)?;
        }
        Ok(of_list)
    };
    let denied = listed(List::Deny, &mut probe)?;
    let allowed = listed(List::Allow, &mut probe)?;
    let others: Vec<IpAddr> = sources.take(SOURCES).collect();
    probe.filter.set_guarded(Scope::MX)?;
    let mut lines = Vec::new();
    for case in Case::ALL {
        let among = match case {
            Case::Pass => &others,
            Case::Allow => &allowed,
            Case::Deny => &denied,
        };
        // Random ones already, and spread over the order in which they were put.
        let step = (among.len() / SOURCES).max(1);
        let frames: Vec<Vec<u8>> =
            among.iter().step_by(step).take(SOURCES).map(|&source| syn(source)).collect();
        for frame in &frames {
            let drops = probe.run(frame, 1)?.drops;
            ensure!(drops == (case == Case::Deny), "{} was not what happened", case.name());
        }
        let cold = cold(&mut probe, &frames)?;
        let warm = warm(&mut probe, &frames)?;
        lines.push(Line { family, case, entries, cold, warm });
    }
    Ok(lines)
}

fn cold(probe: &mut Probe, frames: &[Vec<u8>]) -> Result<Spread> {
    let first = |probe: &mut Probe, frame: &[u8]| -> Result<u64> {
        Ok(u64::try_from(probe.run(frame, 1)?.duration.as_nanos())?)
    };
    let empty = not_ip();
    let overheads = (0..SOURCES).map(|_| first(probe, &empty)).collect::<Result<Vec<_>>>()?;
    let overhead_ns = spread(overheads)?.median_ns;
    // One source alone cannot be cold, yet its line needs as many samples as the others.
    let rounds = SOURCES.div_ceil(frames.len());
    let mut samples = Vec::with_capacity(rounds * frames.len());
    for _ in 0..rounds {
        for frame in frames {
            samples.push(first(probe, frame)?.saturating_sub(overhead_ns));
        }
    }
    spread(samples)
}

fn warm(probe: &mut Probe, frames: &[Vec<u8>]) -> Result<Spread> {
    let mut samples = Vec::with_capacity(WARM_SOURCES);
    for frame in frames.iter().take(WARM_SOURCES) {
        samples.push(u64::try_from(probe.run(frame, WARM_REPEAT)?.duration.as_nanos())?);
    }
    spread(samples)
}

fn spread(mut samples: Vec<u64>) -> Result<Spread> {
    samples.sort_unstable();
    let (min, max) = (samples.first(), samples.last());
    let (min_ns, max_ns) = min.copied().zip(max.copied()).context("nothing was measured")?;
    Ok(Spread { median_ns: samples[samples.len() / 2], min_ns, max_ns })
}

/// Distinct pseudo-random addresses, the same in every run.
struct Sources {
    family: Family,
    state: u64,
    seen: HashSet<IpAddr>,
}

impl Sources {
    fn new(family: Family) -> Self {
        Self { family, state: 0x9e37_79b9_7f4a_7c15, seen: HashSet::new() }
    }

    /// Vigna's splitmix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Iterator for Sources {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        loop {
            let random = self.random();
            let source = match self.family {
                Family::V4 => Ipv4Addr::from((random >> 32) as u32).into(),
                // 2000::/3, one host in each /64, which is what a ban covers.
                Family::V6 => Ipv6Addr::from(u128::from(random >> 3 | 1 << 61) << 64 | 1).into(),
            };
            if self.seen.insert(source) {
                return Some(source);
            }
        }
    }
}

/// What a ban of this source covers: /32 or /64.
fn network(source: IpAddr) -> Result<IpNet> {
    let prefix_len = if source.is_ipv4() { 32 } else { 64 };
    Ok(IpNet::new(source, prefix_len)?.trunc())
}

fn syn(source: IpAddr) -> Vec<u8> {
    let ethernet = etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = match source {
        IpAddr::V4(v4) => ethernet.ipv4(v4.octets(), [192, 0, 2, 1], 64),
        IpAddr::V6(v6) => ethernet.ipv6(v6.octets(), [0x20; 16], 64),
    };
    let mut frame = Vec::with_capacity(80);
    ip.tcp(40_000, 25, 1, 65_535).syn().write(&mut frame, &[]).expect("a Vec takes every byte");
    frame
}

/// A frame of local experiments (IEEE 802 reserves the ethertype), 60 bytes as on a wire.
fn not_ip() -> Vec<u8> {
    let mut frame = vec![0; 60];
    frame[12..14].copy_from_slice(&0x88b5u16.to_be_bytes());
    frame
}

impl Spread {
    fn json(self) -> Value {
        json!({ "median_ns": self.median_ns, "min_ns": self.min_ns, "max_ns": self.max_ns })
    }
}

impl Report {
    /// The same figures for a machine to read.
    pub fn json(&self) -> Value {
        let line = |line: &Line| {
            json!({
                "family": line.family.name(),
                "case": line.case.name(),
                "entries": line.entries,
                "cold": line.cold.json(),
                "warm": line.warm.json(),
            })
        };
        json!({
            "unit": "nanoseconds a packet, BPF_PROG_TEST_RUN",
            "cold_sources": SOURCES,
            "warm_sources": WARM_SOURCES,
            "floor": self.floor.json(),
            "unguarded": self.unguarded.json(),
            "lines": self.lines.iter().map(line).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = format!("{SOURCES} sources (cold), {WARM_SOURCES} (warm)");
        writeln!(f, "nanoseconds a packet (BPF_PROG_TEST_RUN), median [min..max] of {sources}")?;
        writeln!(f, "not IP: {}   unguarded port: {}", self.floor, self.unguarded)?;
        let head = ("family", "case", "entries", "cold", "warm");
        writeln!(f, "{:6} {:6} {:>9} {:>22} {:>22}", head.0, head.1, head.2, head.3, head.4)?;
        for Line { family, case, entries, cold, warm } in &self.lines {
            let (cold, warm) = (cold.to_string(), warm.to_string());
            let (family, case) = (family.name(), case.name());
            writeln!(f, "{family:6} {case:6} {entries:>9} {cold:>22} {warm:>22}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}..{}]", self.median_ns, self.min_ns, self.max_ns)
    }
}
