//! The most frequent sources, networks and ports among the events of the last minute or so.

use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::event::Fate;
use relay_core::ban::network_of;

use super::heavy::{Frequent, Heavy};
use crate::control::api::{FateName, Top, TopEntry};

/// Keys in each table. One that has more than a 256th of all events is surely among them.
const ROOM: usize = 256;
const HALF_LIFE_MS: u32 = 30_000;
/// Lines of each table in an answer.
const SHOWN_MAX: usize = 20;
/// Less than this has not happened lately.
const EVENTS_MIN: f64 = 0.05;

/// Each key counts by fate, so that what passes under observation is not shown as dropped.
#[derive(Debug)]
pub(super) struct Tops {
    sources: Heavy<(IpNet, FateName)>,
    networks: Heavy<(IpNet, FateName)>,
    ports: Heavy<(u16, FateName)>,
}

impl Default for Tops {
    fn default() -> Self {
        let (room, half_life) = (ROOM, HALF_LIFE_MS);
        Self {
            sources: Heavy::new(room, half_life),
            networks: Heavy::new(room, half_life),
            ports: Heavy::new(room, half_life),
        }
    }
}

/// The network that a hoster hands out whole: a /24, or a /48.
fn wider(source: IpNet) -> IpNet {
    let len = if source.addr().is_ipv4() { 24 } else { 48 };
    IpNet::new(source.addr(), len).map_or(source, |net| net.trunc())
}

impl Tops {
    pub(super) fn add(&mut self, address: IpAddr, port: u16, fate: Fate, at_ms: u64) {
        let (source, fate) = (network_of(address), FateName::from(fate));
        self.sources.add((source, fate), at_ms);
        self.networks.add((wider(source), fate), at_ms);
        self.ports.add((port, fate), at_ms);
    }

    /// The tables at this moment.
    pub(super) fn now(&self, at_ms: u64) -> Top {
        Top {
            told: true,
            sources: table(&self.sources, at_ms, unit),
            networks: table(&self.networks, at_ms, IpNet::to_string),
            ports: table(&self.ports, at_ms, u16::to_string),
        }
    }
}

/// An address, or the /64 that stands for one.
fn unit(source: &IpNet) -> String {
    let whole = source.prefix_len() == source.max_prefix_len();
    if whole { source.addr().to_string() } else { source.to_string() }
}

fn table<K>(heavy: &Heavy<(K, FateName)>, at_ms: u64, name: impl Fn(&K) -> String) -> Vec<TopEntry>
where
    K: Copy + Eq + Hash + Ord,
{
    let total = heavy.total(at_ms).max(EVENTS_MIN);
    // Events that keep coming at a rate r add up to r times the half-life over ln 2.
    let per_s = |events: f64| events * std::f64::consts::LN_2 * 1e3 / f64::from(HALF_LIFE_MS);
    let line = |found: Frequent<(K, FateName)>| TopEntry {
        what: name(&found.key.0),
        fate: found.key.1,
        per_s: rounded(per_s(found.at_least)),
        percent: rounded(100.0 * found.at_least / total),
    };
    let shown = heavy.top(SHOWN_MAX, at_ms).into_iter();
    shown.filter(|found| found.at_least >= EVENTS_MIN).map(line).collect()
}

/// To two places: more would pretend to be exact.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
