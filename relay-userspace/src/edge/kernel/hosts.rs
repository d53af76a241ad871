//! One packed table of denied hosts, with the hash that takes what its lines have no room for. It
//! is mapped into memory, so a host goes in and out without a system call.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use ipnet::IpNet;
use relay_common::entry::Entry;
use relay_common::packed::{self, Found, LINE_WORDS, Line, Lines, Place};
use relay_common::parse::{Family, Source};

use super::meanings::Meanings;
use super::table::Table;
use super::words::Words;

#[derive(Debug)]
pub(super) struct Hosts {
    words: Words,
    lines: Lines,
    family: Family,
    room: u64,
    /// As counted at the last reading, and kept up since.
    held: AtomicU64,
    /// Lines before this one are empty, while the table is being cleared.
    cleared: AtomicU32,
}

/// A host's line, and where in it the host stands.
struct Spot {
    place: Place,
    /// The slot that holds it, and its meaning.
    slot: Option<(usize, u32)>,
    free: Option<usize>,
    is_spilled: bool,
}

impl Hosts {
    /// The packed table in a map that was made for so many entries.
    pub(super) fn map(fd: BorrowedFd<'_>, family: Family, room: u32) -> io::Result<Self> {
        let lines = Lines::for_entries(family, room);
        let words = Words::map(fd, lines.count() * LINE_WORDS as u32)?;
        if lines.is_none() {
            words.set(0, packed::spilled(0));
        }
        let (held, cleared) = (AtomicU64::new(0), AtomicU32::new(0));
        Ok(Self { words, lines, family, room: room.into(), held, cleared })
    }

    /// How many hosts stand in the lines of a map that was made for another number of entries.
    pub(super) fn count_in(fd: BorrowedFd<'_>, family: Family, lines: u32) -> io::Result<u64> {
        let words = Words::map(fd, lines * LINE_WORDS as u32)?;
        let (held, cleared) = (AtomicU64::new(0), AtomicU32::new(0));
        let lines = Lines::default();
        let mut count = 0;
        Self { words, lines, family, room: 0, held, cleared }.each_slot(|_, _| count += 1);
        Ok(count)
    }

    pub(super) fn lines(&self) -> Lines {
        self.lines
    }

    /// Notes what an earlier process has left.
    pub(super) fn adopt(&self, spill: &Table, meanings: &mut Meanings) -> io::Result<()> {
        self.each_slot(|_, slot| meanings.adopt(packed::meaning_of(slot)));
        self.count(spill).map(drop)
    }

    fn line(&self, at: u32) -> Line {
        let first = at * LINE_WORDS as u32;
        std::array::from_fn(|word| self.words.get(first + word as u32))
    }

    fn set_slot(&self, line: u32, slot: usize, bits: u64) {
        let (word, shift) = packed::word_of(self.family, slot);
        let at = line * LINE_WORDS as u32 + word as u32;
        let others = self.words.get(at) & !(packed::slot_mask(self.family) << shift);
        self.words.set(at, others | bits << shift);
    }

    fn slots(&self, line: &Line) -> impl Iterator<Item = (usize, u64)> {
        packed::slots(self.family).map(|slot| {
            let (word, shift) = packed::word_of(self.family, slot);
            (slot, line[word] >> shift & packed::slot_mask(self.family))
        })
    }

    fn spot(&self, address: IpAddr) -> Spot {
        let place = Place::of(&Source::from(address), self.lines);
        let line = self.line(place.line);
        let (mut slot, mut free) = (None, None);
        for (at, bits) in self.slots(&line) {
            match packed::meaning_of(bits) {
                0 => free = free.or(Some(at)),
                meaning if bits == place.slot(meaning) => slot = Some((at, meaning)),
                _ => {}
            }
        }
        Spot { place, slot, free, is_spilled: packed::is_spilled(&line) }
    }

    /// Puts a host, in place of its earlier entry. At every moment one of the two is found.
    ///
    /// # Errors
    /// ENOSPC where there is no room.
    pub(super) fn put(
        &self,
        host: IpNet,
        entry: Entry,
        spill: &Table,
        meanings: &mut Meanings,
    ) -> io::Result<()> {
        self.cleared.store(0, Relaxed);
        if self.lines.is_none() {
            return spill.put(host, entry);
        }
        let spot = self.spot(host.addr());
        if let Some((slot, before)) = spot.slot {
            return self.replace(host, entry, &spot, (slot, before), spill, meanings);
        }
        let in_spill = spot.is_spilled && spill.get(host)?.is_some();
        if in_spill {
            return spill.put(host, entry);
        }
        if self.held.load(Relaxed) >= self.room {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        match spot.free.and_then(|slot| Some((slot, meanings.take(entry)?))) {
            Some((slot, meaning)) => {
                self.set_slot(spot.place.line, slot, spot.place.slot(meaning));
            }
            None => self.spill(host, entry, &spot, spill)?,
        }
        self.held.fetch_add(1, Relaxed);
        Ok(())
    }

    fn replace(
        &self,
        host: IpNet,
        entry: Entry,
        spot: &Spot,
        (slot, before): (usize, u32),
        spill: &Table,
        meanings: &mut Meanings,
    ) -> io::Result<()> {
        match meanings.take(entry) {
            Some(meaning) => self.set_slot(spot.place.line, slot, spot.place.slot(meaning)),
            None => {
                self.spill(host, entry, spot, spill)?;
                self.set_slot(spot.place.line, slot, 0);
            }
        }
        meanings.release(before);
        Ok(())
    }

    fn spill(&self, host: IpNet, entry: Entry, spot: &Spot, spill: &Table) -> io::Result<()> {
        spill.put(host, entry)?;
        let first = spot.place.line * LINE_WORDS as u32;
        self.words.set(first, packed::spilled(self.words.get(first)));
        Ok(())
    }

    /// Says whether the host was there.
    pub(super) fn remove(
        &self,
        host: IpNet,
        spill: &Table,
        meanings: &mut Meanings,
    ) -> io::Result<bool> {
        if self.lines.is_none() {
            return spill.remove(host);
        }
        let spot = self.spot(host.addr());
        let removed = match spot.slot {
            Some((slot, meaning)) => {
                self.set_slot(spot.place.line, slot, 0);
                meanings.release(meaning);
                true
            }
            None => spot.is_spilled && spill.remove(host)?,
        };
        self.held.store(self.held.load(Relaxed).saturating_sub(u64::from(removed)), Relaxed);
        Ok(removed)
    }

    /// What a lookup of an address finds.
    pub(super) fn find(
        &self,
        address: IpAddr,
        spill: &Table,
        meanings: &Meanings,
    ) -> io::Result<Option<Entry>> {
        let place = Place::of(&Source::from(address), self.lines);
        match place.find(&self.line(place.line)) {
            Found::Meaning(number) => Ok(Some(meanings.get(number))),
            Found::Spilled => spill.find(address, self.family.host_len()),
            Found::No => Ok(None),
        }
    }

    /// Calls `each` with every slot that is not free, and its line.
    fn each_slot(&self, mut each: impl FnMut(u32, u64)) {
        let slot_bits = packed::slot_mask(self.family).count_ones() as usize;
        // Most words are empty.
        for (at, word) in self.taken_words() {
            for shift in (0..64).step_by(slot_bits) {
                let slot = word >> shift & packed::slot_mask(self.family);
                // The first of a line is no host's.
                let is_first = shift == 0 && at.is_multiple_of(LINE_WORDS);
                if !is_first && packed::meaning_of(slot) != 0 {
                    each((at / LINE_WORDS) as u32, slot);
                }
            }
        }
    }

    /// The words that are not zero, and their places.
    fn taken_words(&self) -> impl Iterator<Item = (usize, u64)> {
        let words = self.words.all().iter().enumerate();
        words.map(|(at, word)| (at, word.load(Relaxed))).filter(|&(_, word)| word != 0)
    }

    pub(super) fn for_each(
        &self,
        spill: &Table,
        meanings: &Meanings,
        mut each: impl FnMut(IpNet, Entry),
    ) -> io::Result<()> {
        let mut held = 0;
        self.each_slot(|line, slot| {
            let source = packed::host_of(self.family, self.lines, line, slot);
            held += 1;
            each(net(source), meanings.get(packed::meaning_of(slot)));
        });
        spill.for_each(|host, entry| {
            held += 1;
            each(host, entry);
        })?;
        self.held.store(held, Relaxed);
        Ok(())
    }

    /// Whether it holds anything.
    pub(super) fn holds_any(&self, spill: &Table) -> io::Result<bool> {
        Ok(!self.lines.is_none() && self.taken_words().next().is_some() || spill.holds_any()?)
    }

    /// How many hosts there are, counted where they stand.
    pub(super) fn count(&self, spill: &Table) -> io::Result<u64> {
        let mut held = spill.count()?;
        self.each_slot(|_, _| held += 1);
        self.held.store(held, Relaxed);
        Ok(held)
    }

    /// Removes up to `at_most` hosts, and those that share the last one's line. Says how many it
    /// has removed: fewer than `at_most` only when none is left.
    pub(super) fn clear(
        &self,
        at_most: usize,
        spill: &Table,
        meanings: &mut Meanings,
    ) -> io::Result<usize> {
        let mut removed = 0;
        let mut at = self.cleared.load(Relaxed);
        while !self.lines.is_none() && at < self.lines.count() && removed < at_most {
            let line = self.line(at);
            let first = at * LINE_WORDS as u32;
            if line != [0; LINE_WORDS] {
                (0..).zip(line).for_each(|(word, _)| self.words.set(first + word, 0));
                for (_, slot) in self.slots(&line) {
                    let meaning = packed::meaning_of(slot);
                    if meaning != 0 {
                        meanings.release(meaning);
                        removed += 1;
                    }
                }
            }
            at += 1;
        }
        self.cleared.store(at, Relaxed);
        if removed < at_most {
            removed += spill.clear(at_most - removed)?;
        }
        let held = self.held.load(Relaxed).saturating_sub(removed as u64);
        self.held.store(held, Relaxed);
        Ok(removed)
    }
}

fn net(source: Source) -> IpNet {
    match source {
        Source::V4(octets) => IpNet::from(IpAddr::from(Ipv4Addr::from(octets))),
        Source::V6(octets) => {
            let network = Ipv6Addr::from(octets);
            IpNet::new(network.into(), Family::V6.host_len()).expect("within an address's length")
        }
    }
}
