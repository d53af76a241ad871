//! The folder of accepted feeds: `NAME.cidr`, one prefix on each line as it was said, without what
//! was said twice, and `NAME.json` beside it.
//!
//! Both are written under other names, synced, renamed, and their folder synced. A crash between
//! the two renames leaves the new content beside the old word about it; the new word, which is
//! under its other name still, is found by its digest at the next start.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use relay_core::feed::{Builder, Format, FormatError, Prefixes, Reader};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use super::meta::{Meta, digest_of};

/// Read and written at once.
const PIECE_BYTES: usize = 64 << 10;
/// The largest file of words about a feed.
const META_BYTES_MAX: u64 = 256 << 10;
/// Under this name a file waits to be renamed.
const NEW: &str = "new";
/// All that may be kept of a feed, by the ends of the files' names.
const KINDS: [&str; 4] = ["cidr.new", "cidr", "json.new", "json"];
/// What arrives over the control socket.
const INCOMING: &str = "incoming";

/// Why a kept feed cannot be used.
#[derive(Debug, Error)]
pub(super) enum LoadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Format(#[from] FormatError),
    #[error("it is not what was accepted")]
    Differs,
    #[error("what is known about it cannot be read: {0}")]
    Meta(serde_json::Error),
}

/// The folder. Cheap to clone: the thread that reads feeds has one of its own.
#[derive(Clone, Debug)]
pub(super) struct FeedStore {
    folder: PathBuf,
}

impl FeedStore {
    /// Makes the folder, and removes what was half received.
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == INCOMING) {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { folder })
    }

    /// The same without a look at it.
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Where the content of a feed arrives.
    pub(super) fn incoming(&self, name: &str) -> PathBuf {
        self.path(name, INCOMING)
    }

    fn path(&self, name: &str, kind: &str) -> PathBuf {
        // A feed's name has no dots.
        self.folder.join(format!("{name}.{kind}"))
    }

    /// The names of feeds of which something is kept.
    pub(super) fn names(&self) -> io::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.folder)? {
            let file = entry?.file_name();
            let parts = file.to_str().and_then(|file| file.split_once('.'));
            if let Some((name, kind)) = parts
                && KINDS.contains(&kind)
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            {
                names.insert(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Gives what is kept of a feed to another name. What is known about it comes last: until then
    /// the next start does this again.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        for kind in KINDS {
            unless_absent(fs::rename(self.path(from, kind), self.path(to, kind)))?;
        }
        self.sync()
    }

    /// Removes what is kept of a feed.
    pub(super) fn forget(&self, name: &str) -> io::Result<()> {
        for kind in KINDS {
            unless_absent(fs::remove_file(self.path(name, kind)))?;
        }
        self.sync()
    }

    /// What is kept of a feed: the words about it, and its content where it had any.
    pub(super) fn load(
        &self,
        name: &str,
        entries_max: usize,
    ) -> Result<Option<(Meta, Option<Prefixes>)>, LoadError> {
        let content = match File::open(self.path(name, "cidr")) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        let Some(content) = content else {
            let meta: Option<Meta> = read_json(&self.path(name, "json"))?;
            return match meta {
                Some(Meta { content: Some(_), .. }) => Err(LoadError::Differs),
                meta => Ok(meta.map(|meta| (meta, None))),
            };
        };
        let mut reader = Reader::new(Format::Cidr, Builder::new(entries_max));
        read_pieces(content, |piece| reader.push(piece).map_err(LoadError::from))?;
        let (prefixes, _) = reader.finish()?.finish();
        let digest = digest_of(&prefixes);
        let fits = |meta: &Meta| meta.content.as_ref().is_some_and(|kept| kept.digest == digest);
        let (at, new) = (self.path(name, "json"), self.path(name, "json.new"));
        let meta = match read_json(&at).map(|meta| meta.filter(&fits)) {
            Ok(Some(meta)) => meta,
            said => {
                let Some(meta) = read_json(&new).ok().flatten().filter(&fits) else {
                    return Err(said.err().unwrap_or(LoadError::Differs));
                };
                fs::rename(&new, &at)?;
                meta
            }
        };
        Ok(Some((meta, Some(prefixes))))
    }

    /// Keeps new content and the words about it.
    pub(super) fn keep(&self, name: &str, prefixes: &Prefixes, meta: &Meta) -> io::Result<()> {
        let content = self.path(name, "cidr.new");
        let mut file = BufWriter::with_capacity(PIECE_BYTES, create(&content)?);
        for net in prefixes.said() {
            writeln!(file, "{net}")?;
        }
        file.into_inner()?.sync_all()?;
        let about = self.write_new(name, "json", meta)?;
        fs::rename(content, self.path(name, "cidr"))?;
        fs::rename(about, self.path(name, "json"))?;
        self.sync()
    }

    /// Keeps the words about a feed alone, or about all of them.
    pub(super) fn keep_words(&self, name: &str, words: &impl Serialize) -> io::Result<()> {
        let new = self.write_new(name, "json", words)?;
        fs::rename(new, self.path(name, "json"))?;
        self.sync()
    }

    /// What [`Self::keep_words`] kept.
    pub(super) fn words<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, LoadError> {
        read_json(&self.path(name, "json"))
    }

    fn write_new(&self, name: &str, kind: &str, words: &impl Serialize) -> io::Result<PathBuf> {
        let path = self.path(name, &format!("{kind}.{NEW}"));
        let mut file = create(&path)?;
        file.write_all(&serde_json::to_vec_pretty(words)?)?;
        file.sync_all()?;
        Ok(path)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }
}

fn unless_absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, LoadError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(META_BYTES_MAX).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map(Some).map_err(LoadError::Meta)
}

/// Calls `each` with the bytes of a file, some at a time.
pub(super) fn read_pieces<E: From<io::Error>>(
    mut file: impl Read,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => each(&piece[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A file that goes when nobody wants it any more.
#[derive(Debug)]
pub(in crate::edge) struct Incoming {
    path: PathBuf,
}

impl Incoming {
    /// Takes the place; `None` if somebody else is writing there.
    pub(super) fn take(path: PathBuf) -> io::Result<Option<(Self, File)>> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => Ok(Some((Self { path }, file))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Failing that, the next start removes it.
        let _ = fs::remove_file(&self.path);
    }
}
