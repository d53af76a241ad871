//! Where this edge's filter is pinned, kept on disk. An edge that is killed leaves its filter at
//! work, and the next start may be told of another pin directory, or of no kernel filter at all:
//! then nobody would ever lift an entry of the old one again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::counters::keep_of_left;
use super::kernel::{self, AttachError, Counters};
use super::store::LISTS;

/// File name in the edge's folder. A line is a pin directory.
const FILE: &str = "attached";

/// Notes where the filter is going to be pinned, before it is. Nothing is written where that is
/// noted already: a full disk must not keep the filter from being taken over.
///
/// # Errors
/// The edge's folder cannot be written.
pub fn note(edge_dir: &Path, pin_dir: &Path) -> anyhow::Result<()> {
    let mut places = noted(edge_dir)?;
    if places.iter().any(|place| place == pin_dir) {
        return Ok(());
    }
    places.retain(|place| kernel::has_pins(place));
    places.push(pin_dir.to_owned());
    write(edge_dir, &places)
}

/// Whether a filter of this edge may be at work, with or without a process that owns it.
///
/// # Errors
/// The note cannot be read.
pub fn any(edge_dir: &Path) -> anyhow::Result<bool> {
    Ok(noted(edge_dir)?.iter().any(|place| kernel::has_pins(place)))
}

/// A filter that was left behind, and is off now.
#[derive(Debug)]
pub struct Ended {
    /// Its pin directory.
    pub kept_in: PathBuf,
    /// Why what it had counted could not be kept, if so.
    pub lost: Option<String>,
}

/// Ends every filter that was left behind, but the one pinned under `but`. What it ends is logged.
///
/// # Errors
/// Another process still owns one, or its pins cannot be removed.
pub fn end(edge_dir: &Path, but: Option<&Path>) -> anyhow::Result<Vec<Ended>> {
    let mut ended = Vec::new();
    for pin_dir in noted(edge_dir)?.into_iter().filter(|place| Some(place.as_path()) != but) {
        let one = end_one(edge_dir, &pin_dir)
            .with_context(|| format!("taking off the filter kept in {}", pin_dir.display()))?;
        ended.extend(one);
    }
    Ok(ended)
}

/// Ends every filter that was left behind, also one pinned under `pin_dir` of which the note was
/// lost.
///
/// # Errors
/// As of [`end`].
pub fn end_all(edge_dir: &Path, pin_dir: &Path) -> anyhow::Result<Vec<Ended>> {
    let mut ended = end(edge_dir, None)?;
    ended.extend(end_one(edge_dir, pin_dir)?);
    Ok(ended)
}

/// Ends a filter, and keeps what it has counted until then, also after the end of its edge. That it
/// could not be kept is no error: the filter is off, which is what was asked for.
fn end_one(edge_dir: &Path, pin_dir: &Path) -> Result<Option<Ended>, AttachError> {
    let counters = Counters::left_in(pin_dir);
    if !kernel::detach_left_behind(pin_dir)? {
        return Ok(None);
    }
    let kept_in = pin_dir.to_owned();
    tracing::warn!(kept_in = %kept_in.display(), "the filter that was left there is off");
    Ok(Some(Ended { kept_in, lost: keep(counters, edge_dir) }))
}

/// Keeps what a filter of another layout has counted, before one of this layout takes its place. That it
/// cannot be kept is told and no error: the lists are what counts.
pub fn keep_of_another_layout(edge_dir: &Path, pin_dir: &Path) {
    keep(Counters::of_another_layout(pin_dir), edge_dir);
}

/// Keeps what a filter has counted, with the lists. Logs and says why it could not, if so.
fn keep(counters: Result<Option<Counters>, AttachError>, edge_dir: &Path) -> Option<String> {
    let kept = match counters {
        Ok(Some(counters)) => keep_of_left(&counters, &edge_dir.join(LISTS)),
        Ok(None) => Ok(()),
        Err(error) => Err(error.into()),
    };
    let lost = kept.err().map(|error| format!("{error:#}"));
    if let Some(error) = &lost {
        tracing::error!(error, "what an earlier filter had counted since the last copy is lost");
    }
    lost
}

fn noted(edge_dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let path = edge_dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.with_context(|| format!("reading {}", path.display()))?,
    };
    // Earlier versions wrote the interface first.
    let place_of = |line: &str| line.find('/').map(|at| PathBuf::from(&line[at..]));
    let mut places: Vec<PathBuf> = text.lines().filter_map(place_of).collect();
    places.dedup();
    Ok(places)
}

/// Replaces the file in one step, so that a kill leaves the old note or the new one.
fn write(edge_dir: &Path, places: &[PathBuf]) -> anyhow::Result<()> {
    let path = edge_dir.join(FILE);
    let text: String = places.iter().map(|place| format!("{}\n", place.display())).collect();
    let draft = path.with_extension("new");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, &path))
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_noted_once_and_a_line_of_an_earlier_version_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let pins = dir.path().join("pins of mine");
        fs::write(dir.path().join(FILE), format!("eth0 {}\n", pins.display())).unwrap();
        assert_eq!(noted(dir.path()).unwrap(), std::slice::from_ref(&pins));
        note(dir.path(), &pins).unwrap();
        assert_eq!(noted(dir.path()).unwrap(), std::slice::from_ref(&pins));
        // Nothing is pinned there, so that another place is the only one to remember.
        let other = dir.path().join("other");
        note(dir.path(), &other).unwrap();
        assert_eq!(noted(dir.path()).unwrap(), [other]);
        assert!(!any(dir.path()).unwrap());
    }

    #[test]
    fn no_note_and_a_torn_one_are_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!any(dir.path()).unwrap());
        fs::write(dir.path().join(FILE), "eth0").unwrap();
        assert!(!any(dir.path()).unwrap());
        assert!(end(dir.path(), None).unwrap().is_empty());
    }
}
