//! The lists and the sources of all measurements: pseudo-random, and the same in every run.
//!
//! IPv4 addresses are spread evenly over 1.0.0.0 to 223.255.255.255, without 10/8 and 127/8; IPv6
//! ones over the /64s of 2000::/3, which is what one ban covers. So are the networks of prefixes.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, ensure};
use ipnet::IpNet;
use relay_common::entry::{Entry, Reason, Scope};
use relay_common::parse::Family;

/// Entries of the great list.
pub(super) const MILLION: usize = 1_000_000;
/// Of ten entries so many are hosts; the rest are prefixes.
const HOSTS_OF_TEN: usize = 9;
/// Lengths of prefixes, and how many of a hundred have each.
const LENGTHS_V4: [(u8, usize); 5] = [(24, 70), (23, 10), (22, 10), (20, 8), (16, 2)];
const LENGTHS_V6: [(u8, usize); 4] = [(56, 20), (48, 60), (40, 10), (32, 10)];

/// Sources that come again and again, as the senders of a mail server do.
const REGULARS: usize = 10_000;

const SEED: u64 = 0x005e_ed0f_0a11_1157;

/// How the lists and the sources are spread, for the report.
pub(super) fn described() -> String {
    let shares = |lengths: &[(u8, usize)]| {
        let shares = lengths.iter().map(|(length, share)| format!("{share} % /{length}"));
        shares.collect::<Vec<_>>().join(", ")
    };
    format!(
        "The list has {MILLION} denied entries, 90 % hosts (/32, or /64 for IPv6) and 10 % prefixes \
         (IPv4: {}; IPv6: {}). Sources and networks are pseudo-random, spread evenly over IPv4 \
         unicast (without 10/8 and 127/8) and over the /64s of 2000::/3. Either each comes as often \
         as any other, the worst that memory can be made to bear; or, where a line says that they \
         come again, {REGULARS} of them come as mail does, by Zipf's law: the n-th for every n-th \
         time that the first does.",
        shares(&LENGTHS_V4),
        shares(&LENGTHS_V6)
    )
}

/// Vigna's splitmix64.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// So many draws from the first of these, by Zipf's law with exponent 1.
    pub(super) fn come_again(&mut self, sources: &[IpAddr], count: usize) -> Vec<IpAddr> {
        let regulars = &sources[..sources.len().min(REGULARS)];
        let mut sum = 0.0;
        let mut until = Vec::with_capacity(regulars.len());
        for rank in 1..=regulars.len() {
            sum += 1.0 / rank as f64;
            until.push(sum);
        }
        let mut draw = || {
            let at = (self.next() >> 11) as f64 / (1u64 << 53) as f64 * sum;
            regulars[until.partition_point(|&until| until < at).min(regulars.len() - 1)]
        };
        (0..count).map(|_| draw()).collect()
    }

    /// Fisher and Yates's shuffle.
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }

    /// A source: see the module.
    pub(super) fn source(&mut self, family: Family) -> IpAddr {
        match family {
            Family::V4 => loop {
                let address = (self.next() >> 32) as u32;
                let first = address >> 24;
                if (1..224).contains(&first) && first != 10 && first != 127 {
                    return Ipv4Addr::from(address).into();
                }
            },
            Family::V6 => {
                let (network, host) = (self.next() >> 3 | 1 << 61, self.next());
                Ipv6Addr::from(u128::from(network) << 64 | u128::from(host)).into()
            }
        }
    }
}

/// What a ban of a source covers: /32 or /64.
pub(super) fn host(source: IpAddr) -> IpNet {
    let length = if source.is_ipv4() { 32 } else { 64 };
    IpNet::new(source, length).expect("within the length of an address").trunc()
}

/// A list of denied entries.
#[derive(Debug)]
pub(super) struct DenyList {
    family: Family,
    /// Hosts first, then prefixes; each in random order.
    prefixes: Vec<IpNet>,
    hosts: usize,
    members: HashSet<IpNet>,
    random: Random,
}

impl DenyList {
    /// Hosts and prefixes, as the module says.
    pub(super) fn mixed(family: Family, entries: usize) -> Self {
        Self::new(family, entries, entries * HOSTS_OF_TEN / 10, SEED)
    }

    /// What peers know that have no prefixes.
    pub(super) fn hosts_only(family: Family, entries: usize) -> Self {
        Self::new(family, entries, entries, SEED)
    }

    /// As many hosts again, to replace them by.
    pub(super) fn other_hosts(family: Family, entries: usize) -> Self {
        Self::new(family, entries, entries, !SEED)
    }

    fn new(family: Family, entries: usize, hosts: usize, seed: u64) -> Self {
        let lengths: &[(u8, usize)] = match family {
            Family::V4 => &LENGTHS_V4,
            Family::V6 => &LENGTHS_V6,
        };
        let mut list = Self {
            family,
            prefixes: Vec::with_capacity(entries),
            hosts,
            members: HashSet::with_capacity(entries),
            random: Random::new(seed),
        };
        while list.prefixes.len() < entries {
            let source = list.random.source(family);
            let length = if list.prefixes.len() < hosts {
                host(source).prefix_len()
            } else {
                pick(lengths, list.prefixes.len() % 100)
            };
            let prefix = IpNet::new(source, length).expect("of the family").trunc();
            if list.members.insert(prefix) {
                list.prefixes.push(prefix);
            }
        }
        list
    }

    pub(super) fn prefixes(&self) -> &[IpNet] {
        &self.prefixes
    }

    /// As the filter takes them: denied for port 25.
    pub(super) fn entries(&self) -> Vec<(IpNet, Entry)> {
        self.prefixes.iter().map(|&prefix| (prefix, entry())).collect()
    }

    /// The hosts alone of these.
    pub(super) fn host_entries(&self) -> Vec<(IpNet, Entry)> {
        self.prefixes[..self.hosts].iter().map(|&prefix| (prefix, entry())).collect()
    }

    pub(super) fn covers(&self, source: IpAddr) -> bool {
        let lengths = match self.family {
            Family::V4 => [32, 24, 23, 22, 20, 16].as_slice(),
            Family::V6 => [64, 56, 48, 40, 32].as_slice(),
        };
        let within = |&length: &u8| {
            IpNet::new(source, length).is_ok_and(|net| self.members.contains(&net.trunc()))
        };
        lengths.iter().any(within)
    }

    /// Sources that no entry covers.
    pub(super) fn honest(&mut self, count: usize) -> Vec<IpAddr> {
        let mut honest = Vec::with_capacity(count);
        while honest.len() < count {
            let source = self.random.source(self.family);
            if !self.covers(source) {
                honest.push(source);
            }
        }
        honest
    }

    /// Honest sources without a listed host in their /24 (/64), or a listed prefix in their /24
    /// (/32 of IPv6): nearly all of the honest.
    pub(super) fn clean(&mut self, count: usize) -> Vec<IpAddr> {
        let mut inhabited = HashSet::with_capacity(self.prefixes.len());
        for prefix in &self.prefixes {
            inhabited.insert(self.neighbourhood(prefix.addr(), prefix.prefix_len()));
        }
        let mut clean = Vec::with_capacity(count);
        while clean.len() < count {
            clean.extend(self.honest(count - clean.len()).into_iter().filter(|&source| {
                [32, 64]
                    .iter()
                    .all(|&length| !inhabited.contains(&self.neighbourhood(source, length)))
            }));
        }
        clean
    }

    /// The network that an entry of this length makes its neighbours look in.
    fn neighbourhood(&self, address: IpAddr, length: u8) -> IpNet {
        let length = match self.family {
            Family::V4 => 24,
            Family::V6 if length >= 64 => 64,
            Family::V6 => 32,
        };
        IpNet::new(address, length).expect("within the length of an address").trunc()
    }

    /// Sources that no entry covers, each with a listed host in its /24, or a listed prefix in its
    /// /32 of IPv6: those for which one look does not settle it.
    pub(super) fn neighbours(&mut self, count: usize) -> Vec<IpAddr> {
        let mut neighbours = Vec::with_capacity(count);
        while neighbours.len() < count {
            let random = self.random.next();
            let from = (random >> 32) as usize;
            let neighbour = match self.family {
                Family::V4 => match self.prefixes[from % self.hosts].addr() {
                    IpAddr::V4(v4) => {
                        Ipv4Addr::from(v4.to_bits() & !255 | (random as u32 & 255)).into()
                    }
                    other @ IpAddr::V6(_) => other,
                },
                Family::V6 => {
                    let of_prefixes = self.hosts + from % (self.prefixes.len() - self.hosts);
                    match self.prefixes[of_prefixes].addr() {
                        IpAddr::V6(v6) => {
                            let rest =
                                u128::from(self.random.next()) << 32 | u128::from(random >> 32);
                            Ipv6Addr::from(v6.to_bits() >> 96 << 96 | rest).into()
                        }
                        other @ IpAddr::V4(_) => other,
                    }
                }
            };
            if !self.covers(neighbour) {
                neighbours.push(neighbour);
            }
        }
        neighbours
    }

    /// Every listed host, as a source.
    pub(super) fn denied_hosts(&mut self) -> Vec<IpAddr> {
        self.sources_in(self.prefixes[..self.hosts].to_vec())
    }

    /// Sources within the listed prefixes, as many from each.
    ///
    /// # Errors
    /// There are no prefixes.
    pub(super) fn denied_by_prefix(&mut self, count: usize) -> Result<Vec<IpAddr>> {
        let prefixes = &self.prefixes[self.hosts..];
        ensure!(!prefixes.is_empty(), "this list has no prefixes");
        Ok(self.sources_in(prefixes.iter().copied().cycle().take(count).collect()))
    }

    /// A source for each entry of whatever kind.
    pub(super) fn denied(&mut self) -> Vec<IpAddr> {
        self.sources_in(self.prefixes.clone())
    }

    /// In another order than that of the entries: those that were put one after the other lie so
    /// in memory, and no flood comes in that order.
    fn sources_in(&mut self, prefixes: Vec<IpNet>) -> Vec<IpAddr> {
        let mut sources: Vec<IpAddr> =
            prefixes.into_iter().map(|prefix| self.within(prefix)).collect();
        self.random.shuffle(&mut sources);
        sources
    }

    fn within(&mut self, prefix: IpNet) -> IpAddr {
        match prefix {
            IpNet::V4(net) => {
                let host = (self.random.next() >> 32) as u32 & net.hostmask().to_bits();
                Ipv4Addr::from(net.network().to_bits() | host).into()
            }
            IpNet::V6(net) => {
                let random = u128::from(self.random.next()) << 64 | u128::from(self.random.next());
                Ipv6Addr::from(net.network().to_bits() | random & net.hostmask().to_bits()).into()
            }
        }
    }
}

/// An entry that denies port 25.
pub(super) fn entry() -> Entry {
    Entry::new(Scope::MX, Reason::Import, 1)
}

fn pick(lengths: &[(u8, usize)], mut percent: usize) -> u8 {
    for &(length, share) in lengths {
        match percent.checked_sub(share) {
            Some(rest) => percent = rest,
            None => return length,
        }
    }
    lengths[0].0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_again_comes_by_zipfs_law() {
        let sources: Vec<IpAddr> =
            (0..20_000u32).map(|number| Ipv4Addr::from(number).into()).collect();
        let mut times = vec![0u32; sources.len()];
        for source in Random::new(7).come_again(&sources, 1_000_000) {
            let IpAddr::V4(v4) = source else { panic!("{source}") };
            times[v4.to_bits() as usize] += 1;
        }
        // The harmonic number of 10,000 is 9.79.
        assert!((100_000..104_500).contains(&times[0]), "{}", times[0]);
        assert!((9_700..10_700).contains(&times[9]), "{}", times[9]);
        assert_eq!(times[REGULARS..].iter().sum::<u32>(), 0);
    }

    #[test]
    fn sources_are_what_their_names_say() {
        for family in Family::ALL {
            let mut list = DenyList::mixed(family, 20_000);
            let lengths: HashSet<u8> = list.prefixes().iter().map(IpNet::prefix_len).collect();
            let hosts = list.denied_hosts();
            assert_eq!(
                (hosts.len(), lengths.len()),
                (18_000, if family == Family::V4 { 6 } else { 5 })
            );
            let by_prefix = list.denied_by_prefix(5_000).unwrap();
            assert!(hosts.iter().chain(&by_prefix).all(|&source| list.covers(source)));
            let passing = [list.honest(1_000), list.neighbours(1_000)].concat();
            assert!(!passing.iter().any(|&source| list.covers(source)));
            let all = list.denied();
            assert!(all.len() == 20_000 && all.iter().all(|&source| list.covers(source)));
            assert!(
                !all.iter().zip(list.prefixes()).all(|(source, prefix)| prefix.contains(source))
            );
        }
    }
}
