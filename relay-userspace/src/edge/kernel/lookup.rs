//! The verdict's own walk over the maps, as the kernel program takes it.

use std::cell::RefCell;
use std::io;

use relay_common::control::{Control, Kind, Place, Table as Side};
use relay_common::entry::{Entry, List};
use relay_common::parse::{Family, Source};
use relay_common::touch::{self, Touch};
use relay_common::verdict::Lists;

use super::maps::Maps;
use super::words::Words;

/// The maps at one moment, for the verdict's own walk. The first error ends it, and is kept.
pub(super) struct At<'a> {
    pub(super) maps: &'a Maps,
    pub(super) control: Control,
    pub(super) now_s: u32,
    pub(super) error: RefCell<Option<io::Error>>,
}

impl At<'_> {
    fn place(&self, side: Side) -> Place {
        match side {
            Side::Rows => Place::Rows,
            Side::Feeds => Place::Feeds(self.control.slot()),
        }
    }

    fn find(&self, side: Side, kind: Kind, source: &Source, prefix_len: u8) -> Option<Entry> {
        let table = self.maps.table(self.place(side), kind, source.family());
        table.find((*source).into(), prefix_len).unwrap_or_else(|error| {
            self.error.borrow_mut().get_or_insert(error);
            None
        })
    }
}

impl touch::Words for Words {
    fn word(&self, index: u32) -> u64 {
        self.get(index)
    }
}

impl Lists for At<'_> {
    fn touched(&self, source: &Source) -> Touch {
        let marks = match source.family() {
            Family::V4 => &self.maps.touched_v4,
            Family::V6 => &self.maps.touched_v6,
        };
        self.control.widened(
            touch::of(marks, source, self.control.uses_prefixes(source.family())),
            source.family(),
        )
    }

    fn host(&self, side: Side, source: &Source) -> Option<Entry> {
        self.find(side, Kind::Hosts, source, source.family().host_len())
    }

    fn longest(&self, side: Side, list: List, source: &Source, prefix_len: u8) -> Option<Entry> {
        let kind = if list == List::Allow { Kind::Allow } else { Kind::Deny };
        self.find(side, kind, source, prefix_len)
    }

    fn now_s(&self) -> u32 {
        self.now_s
    }
}
