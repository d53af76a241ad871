//! What the maps should hold, in memory: the merged claim for each prefix of each list.

use std::collections::BTreeMap;

use ipnet::IpNet;
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
    claims: BTreeMap<Key, Claim>,
    /// Deny claims by the bits of what they speak about, observed or not.
    scopes: [u64; 16],
    /// Prefixes by list and family.
    counts: BTreeMap<(List, Family), u64>,
}

impl Desired {
    pub(super) fn get(&self, key: Key) -> Option<&Claim> {
        self.claims.get(&key)
    }

    pub(super) fn set(&mut self, key: Key, claim: Option<Claim>) {
        let scope_of = |claim: &Claim| usize::from(claim.speaks().bits() & 15);
        let counted = self.counts.entry((key.0, family_of(&key.1))).or_default();
        let before = match claim {
            Some(claim) => {
                *counted += 1;
                if key.0 == List::Deny {
                    self.scopes[scope_of(&claim)] += 1;
                }
                self.claims.insert(key, claim)
            }
            None => self.claims.remove(&key),
        };
        if let Some(before) = before {
            *counted -= 1;
            if key.0 == List::Deny {
                self.scopes[scope_of(&before)] -= 1;
            }
        }
    }

    /// All that denies speak about, observed or not: packets of other classes need no lookup.
    pub(super) fn guarded(&self) -> Scope {
        let used = (0u8..).zip(self.scopes).filter(|(_, count)| *count > 0);
        used.fold(Scope::NONE, |all, (bits, _)| all.union(Scope::from_bits(bits)))
    }

    pub(super) fn count(&self, list: List) -> u64 {
        Family::ALL.iter().filter_map(|&family| self.counts.get(&(list, family))).sum()
    }

    /// Every prefix of every list.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = Key> {
        self.claims.keys().copied()
    }

    pub(super) fn of_list(&self, list: List) -> impl Iterator<Item = (IpNet, &Claim)> {
        // 0.0.0.0/0 sorts before every other prefix.
        let first = IpNet::V4(ipnet::Ipv4Net::default());
        self.claims
            .range((list, first)..)
            .take_while(move |((of, _), _)| *of == list)
            .map(|((_, prefix), claim)| (*prefix, claim))
    }

    /// Live claims of a list on prefixes that hold `prefix` whole, longest first.
    pub(super) fn covering(
        &self,
        list: List,
        prefix: IpNet,
        wall_s: u64,
    ) -> impl Iterator<Item = (IpNet, &Claim)> {
        holding(prefix)
            .filter_map(move |wider| Some((wider, self.claims.get(&(list, wider))?)))
            .filter(move |(_, claim)| claim.is_live(wall_s))
    }

    /// The allow entry that leaves a deny of this prefix and scope without effect.
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
        let count = self.counts.get(&(list, family)).copied().unwrap_or(0);
        count >= u64::from(max.of(list))
    }

    /// Refuses changes that the maps have no room for, before anything is written. Lists that are
    /// too long already, since the maps were made smaller, may be changed as long as they do not
    /// grow: it is how they become short enough.
    pub(super) fn room(
        &self,
        updates: &[(Key, Option<Claim>)],
        max: MapSizes,
    ) -> Result<(), Problem> {
        let mut counts = self.counts.clone();
        for ((list, prefix), claim) in updates {
            let is_there = self.claims.contains_key(&(*list, *prefix));
            let count = counts.entry((*list, family_of(prefix))).or_default();
            match claim {
                Some(_) if !is_there => *count += 1,
                None if is_there => *count -= 1,
                _ => {}
            }
        }
        for ((list, family), count) in counts {
            let before = self.counts.get(&(list, family)).copied().unwrap_or(0);
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
