//! Where this edge's filter was attached, kept on disk. An edge that is killed leaves its filter at
//! work, and the next start may be told of another interface, or of no kernel filter at all: then
//! nobody would ever lift an entry of the old one again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::kernel::{self, KernelSettings, detach_left_behind};

/// File name in the edge's folder. A line is an interface, a space, and a pin directory.
const FILE: &str = "attached";

/// An interface, and the pin directory that keeps its filter.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    interface: String,
    pin_dir: PathBuf,
}

impl From<&KernelSettings> for Place {
    fn from(settings: &KernelSettings) -> Self {
        Self { interface: settings.interface.clone(), pin_dir: settings.pin_dir.clone() }
    }
}

/// Notes where the filter is going to be attached, before it is. Nothing is written where that is
/// noted already: a full disk must not keep the filter from being taken over.
///
/// # Errors
/// The edge's folder cannot be written.
pub fn note(edge_dir: &Path, settings: &KernelSettings) -> anyhow::Result<()> {
    let place = Place::from(settings);
    if noted(edge_dir)?.contains(&place) {
        return Ok(());
    }
    let mut places = standing(edge_dir)?;
    places.push(place);
    write(edge_dir, &places)
}

/// Whether a filter of this edge may be at work, with or without a process that owns it.
///
/// # Errors
/// The note cannot be read.
pub fn any(edge_dir: &Path) -> anyhow::Result<bool> {
    standing(edge_dir).map(|places| !places.is_empty())
}

/// Ends every filter that was left behind, but the one of these settings. What it ends is logged.
///
/// # Errors
/// Another process still owns one, or its pins cannot be removed.
pub fn end(edge_dir: &Path, but: Option<&KernelSettings>) -> anyhow::Result<()> {
    let but = but.map(Place::from);
    let over = standing(edge_dir)?.into_iter().filter(|place| Some(place) != but.as_ref());
    for Place { interface, pin_dir } in over {
        detach_left_behind(&interface, &pin_dir)
            .with_context(|| format!("taking the filter left on {interface} off"))?;
        tracing::warn!(interface, "the filter that an earlier start left there was detached");
    }
    Ok(())
}

/// The noted places that still have pins.
fn standing(edge_dir: &Path) -> anyhow::Result<Vec<Place>> {
    let mut places = noted(edge_dir)?;
    places.retain(|place| kernel::has_pins(&place.interface, &place.pin_dir));
    Ok(places)
}

fn noted(edge_dir: &Path) -> anyhow::Result<Vec<Place>> {
    let path = edge_dir.join(FILE);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.with_context(|| format!("reading {}", path.display()))?,
    };
    let places = text.lines().filter_map(|line| {
        let (interface, pin_dir) = line.split_once(' ')?;
        Some(Place { interface: interface.to_owned(), pin_dir: pin_dir.into() })
    });
    Ok(places.collect())
}

/// Replaces the file in one step, so that a kill leaves the old note or the new one.
fn write(edge_dir: &Path, places: &[Place]) -> anyhow::Result<()> {
    let path = edge_dir.join(FILE);
    let text: String = places
        .iter()
        .map(|place| format!("{} {}\n", place.interface, place.pin_dir.display()))
        .collect();
    let draft = path.with_extension("new");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, &path))
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(interface: &str, pin_dir: &Path) -> KernelSettings {
        KernelSettings { pin_dir: pin_dir.to_owned(), ..KernelSettings::on(interface) }
    }

    #[test]
    fn a_place_is_remembered_while_its_pins_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let pins = dir.path().join("pins of mine");
        let (wan, lan) = (settings("wan", &pins), settings("lan", &pins));
        note(dir.path(), &wan).unwrap();
        assert!(!any(dir.path()).unwrap(), "no pins were made");
        fs::create_dir_all(pins.join("v2/wan")).unwrap();
        note(dir.path(), &wan).unwrap();
        note(dir.path(), &lan).unwrap();
        fs::create_dir_all(pins.join("v2/lan")).unwrap();
        assert_eq!(standing(dir.path()).unwrap(), [Place::from(&wan), Place::from(&lan)]);
        fs::remove_dir(pins.join("v2/wan")).unwrap();
        assert_eq!(standing(dir.path()).unwrap(), [Place::from(&lan)]);
    }

    #[test]
    fn no_note_and_a_torn_one_are_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!any(dir.path()).unwrap());
        fs::write(dir.path().join(FILE), "eth0").unwrap();
        assert!(!any(dir.path()).unwrap());
        end(dir.path(), None).unwrap();
    }
}
