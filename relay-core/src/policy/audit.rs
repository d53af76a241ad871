//! Would this configuration make an open relay? (R1, asked once at start and by `config check`.)
//!
//! A configuration that lets the world relay is refused unless a line says, in so many words, that
//! it is wanted. The question is about reach: which sources the listener admits and grants
//! relaying to, however the lists are written.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use super::domains::{DomainTable, Route};
use super::relay::{ListenerGrants, Sources};
use crate::prefix::canonical_ip;

/// What `open_relay = "…"` must say for an open relay to be started.
pub const OPEN_RELAY_PHRASE: &str = "I want an open relay";

/// IPv4 addresses outside private space beyond which a grant is to the world: a quarter of all.
const V4_WORLD: u128 = 1 << 30;
/// The same for IPv6: a quarter of 2000::/3, in which all that is assigned to the public lies.
const V6_WORLD: u128 = 1 << 123;

/// Top labels that no public name has (RFC 2606, RFC 6761, RFC 6762, ICANN's `.internal`)
/// or that homes and offices use, so that a wildcard under them stays inside.
const INSIDE_LABELS: [&str; 11] = [
    "corp",
    "example",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "test",
];

/// Why a configuration is an open relay.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Finding {
    #[error("listener {listener} would relay for the world: {reach}")]
    Sources { listener: String, reach: String },
    #[error(
        "listener {listener} would relay for whoever reaches {address}, which is a public address"
    )]
    InternalAddress { listener: String, address: IpAddr },
    #[error("listener {listener} would relay for every host with a name under {pattern}")]
    ReverseDomain { listener: String, pattern: String },
    #[error("mail for every domain under {pattern} would be accepted from the world")]
    Domain { pattern: String },
}

/// What the audit needs to know of a listener beyond its grants.
#[derive(Clone, Copy, Debug)]
pub struct ListenerReach<'a> {
    /// The addresses it is bound to.
    pub bound: &'a [IpAddr],
    /// Hosts may speak for others on it (PROXY, XCLIENT), whatever it is bound to.
    pub named: bool,
    pub admits: &'a Sources,
    pub grants: &'a ListenerGrants,
}

/// The first way in which the listener is an open relay; `phrase` is the value of `open_relay`.
pub fn open_relay(listener: &ListenerReach<'_>, phrase: Option<&str>) -> Option<Finding> {
    // A private address is no proof: a cloud maps public ones to it.
    let only_this_machine = !listener.named
        && listener.bound.iter().all(|address| canonical_ip(*address).is_loopback());
    if phrase == Some(OPEN_RELAY_PHRASE) || only_this_machine {
        return None;
    }
    let grants = listener.grants;
    let name = || grants.listener.clone();
    if let Some(reach) = world_reach(listener.admits, &grants.sources) {
        return Some(Finding::Sources { listener: name(), reach });
    }
    world_reach(listener.admits, &Sources::everyone())?;
    let public = |a: &&IpAddr| !is_private(**a);
    if let Some(&address) = grants.internal_addresses.iter().find(public) {
        return Some(Finding::InternalAddress { listener: name(), address });
    }
    let pattern = grants.reverse_domains.values().find(|pattern| is_wide(pattern))?.clone();
    Some(Finding::ReverseDomain { listener: name(), pattern })
}

/// The first line of the domain table that takes in a whole top-level domain.
pub fn wide_domain(domains: &DomainTable, phrase: Option<&str>) -> Option<Finding> {
    if phrase == Some(OPEN_RELAY_PHRASE) {
        return None;
    }
    let wide = |rule: &&super::domains::Rule| rule.route != Route::Reject && is_wide(&rule.pattern);
    let pattern = domains.rules().find(wide)?.pattern.clone();
    Some(Finding::Domain { pattern })
}

fn is_wide(pattern: &str) -> bool {
    pattern
        .strip_prefix("*.")
        .is_some_and(|above| !above.contains('.') && !INSIDE_LABELS.contains(&above))
}

/// Says how much of the world is both admitted and granted, if that is too much.
fn world_reach(admits: &Sources, grants: &Sources) -> Option<String> {
    let v4 = reach(admits, grants, Family::V4);
    if v4 > V4_WORLD {
        return Some(format!("{v4} IPv4 addresses outside private networks"));
    }
    (reach(admits, grants, Family::V6) > V6_WORLD).then(|| "most of IPv6".to_owned())
}

#[derive(Clone, Copy, PartialEq)]
enum Family {
    V4,
    V6,
}

/// Inclusive ranges of addresses, in order, none touching the next.
type Ranges = Vec<(u128, u128)>;

impl Family {
    const fn max(self) -> u128 {
        match self {
            Self::V4 => u32::MAX as u128,
            Self::V6 => u128::MAX,
        }
    }

    fn range_of(self, net: IpNet) -> Option<(u128, u128)> {
        match (self, net) {
            (Self::V4, IpNet::V4(v4)) => {
                Some((u32::from(v4.network()).into(), u32::from(v4.broadcast()).into()))
            }
            (Self::V6, IpNet::V6(v6)) => Some((v6.network().into(), v6.broadcast().into())),
            _ => None,
        }
    }

    fn ranges_of(self, sources: &Sources) -> Ranges {
        match sources {
            Sources::Only(list) => self.ranges(list.iter().map(|(net, _)| net)),
            Sources::AllExcept(list) => {
                complement(&self.ranges(list.iter().map(|(net, _)| net)), self.max())
            }
        }
    }

    fn ranges(self, nets: impl Iterator<Item = IpNet>) -> Ranges {
        let mut ranges: Ranges = nets.filter_map(|net| self.range_of(net)).collect();
        ranges.sort_unstable();
        let mut merged: Ranges = Vec::with_capacity(ranges.len());
        for (from, to) in ranges {
            match merged.last_mut() {
                Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
                _ => merged.push((from, to)),
            }
        }
        merged
    }

    /// Space from which no stranger calls. Everything else counts as the world.
    fn private(self) -> Ranges {
        self.ranges(private_networks().into_iter())
    }
}

fn complement(ranges: &Ranges, max: u128) -> Ranges {
    let mut gaps = Vec::with_capacity(ranges.len() + 1);
    let mut next = Some(0);
    for &(from, to) in ranges {
        if let Some(start) = next.filter(|&start| start < from) {
            gaps.push((start, from - 1));
        }
        next = to.checked_add(1).filter(|&start| start <= max);
    }
    if let Some(start) = next {
        gaps.push((start, max));
    }
    gaps
}

fn intersect(a: &Ranges, b: &Ranges) -> Ranges {
    let (mut i, mut j, mut both) = (0, 0, Vec::new());
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let (from, to) = (x.0.max(y.0), x.1.min(y.1));
        if from <= to {
            both.push((from, to));
        }
        if x.1 < y.1 { i += 1 } else { j += 1 }
    }
    both
}

/// How many addresses of the public are both admitted and granted.
fn reach(admits: &Sources, grants: &Sources, family: Family) -> u128 {
    let both = intersect(&family.ranges_of(admits), &family.ranges_of(grants));
    let public = intersect(&both, &complement(&family.private(), family.max()));
    public.iter().fold(0u128, |sum, (from, to)| sum.saturating_add((to - from).saturating_add(1)))
}

/// RFC 1918, RFC 6598, RFC 3927, RFC 4193, RFC 4291 link-local, and loopback.
fn private_networks() -> [IpNet; 9] {
    let v4 = |a, b, len| IpNet::new_assert(IpAddr::from([a, b, 0, 0]), len);
    let v6 = |first: u16, last: u16, len| {
        IpNet::new_assert(IpAddr::from([first, 0, 0, 0, 0, 0, 0, last]), len)
    };
    [
        v4(10, 0, 8),
        v4(172, 16, 12),
        v4(192, 168, 16),
        v4(100, 64, 10),
        v4(169, 254, 16),
        v4(127, 0, 8),
        v6(0xfc00, 0, 7),
        v6(0xfe80, 0, 10),
        v6(0, 1, 128),
    ]
}

fn is_private(address: IpAddr) -> bool {
    let address = canonical_ip(address);
    private_networks().iter().any(|net| net.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::domains::DomainSet;

    fn only(nets: &[&str]) -> Sources {
        Sources::Only(nets.iter().map(|n| (n.parse().unwrap(), String::new())).collect())
    }

    fn except(nets: &[&str]) -> Sources {
        Sources::AllExcept(nets.iter().map(|n| (n.parse().unwrap(), String::new())).collect())
    }

    fn audit(admits: Sources, sources: Sources) -> Option<Finding> {
        let grants =
            ListenerGrants { listener: "mx".to_owned(), sources, ..ListenerGrants::default() };
        let bound = ["0.0.0.0".parse().unwrap()];
        let (admits, grants) = (&admits, &grants);
        open_relay(&ListenerReach { bound: &bound, named: false, admits, grants }, None)
    }

    #[test]
    fn the_world_is_recognised_however_it_is_written() {
        for sources in [
            Sources::everyone(),
            only(&["0.0.0.0/0"]),
            only(&["::/0"]),
            only(&["2000::/3"]),
            only(&["0.0.0.0/1", "128.0.0.0/1"]),
            only(&["0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/2", "192.0.0.0/2"]),
            only(&["128.0.0.0/1"]),
            except(&["192.0.2.1/32"]),
            except(&["0.0.0.0/0"]),
            except(&["::/0", "10.0.0.0/8"]),
        ] {
            let finding = audit(Sources::everyone(), sources.clone());
            assert!(matches!(finding, Some(Finding::Sources { .. })), "{sources:?}");
        }
    }

    #[test]
    fn an_organisations_own_networks_are_not_the_world() {
        let everyone = Sources::everyone;
        assert_eq!(audit(everyone(), Sources::nobody()), None);
        assert_eq!(audit(everyone(), only(&["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"])), None);
        assert_eq!(audit(everyone(), only(&["17.0.0.0/8"])), None);
        assert_eq!(audit(only(&["10.0.0.0/8"]), everyone()), None);
        assert_eq!(audit(only(&["10.0.0.0/8", "fd00::/8"]), except(&["10.0.0.1/32"])), None);
    }

    #[test]
    fn only_the_exact_phrase_opens_it_and_loopback_needs_none() {
        let everyone = Sources::everyone();
        let grants = ListenerGrants { sources: Sources::everyone(), ..ListenerGrants::default() };
        let world = ["198.51.100.1".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        let reach =
            ListenerReach { bound: &world, named: false, admits: &everyone, grants: &grants };
        assert!(open_relay(&reach, None).is_some());
        assert!(open_relay(&reach, Some("yes")).is_some());
        assert_eq!(open_relay(&reach, Some(OPEN_RELAY_PHRASE)), None);
        let inside = ["127.0.0.1".parse().unwrap(), "::ffff:127.0.0.2".parse().unwrap()];
        let inside = ListenerReach { bound: &inside, ..reach };
        assert_eq!(open_relay(&inside, None), None);
        assert!(open_relay(&ListenerReach { named: true, ..inside }, None).is_some());
        let mapped = ["10.0.0.1".parse().unwrap()];
        assert!(open_relay(&ListenerReach { bound: &mapped, ..reach }, None).is_some());
    }

    #[test]
    fn public_internal_addresses_and_whole_top_level_domains_are_found() {
        let everyone = Sources::everyone();
        let bound = ["0.0.0.0".parse().unwrap()];
        let ask = |grants: &ListenerGrants| {
            let reach = ListenerReach { bound: &bound, named: false, admits: &everyone, grants };
            open_relay(&reach, None)
        };
        let inside = vec!["10.0.0.1".parse().unwrap()];
        let mut grants = ListenerGrants { internal_addresses: inside, ..Default::default() };
        assert_eq!(ask(&grants), None);
        grants.internal_addresses.push("198.51.100.1".parse().unwrap());
        assert!(matches!(ask(&grants), Some(Finding::InternalAddress { .. })));

        let reverse_domains = DomainSet::from_patterns(["*.ours.com", "*.lan"]).unwrap();
        let mut grants = ListenerGrants { reverse_domains, ..Default::default() };
        assert_eq!(ask(&grants), None);
        grants.reverse_domains = DomainSet::from_patterns(["*.com"]).unwrap();
        assert!(matches!(ask(&grants), Some(Finding::ReverseDomain { .. })));

        let mut table = DomainTable::new();
        table.insert("*.org", Route::Reject).unwrap();
        assert_eq!(wide_domain(&table, None), None);
        table.insert("*.com", Route::Relay).unwrap();
        assert!(wide_domain(&table, None).is_some());
        assert_eq!(wide_domain(&table, Some(OPEN_RELAY_PHRASE)), None);
    }
}
