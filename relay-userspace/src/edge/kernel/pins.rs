//! Where the maps and the links live on: `<pin_dir>/v<LAYOUT>/` on a BPF file system, the maps under
//! their names and the link of each interface as `link_<interface>`.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use aya::Ebpf;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use relay_common::layout;

use super::link::Link;
use super::{AttachError, bpf};

const SYSTEM_MOUNT: &str = "/sys/fs/bpf";
/// What the file name of a link begins with. (Layout version 1 called its only one just so.)
pub(super) const LINK: &str = "link";
/// Where a link is pinned for a moment, before it takes the place of an older one.
const LINK_BESIDE: &str = "new_link";

/// The directory of one layout's pins, locked: one process at a time owns the maps.
#[derive(Debug)]
pub(super) struct Pins {
    dir: PathBuf,
    /// Maps that are pinned beside the ones in force, to take their places.
    staged: Vec<&'static str>,
    lock: Flock<File>,
}

impl Drop for Pins {
    /// An attempt that failed leaves nothing staged, and no empty folders.
    fn drop(&mut self) {
        // What went wrong before is the thing to tell.
        let _ = self.discard_staged();
        let own = self.dir.ancestors().take(2);
        // Refused where a folder holds something, or is where the file system is mounted.
        let _ = own.map(fs::remove_dir).find(Result::is_err);
    }
}

impl Pins {
    /// Makes the directory and mounts a BPF file system for it, where either is missing.
    pub(super) fn open(pin_dir: &Path, layout: u32) -> Result<Self, AttachError> {
        let dir = layout_dir(pin_dir, layout);
        ensure_bpffs(pin_dir)?;
        let at_dir = |source| AttachError::Bpffs { path: dir.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(at_dir)?;
        let lock = lock(&dir)?;
        let pins = Self { dir, staged: Vec::new(), lock };
        pins.discard_staged()?;
        Ok(pins)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where an interface's link is pinned.
    pub(super) fn link(&self, interface: &str) -> PathBuf {
        self.dir.join(link_name(interface))
    }

    /// Keeps a link under an interface's name, in place of whatever is there. At every moment one of
    /// the two is pinned.
    pub(super) fn keep_link(&self, link: &Link, interface: &str) -> Result<(), AttachError> {
        let path = self.link(interface);
        let beside = self.map(LINK_BESIDE);
        let failed = |source| AttachError::Bpffs { path: path.clone(), source };
        remove(&beside)?;
        link.pin(&beside).map_err(failed)?;
        let kept = fs::rename(&beside, &path).map_err(failed);
        if kept.is_err() {
            // Why is the thing to tell.
            let _ = remove(&beside);
        }
        kept
    }

    /// Pins new maps beside the ones in force.
    pub(super) fn stage(
        &mut self,
        ebpf: &Ebpf,
        names: Vec<&'static str>,
    ) -> Result<(), AttachError> {
        for name in &names {
            let path = self.dir.join(staged(name));
            let map = ebpf.map(name).expect("the object has every map of the layout");
            map.pin(&path).map_err(|error| {
                let source = io::Error::other(error);
                AttachError::Bpffs { path, source }
            })?;
        }
        self.staged = names;
        Ok(())
    }

    /// Lets the staged maps take the places of the ones before them. Lists without their control
    /// word are not adopted, so that goes first and comes last: whatever ends this half-way leaves
    /// no mixture of two sets.
    pub(super) fn commit(&mut self) -> Result<(), AttachError> {
        let mut names = std::mem::take(&mut self.staged);
        names.sort_by_key(|&name| name == layout::CONTROL);
        if names.last() == Some(&layout::CONTROL) {
            remove(&self.map(layout::CONTROL))?;
        }
        for name in names {
            let path = self.map(name);
            fs::rename(self.dir.join(staged(name)), &path)
                .map_err(|source| AttachError::Bpffs { path, source })?;
        }
        Ok(())
    }

    /// Pins the maps anew that somebody has removed. How many.
    ///
    /// # Errors
    /// The kernel refuses, or something else is in the way; a later call goes on.
    pub(super) fn restore(&self, maps: &[(&'static str, OwnedFd)]) -> Result<usize, AttachError> {
        let mut missing: Vec<_> = maps.iter().filter(|(name, _)| self.lacks(name)).collect();
        // As in `commit`: without it, lists half pinned are not adopted.
        missing.sort_by_key(|(name, _)| *name == layout::CONTROL);
        for (name, map) in &missing {
            let path = self.map(name);
            bpf::pin(map.as_fd(), &path).map_err(|source| AttachError::Bpffs { path, source })?;
        }
        Ok(missing.len())
    }

    /// Whether a pin is missing. A folder in its place is none.
    pub(super) fn lacks(&self, name: &str) -> bool {
        !fs::symlink_metadata(self.map(name)).is_ok_and(|found| found.is_file())
    }

    /// Makes the folder where somebody has removed it, and locks it for this process.
    ///
    /// # Errors
    /// Another process owns the folder of this path by now, or the kernel refuses.
    pub(super) fn own_the_folder(&mut self) -> Result<(), AttachError> {
        let at_dir = |source| AttachError::Bpffs { path: self.dir.clone(), source };
        let locked = self.lock.metadata().map_err(at_dir)?;
        let is_locked =
            |found: &fs::Metadata| (found.dev(), found.ino()) == (locked.dev(), locked.ino());
        if fs::metadata(&self.dir).is_ok_and(|found| is_locked(&found)) {
            return Ok(());
        }
        ensure_bpffs(self.dir.parent().unwrap_or(&self.dir))?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(at_dir)?;
        self.lock = lock(&self.dir)?;
        Ok(())
    }

    /// Removes what an attempt that failed, or was killed, left staged.
    fn discard_staged(&self) -> Result<(), AttachError> {
        remove(&self.map(LINK_BESIDE))?;
        layout::maps().try_for_each(|name| remove(&self.dir.join(staged(name))))
    }

    /// Removes every map. The folder goes with this, unless a link is still there.
    pub(super) fn remove_maps(&self) -> Result<(), AttachError> {
        self.discard_staged()?;
        layout::maps().try_for_each(|name| remove(&self.map(name)))
    }
}

/// Where the pins of a version of the layout are.
pub(super) fn layout_dir(pin_dir: &Path, layout: u32) -> PathBuf {
    pin_dir.join(format!("v{layout}"))
}

/// Has this process own a directory of pins, for as long as it keeps what this returns.
pub(super) fn lock(dir: &Path) -> Result<Flock<File>, AttachError> {
    let at_dir = |source| AttachError::Bpffs { path: dir.to_owned(), source };
    let file = File::open(dir).map_err(at_dir)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::Error::EWOULDBLOCK => AttachError::InUse { path: dir.to_owned() },
        error => at_dir(error.into()),
    })
}

/// Removes a pin. What somebody has removed by hand is gone, which is all that was wanted.
pub(super) fn remove(path: &Path) -> Result<(), AttachError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(AttachError::Bpffs { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// What the pin of an interface's link is called.
pub(super) fn link_name(interface: &str) -> String {
    // The kernel refuses names with dots on a BPF file system, and interfaces of VLANs have one
    // ("eth0.100").
    format!("{LINK}_{}", interface.replace('%', "%25").replace('.', "%2e"))
}

fn staged(name: &str) -> String {
    format!("{name}_new")
}

fn holds_something(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

pub(super) fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

fn ensure_bpffs(pin_dir: &Path) -> Result<(), AttachError> {
    let failed = |source: io::Error| AttachError::Bpffs { path: pin_dir.to_owned(), source };
    let existing = pin_dir
        .ancestors()
        .find(|path| path.exists())
        .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    if is_bpffs(existing) {
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
