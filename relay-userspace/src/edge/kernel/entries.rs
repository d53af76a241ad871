//! The entries of one place, kind and family: in a trie, or, where they are denied hosts, in a
//! packed table and the hash beside it.

use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use relay_common::entry::Entry;

use super::hosts::Hosts;
use super::meanings::Meanings;
use super::table::Table;

#[derive(Clone, Copy)]
pub(super) struct Entries<'a> {
    pub(super) table: &'a Table,
    /// The packed table in front of it, and what its numbers mean.
    pub(super) packed: Option<(&'a Hosts, &'a Mutex<Meanings>)>,
}

impl Entries<'_> {
    /// Puts an entry, in place of the prefix's earlier one.
    ///
    /// # Errors
    /// ENOSPC or E2BIG where there is no room.
    pub(super) fn put(&self, prefix: IpNet, entry: Entry) -> io::Result<()> {
        match self.packed {
            Some((hosts, meanings)) => hosts.put(prefix, entry, self.table, &mut locked(meanings)),
            None => self.table.put(prefix, entry),
        }
    }

    /// Puts many entries. Where it fails, those before the one that failed are there.
    ///
    /// # Errors
    /// ENOSPC or E2BIG where there is no room.
    pub(super) fn put_all(&self, entries: &[(IpNet, Entry)]) -> io::Result<()> {
        match self.packed {
            Some((hosts, meanings)) => {
                let meanings = &mut locked(meanings);
                let mut entries = entries.iter();
                entries.try_for_each(|&(host, entry)| hosts.put(host, entry, self.table, meanings))
            }
            None => self.table.put_all(entries),
        }
    }

    /// Says whether the entry was there.
    pub(super) fn remove(&self, prefix: IpNet) -> io::Result<bool> {
        match self.packed {
            Some((hosts, meanings)) => hosts.remove(prefix, self.table, &mut locked(meanings)),
            None => self.table.remove(prefix),
        }
    }

    /// What a lookup of so many bits of an address finds: in a trie the longest match, of a host
    /// the host itself.
    pub(super) fn find(&self, address: IpAddr, prefix_len: u8) -> io::Result<Option<Entry>> {
        match self.packed {
            Some((hosts, meanings)) => hosts.find(address, self.table, &locked(meanings)),
            None => self.table.find(address, prefix_len),
        }
    }

    /// The entry of exactly this prefix.
    pub(super) fn get(&self, prefix: IpNet) -> io::Result<Option<Entry>> {
        match self.packed {
            Some(_) => self.find(prefix.addr(), prefix.prefix_len()),
            None => self.table.get(prefix),
        }
    }

    /// Calls `each` with every entry. What another process deletes meanwhile may be left out, and
    /// what it puts may be seen or not.
    pub(super) fn for_each(&self, each: impl FnMut(IpNet, Entry)) -> io::Result<()> {
        match self.packed {
            Some((hosts, meanings)) => hosts.for_each(self.table, &locked(meanings), each),
            None => self.table.for_each(each),
        }
    }

    /// Whether there are any.
    pub(super) fn holds_any(&self) -> io::Result<bool> {
        match self.packed {
            Some((hosts, _)) => hosts.holds_any(self.table),
            None => self.table.holds_any(),
        }
    }

    /// How many there are, counted where they stand.
    pub(super) fn count(&self) -> io::Result<u64> {
        match self.packed {
            Some((hosts, _)) => hosts.count(self.table),
            None => self.table.count(),
        }
    }

    /// Removes about `at_most` entries. Says how many it has removed: fewer than `at_most` only
    /// when none is left.
    pub(super) fn clear(&self, at_most: usize) -> io::Result<usize> {
        match self.packed {
            Some((hosts, meanings)) => hosts.clear(at_most, self.table, &mut locked(meanings)),
            None => self.table.clear(at_most),
        }
    }
}

/// There is one owner of the maps, so nobody waits; a panic elsewhere left nothing half done.
pub(super) fn locked(meanings: &Mutex<Meanings>) -> MutexGuard<'_, Meanings> {
    meanings.lock().unwrap_or_else(PoisonError::into_inner)
}
