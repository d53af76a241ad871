//! An array map of 64-bit words, mapped into memory: a word is read and written without a system
//! call, and a packet sees it before or after, never in between.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Words of a map, all or some. They live as long as this or the map.
#[derive(Debug)]
pub(super) struct Words {
    /// Of the map, which is mapped from its beginning.
    start: NonNull<AtomicU64>,
    mapped: usize,
    /// Which of them these are.
    range: Range<usize>,
}

// SAFETY: the words are atomic, and nothing else is behind the address.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Maps words of an array that was made with BPF_F_MMAPABLE and has at least as many.
    pub(super) fn map(fd: BorrowedFd<'_>, range: Range<usize>) -> io::Result<Self> {
        let mapped = range.end * size_of::<u64>();
        let length = mapped.try_into().map_err(io::Error::other)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self { start: start.cast(), mapped, range })
    }

    pub(super) fn all(&self) -> &[AtomicU64] {
        let Range { start, end } = self.range;
        // SAFETY: the mapping is as long as `end` words, is aligned to a page, and is unmapped only
        // when this is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(start), end - start) }
    }

    pub(super) fn get(&self, index: u32) -> u64 {
        self.all().get(index as usize).map_or(0, |word| word.load(Ordering::Acquire))
    }

    pub(super) fn set(&self, index: u32, value: u64) {
        if let Some(word) = self.all().get(index as usize) {
            word.store(value, Ordering::Release);
        }
    }

    pub(super) fn mark(&self, index: u32, bits: u64) {
        if let Some(word) = self.all().get(index as usize) {
            word.fetch_or(bits, Ordering::AcqRel);
        }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nothing borrows from it any more.
        let _ = unsafe { munmap(self.start.cast(), self.mapped) };
    }
}
