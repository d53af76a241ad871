//! The lists in the kernel: the XDP program on an interface, its maps, and what keeps both alive
//! while no process holds them. The only code that knows aya.

mod attach;
mod bare;
mod bpf;
mod connection;
mod counts;
mod drive;
mod drop_log;
mod earlier;
mod entries;
mod error;
mod events;
mod generation;
mod grace;
mod hosts;
mod instructions;
mod link;
mod load;
mod lookup;
mod maps;
mod meanings;
mod netlink;
mod pins;
mod place;
mod plain;
mod probe;
mod table;
mod touched;
mod words;

use std::cell::RefCell;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use relay_common::entry::{Entry, List, Scope};
use relay_common::layout::{LAYOUT_VERSION, RuleHits};
use relay_common::parse::Packet;
use relay_common::totals::Totals;
use relay_common::verdict::{self, Verdict};

pub use counts::Counters;
pub use drive::{Answer, Drive, Program};
pub use drop_log::DropLog;
pub use error::AttachError;
use error::not_attached;
pub use plain::Plain;
pub use probe::{Outcome, Probe};

use super::events::source::EventSource;
use super::filter::{
    Attachment, Filter, FilterError, Kept, MapSizes, Mode, Modes, State, source_of,
};
use super::links::LinkEvents;
use earlier::Earlier;
use maps::Maps;
use pins::Pins;
use place::Place;

/// An interface to guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// Whether to run behind the driver where the driver itself runs no XDP programs.
    pub generic_permitted: bool,
}

/// How to attach the kernel filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSettings {
    /// The internet-facing interfaces, each once.
    pub interfaces: Vec<Interface>,
    /// A directory on a BPF file system, or one where a BPF file system may be mounted. No part
    /// of it on the BPF file system may have a dot in its name.
    pub pin_dir: PathBuf,
    /// Room for entries.
    pub sizes: MapSizes,
    /// Have the program write a line for each packet that it drops ([`DropLog`]).
    pub log_drops: bool,
    /// The version of the maps' layout. Tests pretend to be of another.
    #[doc(hidden)]
    pub layout: u32,
}

impl KernelSettings {
    pub const PIN_DIR: &str = "/sys/fs/bpf/postern";

    /// The defaults, on this interface: native mode only.
    pub fn on(interface: impl Into<String>) -> Self {
        Self {
            interfaces: vec![Interface { name: interface.into(), generic_permitted: false }],
            pin_dir: PathBuf::from(Self::PIN_DIR),
            sizes: MapSizes::default(),
            log_drops: false,
            layout: LAYOUT_VERSION,
        }
    }
}

/// The filter on its interfaces: one program, one set of maps, a link for each interface. Dropping
/// it leaves program and maps at work, for the next process to adopt; [`detach`](Self::detach) ends
/// them.
#[derive(Debug)]
pub struct KernelFilter {
    maps: Maps,
    program_id: u32,
    site: Option<Site>,
    /// Opened with the filter, so that nothing is missed and the namespace is the same.
    links: Option<io::Result<LinkEvents>>,
}

/// Where a program is attached, and what is needed to attach it again.
#[derive(Debug)]
struct Site {
    places: Vec<Place>,
    program: OwnedFd,
    /// All maps by their names, to be pinned anew.
    maps: Vec<(&'static str, OwnedFd)>,
    pins: Pins,
    /// What earlier processes left, until it is taken over.
    earlier: Option<Earlier>,
    adopts: bool,
    /// Where the interfaces were found: the same names elsewhere are other devices.
    namespace: Option<u64>,
}

impl KernelFilter {
    /// Prepares the filter: finds what an earlier process left pinned, adopts its maps where they
    /// fit or makes new ones, and has the program verified. Nothing is attached or replaced until
    /// the lists were written and [`Filter::activate`] is called.
    ///
    /// # Errors
    /// One sentence for whatever stands in the way. What was attached before still is.
    pub fn open(settings: &KernelSettings) -> Result<Self, AttachError> {
        let links = Some(LinkEvents::open());
        let mut pins = Pins::open(&settings.pin_dir, settings.layout)?;
        let earlier = Earlier::find(&settings.pin_dir, &pins)?;
        let places: Vec<Place> = settings.interfaces.iter().cloned().map(Place::new).collect();
        Place::refuse_what_cannot_be(&places, &earlier)?;
        let adopts = !earlier.standing.is_empty();
        let mut loaded = load::adopting(&mut pins, settings.sizes, settings.log_drops)?;
        let doing = "keeping an XDP program";
        let program = load::program(&mut loaded.ebpf)
            .fd()
            .map_err(|error| AttachError::load(doing, error))?
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| AttachError::load(doing, error))?;
        let (earlier, namespace) = (Some(earlier), attach::namespace());
        let descriptors = loaded.descriptors;
        let site = Site { places, program, maps: descriptors, pins, earlier, adopts, namespace };
        let (maps, program_id) = (loaded.maps, loaded.program_id);
        Ok(Self { maps, program_id, site: Some(site), links })
    }

    /// Whether an earlier process had left the filter at work.
    pub fn adopts(&self) -> bool {
        self.site.as_ref().is_some_and(|site| site.adopts)
    }

    /// The kernel's id of the program.
    pub fn program_id(&self) -> u32 {
        self.program_id
    }

    /// Ends the filter: detaches the program everywhere and removes every pin.
    ///
    /// # Errors
    /// The kernel refuses; some of it may be gone.
    pub fn detach(mut self) -> Result<(), AttachError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), AttachError> {
        let Some(Site { places, pins, earlier, .. }) = self.site.take() else { return Ok(()) };
        if let Some(earlier) = earlier {
            earlier.let_go(&[])?;
        }
        // All are taken off, whatever becomes of one of them.
        let done: Vec<_> = places.into_iter().map(|place| place.take_off(&pins)).collect();
        done.into_iter().collect::<Result<(), _>>()?;
        pins.remove_maps()
    }

    /// What [`Filter::activate`] does: attaches where nothing stands, replaces the program where an
    /// earlier one does, and lets go of what nobody has asked for. Nothing the second time.
    ///
    /// # Errors
    /// One sentence for whatever stands in the way. Nothing new stays attached; what was attached
    /// before still is, unless it ran in the generic mode and that is no longer permitted.
    pub fn attach(&mut self) -> Result<(), AttachError> {
        let Some(Site { places, program, pins, earlier, namespace, .. }) = &mut self.site else {
            return Ok(());
        };
        if *namespace != attach::namespace() {
            return Err(AttachError::OtherNamespace);
        }
        let Some(mut earlier) = earlier.take() else { return Ok(()) };
        let plans = Place::plans(places, &mut earlier)?;
        // The new ones first: if any is refused, what stands has not been touched.
        let attached = places
            .iter_mut()
            .zip(&plans)
            .try_for_each(|(place, plan)| place.attach_new(plan, program));
        if attached.is_err() {
            places.iter_mut().for_each(Place::let_go);
            return attached;
        }
        for (place, plan) in places.iter_mut().zip(plans) {
            earlier.spent.extend(place.take_over(plan, program)?);
        }
        // The maps before the links: a kill in between leaves old links, and the next start fills
        // these maps before it replaces their program.
        pins.commit()?;
        let mut kept = Vec::new();
        for place in places {
            kept.extend(place.pin(pins)?);
        }
        for interface in earlier.let_go(&kept)? {
            tracing::warn!(interface, "the filter that an earlier start left there was detached");
        }
        Ok(())
    }
}

/// Ends every filter that another process left behind under this pin directory, without loading
/// anything. Returns whether there was one.
///
/// # Errors
/// Another process still owns it, or the pins cannot be removed.
pub fn detach_left_behind(pin_dir: &Path) -> Result<bool, AttachError> {
    earlier::end_all(pin_dir)
}

/// Whether a filter kept under this pin directory may be at work, with or without a process that
/// owns it.
pub fn has_pins(pin_dir: &Path) -> bool {
    earlier::any(pin_dir)
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

    fn judge(&mut self, source: IpAddr, port: u16, now_s: u32) -> Result<Verdict, FilterError> {
        let verdict = self.verdict(source, Scope::of_tcp_port(port), now_s)?;
        if let (Some(_), Some(site)) = (verdict.entry(), &self.site) {
            connection::count(site.program.as_fd(), source, port)?;
        }
        Ok(verdict)
    }

    fn events(&mut self) -> Option<Box<dyn EventSource>> {
        self.maps.events.take().map(|ring| Box::new(events::Ring(ring)) as Box<_>)
    }

    fn totals(&self) -> Result<Totals, FilterError> {
        self.maps.counters.totals()
    }

    fn rule_hits(&self, rule: u32) -> Result<RuleHits, FilterError> {
        self.maps.counters.rule_hits(rule)
    }

    fn set_totals(&mut self, totals: &Totals) -> Result<(), FilterError> {
        self.maps.counters.set_totals(totals)
    }

    fn set_rule(&mut self, rule: u32, hits: RuleHits) -> Result<(), FilterError> {
        self.maps.counters.set_rule(rule, hits)
    }

    fn activate(&mut self) -> Result<(), FilterError> {
        self.attach().map_err(not_attached)
    }

    fn keep_attached(&mut self) -> Kept {
        let mut kept = Kept::default();
        let Some(Site { places, program, maps, pins, earlier: None, .. }) = &mut self.site else {
            return kept;
        };
        let id = self.program_id;
        if let Err(error) = Place::follow_names(places, id, pins) {
            kept.failures.push(not_attached(error));
        }
        for place in places.iter_mut() {
            match place.keep(program, id, pins) {
                Ok(true) => kept.again.push(place.name().to_owned()),
                Ok(false) => {}
                Err(error) => kept.failures.push(not_attached(error)),
            }
        }
        kept.pins = Place::pin_anew(places, maps, pins).map_err(not_attached);
        kept
    }

    fn link_events(&mut self) -> Option<io::Result<LinkEvents>> {
        self.links.take()
    }

    fn take_off(&mut self) -> Result<(), FilterError> {
        self.end().map_err(not_attached)
    }

    fn attachments(&self) -> Vec<Attachment> {
        match &self.site {
            Some(site) => {
                site.places.iter().map(|place| place.attachment(self.program_id)).collect()
            }
            None => vec![Attachment {
                interface: None,
                called: None,
                mode: Mode::Detached,
                state: State::Lost,
                program_id: Some(self.program_id),
            }],
        }
    }
}
