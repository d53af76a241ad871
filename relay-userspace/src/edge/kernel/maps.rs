//! The maps as the rest of the edge wants them: entries in, entries out, counters summed.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;

use aya::Ebpf;
use aya::maps::{Map, MapData, MapError, RingBuf};
use ipnet::IpNet;
use relay_common::control::{Control, Kind, Place, Table as Side};
use relay_common::entry::{Entry, List, Scope};
use relay_common::layout::{self, Settings};
use relay_common::parse::Family;
use relay_common::touch;

use super::AttachError;
use super::counts::Counters;
use super::entries::{Entries, locked};
use super::hosts::Hosts;
use super::load::{descriptor, list_of};
use super::meanings::Meanings;
use super::table::{Table, is_full};
use super::words::Words;
use crate::edge::filter::{FilterError, MapSizes, Modes, family_of};

/// All maps of one layout, open.
pub(super) struct Maps {
    /// In the order of [`layout::TABLES`].
    tables: Vec<Table>,
    /// In the order of [`layout::LINES`].
    packed: Vec<Hosts>,
    meanings: Mutex<Meanings>,
    /// The first words of the map: the control word and the settings.
    control: Words,
    pub(super) touched_v4: Words,
    pub(super) touched_v6: Words,
    pub(super) counters: Counters,
    /// Until its reader has asked for it.
    pub(super) events: Option<RingBuf<MapData>>,
    sizes: MapSizes,
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maps").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

/// Where a list's entry of this prefix stands: hosts that are denied have a table of their own.
pub(super) fn kind_of(list: List, prefix: IpNet) -> Kind {
    match list {
        List::Allow => Kind::Allow,
        List::Deny if prefix.prefix_len() == family_of(&prefix).host_len() => Kind::Hosts,
        List::Deny => Kind::Deny,
    }
}

/// The kinds of table that a list has.
fn kinds_of(list: List) -> &'static [Kind] {
    match list {
        List::Allow => &[Kind::Allow],
        List::Deny => &[Kind::Deny, Kind::Hosts],
    }
}

fn side_of(place: Place) -> Side {
    match place {
        Place::Rows => Side::Rows,
        Place::Feeds(_) => Side::Feeds,
    }
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, sizes: MapSizes) -> Result<Self, AttachError> {
        let table =
            |&(_, kind, family, name)| Ok(Table::new(descriptor(ebpf, name)?, kind, family));
        let tables = layout::TABLES.iter().map(table).collect::<Result<Vec<_>, AttachError>>()?;
        let mapping = |error| AttachError::load("mapping a map into memory", error);
        let words =
            |name, range| Words::map(descriptor(ebpf, name)?.as_fd(), range).map_err(mapping);
        let packed = |&(place, family, name)| {
            let room = sizes.of_place(place, List::Deny);
            Hosts::map(descriptor(ebpf, name)?.as_fd(), family, room).map_err(mapping)
        };
        let packed = layout::LINES.iter().map(packed).collect::<Result<Vec<_>, AttachError>>()?;
        let meanings = descriptor(ebpf, layout::CONTROL)?;
        let meanings = Mutex::new(Meanings::map(meanings.as_fd()).map_err(mapping)?);
        let control = words(layout::CONTROL, 0..layout::MEANINGS_AT)?;
        let touched_v4 = words(layout::CONTROL, layout::TOUCHED_V4_AT..layout::CONTROL_WORDS)?;
        let touched_v6 = words(layout::TOUCHED_V6, 0..touch::words(Family::V6))?;
        let maps = Self {
            tables,
            packed,
            meanings,
            control,
            touched_v4,
            touched_v6,
            counters: Counters::new(take(ebpf, layout::CPU)?, take(ebpf, layout::RULE_HITS)?)?,
            events: Some(take(ebpf, layout::EVENTS)?),
            sizes,
        };
        maps.adopt().map_err(|error| AttachError::load("reading the lists", error))?;
        Ok(maps)
    }

    /// Notes what an earlier process has left in the packed tables, and says how long they are.
    fn adopt(&self) -> io::Result<()> {
        let mut control = self.control();
        let mut meanings = locked(&self.meanings);
        for (hosts, &(place, family, _)) in self.packed.iter().zip(&layout::LINES) {
            control = control.with_lines(side_of(place), family, hosts.lines());
            hosts.adopt(self.trie_or_hash(place, Kind::Hosts, family), &mut meanings)?;
        }
        meanings.adopted();
        self.set_control(control);
        Ok(())
    }

    pub(super) fn sizes(&self) -> MapSizes {
        self.sizes
    }

    fn trie_or_hash(&self, place: Place, kind: Kind, family: Family) -> &Table {
        let wanted = (place, kind, family);
        let at = layout::TABLES.iter().position(|&(p, k, f, _)| (p, k, f) == wanted);
        &self.tables[at.expect("TABLES has every combination")]
    }

    pub(super) fn table(&self, place: Place, kind: Kind, family: Family) -> Entries<'_> {
        let table = self.trie_or_hash(place, kind, family);
        let at = layout::LINES.iter().position(|&(p, f, _)| (p, f) == (place, family));
        let packed = || (&self.packed[at.expect("LINES has every combination")], &self.meanings);
        Entries { table, packed: (kind == Kind::Hosts).then(packed) }
    }

    pub(super) fn control(&self) -> Control {
        Control::from_word(self.control.get(0))
    }

    pub(super) fn set_control(&self, control: Control) {
        self.control.set(0, control.word());
    }

    /// Says that a table may hold entries, before the first is put.
    fn use_table(&self, place: Place, kind: Kind, family: Family) {
        let control = self.control();
        let used = control.with_used(side_of(place), kind, family, true);
        if used != control {
            self.set_control(used);
        }
    }

    pub(super) fn put(
        &mut self,
        list: List,
        prefix: IpNet,
        entry: Entry,
    ) -> Result<(), FilterError> {
        let prefix = prefix.trunc();
        let (kind, family) = (kind_of(list, prefix), family_of(&prefix));
        let entry = Entry { prefix_len: prefix.prefix_len(), ..entry };
        self.touch(kind, prefix);
        self.use_table(Place::Rows, kind, family);
        let result = self.table(Place::Rows, kind, family).put(prefix, entry);
        result.map_err(|error| self.put_error(error, Place::Rows, kind, family))
    }

    fn put_error(&self, error: io::Error, place: Place, kind: Kind, family: Family) -> FilterError {
        if is_full(&error) {
            let capacity = self.sizes.of_place(place, list_of(kind));
            return FilterError::Full { list: list_of(kind), family, capacity };
        }
        kernel("to put an entry into a list", error)
    }

    /// Puts many entries, a batch for each table. Where it fails, some are in the tables.
    pub(super) fn put_all(
        &mut self,
        list: List,
        entries: &[(IpNet, Entry)],
    ) -> Result<(), FilterError> {
        self.put_into(Place::Rows, list, entries)
    }

    pub(super) fn put_into(
        &self,
        place: Place,
        list: List,
        entries: &[(IpNet, Entry)],
    ) -> Result<(), FilterError> {
        for &kind in kinds_of(list) {
            for family in Family::ALL {
                let of_table = entries.iter().map(|&(prefix, entry)| {
                    let prefix = prefix.trunc();
                    (prefix, Entry { prefix_len: prefix.prefix_len(), ..entry })
                });
                let of_table: Vec<(IpNet, Entry)> = of_table
                    .filter(|&(prefix, _)| {
                        family_of(&prefix) == family && kind_of(list, prefix) == kind
                    })
                    .collect();
                if of_table.is_empty() {
                    continue;
                }
                of_table.iter().for_each(|&(prefix, _)| self.touch(kind, prefix));
                if place == Place::Rows {
                    self.use_table(place, kind, family);
                }
                let result = self.table(place, kind, family).put_all(&of_table);
                result.map_err(|error| self.put_error(error, place, kind, family))?;
            }
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, list: List, prefix: IpNet) -> Result<bool, FilterError> {
        let prefix = prefix.trunc();
        let table = self.table(Place::Rows, kind_of(list, prefix), family_of(&prefix));
        table.remove(prefix).map_err(|error| kernel("to take an entry out of a list", error))
    }

    pub(super) fn get(&self, list: List, prefix: IpNet) -> Result<Option<Entry>, FilterError> {
        let prefix = prefix.trunc();
        let table = self.table(Place::Rows, kind_of(list, prefix), family_of(&prefix));
        table.get(prefix).map_err(|error| kernel("to read an entry", error))
    }

    pub(super) fn entries(&self, list: List) -> Result<Vec<(IpNet, Entry)>, FilterError> {
        let mut all = Vec::new();
        self.for_each(Place::Rows, |of, prefix, entry| {
            if of == list {
                all.push((prefix, entry));
            }
        })?;
        Ok(all)
    }

    pub(super) fn for_each(
        &self,
        place: Place,
        mut each: impl FnMut(List, IpNet, Entry),
    ) -> Result<(), FilterError> {
        for kind in Kind::ALL {
            for family in Family::ALL {
                let listed = self
                    .table(place, kind, family)
                    .for_each(|prefix, entry| each(list_of(kind), prefix, entry));
                listed.map_err(|error| kernel("to list the entries", error))?;
            }
        }
        Ok(())
    }

    pub(super) fn holds_any(
        &self,
        place: Place,
        kind: Kind,
        family: Family,
    ) -> Result<bool, FilterError> {
        let looked = self.table(place, kind, family).holds_any();
        looked.map_err(|error| kernel("to look into a list", error))
    }

    pub(super) fn set_guarded(&mut self, scope: Scope) -> Result<(), FilterError> {
        self.set_control(self.control().with_guarded(scope));
        Ok(())
    }

    pub(super) fn guarded(&self) -> Result<Scope, FilterError> {
        Ok(self.control().guarded())
    }

    pub(super) fn set_modes(&mut self, modes: &Modes) -> Result<(), FilterError> {
        let cpus = self.counters.cpus();
        let each_cpu = |per_s: u32| per_s.div_ceil(u32::try_from(cpus).unwrap_or(1).max(1));
        let limit = modes.syn.unwrap_or_default();
        let settings = Settings {
            syn_per_s: limit.per_s,
            syn_burst: limit.burst,
            syn_free_per_s: limit.free_per_s / u32::try_from(cpus).unwrap_or(1).max(1),
            events_per_s: each_cpu(modes.events_per_s),
        };
        for (at, word) in (layout::SETTINGS_AT as u32..).zip(settings.to_words()) {
            self.control.set(at, word);
        }
        self.set_control(
            self.control()
                .with_observes(modes.observes)
                .with_limits_syn(modes.syn.is_some())
                .with_tells(modes.events_per_s > 0),
        );
        Ok(())
    }
}

pub(super) fn kernel(
    doing: &'static str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> FilterError {
    FilterError::Kernel { doing, source: Box::new(error) }
}

fn take<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, AttachError> {
    let map = ebpf.take_map(name).expect("the object is built with every map of the layout");
    M::try_from(map).map_err(|error| AttachError::load("opening a map", error))
}
