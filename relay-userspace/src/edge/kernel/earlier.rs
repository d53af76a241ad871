//! What earlier processes left at work under the pin directory, of this layout or of another: links
//! to take over, links to let go of, and the pins that keep them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::Flock;
use relay_common::layout::PROGRAM;

use super::AttachError;
use super::attach::program_name;
use super::link::{Hook, Link};
use super::netlink;
use super::pins::{LINK, Pins, is_bpffs, link_name, lock, remove};

/// Folders below a layout's own, at most: version 1 had one for each interface.
const DEPTH_MAX: u32 = 2;

/// A pinned link whose program is at work on an interface of this network namespace.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) ifindex: u32,
    pub(super) hook: Hook,
    pub(super) link: Link,
    pub(super) path: PathBuf,
}

impl Standing {
    fn is_kept_for(&self, interface: &str) -> bool {
        self.path.file_name().is_some_and(|name| name == link_name(interface).as_str())
    }
}

/// The directory of another layout, locked as its own version locks it.
#[derive(Debug)]
struct OtherLayout {
    dir: PathBuf,
    _locks: Vec<Flock<File>>,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    pub(super) standing: Vec<Standing>,
    /// Pins of links that hold nothing any more, or are pinned elsewhere by now.
    pub(super) spent: Vec<PathBuf>,
    others: Vec<OtherLayout>,
}

impl Earlier {
    /// Looks through the pins of every layout.
    ///
    /// # Errors
    /// Another process owns some of them, or a link is at work in another network namespace.
    pub(super) fn find(pin_dir: &Path, own: &Pins) -> Result<Self, AttachError> {
        let mut found = Self::default();
        for dir in layouts(pin_dir)? {
            let is_own = dir == own.dir();
            let mut here = Self::default();
            let pinned = Tree::of(&dir)?;
            if !is_own {
                let locks = pinned.folders.iter().map(|folder| lock(folder));
                let _locks = locks.collect::<Result<_, _>>()?;
                here.others.push(OtherLayout { dir, _locks });
            }
            for path in pinned.links() {
                here.look_at(path)?;
            }
            // Somebody else's pins may lie below a directory that is not ours alone.
            if is_own || here.standing.iter().all(|standing| runs_ours(&standing.link)) {
                found.standing.append(&mut here.standing);
                found.spent.append(&mut here.spent);
                found.others.append(&mut here.others);
            }
        }
        Ok(found)
    }

    fn look_at(&mut self, path: &Path) -> Result<(), AttachError> {
        let failed = |source| AttachError::Bpffs { path: path.to_owned(), source };
        let Some(link) = Link::from_pin(path).map_err(failed)? else { return Ok(()) };
        let info = match link.info() {
            // No link of an XDP program.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            info => info.map_err(failed)?,
        };
        let path = path.to_owned();
        if info.ifindex == 0 {
            self.spent.push(path);
            return Ok(());
        }
        let attached = netlink::attached(info.ifindex).map_err(failed)?;
        match attached.filter(|attached| attached.program_id == info.program_id) {
            Some(attached) => {
                let (ifindex, hook) = (info.ifindex, attached.hook);
                self.standing.push(Standing { ifindex, hook, link, path });
                Ok(())
            }
            None => Err(AttachError::PinnedElsewhere { path, ifindex: info.ifindex }),
        }
    }

    /// The link on an interface, out of what is left to take over.
    pub(super) fn take(&mut self, ifindex: u32) -> Option<Standing> {
        let at = self.standing.iter().position(|standing| standing.ifindex == ifindex)?;
        Some(self.standing.swap_remove(at))
    }

    pub(super) fn holds(&self, ifindex: u32) -> bool {
        self.standing.iter().any(|standing| standing.ifindex == ifindex)
    }

    /// The link that is kept for an interface of this name, whatever its device is called now.
    pub(super) fn take_kept_for(&mut self, interface: &str) -> Option<Standing> {
        let at = self.standing.iter().position(|standing| standing.is_kept_for(interface))?;
        Some(self.standing.swap_remove(at))
    }

    pub(super) fn keeps_for(&self, interface: &str) -> bool {
        self.standing.iter().any(|standing| standing.is_kept_for(interface))
    }

    /// Takes off what nobody took over, and removes every pin that is not among `kept`, with the
    /// folders of other layouts. The names of the interfaces that are let go.
    pub(super) fn let_go(self, kept: &[PathBuf]) -> Result<Vec<String>, AttachError> {
        let unpin = |path: &PathBuf| if kept.contains(path) { Ok(()) } else { remove(path) };
        let mut names = Vec::new();
        for Standing { ifindex, link, path, .. } in self.standing {
            link.detach().map_err(|source| AttachError::Bpffs { path: path.clone(), source })?;
            unpin(&path)?;
            let device = netlink::device(ifindex).ok().flatten();
            names.push(device.map_or_else(|| format!("interface {ifindex}"), |device| device.name));
        }
        self.spent.iter().try_for_each(unpin)?;
        self.others.iter().try_for_each(|other| Tree::of(&other.dir)?.remove())?;
        Ok(names)
    }
}

/// Ends every filter whose pins are under this directory, of whatever layout and in whatever
/// network namespace. Whether there was one.
pub(super) fn end_all(pin_dir: &Path) -> Result<bool, AttachError> {
    let mut any = false;
    for dir in layouts(pin_dir)? {
        let pinned = Tree::of(&dir)?;
        let locks = pinned.folders.iter().map(|folder| lock(folder));
        let _locks = locks.collect::<Result<Vec<_>, _>>()?;
        let mut links = Vec::new();
        for path in pinned.links() {
            let failed = |source| AttachError::Bpffs { path: path.to_owned(), source };
            let link = Link::from_pin(path).map_err(failed)?;
            links.extend(link.filter(|link| link.info().is_ok()));
        }
        if !links.iter().all(runs_ours) {
            continue;
        }
        for link in &links {
            link.detach().map_err(|source| AttachError::Bpffs { path: dir.clone(), source })?;
        }
        pinned.remove()?;
        any = true;
    }
    // Refused where something else is in it, or where the file system itself is mounted there.
    let _ = fs::remove_dir(pin_dir);
    Ok(any)
}

/// Whether a link's program is ours, as far as the kernel tells what it is called.
fn runs_ours(link: &Link) -> bool {
    let id = link.info().map(|info| info.program_id);
    id.ok().and_then(program_name).is_none_or(|name| name == PROGRAM)
}

/// The directories of all layouts under a pin directory, the latest last.
pub(super) fn layouts(pin_dir: &Path) -> Result<Vec<PathBuf>, AttachError> {
    if !is_bpffs(pin_dir) {
        return Ok(Vec::new());
    }
    let version = |path: &Path| path.file_name()?.to_str()?.strip_prefix('v')?.parse::<u32>().ok();
    let (mut found, _) = list(pin_dir)?;
    found.retain(|path| version(path).is_some());
    found.sort_by_key(|path| version(path));
    Ok(found)
}

/// Whether any layout's pins are under this directory.
pub(super) fn any(pin_dir: &Path) -> bool {
    layouts(pin_dir).is_ok_and(|found| !found.is_empty())
}

/// The folders and the pins in them, from the outside in.
struct Tree {
    folders: Vec<PathBuf>,
    pins: Vec<PathBuf>,
}

impl Tree {
    fn of(dir: &Path) -> Result<Self, AttachError> {
        let mut tree = Self { folders: vec![dir.to_owned()], pins: Vec::new() };
        let mut level = tree.folders.clone();
        for _ in 0..DEPTH_MAX {
            let mut deeper = Vec::new();
            for folder in level {
                let (folders, pins) = list(&folder)?;
                deeper.extend(folders);
                tree.pins.extend(pins);
            }
            tree.folders.extend_from_slice(&deeper);
            level = deeper;
        }
        Ok(tree)
    }

    /// Pins that are links, by their names.
    fn links(&self) -> impl Iterator<Item = &Path> {
        let is_link = |path: &&PathBuf| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(LINK.as_bytes()))
        };
        self.pins.iter().filter(is_link).map(PathBuf::as_path)
    }

    fn remove(&self) -> Result<(), AttachError> {
        self.pins.iter().try_for_each(|pin| remove(pin))?;
        for folder in self.folders.iter().rev() {
            match fs::remove_dir(folder) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(AttachError::Bpffs { path: folder.clone(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Folders and other entries of a folder; nothing where there is none.
fn list(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), AttachError> {
    let failed = |source| AttachError::Bpffs { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        entries => entries.map_err(failed)?,
    };
    let (mut folders, mut others) = (Vec::new(), Vec::new());
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let is_folder = entry.file_type().map_err(failed)?.is_dir();
        if is_folder { folders.push(entry.path()) } else { others.push(entry.path()) }
    }
    Ok((folders, others))
}
