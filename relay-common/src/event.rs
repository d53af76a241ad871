//! What the program tells about single packets through the ring buffer.

use crate::parse::{Family, Source};

/// What became of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fate {
    Dropped = 0,
    /// Would have been dropped, were its rule or the filter not under observation.
    Observed = 1,
    /// Dropped since its source opened too many connections.
    Limited = 2,
    /// Its source opened too many connections; it passed, since the filter only observes.
    LimitObserved = 3,
}

impl Fate {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Observed | Self::LimitObserved => "observed",
            Self::Limited => "limited",
        }
    }

    /// Whether no entry decided, but the limit on connections.
    pub const fn is_of_the_limit(self) -> bool {
        matches!(self, Self::Limited | Self::LimitObserved)
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Dropped),
            1 => Some(Self::Observed),
            2 => Some(Self::Limited),
            3 => Some(Self::LimitObserved),
            _ => None,
        }
    }
}

/// One packet. In the ring buffer: [`Event::SIZE`] bytes, native byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanosecond on CLOCK_BOOTTIME.
    pub at_ns: u64,
    pub source: Source,
    /// The TCP destination port; 0 where there is none.
    pub port: u16,
    pub fate: Fate,
    /// The rule, the reason's number and the prefix length of the entry that decided; zeros for
    /// the limit's own.
    pub rule: u32,
    pub reason: u8,
    pub prefix_len: u8,
}

impl Event {
    /// The words of an event, each written by one store.
    pub const WORDS: usize = 5;
    pub const SIZE: usize = Self::WORDS * 8;

    #[inline(always)]
    pub const fn to_words(self) -> [u64; Self::WORDS] {
        let (high, low) = match self.source {
            Source::V4(address) => (address as u64, 0),
            Source::V6 { network, interface } => (network, interface),
        };
        let small = self.port as u64
            | (self.source.family() as u64) << 16
            | (self.fate as u64) << 24
            | (self.reason as u64) << 32
            | (self.prefix_len as u64) << 40;
        [self.at_ns, high, low, small, self.rule as u64]
    }

    /// `None` for what no program of this layout writes.
    pub fn from_words(words: [u64; Self::WORDS]) -> Option<Self> {
        let [at_ns, high, low, small, rule] = words;
        let byte = |at: u32| (small >> at) as u8;
        let source = match byte(16) {
            family if family == Family::V4 as u8 => Source::V4(u32::try_from(high).ok()?),
            family if family == Family::V6 as u8 => Source::V6 { network: high, interface: low },
            _ => return None,
        };
        Some(Self {
            at_ns,
            source,
            port: small as u16,
            fate: Fate::from_number(byte(24))?,
            rule: u32::try_from(rule).ok()?,
            reason: byte(32),
            prefix_len: byte(40),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_round_trip(
            at_ns: u64, v6: bool, network: u64, interface: u64, port: u16, fate in 0u8..3, rule: u32,
            reason: u8, prefix_len: u8,
        ) {
            let source =
                if v6 { Source::V6 { network, interface } } else { Source::V4(network as u32) };
            let fate = Fate::from_number(fate).unwrap();
            let event = Event { at_ns, source, port, fate, rule, reason, prefix_len };
            prop_assert_eq!(Event::from_words(event.to_words()), Some(event));
        }

        #[test]
        fn nothing_panics(words: [u64; Event::WORDS]) {
            let _ = Event::from_words(words);
        }
    }
}
