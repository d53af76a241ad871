//! The lists in memory: for tests, and for `--filter userspace`, where they are asked at accept().

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::control::{Control, Kind, Place, Slot, Table};
use relay_common::entry::{Entry, List, Scope};
use relay_common::event::{Event, Fate};
use relay_common::layout::{self, RuleHits};
use relay_common::parse::{Family, Packet, Source};
use relay_common::totals::{Counter, Totals};
use relay_common::touch::Touch;
use relay_common::verdict::{self, Lists, Verdict};

use super::events::source::{self, EventSource, Teller, Told};
use super::filter::{
    Attachment, Filter, FilterError, MapSizes, Mode, Modes, State, family_of, source_of,
};

type Entries = HashMap<(List, IpNet), Entry>;

/// The same answers as the kernel's maps, by a lookup for each prefix length.
#[derive(Debug)]
pub struct MemoryFilter {
    sizes: MapSizes,
    rows: Entries,
    counts: HashMap<(List, Family), u32>,
    /// The generation of feeds in force, and the idle one.
    feeds: Entries,
    idle: Entries,
    guarded: Scope,
    modes: Modes,
    totals: Totals,
    /// Bounded by the number of rule ids, which the layout fixes.
    hits: HashMap<u32, RuleHits>,
    teller: Option<Teller>,
}

impl MemoryFilter {
    pub fn new(sizes: MapSizes) -> Self {
        Self {
            sizes,
            rows: HashMap::new(),
            counts: HashMap::new(),
            feeds: HashMap::new(),
            idle: HashMap::new(),
            guarded: Scope::NONE,
            modes: Modes::default(),
            totals: Totals::default(),
            hits: HashMap::new(),
            teller: None,
        }
    }

    fn decide(&self, packet: &Packet, now_s: u32) -> Verdict {
        verdict::decide(&At { filter: self, now_s }, self.control(), packet)
    }

    /// Tells of a connection that was refused, or would have been.
    fn tell(&mut self, packet: &Packet, verdict: &Verdict, now_s: u32) {
        let (fate, entry) = match verdict {
            Verdict::Denied(entry) => (Fate::Dropped, entry),
            Verdict::Observed(entry) => (Fate::Observed, entry),
            _ => return,
        };
        let Some(teller) = self.teller.as_mut().filter(|_| self.modes.events_per_s > 0) else {
            return;
        };
        let event = Event {
            at_ns: u64::from(now_s) * 1_000_000_000,
            source: packet.source,
            port: packet.port,
            fate,
            rule: entry.rule,
            reason: entry.reason,
            prefix_len: entry.prefix_len,
        };
        let counter = match teller.tell(event, self.modes.events_per_s) {
            Told::Told => Counter::EventTold,
            Told::LeftOut => Counter::EventLeftOut,
            Told::Lost => Counter::EventLost,
        };
        self.totals.add(counter, 1);
    }

    /// A table without entries costs nothing here, so all of them are in use.
    fn control(&self) -> Control {
        let word = Control::default().with_guarded(self.guarded);
        let mut control = word.with_observes(self.modes.observes);
        for table in Table::ALL {
            for kind in Kind::ALL {
                for family in Family::ALL {
                    control = control.with_used(table, kind, family, true);
                }
            }
        }
        control
    }

    fn count(&mut self, list: List, prefix: &IpNet) -> &mut u32 {
        self.counts.entry((list, family_of(prefix))).or_default()
    }
}

impl Default for MemoryFilter {
    fn default() -> Self {
        Self::new(MapSizes::default())
    }
}

impl Filter for MemoryFilter {
    fn put(&mut self, list: List, prefix: IpNet, entry: Entry) -> Result<(), FilterError> {
        let prefix = prefix.trunc();
        let entry = Entry { prefix_len: prefix.prefix_len(), ..entry };
        let capacity = self.sizes.of(list);
        if !self.rows.contains_key(&(list, prefix)) {
            let count = self.count(list, &prefix);
            if *count >= capacity {
                return Err(FilterError::Full { list, family: family_of(&prefix), capacity });
            }
            *count += 1;
        }
        self.rows.insert((list, prefix), entry);
        Ok(())
    }

    fn remove(&mut self, list: List, prefix: IpNet) -> Result<bool, FilterError> {
        let prefix = prefix.trunc();
        let was_there = self.rows.remove(&(list, prefix)).is_some();
        if was_there {
            *self.count(list, &prefix) -= 1;
        }
        Ok(was_there)
    }

    fn get(&self, list: List, prefix: IpNet) -> Result<Option<Entry>, FilterError> {
        Ok(self.rows.get(&(list, prefix.trunc())).copied())
    }

    fn entries(&self, list: List) -> Result<Vec<(IpNet, Entry)>, FilterError> {
        let of_list = self.rows.iter().filter(|((of, _), _)| *of == list);
        Ok(of_list.map(|(&(_, prefix), &entry)| (prefix, entry)).collect())
    }

    fn capacity(&self) -> MapSizes {
        self.sizes
    }

    fn set_guarded(&mut self, scope: Scope) -> Result<(), FilterError> {
        self.guarded = scope;
        Ok(())
    }

    fn guarded(&self) -> Result<Scope, FilterError> {
        Ok(self.guarded)
    }

    fn set_modes(&mut self, modes: &Modes) -> Result<(), FilterError> {
        self.modes = modes.clone();
        Ok(())
    }

    fn feed_clear(&mut self, at_most: usize) -> Result<bool, FilterError> {
        let gone: Vec<_> = self.idle.keys().copied().take(at_most).collect();
        for key in gone {
            self.idle.remove(&key);
        }
        Ok(self.idle.is_empty())
    }

    fn feed_fill(&mut self, list: List, entries: &[(IpNet, Entry)]) -> Result<(), FilterError> {
        for &(prefix, entry) in entries {
            let prefix = prefix.trunc();
            let family = family_of(&prefix);
            let of_table = |key: &&(List, IpNet)| key.0 == list && family_of(&key.1) == family;
            let capacity = self.sizes.of_place(Place::Feeds(Slot::A), list);
            if !self.idle.contains_key(&(list, prefix))
                && self.idle.len() >= capacity as usize
                && self.idle.keys().filter(of_table).count() >= capacity as usize
            {
                return Err(FilterError::Full { list, family, capacity });
            }
            let entry = Entry { prefix_len: prefix.prefix_len(), ..entry };
            self.idle.insert((list, prefix), entry);
        }
        Ok(())
    }

    fn feed_count(&self) -> Result<u64, FilterError> {
        Ok(self.idle.len() as u64)
    }

    fn feed_flip(&mut self, guarded: Scope) -> Result<(), FilterError> {
        std::mem::swap(&mut self.feeds, &mut self.idle);
        self.guarded = guarded;
        Ok(())
    }

    fn feeds(&self, each: &mut dyn FnMut(List, IpNet, Entry)) -> Result<(), FilterError> {
        self.feeds.iter().for_each(|(&(list, prefix), &entry)| each(list, prefix, entry));
        Ok(())
    }

    fn retouch(
        &mut self,
        _prefixes: &mut dyn Iterator<Item = (List, IpNet)>,
    ) -> Result<(), FilterError> {
        Ok(())
    }

    fn verdict(&self, source: IpAddr, class: Scope, now_s: u32) -> Result<Verdict, FilterError> {
        Ok(self.decide(&Packet::of_class(source_of(source), class), now_s))
    }

    fn judge(&mut self, source: IpAddr, port: u16, now_s: u32) -> Result<Verdict, FilterError> {
        let packet = Packet::to_port(source_of(source), port);
        let verdict = self.decide(&packet, now_s);
        self.totals.add(Counter::of_verdict(&packet, &verdict), 1);
        self.tell(&packet, &verdict, now_s);
        if let Some(entry) = verdict.entry()
            && entry.rule < layout::RULES
        {
            let slot = self.hits.entry(entry.rule).or_default();
            let observed = u64::from(matches!(verdict, Verdict::Observed(_)));
            let hit = RuleHits { hits: 1 - observed, observed, last_s: i64::from(now_s) };
            *slot = slot.merge(hit);
        }
        Ok(verdict)
    }

    fn events(&mut self) -> Option<Box<dyn EventSource>> {
        if self.teller.is_some() {
            return None;
        }
        let (teller, inbox) = source::in_memory();
        self.teller = Some(teller);
        Some(Box::new(inbox))
    }

    fn totals(&self) -> Result<Totals, FilterError> {
        Ok(self.totals)
    }

    fn rule_hits(&self, rule: u32) -> Result<RuleHits, FilterError> {
        if rule >= layout::RULES {
            return Err(FilterError::NoSuchRule { rule });
        }
        Ok(self.hits.get(&rule).copied().unwrap_or_default())
    }

    fn set_totals(&mut self, totals: &Totals) -> Result<(), FilterError> {
        self.totals = *totals;
        Ok(())
    }

    fn set_rule(&mut self, rule: u32, hits: RuleHits) -> Result<(), FilterError> {
        if rule >= layout::RULES {
            return Err(FilterError::NoSuchRule { rule });
        }
        self.hits.insert(rule, hits);
        Ok(())
    }

    fn attachments(&self) -> Vec<Attachment> {
        vec![Attachment {
            interface: None,
            called: None,
            mode: Mode::Memory,
            state: State::Up,
            program_id: None,
        }]
    }
}

/// The lists at one moment.
struct At<'a> {
    filter: &'a MemoryFilter,
    now_s: u32,
}

impl At<'_> {
    fn get(&self, table: Table, list: List, source: &Source, len: u8) -> Option<Entry> {
        let entries = match table {
            Table::Rows => &self.filter.rows,
            Table::Feeds => &self.filter.feeds,
        };
        entries.get(&(list, network(source, len)?)).copied()
    }
}

impl Lists for At<'_> {
    fn touched(&self, _source: &Source) -> Touch {
        Touch::ANY
    }

    fn host(&self, table: Table, source: &Source) -> Option<Entry> {
        self.get(table, List::Deny, source, source.family().host_len())
    }

    fn longest(&self, table: Table, list: List, source: &Source, prefix_len: u8) -> Option<Entry> {
        let host_len = source.family().host_len();
        (0..=prefix_len)
            .rev()
            .filter(|&len| list == List::Allow || len != host_len)
            .find_map(|len| self.get(table, list, source, len))
    }

    fn now_s(&self) -> u32 {
        self.now_s
    }
}

fn network(source: &Source, prefix_len: u8) -> Option<IpNet> {
    IpNet::new((*source).into(), prefix_len).ok().map(|net| net.trunc())
}

#[cfg(test)]
mod tests {
    use relay_common::entry::Reason;

    use super::*;
    use crate::edge::contract;

    #[test]
    fn keeps_the_contract() {
        contract::check(&mut |sizes| Box::new(MemoryFilter::new(sizes)));
    }

    #[test]
    fn a_judged_connection_is_counted() {
        let mut filter = MemoryFilter::default();
        let entry = Entry::new(Scope::MX, Reason::Dnsbl, 7);
        filter.put(List::Deny, "192.0.2.0/24".parse().unwrap(), entry).unwrap();
        filter.set_guarded(Scope::MX).unwrap();
        let mut drops =
            |source: &str, now_s| filter.judge(source.parse().unwrap(), 25, now_s).unwrap().drops();
        assert!(drops("192.0.2.9", 40) && drops("::ffff:192.0.2.9", 41));
        assert!(!drops("192.0.3.9", 42));
        assert_eq!(filter.totals().unwrap().dropped(Family::V4), 2);
        assert_eq!(filter.totals().unwrap().seen(), 3);
        assert_eq!(filter.rule_hits(7).unwrap(), RuleHits { hits: 2, observed: 0, last_s: 41 });
    }
}
