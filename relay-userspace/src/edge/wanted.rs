//! What the maps should hold, in memory: the merged claim for each prefix of each list.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use relay_common::entry::{List, Scope};
use relay_common::parse::Family;

use super::desired::Claim;
use super::filter::{MapSizes, family_of};
use super::store::Key;
use crate::control::api::{Code, Problem};

/// The prefix itself and all that hold it whole, longest first.
pub(super) fn holding(prefix: IpNet) -> impl Iterator<Item = IpNet> {
    let wider = (0..=prefix.prefix_len()).rev();
    wider.filter_map(move |len| IpNet::new(prefix.addr(), len).ok()).map(|net| net.trunc())
}

/// What the maps should hold: the merged claim for each prefix.
#[derive(Debug, Default)]
pub(super) struct Desired {
    allow: Claims,
    deny: Claims,
    /// Deny claims by the bits of what they speak about, observed or not.
    scopes: [u64; 16],
}

/// One list's, by address and length: in a tree with millions of keys each byte counts.
#[derive(Debug, Default)]
struct Claims {
    v4: BTreeMap<[u8; 5], Claim>,
    v6: BTreeMap<[u8; 17], Claim>,
}

/// Address and length as bytes, which sort as prefixes do.
fn bytes<const ADDRESS: usize, const KEY: usize>(address: [u8; ADDRESS], len: u8) -> [u8; KEY] {
    let mut key = [len; KEY];
    key[..ADDRESS].copy_from_slice(&address);
    key
}

fn v4_of(key: &[u8; 5]) -> IpNet {
    let [a, b, c, d, len] = *key;
    IpNet::V4(Ipv4Net::new_assert([a, b, c, d].into(), len))
}

fn v6_of(key: &[u8; 17]) -> IpNet {
    let (address, len) = key.split_first_chunk::<16>().expect("seventeen are more");
    IpNet::V6(Ipv6Net::new_assert((*address).into(), len[0]))
}

impl Claims {
    fn get(&self, prefix: IpNet) -> Option<Claim> {
        match prefix {
            IpNet::V4(v4) => self.v4.get(&bytes(v4.addr().octets(), v4.prefix_len())),
            IpNet::V6(v6) => self.v6.get(&bytes(v6.addr().octets(), v6.prefix_len())),
        }
        .copied()
    }

    fn set(&mut self, prefix: IpNet, claim: Option<Claim>) -> Option<Claim> {
        match (prefix, claim) {
            (IpNet::V4(v4), Some(claim)) => {
                self.v4.insert(bytes(v4.addr().octets(), v4.prefix_len()), claim)
            }
            (IpNet::V4(v4), None) => self.v4.remove(&bytes(v4.addr().octets(), v4.prefix_len())),
            (IpNet::V6(v6), Some(claim)) => {
                self.v6.insert(bytes(v6.addr().octets(), v6.prefix_len()), claim)
            }
            (IpNet::V6(v6), None) => self.v6.remove(&bytes(v6.addr().octets(), v6.prefix_len())),
        }
    }

    /// In order of prefix.
    fn iter(&self) -> impl Iterator<Item = (IpNet, Claim)> {
        let v4 = self.v4.iter().map(|(key, claim)| (v4_of(key), *claim));
        v4.chain(self.v6.iter().map(|(key, claim)| (v6_of(key), *claim)))
    }

    fn count(&self, family: Family) -> u64 {
        let count = match family {
            Family::V4 => self.v4.len(),
            Family::V6 => self.v6.len(),
        };
        count as u64
    }
}

impl Desired {
    fn of(&self, list: List) -> &Claims {
        match list {
            List::Allow => &self.allow,
            List::Deny => &self.deny,
        }
    }

    pub(super) fn get(&self, (list, prefix): Key) -> Option<Claim> {
        self.of(list).get(prefix)
    }

    pub(super) fn set(&mut self, (list, prefix): Key, claim: Option<Claim>) {
        let scope_of = |claim: Claim| usize::from(claim.speaks().bits() & 15);
        if list == List::Allow {
            self.allow.set(prefix, claim);
            return;
        }
        if let Some(claim) = claim {
            self.scopes[scope_of(claim)] += 1;
        }
        if let Some(before) = self.deny.set(prefix, claim) {
            self.scopes[scope_of(before)] -= 1;
        }
    }

    /// All that denies speak about, observed or not: packets of other classes need no lookup.
    pub(super) fn guarded(&self) -> Scope {
        let used = (0u8..).zip(self.scopes).filter(|(_, count)| *count > 0);
        used.fold(Scope::NONE, |all, (bits, _)| all.union(Scope::from_bits(bits)))
    }

    pub(super) fn count(&self, list: List) -> u64 {
        Family::ALL.iter().map(|&family| self.of(list).count(family)).sum()
    }

    /// Every prefix of every list.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = Key> {
        List::ALL.into_iter().flat_map(|list| self.of_list(list).map(move |(net, _)| (list, net)))
    }

    /// In order of prefix.
    pub(super) fn of_list(&self, list: List) -> impl Iterator<Item = (IpNet, Claim)> {
        self.of(list).iter()
    }

    /// Live claims of a list on prefixes that hold `prefix` whole, longest first.
    pub(super) fn covering(
        &self,
        list: List,
        prefix: IpNet,
        wall_s: u64,
    ) -> impl Iterator<Item = (IpNet, Claim)> {
        holding(prefix)
            .filter_map(move |wider| Some((wider, self.get((list, wider))?)))
            .filter(move |(_, claim)| claim.is_live(wall_s))
    }

    /// The allow entry that leaves a deny of this prefix and scope without effect at a second
    /// since 1970.
    pub(super) fn allow_over(&self, prefix: IpNet, scope: Scope, wall_s: u64) -> Option<IpNet> {
        if self.count(List::Allow) == 0 {
            return None;
        }
        self.covering(List::Allow, prefix, wall_s)
            .find(|(_, claim)| claim.scope.contains(scope))
            .map(|(prefix, _)| prefix)
    }

    /// Whether one more prefix of the family would be one too many.
    pub(super) fn is_full(&self, list: List, family: Family, max: MapSizes) -> bool {
        self.of(list).count(family) >= u64::from(max.of(list))
    }

    /// Whether the maps have no room for what comes beside what goes.
    pub(super) fn lacks_room(&self, updates: &[(Key, Option<Claim>)], max: MapSizes) -> bool {
        let mut comes = BTreeMap::new();
        for ((list, prefix), claim) in updates {
            if claim.is_some() && self.get((*list, *prefix)).is_none() {
                *comes.entry((*list, family_of(prefix))).or_insert(0) += 1;
            }
        }
        let mut comes = comes.into_iter();
        comes.any(|((list, family), count)| {
            self.of(list).count(family) + count > u64::from(max.of(list))
        })
    }

    /// Refuses changes that the maps have no room for, before anything is written. Lists that are
    /// too long already, since the maps were made smaller, may be changed as long as they do not
    /// grow: it is how they become short enough.
    pub(super) fn room(
        &self,
        updates: &[(Key, Option<Claim>)],
        max: MapSizes,
    ) -> Result<(), Problem> {
        let mut counts = BTreeMap::new();
        for ((list, prefix), claim) in updates {
            let is_there = self.get((*list, *prefix)).is_some();
            let family = family_of(prefix);
            let now = || self.of(*list).count(family);
            let count = counts.entry((*list, family)).or_insert_with(now);
            match claim {
                Some(_) if !is_there => *count += 1,
                None if is_there => *count -= 1,
                _ => {}
            }
        }
        for ((list, family), count) in counts {
            let before = self.of(list).count(family);
            let (max, family) = (u64::from(max.of(list)), family.name());
            if count > max && count > before {
                let message = format!(
                    "the {list} list would have {count} {family} prefixes, and there is room for \
                     {max}; nothing was changed"
                );
                return Err(Problem::new(Code::Full, message)
                    .remedy("remove entries, join prefixes, or raise filter.max_entries"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;
    use relay_common::entry::Reason;

    use super::*;

    fn prefix() -> impl Strategy<Value = IpNet> {
        let v4 = (0u32..6, 29u8..=32).prop_map(|(low, len)| (IpAddr::from(low.to_be_bytes()), len));
        let v6 =
            (0u128..6, 125u8..=128).prop_map(|(low, len)| (IpAddr::from(low.to_be_bytes()), len));
        prop_oneof![v4, v6].prop_map(|(ip, len)| IpNet::new(ip, len).unwrap().trunc())
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map_that_counts(
            changes in prop::collection::vec((any::<bool>(), prefix(), 0u8..16), 0..60),
        ) {
            let (mut desired, mut model) = (Desired::default(), BTreeMap::new());
            for (allows, prefix, scope) in changes {
                let list = if allows { List::Allow } else { List::Deny };
                let scope = Scope::from_bits(scope);
                let claim = (scope != Scope::NONE)
                    .then(|| Claim::of_row(scope, false, Reason::Manual, 1, None));
                desired.set((list, prefix), claim);
                match claim {
                    Some(claim) => drop(model.insert((list, prefix), claim)),
                    None => drop(model.remove(&(list, prefix))),
                }
                prop_assert_eq!(desired.get((list, prefix)), claim);
            }
            let held: Vec<Key> = desired.prefixes().collect();
            prop_assert_eq!(held, model.keys().copied().collect::<Vec<Key>>());
            let denied = model.iter().filter(|((list, _), _)| *list == List::Deny);
            let guarded = denied.clone().fold(Scope::NONE, |all, (_, it)| all.union(it.scope));
            prop_assert_eq!(desired.guarded(), guarded);
            prop_assert_eq!(desired.count(List::Deny), denied.count() as u64);
        }
    }

    #[test]
    fn a_claim_is_small() {
        assert_eq!(size_of::<Claim>(), 16);
    }
}
