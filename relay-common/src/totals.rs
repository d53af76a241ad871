//! What the kernel program counts: exactly one counter for each packet, so that their sum is the
//! number of packets seen, and a second one for v4-mapped sources.

use core::fmt;

use crate::entry::{Entry, Reason, Scope};
use crate::parse::{Family, Malformed, Packet, Source, Unjudged};
use crate::verdict::Verdict;

/// Room for reasons and kinds of malformation, so that a new one does not move the others.
const REASONS: u32 = 16;
const KINDS: u32 = 16;

/// Why a packet that was judged has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pass {
    Unguarded = 0,
    Allowed = 1,
    Clean = 2,
}

impl Pass {
    pub const ALL: [Self; 3] = [Self::Unguarded, Self::Allowed, Self::Clean];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Unguarded => "unguarded",
            Self::Allowed => "allowed",
            Self::Clean => "clean",
        }
    }
}

/// One counter of the totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Judged and passed.
    Passed {
        family: Family,
        tcp: bool,
        why: Pass,
    },
    /// Dropped by an entry with this reason's number.
    Dropped {
        family: Family,
        reason: u8,
    },
    /// Passed, though an entry with this reason's number would drop it: it is under observation.
    Observed {
        family: Family,
        reason: u8,
    },
    /// Dropped, since its source opens too many connections.
    Limited(Family),
    /// Passed, though its source opens too many connections: the filter only observes.
    LimitObserved(Family),
    NotIp,
    LaterFragment(Family),
    Malformed(Malformed),
    /// Additional to the packet's own counter: an IPv6 source in ::ffff:0:0/96, which has no
    /// business on a wire (RFC 4291 section 2.5.5.2).
    V4Mapped,
    /// Additional: told in the ring buffer, left out since this second's budget was spent, or lost
    /// since the buffer was full.
    EventTold,
    EventLeftOut,
    EventLost,
}

const DROPPED_AT: u32 = 12;
const OBSERVED_AT: u32 = DROPPED_AT + 2 * REASONS;
const LIMITED_AT: u32 = OBSERVED_AT + 2 * REASONS;
const LIMIT_OBSERVED_AT: u32 = LIMITED_AT + 2;
const NOT_IP_AT: u32 = LIMIT_OBSERVED_AT + 2;
const FRAGMENTS_AT: u32 = NOT_IP_AT + 1;
const MALFORMED_AT: u32 = FRAGMENTS_AT + 2;
const V4_MAPPED_AT: u32 = MALFORMED_AT + KINDS;
const EVENTS_AT: u32 = V4_MAPPED_AT + 1;
/// How many places the totals have.
pub const COUNTERS: u32 = EVENTS_AT + 3;

impl Counter {
    /// The counter of a packet that was judged and passed.
    #[inline(always)]
    pub const fn of_passed(packet: &Packet, why: Pass) -> Self {
        if packet.hides_its_port() {
            return Self::Malformed(Malformed::TooManyExtensions);
        }
        let tcp = Scope::TCP.contains(packet.class);
        Self::Passed { family: packet.source.family(), tcp, why }
    }

    /// The counter of a packet that an entry would drop, if it were not under observation.
    #[inline(always)]
    pub const fn of_observed(packet: &Packet, entry: &Entry) -> Self {
        Self::Observed { family: packet.source.family(), reason: entry.reason }
    }

    /// The counter of a packet that an entry dropped.
    #[inline(always)]
    pub const fn of_dropped(packet: &Packet, entry: &Entry) -> Self {
        Self::Dropped { family: packet.source.family(), reason: entry.reason }
    }

    /// The counter of a packet that was judged.
    pub const fn of_verdict(packet: &Packet, verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Denied(entry) => Self::of_dropped(packet, entry),
            Verdict::Observed(entry) => Self::of_observed(packet, entry),
            Verdict::Unguarded => Self::of_passed(packet, Pass::Unguarded),
            Verdict::Allowed(_) => Self::of_passed(packet, Pass::Allowed),
            Verdict::Clean => Self::of_passed(packet, Pass::Clean),
        }
    }

    /// The counter of a packet that opens one connection too many.
    #[inline(always)]
    pub const fn of_limit(family: Family, observed: bool) -> Self {
        if observed { Self::LimitObserved(family) } else { Self::Limited(family) }
    }

    /// The counter of a frame that could not be judged.
    #[inline(always)]
    pub const fn of_unjudged(why: Unjudged) -> Self {
        match why {
            Unjudged::NotIp => Self::NotIp,
            Unjudged::LaterFragment(family) => Self::LaterFragment(family),
            Unjudged::Malformed(kind) => Self::Malformed(kind),
        }
    }

    /// The counter's place in the totals, below [`COUNTERS`].
    #[inline(always)]
    pub const fn index(self) -> u32 {
        match self {
            Self::Passed { family, tcp, why } => family as u32 * 6 + tcp as u32 * 3 + why as u32,
            Self::Dropped { family, reason } => {
                DROPPED_AT + family as u32 * REASONS + (reason as u32 & (REASONS - 1))
            }
            Self::Observed { family, reason } => {
                OBSERVED_AT + family as u32 * REASONS + (reason as u32 & (REASONS - 1))
            }
            Self::Limited(family) => LIMITED_AT + family as u32,
            Self::LimitObserved(family) => LIMIT_OBSERVED_AT + family as u32,
            Self::NotIp => NOT_IP_AT,
            Self::LaterFragment(family) => FRAGMENTS_AT + family as u32,
            Self::Malformed(kind) => MALFORMED_AT + kind as u32,
            Self::V4Mapped => V4_MAPPED_AT,
            Self::EventTold => EVENTS_AT,
            Self::EventLeftOut => EVENTS_AT + 1,
            Self::EventLost => EVENTS_AT + 2,
        }
    }

    /// Every counter, numbers of reasons that no layout has used yet included.
    pub fn all() -> impl Iterator<Item = Self> {
        let single = [Self::NotIp, Self::V4Mapped, Self::EventTold, Self::EventLeftOut];
        let single = single.into_iter().chain([Self::EventLost]);
        let of_families = Family::ALL.into_iter().flat_map(|family| {
            let single =
                [Self::LaterFragment(family), Self::Limited(family), Self::LimitObserved(family)];
            let of_reasons = (0..REASONS as u8).flat_map(move |reason| {
                [Self::Dropped { family, reason }, Self::Observed { family, reason }]
            });
            let passed = Pass::ALL
                .into_iter()
                .flat_map(move |why| [true, false].map(|tcp| Self::Passed { family, tcp, why }));
            single.into_iter().chain(of_reasons).chain(passed)
        });
        single.chain(of_families).chain(Malformed::ALL.map(Self::Malformed))
    }
}

/// A name that outlives layouts: by it a counter is kept on disk, whatever its place in the map.
impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_reason = |f: &mut fmt::Formatter<'_>, what, family: Family, number: u8| {
            write!(f, "{what} {} ", family.name())?;
            match Reason::from_number(number) {
                Some(reason) => f.write_str(reason.name()),
                None => write!(f, "{number}"),
            }
        };
        match *self {
            Self::Passed { family, tcp, why } => {
                let protocol = if tcp { "tcp" } else { "other" };
                write!(f, "passed {} {protocol} {}", family.name(), why.name())
            }
            Self::Dropped { family, reason } => by_reason(f, "dropped", family, reason),
            Self::Observed { family, reason } => by_reason(f, "observed", family, reason),
            Self::Limited(family) => write!(f, "limited {}", family.name()),
            Self::LimitObserved(family) => write!(f, "limit-observed {}", family.name()),
            Self::NotIp => f.write_str("not-ip"),
            Self::LaterFragment(family) => write!(f, "later-fragment {}", family.name()),
            Self::Malformed(kind) => write!(f, "malformed {}", kind.name()),
            Self::V4Mapped => f.write_str("v4-mapped"),
            Self::EventTold => f.write_str("event-told"),
            Self::EventLeftOut => f.write_str("event-left-out"),
            Self::EventLost => f.write_str("event-lost"),
        }
    }
}

/// Whether a source is an IPv4 address in IPv6's clothes.
#[inline(always)]
pub const fn is_v4_mapped(source: &Source) -> bool {
    match source {
        Source::V4(_) => false,
        Source::V6 { network, interface } => *network == 0 && *interface >> 32 == 0xffff,
    }
}

/// The totals, summed over all CPUs. Counts of packets since the maps were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    counts: [u64; COUNTERS as usize],
}

impl Default for Totals {
    fn default() -> Self {
        Self { counts: [0; COUNTERS as usize] }
    }
}

impl Totals {
    pub fn get(&self, counter: Counter) -> u64 {
        self.counts[counter.index() as usize]
    }

    pub fn add(&mut self, counter: Counter, packets: u64) {
        self.add_at(counter.index(), packets);
    }

    /// Adds to a place of the totals; a place this layout does not know is left out.
    pub fn add_at(&mut self, index: u32, packets: u64) {
        if let Some(count) = self.counts.get_mut(index as usize) {
            *count = count.wrapping_add(packets);
        }
    }

    /// Dropped packets of a family, for any reason, limits included.
    pub fn dropped(&self, family: Family) -> u64 {
        let dropped = |reason| self.get(Counter::Dropped { family, reason });
        (0..REASONS as u8).map(dropped).sum::<u64>() + self.get(Counter::Limited(family))
    }

    /// Packets of a family that passed, and would be dropped but for being observed only.
    pub fn observed(&self, family: Family) -> u64 {
        let observed = |reason| self.get(Counter::Observed { family, reason });
        let limited = self.get(Counter::LimitObserved(family));
        (0..REASONS as u8).map(observed).sum::<u64>() + limited
    }

    /// Packets of both families that were only observed, by entries with this reason.
    pub fn observed_for(&self, reason: Reason) -> u64 {
        let observed = |family| self.get(Counter::Observed { family, reason: reason as u8 });
        Family::ALL.into_iter().map(observed).sum()
    }

    /// Packets of both families that were dropped since their sources open too many connections.
    pub fn limited(&self) -> u64 {
        Family::ALL.into_iter().map(|family| self.get(Counter::Limited(family))).sum()
    }

    /// Dropped packets of both families, by entries with this reason.
    pub fn dropped_for(&self, reason: Reason) -> u64 {
        let dropped = |family| self.get(Counter::Dropped { family, reason: reason as u8 });
        Family::ALL.into_iter().map(dropped).sum()
    }

    /// Packets of a family that were judged and passed (observed ones too), or were later
    /// fragments.
    pub fn passed(&self, family: Family) -> u64 {
        let judged: u64 = Pass::ALL.into_iter().map(|why| self.passed_because(family, why)).sum();
        judged + self.observed(family) + self.get(Counter::LaterFragment(family))
    }

    /// Packets of a family that were judged and passed for this reason.
    pub fn passed_because(&self, family: Family, why: Pass) -> u64 {
        [true, false].into_iter().map(|tcp| self.get(Counter::Passed { family, tcp, why })).sum()
    }

    /// Packets of both families that the allow list let through.
    pub fn allowed(&self) -> u64 {
        Family::ALL.into_iter().map(|family| self.passed_because(family, Pass::Allowed)).sum()
    }

    /// Passed packets of both families that were IP and not TCP.
    pub fn not_tcp(&self) -> u64 {
        let passed = |family| {
            let count = move |why| self.get(Counter::Passed { family, tcp: false, why });
            Pass::ALL.into_iter().map(count).sum::<u64>()
        };
        Family::ALL.into_iter().map(passed).sum()
    }

    /// Fragments of both families after their first.
    pub fn later_fragments(&self) -> u64 {
        Family::ALL.into_iter().map(|family| self.get(Counter::LaterFragment(family))).sum()
    }

    /// Malformed frames of every kind; they passed.
    pub fn malformed(&self) -> u64 {
        Malformed::ALL.into_iter().map(|kind| self.get(Counter::Malformed(kind))).sum()
    }

    /// Every frame that was seen.
    pub fn seen(&self) -> u64 {
        self.counts[..V4_MAPPED_AT as usize].iter().sum()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::HashSet;
    use std::string::{String, ToString};
    use std::vec::Vec;

    use super::*;

    #[test]
    fn no_two_counters_share_a_place_or_a_name_and_all_are_in_the_map() {
        let all: Vec<Counter> = Counter::all().collect();
        let places: HashSet<u32> = all.iter().map(|counter| counter.index()).collect();
        let names: HashSet<String> = all.iter().map(|counter| counter.to_string()).collect();
        assert_eq!((places.len(), names.len()), (all.len(), all.len()));
        assert!(places.iter().all(|&place| place < COUNTERS));
        // A reason from some later layout must not reach beyond the drops either.
        let wild = Counter::Dropped { family: Family::V6, reason: 255 };
        assert!(wild.index() < OBSERVED_AT);
    }

    #[test]
    fn the_names_are_those_on_disk() {
        let dropped = Counter::Dropped { family: Family::V4, reason: Reason::Dnsbl as u8 };
        let passed = Counter::Passed { family: Family::V6, tcp: false, why: Pass::Clean };
        assert_eq!(dropped.to_string(), "dropped ipv4 dnsbl");
        assert_eq!(passed.to_string(), "passed ipv6 other clean");
        assert_eq!(Counter::Malformed(Malformed::ShortTcp).to_string(), "malformed short-tcp");
        assert_eq!(Counter::EventLost.to_string(), "event-lost");
    }

    #[test]
    fn every_packet_is_in_exactly_one_sum() {
        let mut totals = Totals::default();
        for counter in Counter::all() {
            totals.add(counter, 1);
        }
        totals.add_at(COUNTERS, 99);
        let of_families: u64 =
            Family::ALL.map(|family| totals.passed(family) + totals.dropped(family)).iter().sum();
        let others = totals.malformed() + totals.get(Counter::NotIp);
        assert_eq!(totals.seen(), of_families + others);
        // All but the four that are counted besides a packet's own.
        assert_eq!(totals.seen(), Counter::all().count() as u64 - 4);
        assert_eq!((totals.allowed(), totals.not_tcp(), totals.later_fragments()), (4, 6, 2));
        assert_eq!(totals.dropped_for(Reason::Dnsbl), 2);
    }

    #[test]
    fn mapped_sources_are_those_in_their_prefix() {
        let mapped =
            |text: &str| is_v4_mapped(&Source::from(text.parse::<core::net::IpAddr>().unwrap()));
        assert!(mapped("::ffff:0.0.0.0") && mapped("::ffff:192.0.2.1"));
        assert!(!mapped("::fffe:192.0.2.1") && !mapped("::1:ffff:1:1") && !mapped("192.0.2.1"));
        assert!(!mapped("::ff00:192.0.2.1") && !mapped("1::ffff:0:0"));
    }
}
