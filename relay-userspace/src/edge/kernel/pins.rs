//! Where the maps and the link live on: `<pin_dir>/v<LAYOUT>/<interface>/` on a BPF file system.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use relay_common::layout::{self, LAYOUT_VERSION};

use super::AttachError;
use super::link::Link;

const SYSTEM_MOUNT: &str = "/sys/fs/bpf";
const LINK: &str = "link";

/// The directory of one interface's pins, locked: one process at a time owns the maps.
#[derive(Debug)]
pub(super) struct Pins {
    dir: PathBuf,
    _lock: Flock<File>,
}

impl Drop for Pins {
    /// An attempt that failed leaves no empty folders.
    fn drop(&mut self) {
        let own = self.dir.ancestors().take(3);
        // Refused where a folder holds something, or is where the file system is mounted.
        let _ = own.map(fs::remove_dir).find(Result::is_err);
    }
}

impl Pins {
    /// Makes the directory and mounts a BPF file system for it, where either is missing.
    pub(super) fn open(pin_dir: &Path, interface: &str) -> Result<Self, AttachError> {
        let dir = dir_of(pin_dir, interface);
        ensure_bpffs(pin_dir)?;
        let at_dir = |source| AttachError::Bpffs { path: dir.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(at_dir)?;
        let file = File::open(&dir).map_err(at_dir)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self { dir, _lock: lock }),
            Err((_, nix::Error::EWOULDBLOCK)) => Err(AttachError::InUse { path: dir }),
            Err((_, error)) => Err(at_dir(error.into())),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn link(&self) -> Result<Option<Link>, AttachError> {
        let path = self.dir.join(LINK);
        Link::from_pin(&path).map_err(|source| AttachError::Bpffs { path, source })
    }

    pub(super) fn keep_link(&self, link: &Link) -> Result<(), AttachError> {
        let path = self.dir.join(LINK);
        link.pin(&path).map_err(|source| AttachError::Bpffs { path, source })
    }

    /// Without its pin, a link ends with its last descriptor.
    pub(super) fn forget_link(&self) -> Result<(), AttachError> {
        self.remove(LINK)
    }

    /// Pins new maps beside the ones in force.
    pub(super) fn stage(&self, ebpf: &Ebpf, names: &[&'static str]) -> Result<(), AttachError> {
        self.discard_staged()?;
        for name in names {
            let path = self.dir.join(staged(name));
            let map = ebpf.map(name).expect("the object has every map of the layout");
            map.pin(&path).map_err(|error| {
                let source = io::Error::other(error);
                AttachError::Bpffs { path, source }
            })?;
        }
        Ok(())
    }

    /// Lets the staged maps take the places of the ones before them.
    pub(super) fn commit(&self, names: &[&'static str]) -> Result<(), AttachError> {
        for name in names {
            let path = self.map(name);
            fs::rename(self.dir.join(staged(name)), &path)
                .map_err(|source| AttachError::Bpffs { path, source })?;
        }
        Ok(())
    }

    /// Removes what an attempt that failed, or was killed, left staged.
    pub(super) fn discard_staged(&self) -> Result<(), AttachError> {
        layout::maps().try_for_each(|name| self.remove(&staged(name)))
    }

    /// Detaches the program and removes everything. The folder goes with this.
    pub(super) fn remove_all(self) -> Result<(), AttachError> {
        let path = self.dir.join(LINK);
        let detached = Link::from_pin(&path).and_then(|link| link.map_or(Ok(()), |l| l.detach()));
        detached.map_err(|source| AttachError::Bpffs { path, source })?;
        self.remove(LINK)?;
        self.discard_staged()?;
        layout::maps().try_for_each(|name| self.remove(name))?;
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), AttachError> {
        let path = self.dir.join(name);
        gone(fs::remove_file(&path), &path)
    }
}

/// What somebody has removed by hand is gone, which is all that was wanted.
fn gone(removed: io::Result<()>, path: &Path) -> Result<(), AttachError> {
    match removed {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(AttachError::Bpffs { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// The directory of an interface's pins. The kernel refuses names with dots on a BPF file system,
/// and interfaces of VLANs have one ("eth0.100").
pub(super) fn dir_of(pin_dir: &Path, interface: &str) -> PathBuf {
    let name = interface.replace('%', "%25").replace('.', "%2e");
    pin_dir.join(format!("v{LAYOUT_VERSION}")).join(name)
}

fn staged(name: &str) -> String {
    format!("{name}_new")
}

fn holds_something(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

fn ensure_bpffs(pin_dir: &Path) -> Result<(), AttachError> {
    let failed = |source: io::Error| AttachError::Bpffs { path: pin_dir.to_owned(), source };
    let existing = pin_dir
        .ancestors()
        .find(|path| path.exists())
        .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let found = statfs(existing).map_err(|error| failed(error.into()))?;
    if found.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    let target = if pin_dir.starts_with(SYSTEM_MOUNT) {
        Path::new(SYSTEM_MOUNT)
    } else if holds_something(pin_dir) {
        // A mount would hide it.
        return Err(AttachError::NotEmpty { path: pin_dir.to_owned() });
    } else {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(pin_dir).map_err(failed)?;
        pin_dir
    };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    match mount(Some("bpf"), target, Some("bpf"), flags, Some("mode=0700")) {
        Ok(()) => Ok(()),
        Err(nix::Error::EPERM) => {
            Err(AttachError::NoPrivilege { doing: "mounting a BPF file system" })
        }
        Err(error) => Err(failed(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_carry_the_layout_and_no_dots() {
        let dir = dir_of(Path::new("/sys/fs/bpf/postern"), "eth0.100");
        assert_eq!(dir, Path::new("/sys/fs/bpf/postern/v2/eth0%2e100"));
        assert_ne!(dir_of(Path::new("/x"), "a.b"), dir_of(Path::new("/x"), "a%2eb"));
    }
}
