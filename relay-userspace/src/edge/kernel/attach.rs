//! Putting the program on an interface: the mode that it gets, and what stands in the way.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;

use super::AttachError;
use super::link::{Hook, Link};
use super::netlink::{self, Device};

/// The network namespace of this thread; `None` without /proc.
pub(super) fn namespace() -> Option<u64> {
    std::fs::metadata("/proc/thread-self/ns/net").ok().map(|it| it.ino())
}

/// The index of the interface that bears a name.
pub(super) fn find_interface(interface: &str) -> Result<u32, AttachError> {
    netlink::ifindex(interface).map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO | libc::EINVAL) => {
            AttachError::NoInterface { interface: interface.to_owned() }
        }
        _ => AttachError::Query { interface: interface.to_owned(), source: error },
    })
}

/// Attaches in the driver, or behind it where that is permitted and the driver cannot.
pub(super) fn attach(
    program: BorrowedFd<'_>,
    interface: &str,
    ifindex: u32,
    generic_permitted: bool,
) -> Result<Link, AttachError> {
    refuse_unframed(interface, ifindex)?;
    let mut result = Link::create(program, ifindex, Hook::Native);
    let native_refused = |error: &io::Error| {
        !matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST | libc::EPERM))
    };
    if generic_permitted && result.as_ref().is_err_and(native_refused) {
        result = Link::create(program, ifindex, Hook::Generic);
    }
    result.map_err(|source| {
        let interface = interface.to_owned();
        match source.raw_os_error() {
            Some(libc::EPERM) => AttachError::NoPrivilege { doing: "attaching an XDP program" },
            Some(libc::EBUSY | libc::EEXIST) => match netlink::attached(ifindex) {
                Ok(Some(other)) => occupied(&interface, other.program_id),
                _ => AttachError::Attach { interface, source },
            },
            Some(libc::EOPNOTSUPP) => AttachError::NoNative { interface, source },
            _ => AttachError::Attach { interface, source },
        }
    })
}

/// Refuses an interface that runs a program of somebody else's.
pub(super) fn refuse_others(interface: &str, ifindex: u32) -> Result<(), AttachError> {
    match look(interface, ifindex)?.and_then(|device| device.program) {
        Some(other) => Err(occupied(interface, other.program_id)),
        None => Ok(()),
    }
}

/// Refuses an interface where the program would be at work and understand nothing.
pub(super) fn refuse_unframed(interface: &str, ifindex: u32) -> Result<(), AttachError> {
    match look(interface, ifindex)? {
        Some(device) if !device.is_ethernet => {
            Err(AttachError::NoEthernet { interface: interface.to_owned() })
        }
        _ => Ok(()),
    }
}

fn look(interface: &str, ifindex: u32) -> Result<Option<Device>, AttachError> {
    netlink::device(ifindex)
        .map_err(|source| AttachError::Query { interface: interface.to_owned(), source })
}

fn occupied(interface: &str, id: u32) -> AttachError {
    let name = program_name(id).unwrap_or_else(|| "without a name".to_owned());
    AttachError::Occupied { interface: interface.to_owned(), id, name }
}

/// What a loaded program is called; `None` where it has no name, or the kernel does not tell us.
pub(super) fn program_name(id: u32) -> Option<String> {
    aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == id)
        .and_then(|info| info.name_as_str().map(str::to_owned))
        .filter(|name| !name.is_empty())
}
