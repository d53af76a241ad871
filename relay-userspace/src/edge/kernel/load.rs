//! From the object file to maps and a program in the kernel, with the pinned maps where they fit.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use aya::maps::{Map, MapData, MapError};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use relay_common::control::{Kind, Place};
use relay_common::entry::List;
use relay_common::layout::{self, PROGRAM};
use relay_common::packed::Lines;
use relay_common::parse::Family;

use super::AttachError;
use super::hosts::Hosts;
use super::maps::Maps;
use super::pins::Pins;
use super::table::Table;
use crate::edge::filter::MapSizes;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/postern-xdp"));

/// As often as libbpf asks a verifier that gives up with EAGAIN.
const VERIFY_ATTEMPTS: u32 = 5;

/// As little as the kernel makes a table for.
const NO_ROOM: MapSizes = MapSizes { allow: 1, deny: 1, feeds_allow: 1, feeds_deny: 1 };

/// The kernel program with its maps, not attached.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) maps: Maps,
    /// All maps by their names.
    pub(super) descriptors: Vec<(&'static str, OwnedFd)>,
    pub(super) program_id: u32,
}

/// Loads with maps of its own.
pub(super) fn fresh(sizes: MapSizes, log_drops: bool) -> Result<Loaded, AttachError> {
    taken(object(sizes, &[], log_drops)?, sizes)
}

/// Loads with the pinned maps where they are exactly what the object wants, and stages the others.
/// The lists are one set: where a single table has another size, all of them begin anew, and the
/// program that is attached goes on with the old ones. Counters are kept in either case.
pub(super) fn adopting(
    pins: &mut Pins,
    sizes: MapSizes,
    log_drops: bool,
) -> Result<Loaded, AttachError> {
    // The object itself says what its maps must be, but for the sizes of tables.
    let wanted = object(NO_ROOM, &[], false)?;
    let (mut fit, mut unfit) = (Vec::new(), Vec::new());
    for name in layout::maps() {
        match compare(&wanted, pins, name, sizes)? {
            Pinned::Same => fit.push(name),
            Pinned::Absent => unfit.push(name),
            Pinned::Resized(old) => {
                fits_anew(pins, name, &old, sizes)?;
                unfit.push(name);
            }
        }
    }
    drop(wanted);
    if unfit.iter().any(|name| is_of_the_lists(name)) {
        let (lists, others) = fit.into_iter().partition(|name| is_of_the_lists(name));
        fit = others;
        unfit.extend::<Vec<_>>(lists);
    }
    let adopted: Vec<_> = fit.into_iter().map(|name| (name, pins.map(name))).collect();
    let ebpf = object(sizes, &adopted, log_drops)?;
    pins.stage(&ebpf, unfit)?;
    taken(ebpf, sizes)
}

fn taken(mut ebpf: Ebpf, sizes: MapSizes) -> Result<Loaded, AttachError> {
    let descriptors = layout::maps().map(|name| Ok((name, descriptor(&ebpf, name)?)));
    let descriptors = descriptors.collect::<Result<_, AttachError>>()?;
    let maps = Maps::take(&mut ebpf, sizes)?;
    let program_id = verify(&mut ebpf)?;
    Ok(Loaded { ebpf, maps, descriptors, program_id })
}

/// The maps that together say who is denied: a packet must never see some of one set and some of
/// another.
fn is_of_the_lists(name: &str) -> bool {
    let tables = layout::TABLES.iter().map(|&(.., name)| name);
    let lines = layout::LINES.iter().map(|&(.., name)| name);
    let words = [layout::CONTROL, layout::TOUCHED_V6];
    tables.chain(lines).chain(words).any(|it| it == name)
}

/// The size of a map that depends on how many entries there may be.
fn resized(name: &str, sizes: MapSizes) -> Option<u32> {
    let table = layout::TABLES.iter().find(|&&(.., it)| it == name);
    let lines = layout::LINES.iter().find(|&&(.., it)| it == name);
    match (table, lines) {
        (Some(&(place, kind, ..)), _) => Some(sizes.of_place(place, list_of(kind))),
        (_, Some(&(place, family, _))) => {
            Some(Lines::for_entries(family, sizes.of_place(place, List::Deny)).in_map(family))
        }
        _ => None,
    }
}

/// Refuses a size that the rows in force do not fit: the program that takes over would let some of
/// them in. (Feeds are published anew in any case, and say themselves when they do not fit.)
fn fits_anew(
    pins: &Pins,
    name: &'static str,
    old: &MapData,
    sizes: MapSizes,
) -> Result<(), AttachError> {
    let found = layout::TABLES.iter().find(|&&(.., table)| table == name);
    let Some(&(Place::Rows, kind, family, _)) = found else { return Ok(()) };
    let counting = |error| AttachError::load("counting a list", error);
    let old = old.fd().as_fd().try_clone_to_owned().map_err(counting)?;
    let mut entries = Table::new(old, kind, family).count().map_err(counting)?;
    if kind == Kind::Hosts {
        entries += packed(pins, family).map_err(counting)?;
    }
    let room = sizes.of_place(Place::Rows, list_of(kind));
    if entries > u64::from(room) {
        return Err(AttachError::Shrunk { map: name, entries, room });
    }
    Ok(())
}

/// How many rows stand in the packed table that is pinned.
fn packed(pins: &Pins, family: Family) -> io::Result<u64> {
    let found = layout::LINES.iter().find(|&&(place, of, _)| (place, of) == (Place::Rows, family));
    let &(.., name) = found.expect("LINES has every combination");
    let map = MapData::from_pin(pins.map(name)).map_err(io::Error::other)?;
    let lines = map.info().map_err(io::Error::other)?.max_entries();
    Hosts::count_in(map.fd().as_fd(), family, lines)
}

pub(super) fn program(ebpf: &mut Ebpf) -> &mut Xdp {
    ebpf.program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok())
        .expect("the object is built with an XDP program of this name")
}

fn object(
    sizes: MapSizes,
    pinned: &[(&'static str, PathBuf)],
    log_drops: bool,
) -> Result<Ebpf, AttachError> {
    let mut loader = EbpfLoader::new();
    // A constant to the verifier, which removes what it switches off.
    let level = if log_drops { aya_log::Level::Info as u8 } else { 0 };
    loader.override_global(aya_log::LEVEL, &level, true);
    for name in layout::maps() {
        if let Some(room) = resized(name, sizes) {
            loader.map_max_entries(name, room);
        }
    }
    for (name, path) in pinned {
        loader.map_pin_path(name, path.as_path());
    }
    loader.load(OBJECT).map_err(|error| AttachError::load("making BPF maps", error))
}

/// The list that a table belongs to.
pub(super) fn list_of(kind: Kind) -> List {
    if kind == Kind::Allow { List::Allow } else { List::Deny }
}

/// Gives the program to the verifier; returns the kernel's id of it.
fn verify(ebpf: &mut Ebpf) -> Result<u32, AttachError> {
    let doing = "loading an XDP program";
    let program = program(ebpf);
    let mut attempts = VERIFY_ATTEMPTS;
    while let Err(error) = program.load() {
        attempts -= 1;
        if attempts == 0 || !is_interrupted(&error) {
            return Err(AttachError::load(doing, error));
        }
    }
    program.info().map(|info| info.id()).map_err(|error| AttachError::load(doing, error))
}

/// Whether the verifier was only called away: with a signal pending it gives up with EAGAIN.
fn is_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. }
        if io_error.raw_os_error() == Some(libc::EAGAIN))
}

/// How a pinned map relates to the one that the object wants.
enum Pinned {
    Same,
    Absent,
    /// Made for another number of entries.
    Resized(MapData),
}

fn compare(
    wanted: &Ebpf,
    pins: &Pins,
    name: &'static str,
    sizes: MapSizes,
) -> Result<Pinned, AttachError> {
    let path = pins.map(name);
    if !path.exists() {
        return Ok(Pinned::Absent);
    }
    let reading = |error: MapError| AttachError::load("reading a pinned map", error);
    let found = MapData::from_pin(&path).map_err(reading)?;
    let (is, should) =
        (found.info().map_err(reading)?, data(wanted, name).info().map_err(reading)?);
    let foreign = |what| Err(AttachError::ForeignPin { path, what });
    if is.map_type().ok() != should.map_type().ok() || is.map_flags() != should.map_flags() {
        return foreign("another type of map");
    }
    if is.key_size() != should.key_size() || is.value_size() != should.value_size() {
        return foreign("a map of other keys or values");
    }
    let room = resized(name, sizes).unwrap_or(should.max_entries());
    Ok(if is.max_entries() == room { Pinned::Same } else { Pinned::Resized(found) })
}

/// A map's descriptor, for its own use.
pub(super) fn descriptor(ebpf: &Ebpf, name: &str) -> Result<OwnedFd, AttachError> {
    data(ebpf, name)
        .fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| AttachError::load("opening a map", error))
}

fn data<'a>(ebpf: &'a Ebpf, name: &str) -> &'a MapData {
    match ebpf.map(name) {
        Some(
            Map::LpmTrie(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::PerCpuArray(data)
            | Map::Array(data)
            | Map::RingBuf(data),
        ) => data,
        _ => unreachable!("the object is built with every map of the layout, of these types"),
    }
}
