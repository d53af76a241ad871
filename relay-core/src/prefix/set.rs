//! A set of prefixes that answers with the longest.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{canonical_ip, canonical_net};

/// Values by prefix; a lookup answers with the longest prefix that holds the address.
///
/// A lookup costs one ordered-map search for each prefix length in use, whatever the size. Meant
/// for userspace lists (listeners, never-route, inside hosts), not for feeds: it has no limit of
/// its own, the configuration or the store that fills it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixSet<T> {
    v4: BTreeMap<u8, BTreeMap<u32, T>>,
    v6: BTreeMap<u8, BTreeMap<u128, T>>,
}

impl<T> Default for PrefixSet<T> {
    fn default() -> Self {
        Self { v4: BTreeMap::new(), v6: BTreeMap::new() }
    }
}

impl<T> PrefixSet<T> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a value under the canonical form of the prefix; returns the one it replaces.
    pub fn insert(&mut self, net: IpNet, value: T) -> Option<T> {
        match canonical_net(net) {
            IpNet::V4(v4) => {
                self.v4.entry(v4.prefix_len()).or_default().insert(v4.addr().into(), value)
            }
            IpNet::V6(v6) => {
                self.v6.entry(v6.prefix_len()).or_default().insert(v6.addr().into(), value)
            }
        }
    }

    /// Takes out exactly this prefix; wider and narrower ones stay.
    pub fn remove(&mut self, net: IpNet) -> Option<T> {
        match canonical_net(net) {
            IpNet::V4(v4) => take(&mut self.v4, v4.prefix_len(), &v4.addr().into()),
            IpNet::V6(v6) => take(&mut self.v6, v6.prefix_len(), &v6.addr().into()),
        }
    }

    /// The value of exactly this prefix.
    pub fn get(&self, net: IpNet) -> Option<&T> {
        match canonical_net(net) {
            IpNet::V4(v4) => self.v4.get(&v4.prefix_len())?.get(&v4.addr().into()),
            IpNet::V6(v6) => self.v6.get(&v6.prefix_len())?.get(&v6.addr().into()),
        }
    }

    /// Every prefix that holds the address, longest first.
    pub fn matches(&self, address: IpAddr) -> impl Iterator<Item = (IpNet, &T)> {
        let (v4, v6) = match canonical_ip(address) {
            IpAddr::V4(v4) => (Some(u32::from(v4)), None),
            IpAddr::V6(v6) => (None, Some(u128::from(v6))),
        };
        let of_v4 = v4.into_iter().flat_map(|bits| {
            self.v4.iter().rev().filter_map(move |(&len, nets)| {
                let network = bits & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                Some((v4_net(network, len), nets.get(&network)?))
            })
        });
        let of_v6 = v6.into_iter().flat_map(|bits| {
            self.v6.iter().rev().filter_map(move |(&len, nets)| {
                let network = bits & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                Some((v6_net(network, len), nets.get(&network)?))
            })
        });
        of_v4.chain(of_v6)
    }

    /// The longest prefix that holds the address.
    pub fn lookup(&self, address: IpAddr) -> Option<(IpNet, &T)> {
        self.matches(address).next()
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.lookup(address).is_some()
    }

    pub fn len(&self) -> usize {
        self.v4.values().map(BTreeMap::len).sum::<usize>()
            + self.v6.values().map(BTreeMap::len).sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Every prefix: IPv4 first, wide before narrow, then by address.
    pub fn iter(&self) -> impl Iterator<Item = (IpNet, &T)> {
        let v4 = self.v4.iter().flat_map(|(&len, nets)| {
            nets.iter().map(move |(&network, value)| (v4_net(network, len), value))
        });
        let v6 = self.v6.iter().flat_map(|(&len, nets)| {
            nets.iter().map(move |(&network, value)| (v6_net(network, len), value))
        });
        v4.chain(v6)
    }
}

impl<T> FromIterator<(IpNet, T)> for PrefixSet<T> {
    fn from_iter<I: IntoIterator<Item = (IpNet, T)>>(pairs: I) -> Self {
        let mut set = Self::new();
        for (net, value) in pairs {
            set.insert(net, value);
        }
        set
    }
}

/// Removes one key and the length's map with its last, so that lookups never walk empty lengths.
fn take<K: Ord, T>(lengths: &mut BTreeMap<u8, BTreeMap<K, T>>, len: u8, key: &K) -> Option<T> {
    let nets = lengths.get_mut(&len)?;
    let value = nets.remove(key);
    if nets.is_empty() {
        lengths.remove(&len);
    }
    value
}

fn v4_net(network: u32, len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(network), len))
}

fn v6_net(network: u128, len: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(network), len))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prefix::net_of;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_answers_and_a_mapped_address_is_v4() {
        let set: PrefixSet<u8> =
            [(net("10.0.0.0/8"), 8), (net("10.1.0.0/16"), 16), (net("2001:db8::/32"), 32)]
                .into_iter()
                .collect();
        let at = |text: &str| set.lookup(text.parse().unwrap());
        assert_eq!(at("10.1.2.3"), Some((net("10.1.0.0/16"), &16)));
        assert_eq!(at("::ffff:10.1.2.3"), Some((net("10.1.0.0/16"), &16)));
        assert_eq!(at("10.2.0.1"), Some((net("10.0.0.0/8"), &8)));
        assert_eq!(at("2001:db8::9"), Some((net("2001:db8::/32"), &32)));
        assert_eq!(at("11.0.0.1"), None);
        assert_eq!(set.matches("10.1.0.9".parse().unwrap()).count(), 2);
    }

    #[test]
    fn removing_a_prefix_uncovers_the_wider_one() {
        let mut set = PrefixSet::new();
        set.insert(net("0.0.0.0/0"), "all");
        set.insert(net("192.0.2.1/32"), "one");
        assert_eq!(set.remove(net("192.0.2.1/32")), Some("one"));
        assert_eq!(set.remove(net("192.0.2.1/32")), None);
        assert_eq!(set.lookup("192.0.2.1".parse().unwrap()), Some((net("0.0.0.0/0"), &"all")));
        assert_eq!(set.lookup("::1".parse().unwrap()), None);
        set.remove(net("0.0.0.0/0"));
        assert!(set.is_empty());
    }

    proptest! {
        #[test]
        fn lookups_agree_with_a_scan(
            nets in prop::collection::vec((0u32..1 << 12, 0u8..=32), 0..40), probe in 0u32..1 << 12,
        ) {
            let spread = |bits: u32| IpAddr::V4((bits << 20 | bits).into());
            let nets: Vec<IpNet> =
                nets.into_iter().map(|(b, l)| net_of(spread(b), l).trunc()).collect();
            let set: PrefixSet<()> = nets.iter().map(|&net| (net, ())).collect();
            let scan = nets.iter().filter(|n| n.contains(&spread(probe))).max_by_key(|n| n.prefix_len());
            prop_assert_eq!(set.lookup(spread(probe)).map(|(net, _)| net), scan.copied());
        }
    }
}
