//! BPF links of XDP programs, by the bpf(2) system call itself.
//!
//! aya falls back to netlink when the kernel refuses a link with EINVAL, and such an attachment
//! cannot be pinned and outlives the process that made it. Asking the kernel directly leaves one
//! way to be attached, and the kernel's own errno when it cannot be.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::bpf::{self, Attr, Command};

/// The attach type of XDP programs on an interface.
const BPF_XDP: u32 = 37;
const BPF_LINK_TYPE_XDP: u32 = 6;

/// Where in the driver the program runs; the numbers are XDP_FLAGS_DRV_MODE and
/// XDP_FLAGS_SKB_MODE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Native = 4,
    Generic = 2,
}

/// One program on one interface. Attached for as long as a descriptor or a pin holds it.
#[derive(Debug)]
pub(super) struct Link {
    fd: OwnedFd,
}

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    pub(super) program_id: u32,
    /// 0 when the interface is gone.
    pub(super) ifindex: u32,
}

impl Link {
    /// Attaches a program. Fails with EBUSY where another one is.
    pub(super) fn create(program: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> io::Result<Self> {
        // prog_fd, target_ifindex, attach_type, flags
        let mut attr = [bpf::number(program), ifindex, BPF_XDP, hook as u32];
        let fd = call(Command::LinkCreate, &mut attr)?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Opens a pinned link; `None` where nothing is pinned.
    pub(super) fn from_pin(path: &Path) -> io::Result<Option<Self>> {
        match bpf::pinned(path) {
            // SAFETY: the kernel has just made this descriptor for us.
            Ok(fd) => Ok(Some(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps the link under a path of a BPF file system.
    pub(super) fn pin(&self, path: &Path) -> io::Result<()> {
        bpf::pin(self.fd.as_fd(), path)
    }

    /// Puts another program in place of the link's, between one packet and the next.
    pub(super) fn replace_program(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        // link_fd, new_prog_fd, flags, old_prog_fd
        let link = bpf::number(self.fd.as_fd());
        let mut attr = [link, bpf::number(program), 0, 0];
        call(Command::LinkUpdate, &mut attr).map(drop)
    }

    /// Takes the program off the interface now. Letting go of the last descriptor or pin does so
    /// too, but a moment later, when the next filter may already have been refused its place.
    pub(super) fn detach(&self) -> io::Result<()> {
        let mut attr = [bpf::number(self.fd.as_fd()), 0, 0, 0];
        call(Command::LinkDetach, &mut attr).map(drop)
    }

    /// # Errors
    /// EINVAL also for a descriptor that is no XDP link.
    pub(super) fn info(&self) -> io::Result<LinkInfo> {
        // struct bpf_link_info: type, id, prog_id, padding, then a union with u64 members, of
        // which XDP has its ifindex first.
        #[repr(C, align(8))]
        #[derive(Default)]
        struct Info([u32; 8]);
        let mut info = Info::default();
        let mut attr = InfoAttr {
            fd: bpf::number(self.fd.as_fd()),
            info_len: size_of::<Info>() as u32,
            info: &raw mut info as u64,
        };
        call(Command::ObjGetInfo, &mut attr)?;
        let [kind, _, program_id, _, ifindex, ..] = info.0;
        if kind != BPF_LINK_TYPE_XDP {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(LinkInfo { program_id, ifindex })
    }
}

#[repr(C)]
struct InfoAttr {
    fd: u32,
    info_len: u32,
    info: u64,
}

// SAFETY: integers without padding between or behind them.
unsafe impl Attr for InfoAttr {}

/// Asks for something whose addresses, if any, stand in for the length of the call.
fn call<A: Attr>(command: Command, attr: &mut A) -> io::Result<i32> {
    // SAFETY: the memory that `attr` points to outlives the call in each caller, and is as long
    // as the kernel reads or `attr` says.
    unsafe { bpf::call(command, attr) }
}
