//! The bpf(2) system call itself, for what aya has no way to say: links of its own making, batches,
//! and tables of which only the bytes of keys and values matter.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Commands, by their numbers in `enum bpf_cmd`.
#[derive(Clone, Copy, Debug)]
#[repr(i64)]
pub(super) enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    ProgLoad = 5,
    ObjPin = 6,
    ObjGet = 7,
    ProgTestRun = 10,
    ProgGetFdById = 13,
    ObjGetInfo = 15,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    MapDeleteBatch = 27,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkDetach = 34,
}

/// A leading part of `union bpf_attr`; the kernel takes what is missing for zero.
///
/// # Safety
/// Whoever implements it has a type whose every byte may be read and written.
pub(super) unsafe trait Attr {}

// SAFETY: integers have neither padding nor values that are not allowed.
unsafe impl Attr for [u32; 4] {}

/// What the commands about one element of a map take.
#[repr(C)]
pub(super) struct OneAttr {
    pub(super) map: u32,
    pub(super) padding: u32,
    pub(super) key: u64,
    pub(super) value: u64,
    pub(super) flags: u64,
}

// SAFETY: integers without padding between or behind them.
unsafe impl Attr for OneAttr {}

/// Calls the kernel.
///
/// # Safety
/// Every address in `attr` points to memory that may be read, or written if the command writes
/// there, for as many bytes as the command and the lengths in `attr` say.
pub(super) unsafe fn call<A: Attr>(command: Command, attr: &mut A) -> io::Result<i32> {
    // SAFETY: `attr` is a whole, initialised structure of the size that is given; for the memory
    // behind its addresses the caller answers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attr),
            size_of::<A>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// A descriptor as `union bpf_attr` has it.
pub(super) fn number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}
