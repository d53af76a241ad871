//! Contents of messages: in the row while small, a file of their own when large.

use super::{QueueId, StoreError};
use bytes::Bytes;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::sync::OwnedSemaphorePermit;

/// A message's content, with `F` for the one in a file.
#[derive(Debug)]
pub enum Content<F> {
    /// All of it, in memory.
    Inline(Bytes),
    /// In a file of its own.
    File(F),
}

/// The folders of body files under the spool.
#[derive(Debug, Clone)]
pub(super) struct BodyFolders {
    /// Being written; nothing in it outlives a restart.
    incoming: PathBuf,
    /// Complete, synced, and named by a row of the database (or swept).
    bodies: PathBuf,
}

impl BodyFolders {
    pub(super) fn under(spool: &Path) -> Self {
        Self { incoming: spool.join("incoming"), bodies: spool.join("bodies") }
    }

    pub(super) fn make(&self, spool: &Path) -> Result<(), StoreError> {
        for folder in [&self.incoming, &self.bodies] {
            fs::create_dir_all(folder)?;
        }
        Ok(sync_folder(spool)?)
    }

    pub(super) fn body(&self, id: QueueId) -> PathBuf {
        self.bodies.join(id.to_string())
    }

    /// Removes what no row names: left by a crash between file and COMMIT, or between COMMIT and
    /// unlink. Files whose name is no queue id are not ours and stay. Returns how many went.
    pub(super) fn sweep(
        &self,
        mut named: impl FnMut(QueueId) -> Result<bool, StoreError>,
    ) -> Result<usize, StoreError> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.incoming)? {
            fs::remove_file(entry?.path())?;
            removed += 1;
        }
        for entry in fs::read_dir(&self.bodies)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if !named(id)? {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A body file without a row yet: dropping it removes the file, unless it was kept.
#[derive(Debug)]
pub(super) struct BodyFile {
    path: PathBuf,
    kept: bool,
}

impl BodyFile {
    /// A committed row names the file now.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if !self.kept {
            // Failing that, the sweep at the next start takes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A body file being written.
#[derive(Debug)]
pub(super) struct Incoming {
    file: File,
    guard: BodyFile,
    #[expect(dead_code, reason = "held as long as the file is open")]
    place: OwnedSemaphorePermit,
}

impl Incoming {
    pub(super) fn create(
        folders: &BodyFolders,
        id: QueueId,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, StoreError> {
        let path = folders.incoming.join(id.to_string());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, guard: BodyFile { path, kept: false }, place })
    }

    pub(super) fn write(&mut self, data: &[u8]) -> Result<(), StoreError> {
        Ok(self.file.write_all(data)?)
    }

    /// Syncs the file, moves it into place and syncs the folder: after this the content survives a
    /// power cut, and only the row that names it is missing.
    pub(super) fn finish(
        mut self,
        folders: &BodyFolders,
        id: QueueId,
    ) -> Result<BodyFile, StoreError> {
        self.file.sync_all()?;
        let place = folders.body(id);
        fs::rename(&self.guard.path, &place)?;
        self.guard.path = place;
        sync_folder(&folders.bodies)?;
        Ok(self.guard)
    }
}

/// FNV-1a over the content: tells a damaged body from the one stored. No defence against an
/// adversary, who could as well write the database.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checksum(u64);

impl Checksum {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        let mut sum = self.0;
        for byte in data {
            sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.0 = sum;
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }

    pub(super) fn of(data: &[u8]) -> u64 {
        let mut sum = Self::new();
        sum.update(data);
        sum.value()
    }
}

/// Opens a body file and reads it through once: size and checksum must be those of the row.
pub(super) fn open_checked(path: &Path, size: u64, checksum: u64) -> Result<File, StoreError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::Damaged(format!("{} is missing", path.display())));
        }
        Err(error) => return Err(error.into()),
    };
    let mut sum = Checksum::new();
    let mut found = 0u64;
    let mut chunk = vec![0u8; 64 << 10];
    loop {
        let length = file.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        found += length as u64;
        sum.update(&chunk[..length]);
    }
    if (found, sum.value()) != (size, checksum) {
        let text = format!("{}: {found} octets that are not the {size} stored", path.display());
        return Err(StoreError::Damaged(text));
    }
    file.rewind()?;
    Ok(file)
}
