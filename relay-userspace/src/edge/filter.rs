//! The trait between rules and maps. What the lists should hold is decided above it; below it is
//! either the kernel ([`kernel`](super::kernel)) or memory ([`memory`](super::memory)). Both are
//! held to one suite, [`contract`](super::contract).

use std::fmt;
use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::control::Place;
use relay_common::entry::{Entry, List, Scope};
use relay_common::layout::{self, RuleHits};
use relay_common::parse::{Family, Source};
use relay_common::totals::Totals;
use relay_common::verdict::Verdict;
use thiserror::Error;

use super::events::source::EventSource;
use super::links::LinkEvents;

/// The enforced lists and their counters. One owner: nobody else writes the same maps.
pub trait Filter: Send {
    /// Puts an entry in force, in place of the prefix's earlier one. The prefix is truncated to
    /// its network, and the entry's `prefix_len` is set from it.
    fn put(&mut self, list: List, prefix: IpNet, entry: Entry) -> Result<(), FilterError>;

    /// Takes an entry out of force; says whether it was there.
    fn remove(&mut self, list: List, prefix: IpNet) -> Result<bool, FilterError>;

    /// The entry of exactly this prefix, expired or not.
    fn get(&self, list: List, prefix: IpNet) -> Result<Option<Entry>, FilterError>;

    /// All entries of a list, both families, expired ones too, in no order. Collected before it
    /// returns, so that the caller may change the list while going through them.
    fn entries(&self, list: List) -> Result<Vec<(IpNet, Entry)>, FilterError>;

    /// How many entries there is room for.
    fn capacity(&self) -> MapSizes;

    /// Puts many entries at once.
    ///
    /// # Errors
    /// One of them could not be put; some of the others may have been.
    fn put_all(&mut self, list: List, entries: &[(IpNet, Entry)]) -> Result<(), FilterError> {
        entries.iter().try_for_each(|&(prefix, entry)| self.put(list, prefix, entry))
    }

    /// Puts the program where packets come in, now that the lists are written; in place of an
    /// earlier one, between one packet and the next.
    ///
    /// # Errors
    /// Something stands in the way; nothing new stays attached.
    fn activate(&mut self) -> Result<(), FilterError> {
        Ok(())
    }

    /// Says which traffic the deny entries speak about: the union of their scopes. Packets of
    /// other classes pass without a lookup. Nothing is dropped until this was set.
    fn set_guarded(&mut self, scope: Scope) -> Result<(), FilterError>;

    fn guarded(&self) -> Result<Scope, FilterError>;

    /// Switches what the configuration switches.
    fn set_modes(&mut self, modes: &Modes) -> Result<(), FilterError>;

    /// Removes up to so many entries of the idle generation of feeds. True when none is left.
    fn feed_clear(&mut self, at_most: usize) -> Result<bool, FilterError>;

    /// Puts entries into the idle generation. Nesting must be resolved: of the entries of a list
    /// that cover a source, the longest says all that there is to say.
    fn feed_fill(&mut self, list: List, entries: &[(IpNet, Entry)]) -> Result<(), FilterError>;

    /// How many entries the idle generation holds, counted where they stand.
    fn feed_count(&self) -> Result<u64, FilterError>;

    /// Puts the idle generation in force, in place of the other one, and this traffic under guard,
    /// both between one packet and the next. The other one is idle then, and still full.
    fn feed_flip(&mut self, guarded: Scope) -> Result<(), FilterError>;

    /// Calls `each` with every entry of the generation in force, in no order.
    fn feeds(&self, each: &mut dyn FnMut(List, IpNet, Entry)) -> Result<(), FilterError>;

    /// Lets only those sources be looked up that these prefixes cover: all prefixes of rows and of
    /// the generation in force, and no idle one. Entries that were removed since the last time
    /// cost their neighbours a lookup until then.
    fn retouch(
        &mut self,
        prefixes: &mut dyn Iterator<Item = (List, IpNet)>,
    ) -> Result<(), FilterError>;

    /// What would become of a packet, by the lists as they are in force, walked as the kernel
    /// does. A v4-mapped source is judged as the IPv4 address it stands for, as sockets show it.
    fn verdict(&self, source: IpAddr, class: Scope, now_s: u32) -> Result<Verdict, FilterError>;

    /// Judges a connection at accept, where no program in the kernel has judged its packets by this
    /// port, and counts it as one packet if an entry decides.
    fn judge(&mut self, source: IpAddr, port: u16, now_s: u32) -> Result<Verdict, FilterError>;

    /// Where packets are told about that were dropped, limited or observed. There is one reader:
    /// whoever asks first.
    fn events(&mut self) -> Option<Box<dyn EventSource>> {
        None
    }

    /// Packets by what became of them, over all CPUs.
    fn totals(&self) -> Result<Totals, FilterError>;

    /// Packets that a rule's entries decided. Survives the entries.
    fn rule_hits(&self, rule: u32) -> Result<RuleHits, FilterError>;

    /// Has the filter count on from here what becomes of packets.
    fn set_totals(&mut self, totals: &Totals) -> Result<(), FilterError>;

    /// Has the filter count a rule's packets on from here: from nothing, before its id is given to
    /// another rule.
    fn set_rule(&mut self, rule: u32, hits: RuleHits) -> Result<(), FilterError>;

    /// Sees that the lists are still enforced everywhere: an interface that went away and came back
    /// has lost the program.
    fn keep_attached(&mut self) -> Kept {
        Kept::default()
    }

    /// Where the kernel tells of changes at interfaces since the filter was opened, or why it does
    /// not; once. `None` where there are no interfaces to look after.
    fn link_events(&mut self) -> Option<io::Result<LinkEvents>> {
        None
    }

    /// Takes the program off every interface, at once and for good. The lists can still be asked.
    fn take_off(&mut self) -> Result<(), FilterError> {
        Ok(())
    }

    /// Where the lists are enforced, as it is now: one for each interface, at least one.
    fn attachments(&self) -> Vec<Attachment>;
}

/// What a look after the interfaces came to.
#[derive(Debug)]
pub struct Kept {
    /// Interfaces, by the names of the configuration, that had to be attached to again.
    pub again: Vec<String>,
    /// Why others could not be.
    pub failures: Vec<FilterError>,
    /// How many pins, without which the filter ends with this process, were missing and made anew.
    pub pins: Result<usize, FilterError>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { again: Vec::new(), failures: Vec::new(), pins: Ok(0) }
    }
}

/// Room for entries in each trie. There is one for each list and family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSizes {
    pub allow: u32,
    pub deny: u32,
    /// In each of the two generations of feeds.
    pub feeds_allow: u32,
    pub feeds_deny: u32,
}

impl Default for MapSizes {
    fn default() -> Self {
        let (allow, deny) = (layout::ALLOW_ENTRIES, layout::DENY_ENTRIES);
        // The kernel makes no table without room.
        Self { allow, deny, feeds_allow: 1, feeds_deny: 1 }
    }
}

impl MapSizes {
    pub fn of(&self, list: List) -> u32 {
        match list {
            List::Allow => self.allow,
            List::Deny => self.deny,
        }
    }

    pub fn of_place(&self, place: Place, list: List) -> u32 {
        match (place, list) {
            (Place::Rows, list) => self.of(list),
            (Place::Feeds(_), List::Allow) => self.feeds_allow,
            (Place::Feeds(_), List::Deny) => self.feeds_deny,
        }
    }
}

/// What the configuration switches, beyond the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// Nothing is dropped; what would be is counted.
    pub observes: bool,
    /// A limit on connections from one source.
    pub syn: Option<SynLimit>,
    /// Packets a second, at most, that are told as events; 0 tells none.
    pub events_per_s: u32,
}

/// How many connections one source may open: an IPv4 address or an IPv6 /64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynLimit {
    /// Connections a second.
    pub per_s: u32,
    /// And so many at once above that.
    pub burst: u32,
    /// Up to so many connections a second over all sources nobody is limited.
    pub free_per_s: u32,
}

/// How packets reach the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// XDP in the network driver, before the kernel makes a packet of the frame.
    Native,
    /// XDP behind the driver: the same verdicts, dearer.
    Generic,
    /// No kernel program: asked at accept().
    Memory,
    /// The kernel program is attached nowhere; nothing is filtered.
    Detached,
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Memory => "userspace",
            Self::Detached => "detached",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where and how the lists are enforced, on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface as the configuration names it; `None` without a kernel program.
    pub interface: Option<String>,
    /// What it is called now, if that is another name: the program clings to the device.
    pub called: Option<String>,
    pub mode: Mode,
    pub state: State,
    /// The kernel's id of the program, as `bpftool prog` shows it; `None` where it runs none of ours.
    pub program_id: Option<u32>,
}

/// How an interface does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Guarded, and set up.
    Up,
    /// Guarded, and set down.
    Down,
    /// There is no interface of the name.
    Missing,
    /// The interface is there and the program is not on it.
    Lost,
}

impl State {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Missing => "missing",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A list could not be read or written.
#[derive(Debug, Error)]
pub enum FilterError {
    #[error("the {list} list is full: it has room for {capacity} {} prefixes", family.name())]
    Full { list: List, family: Family, capacity: u32 },
    #[error("rule {rule} has no counter: rule ids are below {}", layout::RULES)]
    NoSuchRule { rule: u32 },
    #[error("{source}")]
    NotAttached { source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the feeds could not be published: {why}")]
    Feeds { why: String },
    #[error("the kernel refused {doing}: {source}")]
    Kernel { doing: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
}

/// The family of a prefix, in the words of the maps.
pub fn family_of(prefix: &IpNet) -> Family {
    match prefix {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    }
}

/// A peer's address as the maps know it: a v4-mapped one is IPv4 on the wire.
pub fn source_of(address: IpAddr) -> Source {
    Source::from(address.to_canonical())
}
