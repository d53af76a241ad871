//! The bpf(2) system call itself, for what aya has no way to say: links of its own making, batches,
//! and tables of which only the bytes of keys and values matter.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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

/// What the commands about a pin take.
#[repr(C)]
struct PathAttr {
    pathname: u64,
    fd: u32,
    file_flags: u32,
}

// SAFETY: integers without padding between or behind them.
unsafe impl Attr for PathAttr {}

/// Keeps a map, program or link under a path of a BPF file system.
///
/// # Errors
/// EEXIST where something is; the kernel's own otherwise.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    at_path(Command::ObjPin, number(object), path).map(drop)
}

/// Opens what is pinned under a path; returns the descriptor's number.
///
/// # Errors
/// ENOENT where nothing is; the kernel's own otherwise.
pub(super) fn pinned(path: &Path) -> io::Result<i32> {
    at_path(Command::ObjGet, 0, path)
}

fn at_path(command: Command, fd: u32, path: &Path) -> io::Result<i32> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = PathAttr { pathname: path.as_ptr() as u64, fd, file_flags: 0 };
    // SAFETY: the path ends with a zero, and outlives the call.
    unsafe { call(command, &mut attr) }
}

/// A descriptor as `union bpf_attr` has it.
pub(super) fn number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}
