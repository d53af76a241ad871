//! What the numbers in packed tables stand for: each entry that is in use once, however many hosts
//! it is about.

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;

use relay_common::entry::Entry;
use relay_common::layout;
use relay_common::packed::MEANINGS;

use super::grace;
use super::words::Words;

/// Words of an entry.
const MEANING_WORDS: u32 = layout::MEANING_WORDS as u32;
/// So many numbers rest together: waiting for each alone would hold up whoever changes a list.
/// What finds no number meanwhile stands in the hash, and is as much in force there.
const RESTED_TOGETHER: usize = 1024;

#[derive(Debug)]
pub(super) struct Meanings {
    words: Words,
    numbers: HashMap<Entry, u32>,
    /// Hosts that use each number.
    uses: Vec<u32>,
    /// Numbers that nobody can have in sight.
    free: Vec<u32>,
    /// Numbers out of use, which a packet that is judged just now may still have read.
    resting: Vec<u32>,
}

impl Meanings {
    /// The meanings in the map CONTROL, none of them in use until [`adopt`](Self::adopt) says so.
    pub(super) fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self {
            words: Words::map(fd, layout::MEANINGS_AT..layout::TOUCHED_V4_AT)?,
            numbers: HashMap::new(),
            uses: vec![0; MEANINGS as usize],
            free: Vec::new(),
            resting: Vec::new(),
        })
    }

    pub(super) fn get(&self, number: u32) -> Entry {
        let at = number * MEANING_WORDS;
        Entry::from_meaning([self.words.get(at), self.words.get(at + 1)])
    }

    /// Notes a use that an earlier process has left in a table.
    pub(super) fn adopt(&mut self, number: u32) {
        let Some(uses) = self.uses_of(number) else { return };
        *uses += 1;
        self.numbers.insert(self.get(number), number);
    }

    /// Nobody uses 0, which stands for nothing; it may be found where somebody has written by hand.
    fn uses_of(&mut self, number: u32) -> Option<&mut u32> {
        self.uses.get_mut(number as usize).filter(|_| number != 0)
    }

    /// To be called once every use was adopted: all other numbers are free.
    pub(super) fn adopted(&mut self) {
        // The lowest are taken first, so that a list of few meanings stays in one cache line.
        self.resting = (1..MEANINGS).rev().filter(|&it| self.uses[it as usize] == 0).collect();
        // The process before may have taken one out of use a moment ago.
        self.rest();
    }

    fn rest(&mut self) {
        grace::wait();
        self.free.append(&mut self.resting);
    }

    /// A number for an entry, with one more use; `None` where all numbers are taken.
    pub(super) fn take(&mut self, entry: Entry) -> Option<u32> {
        if let Some(&number) = self.numbers.get(&entry) {
            self.uses[number as usize] += 1;
            return Some(number);
        }
        if self.free.is_empty() && self.resting.len() >= RESTED_TOGETHER {
            self.rest();
        }
        let number = self.free.pop()?;
        let [low, high] = entry.to_meaning();
        self.words.set(number * MEANING_WORDS, low);
        self.words.set(number * MEANING_WORDS + 1, high);
        self.numbers.insert(entry, number);
        self.uses[number as usize] = 1;
        Some(number)
    }

    /// Ends a use, when no slot has the number any more on that account.
    pub(super) fn release(&mut self, number: u32) {
        let entry = self.get(number);
        let Some(uses) = self.uses_of(number) else { return };
        *uses = uses.saturating_sub(1);
        if *uses == 0 && self.numbers.get(&entry) == Some(&number) {
            self.numbers.remove(&entry);
            self.resting.push(number);
        }
    }
}
