//! The lists in the kernel: the XDP program on an interface, its maps, and what keeps both alive
//! while no process holds them. The only code that knows aya.

mod bpf;
mod drive;
mod drop_log;
mod error;
mod generation;
mod link;
mod load;
mod lookup;
mod maps;
mod netlink;
mod pins;
mod probe;
mod table;
mod touched;
mod words;

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use relay_common::entry::{Entry, List, Scope};
use relay_common::layout::RuleHits;
use relay_common::parse::Packet;
use relay_common::totals::Totals;
use relay_common::verdict::{self, Verdict};

pub use drive::{Answer, Drive, Program};
pub use drop_log::DropLog;
pub use error::AttachError;
pub use probe::{Outcome, Probe};

use super::filter::{Attachment, Filter, FilterError, MapSizes, Mode, Modes, source_of};
use link::{Hook, Link};
use load::Loaded;
use maps::Maps;
use pins::Pins;

/// How to attach the kernel filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSettings {
    /// The internet-facing interface.
    pub interface: String,
    /// Whether to run behind the driver where the driver itself runs no XDP programs.
    pub generic_permitted: bool,
    /// A directory on a BPF file system, or one where a BPF file system may be mounted. No part
    /// of it on the BPF file system may have a dot in its name.
    pub pin_dir: PathBuf,
    /// Room for entries.
    pub sizes: MapSizes,
    /// Have the program write a line for each packet that it drops ([`DropLog`]).
    pub log_drops: bool,
}

impl KernelSettings {
    pub const PIN_DIR: &str = "/sys/fs/bpf/postern";

    /// The defaults, on this interface: native mode only.
    pub fn on(interface: impl Into<String>) -> Self {
        Self {
            interface: interface.into(),
            generic_permitted: false,
            pin_dir: PathBuf::from(Self::PIN_DIR),
            sizes: MapSizes::default(),
            log_drops: false,
        }
    }
}

/// The filter on an interface. Dropping it leaves program and maps at work, for the next process
/// to adopt; [`detach`](Self::detach) ends them.
#[derive(Debug)]
pub struct KernelFilter {
    maps: Maps,
    program_id: u32,
    place: Option<Place>,
    adopted: bool,
}

/// Where a program is attached, and by what it is held there.
#[derive(Debug)]
struct Place {
    interface: String,
    ifindex: u32,
    link: Link,
    pins: Pins,
    /// To attach it again, should the interface go away and come back.
    program: OwnedFd,
    generic_permitted: bool,
}

impl KernelFilter {
    /// Attaches the filter, or takes over the one that an earlier process left pinned: its maps
    /// are kept where they fit, and the program is replaced between one packet and the next.
    ///
    /// Nothing is dropped by a filter that was attached anew until entries were put and
    /// [`Filter::set_guarded`] was called.
    ///
    /// # Errors
    /// One sentence for whatever stands in the way. What was attached before then still is (unless
    /// it ran in the generic mode and the settings no longer permit that), and nothing else.
    pub fn open(settings: &KernelSettings) -> Result<Self, AttachError> {
        let interface = settings.interface.as_str();
        let ifindex = find_interface(interface)?;
        let pins = Pins::open(&settings.pin_dir, interface)?;
        let standing = standing(&pins, interface, ifindex, settings.generic_permitted)?;
        let adopted = standing.is_some();
        let attempt = take_over(settings, ifindex, &pins, standing);
        if attempt.is_err() {
            // The first error is the one to tell.
            let _ = pins.discard_staged();
        }
        let (Loaded { maps, program_id, .. }, link, program) = attempt?;
        let place = Place {
            interface: interface.to_owned(),
            ifindex,
            link,
            pins,
            program,
            generic_permitted: settings.generic_permitted,
        };
        Ok(Self { maps, program_id, place: Some(place), adopted })
    }

    /// Whether an earlier process had left the filter at work.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Ends the filter: detaches the program and removes every pin.
    pub fn detach(self) -> Result<(), AttachError> {
        match self.place {
            Some(Place { link, pins, .. }) => {
                drop(link);
                pins.remove_all()
            }
            None => Ok(()),
        }
    }
}

impl Place {
    /// Attaches the same program to the interface that now bears the name. Its maps never stopped
    /// being written, so that it knows every entry from its first packet.
    fn attach_again(&mut self) -> Result<(), AttachError> {
        let ifindex = find_interface(&self.interface)?;
        self.pins.forget_link()?;
        let program = self.program.as_fd();
        let link = attach(program, &self.interface, ifindex, self.generic_permitted)?;
        self.pins.keep_link(&link)?;
        (self.ifindex, self.link) = (ifindex, link);
        Ok(())
    }
}

/// Ends a filter that another process left behind, without loading anything. Returns whether
/// there was one.
///
/// # Errors
/// Another process still owns it, or the pins cannot be removed.
pub fn detach_left_behind(interface: &str, pin_dir: &Path) -> Result<bool, AttachError> {
    if !has_pins(interface, pin_dir) {
        return Ok(false);
    }
    Pins::open(pin_dir, interface)?.remove_all()?;
    Ok(true)
}

/// Whether a filter on this interface may be at work, with or without a process that owns it.
pub fn has_pins(interface: &str, pin_dir: &Path) -> bool {
    pins::dir_of(pin_dir, interface).exists()
}

fn find_interface(interface: &str) -> Result<u32, AttachError> {
    netlink::ifindex(interface).map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO | libc::EINVAL) => {
            AttachError::NoInterface { interface: interface.to_owned() }
        }
        _ => AttachError::Query { interface: interface.to_owned(), source: error },
    })
}

/// The link that an earlier process left pinned, if it is alive, on this interface, and in a mode
/// that the settings permit.
fn standing(
    pins: &Pins,
    interface: &str,
    ifindex: u32,
    generic_permitted: bool,
) -> Result<Option<Link>, AttachError> {
    let query = |source| AttachError::Query { interface: interface.to_owned(), source };
    let attached = netlink::attached(ifindex).map_err(query)?;
    let Some(link) = pins.link()? else {
        return attached.map_or(Ok(None), |other| Err(occupied(interface, other.program_id)));
    };
    let info = link.info().map_err(query)?;
    let alive_here = info.ifindex == ifindex
        && attached.is_some_and(|attached| attached.program_id == info.program_id);
    if alive_here {
        if generic_permitted || attached.is_none_or(|attached| attached.hook == Hook::Native) {
            return Ok(Some(link));
        }
        // The settings no longer permit what it was attached as.
        pins.forget_link()?;
        return Ok(None);
    }
    if info.ifindex != 0 {
        let path = pins.dir().to_owned();
        return Err(AttachError::PinnedElsewhere { path, ifindex: info.ifindex });
    }
    // Its interface is gone; this one only bears the same name.
    pins.forget_link()?;
    attached.map_or(Ok(None), |other| Err(occupied(interface, other.program_id)))
}

/// Loads the program and puts it on the interface, in place of the standing one if there is one.
fn take_over(
    settings: &KernelSettings,
    ifindex: u32,
    pins: &Pins,
    standing: Option<Link>,
) -> Result<(Loaded, Link, OwnedFd), AttachError> {
    let mut loaded = load::adopting(pins, settings.sizes, settings.log_drops)?;
    let interface = settings.interface.as_str();
    let failed = |source| AttachError::Attach { interface: interface.to_owned(), source };
    let program = load::program(&mut loaded.ebpf).fd().map_err(io::Error::other).map_err(failed)?;
    let program = program.as_fd().try_clone_to_owned().map_err(failed)?;
    let link = match standing {
        Some(link) => {
            link.replace_program(program.as_fd()).map_err(failed)?;
            pins.commit(&loaded.staged)?;
            link
        }
        None => {
            let link = attach(program.as_fd(), interface, ifindex, settings.generic_permitted)?;
            pins.commit(&loaded.staged)?;
            pins.keep_link(&link)?;
            link
        }
    };
    Ok((loaded, link, program))
}

fn attach(
    program: BorrowedFd<'_>,
    interface: &str,
    ifindex: u32,
    generic_permitted: bool,
) -> Result<Link, AttachError> {
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

fn occupied(interface: &str, id: u32) -> AttachError {
    let name = aya::programs::loaded_programs()
        .filter_map(Result::ok)
        .find(|info| info.id() == id)
        .and_then(|info| info.name_as_str().map(str::to_owned))
        .unwrap_or_else(|| "without a name".to_owned());
    AttachError::Occupied { interface: interface.to_owned(), id, name }
}

impl Filter for KernelFilter {
    fn put(&mut self, list: List, prefix: IpNet, entry: Entry) -> Result<(), FilterError> {
        self.maps.put(list, prefix, entry)
    }

    fn remove(&mut self, list: List, prefix: IpNet) -> Result<bool, FilterError> {
        self.maps.remove(list, prefix)
    }

    fn get(&self, list: List, prefix: IpNet) -> Result<Option<Entry>, FilterError> {
        self.maps.get(list, prefix)
    }

    fn entries(&self, list: List) -> Result<Vec<(IpNet, Entry)>, FilterError> {
        self.maps.entries(list)
    }

    fn capacity(&self) -> MapSizes {
        self.maps.sizes()
    }

    fn set_guarded(&mut self, scope: Scope) -> Result<(), FilterError> {
        self.maps.set_guarded(scope)
    }

    fn guarded(&self) -> Result<Scope, FilterError> {
        self.maps.guarded()
    }

    fn put_all(&mut self, list: List, entries: &[(IpNet, Entry)]) -> Result<(), FilterError> {
        self.maps.put_all(list, entries)
    }

    fn set_modes(&mut self, modes: &Modes) -> Result<(), FilterError> {
        self.maps.set_modes(modes)
    }

    fn feed_clear(&mut self, at_most: usize) -> Result<bool, FilterError> {
        self.maps.feed_clear(at_most)
    }

    fn feed_fill(&mut self, list: List, entries: &[(IpNet, Entry)]) -> Result<(), FilterError> {
        self.maps.feed_fill(list, entries)
    }

    fn feed_count(&self) -> Result<u64, FilterError> {
        self.maps.feed_count()
    }

    fn feed_flip(&mut self, guarded: Scope) -> Result<(), FilterError> {
        self.maps.feed_flip(guarded)
    }

    fn feeds(&self, each: &mut dyn FnMut(List, IpNet, Entry)) -> Result<(), FilterError> {
        self.maps.feeds(each)
    }

    fn retouch(
        &mut self,
        prefixes: &mut dyn Iterator<Item = (List, IpNet)>,
    ) -> Result<(), FilterError> {
        self.maps.retouch(prefixes)
    }

    fn verdict(&self, source: IpAddr, class: Scope, now_s: u32) -> Result<Verdict, FilterError> {
        let control = self.maps.control();
        let lists = lookup::At { maps: &self.maps, control, now_s, error: RefCell::new(None) };
        let packet = Packet::of_class(source_of(source), class);
        let verdict = verdict::decide(&lists, control, &packet);
        match lists.error.into_inner() {
            Some(error) => Err(maps::kernel("to look an address up", error)),
            None => Ok(verdict),
        }
    }

    fn totals(&self) -> Result<Totals, FilterError> {
        self.maps.totals()
    }

    fn rule_hits(&self, rule: u32) -> Result<RuleHits, FilterError> {
        self.maps.rule_hits(rule)
    }

    fn reset_rule(&mut self, rule: u32) -> Result<(), FilterError> {
        self.maps.reset_rule(rule)
    }

    fn keep_attached(&mut self) -> Result<bool, FilterError> {
        let again = |error: AttachError| maps::kernel("to attach the filter again", error);
        if self.place.is_none() || self.attachment().mode != Mode::Detached {
            return Ok(false);
        }
        let Some(place) = &mut self.place else { return Ok(false) };
        place.attach_again().map_err(again)?;
        Ok(true)
    }

    fn attachment(&self) -> Attachment {
        let program_id = Some(self.program_id);
        let Some(place) = &self.place else {
            return Attachment { interface: None, mode: Mode::Detached, program_id };
        };
        let mode = match netlink::attached(place.ifindex) {
            Ok(Some(attached)) if attached.program_id == self.program_id => match attached.hook {
                Hook::Native => Mode::Native,
                Hook::Generic => Mode::Generic,
            },
            _ => Mode::Detached,
        };
        Attachment { interface: Some(place.interface.clone()), mode, program_id }
    }
}
