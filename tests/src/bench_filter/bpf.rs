//! What measuring the peers needs of bpf(2): programs on interfaces, and the maps of a program that
//! somebody else has loaded. Our own filter is asked through its own trait.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};

/// Commands, by their numbers in `enum bpf_cmd`.
#[derive(Clone, Copy, Debug)]
#[repr(i64)]
enum Command {
    MapLookup = 1,
    MapGetFdById = 14,
    ObjGetInfo = 15,
    MapUpdateBatch = 26,
    LinkCreate = 28,
}

const ATTACH_TYPE_XDP: u32 = 37;
const XDP_DRIVER_MODE: u32 = 4;
/// More maps than any peer's program has.
const MAPS_MAX: usize = 64;
/// Entries that go through one system call.
const BATCH: usize = 4_096;

#[repr(C)]
#[derive(Default)]
struct OneAttr {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
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

#[repr(C)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

/// A leading part of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    program_type: u32,
    id: u32,
    tag: [u8; 8],
    code_lens: [u32; 2],
    codes: [u64; 2],
    load_time: u64,
    created_by_uid: u32,
    map_ids_len: u32,
    map_ids: u64,
}

/// A leading part of `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    map_type: u32,
    id: u32,
    key_len: u32,
    value_len: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; 16],
}

/// A program at work on an interface, for as long as this lives.
#[derive(Debug)]
pub(super) struct Attached {
    _link: OwnedFd,
}

/// Puts a program on an interface of the namespace that the calling thread is in, in the driver.
///
/// # Errors
/// The kernel's own.
pub(super) fn attach(program: BorrowedFd<'_>, interface: &str) -> io::Result<Attached> {
    let ifindex = nix::net::if_::if_nametoindex(interface)?;
    // prog_fd, target_ifindex, attach_type, flags
    let mut attr = [number(program), ifindex, ATTACH_TYPE_XDP, XDP_DRIVER_MODE];
    // SAFETY: the command looks at these four numbers alone.
    let link = unsafe { call(Command::LinkCreate, &mut attr) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Attached { _link: unsafe { OwnedFd::from_raw_fd(link) } })
}

/// A per-CPU hash of somebody else's program.
#[derive(Debug)]
pub(super) struct ForeignMap {
    fd: OwnedFd,
    key_len: usize,
    /// Of all possible CPUs together, as the system call has it.
    value_len: usize,
    pub(super) max_entries: u32,
}

impl ForeignMap {
    /// The map of this name that a program uses.
    ///
    /// # Errors
    /// It has none of this name, or the kernel's own.
    pub(super) fn of(program: BorrowedFd<'_>, name: &str) -> Result<Self> {
        for id in map_ids(program)? {
            // SAFETY: the command looks at the id and at flags that are zero.
            let fd = unsafe { call(Command::MapGetFdById, &mut [id, 0, 0, 0]) }?;
            // SAFETY: the kernel has just made this descriptor for us.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            let mut info = MapInfo::default();
            read_info(fd.as_fd(), &mut info)?;
            if info.name.split(|&byte| byte == 0).next() == Some(name.as_bytes()) {
                let value_len = (info.value_len as usize).next_multiple_of(8) * possible_cpus()?;
                let key_len = info.key_len as usize;
                return Ok(Self { fd, key_len, value_len, max_entries: info.max_entries });
            }
        }
        bail!("the program uses no map named {name}")
    }

    /// The value of a key that is there.
    ///
    /// # Errors
    /// It is not, or the key has another length.
    pub(super) fn get(&self, key: &[u8]) -> Result<Vec<u8>> {
        ensure!(key.len() == self.key_len, "keys have {} bytes", self.key_len);
        let mut value = vec![0u8; self.value_len];
        let mut attr = OneAttr {
            map: number(self.fd.as_fd()),
            key: key.as_ptr() as u64,
            value: value.as_mut_ptr() as u64,
            ..OneAttr::default()
        };
        // SAFETY: key and value have the map's lengths and outlive the call.
        unsafe { call(Command::MapLookup, &mut attr) }?;
        Ok(value)
    }

    /// Puts keys, given one behind the other, all with the same value.
    ///
    /// # Errors
    /// There is no room, or key or value have other lengths.
    pub(super) fn put_all(&self, keys: &[u8], value: &[u8]) -> Result<()> {
        ensure!(keys.len().is_multiple_of(self.key_len), "keys have {} bytes", self.key_len);
        ensure!(value.len() == self.value_len, "values have {} bytes", self.value_len);
        for batch in keys.chunks(BATCH * self.key_len) {
            let count = batch.len() / self.key_len;
            let values = value.repeat(count);
            let mut attr = BatchAttr {
                keys: batch.as_ptr() as u64,
                values: values.as_ptr() as u64,
                count: u32::try_from(count)?,
                map: number(self.fd.as_fd()),
                ..BatchAttr::default()
            };
            // SAFETY: there are `count` keys and values of the map's lengths, and they outlive the
            // call.
            unsafe { call(Command::MapUpdateBatch, &mut attr) }?;
        }
        Ok(())
    }
}

fn map_ids(program: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let mut ids = vec![0u32; MAPS_MAX];
    let mut info = ProgramInfo {
        map_ids_len: u32::try_from(MAPS_MAX)?,
        map_ids: ids.as_mut_ptr() as u64,
        ..ProgramInfo::default()
    };
    read_info(program, &mut info)?;
    ids.truncate(info.map_ids_len as usize);
    Ok(ids)
}

/// Fills in what the kernel knows; what it points to was made by the caller, as long as it says.
fn read_info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attr = InfoAttr {
        fd: number(object),
        len: size_of::<T>() as u32,
        info: std::ptr::from_mut(info) as u64,
    };
    // SAFETY: the kernel writes at most `len` bytes of numbers into the structure of that size.
    unsafe { call(Command::ObjGetInfo, &mut attr) }.map(drop)
}

/// # Safety
/// `attr` has neither padding nor values that are not allowed, and every address in it is good for
/// as many bytes as the command and the lengths in it say.
unsafe fn call<T>(command: Command, attr: &mut T) -> io::Result<i32> {
    let attr = std::ptr::from_mut(attr);
    // SAFETY: `attr` is whole and of the size that is given; the caller answers for what is in it.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_long, attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative")
}

/// For so many the kernel keeps values in a per-CPU map; more than run, perhaps.
fn possible_cpus() -> Result<usize> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    let last = text.trim().rsplit(['-', ',']).next().context("no CPU is possible")?;
    Ok(last.parse::<usize>()? + 1)
}
