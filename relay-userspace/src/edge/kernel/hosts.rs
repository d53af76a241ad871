//! One packed table of denied hosts, with the hash that takes what its lines have no room for. It
//! is mapped into memory, so a host goes in and out without a system call.

use std::io;
use std::net::IpAddr;
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

/// A slot that is not free.
struct Taken {
    line: u32,
    slot: u64,
    meaning: u32,
}

impl Hosts {
    /// The packed table in a map that was made for so many entries.
    pub(super) fn map(fd: BorrowedFd<'_>, family: Family, room: u32) -> io::Result<Self> {
        let lines = Lines::for_entries(family, room);
        let words = Words::map(fd, 0..lines.in_map(family) as usize * LINE_WORDS)?;
        if lines.is_none() {
            words.set(0, packed::spilled(0));
        }
        let (held, cleared) = (AtomicU64::new(0), AtomicU32::new(0));
        Ok(Self { words, lines, family, room: room.into(), held, cleared })
    }

    /// How many hosts stand in a map of so many lines, that was made for another number of entries.
    pub(super) fn count_in(fd: BorrowedFd<'_>, family: Family, lines: u32) -> io::Result<u64> {
        let words = Words::map(fd, 0..lines as usize * LINE_WORDS)?;
        let (held, cleared) = (AtomicU64::new(0), AtomicU32::new(0));
        let lines = Lines::of_map(family, lines);
        let mut count = 0;
        Self { words, lines, family, room: 0, held, cleared }.each_taken(|_| count += 1);
        Ok(count)
    }

    pub(super) fn lines(&self) -> Lines {
        self.lines
    }

    /// Notes what an earlier process has left.
    pub(super) fn adopt(&self, spill: &Table, meanings: &mut Meanings) -> io::Result<()> {
        self.each_taken(|taken| meanings.adopt(taken.meaning));
        // A process of an earlier version may have been killed between the hash and the line.
        spill.for_each(|host, _| {
            let line = Place::of(&Source::from(host.addr()), self.lines).line;
            self.set_spilled(line);
        })?;
        self.count(spill).map(drop)
    }

    fn line(&self, at: u32) -> Line {
        let first = at * LINE_WORDS as u32;
        std::array::from_fn(|word| self.words.get(first + word as u32))
    }

    /// The line beside an IPv4 one.
    fn beside(&self, line: u32) -> u32 {
        line + self.lines.count()
    }

    /// Writes what stands in a slot, or beside it.
    fn write(&self, line: u32, slot: usize, bits: u64) {
        let (word, shift) = packed::word_of(self.family, slot);
        let at = line * LINE_WORDS as u32 + word as u32;
        let others = self.words.get(at) & !(packed::slot_mask(self.family) << shift);
        self.words.set(at, others | bits << shift);
    }

    /// Lets a host stand in a slot that is free, or is its own. A packet from it finds nothing or all
    /// of it: what the slot needs is there before the slot is written. (One from a host that left the
    /// slot a moment ago, and is looked up meanwhile, may be judged by what this one means.)
    fn occupy(&self, place: &Place, slot: usize, meaning: u32) {
        if self.family == Family::V4 {
            let first = place.line * LINE_WORDS as u32;
            let beside = self.beside(place.line);
            let word = self.words.get(first);
            let shared = packed::shared(word);
            let is_empty = || self.line(place.line)[1..] == [0; LINE_WORDS - 1];
            let shares = shared == meaning || is_empty();
            let sharing = packed::sharing(word, if shares { meaning } else { 0 });
            if sharing != word {
                self.words.set(first, sharing);
            }
            self.write(beside, slot, meaning.into());
        }
        self.write(place.line, slot, place.slot(meaning));
    }

    /// The slots of a line that are not free, with their numbers.
    fn taken_in(&self, at: u32, line: &Line) -> impl Iterator<Item = (usize, Taken)> {
        let shared = packed::shared(line[0]);
        let beside = match self.family {
            Family::V4 if shared == 0 => self.line(self.beside(at)),
            _ => *line,
        };
        (0..packed::slots(self.family)).filter_map(move |number| {
            let (word, shift) = packed::word_of(self.family, number);
            let slot = line[word] >> shift & packed::slot_mask(self.family);
            let meaning = match (self.family, shared) {
                (Family::V4, 1..) => shared,
                _ => packed::meaning_of(beside[word] >> shift),
            };
            let taken = Taken { line: at, slot, meaning };
            (!packed::is_free(self.family, slot)).then_some((number, taken))
        })
    }

    fn spot(&self, address: IpAddr) -> Spot {
        let place = Place::of(&Source::from(address), self.lines);
        let line = self.line(place.line);
        let (mut slot, mut free) = (None, 0);
        for (number, taken) in self.taken_in(place.line, &line) {
            // The first gap between those that are taken, or what is behind them.
            free += usize::from(number == free);
            if place.is_in(taken.slot) {
                slot = Some((number, taken.meaning));
            }
        }
        let free = (place.has_slots() && free < packed::slots(self.family)).then_some(free);
        Spot { place, slot, free, is_spilled: packed::is_spilled(line[0]) }
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
            Some((slot, meaning)) => self.occupy(&spot.place, slot, meaning),
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
            Some(meaning) => {
                self.occupy(&spot.place, slot, meaning);
                self.remove_double(host, spot, spill)?;
            }
            None => {
                self.spill(host, entry, spot, spill)?;
                self.write(spot.place.line, slot, 0);
            }
        }
        meanings.release(before);
        Ok(())
    }

    /// The line comes first: whoever is killed in between has left nobody where no packet looks.
    fn spill(&self, host: IpNet, entry: Entry, spot: &Spot, spill: &Table) -> io::Result<()> {
        self.set_spilled(spot.place.line);
        spill.put(host, entry)
    }

    fn set_spilled(&self, line: u32) {
        let first = line * LINE_WORDS as u32;
        let word = self.words.get(first);
        if !packed::is_spilled(word) {
            self.words.set(first, packed::spilled(word));
        }
    }

    /// Removes a host from the hash that has got a slot. Whoever was killed while it moved from the one
    /// to the other has left it in both.
    fn remove_double(&self, host: IpNet, spot: &Spot, spill: &Table) -> io::Result<()> {
        if spot.is_spilled && spill.remove(host)? {
            self.held.store(self.held.load(Relaxed).saturating_sub(1), Relaxed);
        }
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
                self.remove_double(host, &spot, spill)?;
                self.write(spot.place.line, slot, 0);
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
        let line = self.line(place.line);
        match place.find(|word| line[word]) {
            Found::Meaning(number) => Ok(Some(meanings.get(number))),
            Found::Beside { word, shift } => {
                let beside = self.line(self.beside(place.line));
                Ok(Some(meanings.get(packed::meaning_of(beside[word] >> shift))))
            }
            Found::Spilled => spill.find(address, self.family.host_len()),
            Found::No => Ok(None),
        }
    }

    /// Calls `each` with every slot that is not free.
    fn each_taken(&self, mut each: impl FnMut(Taken)) {
        if !self.lines.is_none() {
            for (at, line) in self.taken_lines() {
                self.taken_in(at, &line).for_each(|(_, taken)| each(taken));
            }
        }
    }

    /// The lines in which a slot is taken, and their places. Those beside are not among them.
    fn taken_lines(&self) -> impl Iterator<Item = (u32, Line)> {
        let lines = (0..self.lines.count()).map(|at| (at, self.line(at)));
        lines.filter(|(_, line)| line[1..] != [0; LINE_WORDS - 1])
    }

    pub(super) fn for_each(
        &self,
        spill: &Table,
        meanings: &Meanings,
        mut each: impl FnMut(IpNet, Entry),
    ) -> io::Result<()> {
        let mut held = 0;
        self.each_taken(|Taken { line, slot, meaning }| {
            let source = packed::host_of(self.family, self.lines, line, slot);
            held += 1;
            each(net(source), meanings.get(meaning));
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
        Ok(!self.lines.is_none() && self.taken_lines().next().is_some() || spill.holds_any()?)
    }

    /// How many hosts there are, counted where they stand.
    pub(super) fn count(&self, spill: &Table) -> io::Result<u64> {
        let mut held = spill.count()?;
        self.each_taken(|_| held += 1);
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
            if line != [0; LINE_WORDS] {
                for (_, taken) in self.taken_in(at, &line) {
                    meanings.release(taken.meaning);
                    removed += 1;
                }
                // What stands beside says nothing without a slot.
                let first = at * LINE_WORDS as u32;
                (first..first + LINE_WORDS as u32).for_each(|word| self.words.set(word, 0));
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

/// The network of a host.
fn net(source: Source) -> IpNet {
    IpNet::new(source.into(), source.family().host_len()).expect("within an address's length")
}
