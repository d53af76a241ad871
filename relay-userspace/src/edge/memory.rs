//! The filter in memory: for tests, and for `--filter userspace`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::entry::{Entry, List, Scope};

use super::filter::{Attachment, Capacity, Filter, FilterError, Mode, RuleHits, Totals, Verdict};

#[derive(Debug)]
pub struct MemoryFilter {
    entries: BTreeMap<(List, IpNet), Entry>,
    guarded: Scope,
    max: u64,
}

impl MemoryFilter {
    pub fn new(max: u64) -> Self {
        Self { entries: BTreeMap::new(), guarded: Scope::NONE, max }
    }

    fn find(&self, list: List, source: IpAddr, class: Scope, now_s: u32) -> Option<(IpNet, Entry)> {
        self.entries
            .iter()
            .filter(|((of, net), entry)| {
                *of == list
                    && net.contains(&source)
                    && entry.is_live(now_s)
                    && entry.scope.intersects(class)
            })
            .map(|((_, net), entry)| (*net, *entry))
            .max_by_key(|(net, _)| net.prefix_len())
    }
}

impl Filter for MemoryFilter {
    fn put(&mut self, list: List, prefix: IpNet, entry: Entry) -> Result<(), FilterError> {
        let same_list = self
            .entries
            .keys()
            .filter(|(of, net)| *of == list && net.addr().is_ipv4() == prefix.addr().is_ipv4());
        if !self.entries.contains_key(&(list, prefix)) && same_list.count() as u64 >= self.max {
            return Err(FilterError::Full { list, max: self.max });
        }
        self.entries.insert((list, prefix), entry);
        Ok(())
    }

    fn remove(&mut self, list: List, prefix: IpNet) -> Result<bool, FilterError> {
        Ok(self.entries.remove(&(list, prefix)).is_some())
    }

    fn get(&self, list: List, prefix: IpNet) -> Result<Option<Entry>, FilterError> {
        Ok(self.entries.get(&(list, prefix)).copied())
    }

    fn entries(&self, list: List) -> Result<Vec<(IpNet, Entry)>, FilterError> {
        let of_list = self.entries.iter().filter(|((of, _), _)| *of == list);
        Ok(of_list.map(|((_, net), entry)| (*net, *entry)).collect())
    }

    fn capacity(&self) -> Capacity {
        Capacity { v4: self.max, v6: self.max }
    }

    fn set_guarded(&mut self, scope: Scope) -> Result<(), FilterError> {
        self.guarded = scope;
        Ok(())
    }

    fn verdict(&self, source: IpAddr, class: Scope, now_s: u32) -> Result<Verdict, FilterError> {
        if !self.guarded.intersects(class) {
            return Ok(Verdict::Pass);
        }
        if let Some((net, entry)) = self.find(List::Allow, source, class, now_s) {
            return Ok(Verdict::Allowed(net, entry));
        }
        Ok(self
            .find(List::Deny, source, class, now_s)
            .map_or(Verdict::Pass, |(net, entry)| Verdict::Denied(net, entry)))
    }

    fn totals(&self) -> Result<Totals, FilterError> {
        Ok(Totals::default())
    }

    fn rule_hits(&self, _rule: u32) -> Result<RuleHits, FilterError> {
        Ok(RuleHits::default())
    }

    fn reset_rule(&mut self, _rule: u32) -> Result<(), FilterError> {
        Ok(())
    }

    fn attachment(&self) -> Attachment {
        Attachment { interface: "none".into(), mode: Mode::Memory, program_id: None }
    }
}
