//! One table of entries: a trie of prefixes or a hash of hosts, as bytes. Many entries go in and
//! out in one system call.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};

use ipnet::IpNet;
use relay_common::control::Kind;
use relay_common::entry::Entry;
use relay_common::parse::Family;

use super::bpf::{self, Attr, Command, OneAttr};

/// Entries that go through one system call. Larger batches save nothing, and hold locks longer.
const BATCH: usize = 4_096;
/// The longest key: a prefix length and an IPv6 address.
const KEY_MAX: usize = 20;

/// An open table.
#[derive(Debug)]
pub(super) struct Table {
    fd: OwnedFd,
    kind: Kind,
    family: Family,
}

#[repr(C)]
struct BatchAttr {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

// SAFETY: integers without padding between or behind them.
unsafe impl Attr for BatchAttr {}

impl Table {
    pub(super) fn new(fd: OwnedFd, kind: Kind, family: Family) -> Self {
        Self { fd, kind, family }
    }

    fn address_len(&self) -> usize {
        match (self.kind, self.family) {
            (Kind::Hosts, family) => usize::from(family.host_len() / 8),
            (_, Family::V4) => 4,
            (_, Family::V6) => 16,
        }
    }

    fn key_len(&self) -> usize {
        let prefix_len = if self.kind == Kind::Hosts { 0 } else { 4 };
        prefix_len + self.address_len()
    }

    fn push_key(&self, address: IpAddr, prefix_len: u8, key: &mut Vec<u8>) {
        if self.kind != Kind::Hosts {
            key.extend(u32::from(prefix_len).to_ne_bytes());
        }
        match address {
            IpAddr::V4(v4) => key.extend(v4.octets()),
            IpAddr::V6(v6) => key.extend(&v6.octets()[..self.address_len()]),
        }
    }

    fn prefix(&self, key: &[u8]) -> Option<IpNet> {
        let (len, address) = match self.kind {
            Kind::Hosts => (self.family.host_len(), key),
            _ => {
                let (len, address) = key.split_first_chunk()?;
                (u8::try_from(u32::from_ne_bytes(*len)).ok()?, address)
            }
        };
        let address = match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from(*address.first_chunk::<4>()?)),
            Family::V6 => {
                let mut octets = [0; 16];
                octets.get_mut(..address.len())?.copy_from_slice(address);
                IpAddr::V6(Ipv6Addr::from(octets))
            }
        };
        IpNet::new(address, len).ok()
    }

    fn one(
        &self,
        command: Command,
        key: &[u8],
        value: Option<&mut [u8; Entry::SIZE]>,
    ) -> io::Result<()> {
        debug_assert_eq!(key.len(), self.key_len());
        let mut attr = OneAttr {
            map: bpf::number(self.fd.as_fd()),
            padding: 0,
            key: key.as_ptr() as u64,
            value: value.map_or(0, |value| value.as_mut_ptr() as u64),
            flags: 0,
        };
        // SAFETY: the key has the table's key length and the value its value length; both outlive
        // the call. Only a deletion comes without a value, and the kernel looks at none then.
        unsafe { bpf::call(command, &mut attr) }.map(drop)
    }

    /// Puts an entry, in place of the prefix's earlier one. A full trie of an older kernel refuses
    /// even to replace what it has (it makes the new node before it lets go of the old one), so
    /// there the old one goes first.
    ///
    /// # Errors
    /// ENOSPC where there is no room.
    pub(super) fn put(&self, prefix: IpNet, entry: Entry) -> io::Result<()> {
        let mut key = Vec::with_capacity(KEY_MAX);
        self.push_key(prefix.addr(), prefix.prefix_len(), &mut key);
        let mut value = entry.to_bytes();
        match self.one(Command::MapUpdate, &key, Some(&mut value)) {
            Err(error) if is_full(&error) && self.remove(prefix)? => {
                self.one(Command::MapUpdate, &key, Some(&mut value))
            }
            result => result,
        }
    }

    /// Says whether the entry was there.
    pub(super) fn remove(&self, prefix: IpNet) -> io::Result<bool> {
        let mut key = Vec::with_capacity(KEY_MAX);
        self.push_key(prefix.addr(), prefix.prefix_len(), &mut key);
        found(self.one(Command::MapDelete, &key, None))
    }

    /// What a lookup of so many bits of an address finds: in a trie the longest match, in a hash
    /// the host itself.
    pub(super) fn find(&self, address: IpAddr, prefix_len: u8) -> io::Result<Option<Entry>> {
        let mut key = Vec::with_capacity(KEY_MAX);
        self.push_key(address, prefix_len, &mut key);
        let mut value = [0; Entry::SIZE];
        let is_there = found(self.one(Command::MapLookup, &key, Some(&mut value)))?;
        Ok(is_there.then(|| Entry::from_bytes(value)))
    }

    /// The entry of exactly this prefix.
    pub(super) fn get(&self, prefix: IpNet) -> io::Result<Option<Entry>> {
        let found = self.find(prefix.addr(), prefix.prefix_len())?;
        // A trie answers with the longest match: a wider prefix than was asked for is another's.
        Ok(found.filter(|entry| entry.prefix_len == prefix.prefix_len()))
    }

    fn batch(&self, command: Command, attr: &mut BatchAttr) -> io::Result<()> {
        attr.map = bpf::number(self.fd.as_fd());
        // SAFETY: the callers give keys and values for `count` entries, and cursors as long as the
        // longest key.
        unsafe { bpf::call(command, attr) }.map(drop)
    }

    /// Puts many entries. Where it fails, those before the one that failed are in the table.
    ///
    /// # Errors
    /// ENOSPC where there is no room.
    pub(super) fn put_all(&self, entries: &[(IpNet, Entry)]) -> io::Result<()> {
        let mut keys = Vec::with_capacity(BATCH.min(entries.len()) * self.key_len());
        let mut values = Vec::with_capacity(BATCH.min(entries.len()) * Entry::SIZE);
        for chunk in entries.chunks(BATCH) {
            keys.clear();
            values.clear();
            for (prefix, entry) in chunk {
                self.push_key(prefix.addr(), prefix.prefix_len(), &mut keys);
                values.extend(entry.to_bytes());
            }
            let mut attr = BatchAttr::of(&mut keys, &mut values, chunk.len());
            match self.batch(Command::MapUpdateBatch, &mut attr) {
                // What only replaces has its room, though an older kernel sees none.
                Err(error) if is_full(&error) => {
                    chunk.iter().try_for_each(|&(prefix, entry)| self.put(prefix, entry))?;
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// Calls `each` with every entry. What another process deletes meanwhile may be left out, and
    /// what it puts may be seen or not.
    pub(super) fn for_each(&self, mut each: impl FnMut(IpNet, Entry)) -> io::Result<()> {
        let mut batch = Read::new(self);
        while batch.next()? {
            for (prefix, entry) in batch.entries() {
                each(prefix, entry);
            }
        }
        Ok(())
    }

    /// Whether it holds anything.
    pub(super) fn holds_any(&self) -> io::Result<bool> {
        let mut batch = Read::new(self);
        while batch.next()? {
            if batch.count > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn count(&self) -> io::Result<u64> {
        let mut batch = Read::new(self);
        let mut count = 0;
        while batch.next()? {
            count += batch.count as u64;
        }
        Ok(count)
    }

    /// Removes up to `at_most` entries. Says how many it has removed: fewer than `at_most` only
    /// when none is left.
    pub(super) fn clear(&self, at_most: usize) -> io::Result<usize> {
        let mut batch = Read::new(self);
        let mut removed = 0;
        // A trie's cursor is a key that is gone by then; a hash's is a bucket, and stays good.
        while removed < at_most {
            if self.kind != Kind::Hosts {
                batch.rewind();
            }
            if !batch.next()? {
                break;
            }
            let count = batch.count.min(at_most - removed);
            let mut attr = BatchAttr::of(&mut batch.keys, &mut [], count);
            self.batch(Command::MapDeleteBatch, &mut attr)?;
            removed += count;
        }
        Ok(removed)
    }
}

impl BatchAttr {
    fn of(keys: &mut [u8], values: &mut [u8], count: usize) -> Self {
        Self {
            from: 0,
            to: 0,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: count as u32,
            map: 0,
            element_flags: 0,
            flags: 0,
        }
    }
}

/// Reading a table from its beginning, a batch at a time.
struct Read<'a> {
    table: &'a Table,
    keys: Vec<u8>,
    values: Vec<u8>,
    cursor: [u8; KEY_MAX],
    place: Place,
    count: usize,
}

#[derive(PartialEq, Eq)]
enum Place {
    Start,
    Middle,
    End,
}

impl<'a> Read<'a> {
    fn new(table: &'a Table) -> Self {
        Self {
            table,
            keys: vec![0; BATCH * table.key_len()],
            values: vec![0; BATCH * Entry::SIZE],
            cursor: [0; KEY_MAX],
            place: Place::Start,
            count: 0,
        }
    }

    fn rewind(&mut self) {
        self.place = Place::Start;
    }

    /// Reads the next batch; false when there is none.
    fn next(&mut self) -> io::Result<bool> {
        self.count = 0;
        if self.place == Place::End {
            return Ok(false);
        }
        let cursor = self.cursor.as_mut_ptr() as u64;
        let mut attr = BatchAttr {
            from: if self.place == Place::Start { 0 } else { cursor },
            to: cursor,
            ..BatchAttr::of(&mut self.keys, &mut self.values, BATCH)
        };
        let result = self.table.batch(Command::MapLookupBatch, &mut attr);
        self.place = match result {
            Ok(()) => Place::Middle,
            // The last batch, which may hold something.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Place::End,
            Err(error) => return Err(error),
        };
        self.count = attr.count as usize;
        Ok(self.count > 0 || self.place == Place::Middle)
    }

    fn entries(&self) -> impl Iterator<Item = (IpNet, Entry)> {
        let keys = self.keys.chunks_exact(self.table.key_len());
        let values = self.values.chunks_exact(Entry::SIZE);
        keys.zip(values).take(self.count).filter_map(|(key, value)| {
            let entry = Entry::from_bytes(*value.first_chunk()?);
            let prefix = self.table.prefix(key)?;
            // A trie whose key was deleted meanwhile answers with its parent's value.
            (entry.prefix_len == prefix.prefix_len()).then_some((prefix, entry))
        })
    }
}

/// Whether an error says that a table has no room. A hash says E2BIG, a trie ENOSPC.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::E2BIG))
}

fn found(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
