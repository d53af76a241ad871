//! What is said about single packets: `GET /v1/events` and `GET /v1/top` of the edge.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::event::Fate;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Events that the edge keeps for whoever asks later.
pub const EVENTS_KEPT: usize = 1_000;

/// A millisecond since 1970-01-01 UTC, written as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeMs(pub u64);

impl fmt::Display for TimeMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms =
            i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        write!(f, "{:.3}", ms.unwrap_or(jiff::Timestamp::MAX))
    }
}

impl Serialize for TimeMs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        u64::try_from(time.as_millisecond()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FateName {
    Dropped,
    /// It passed, and would have been dropped but for being observed only.
    Observed,
    /// Dropped, since its source opens too many connections.
    Limited,
}

impl From<Fate> for FateName {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Dropped => Self::Dropped,
            Fate::Observed | Fate::LimitObserved => Self::Observed,
            Fate::Limited => Self::Limited,
        }
    }
}

impl fmt::Display for FateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dropped => Fate::Dropped.name(),
            Self::Observed => Fate::Observed.name(),
            Self::Limited => Fate::Limited.name(),
        })
    }
}

/// The query of `GET /v1/events`. The answer is a line of JSON for each event, oldest first.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Begin with so many of the latest; at most [`EVENTS_KEPT`] are there.
    #[serde(default)]
    pub last: usize,
    /// Go on as they come, until either side closes.
    #[serde(default)]
    pub follow: bool,
}

/// One packet that was dropped, limited, or passed under observation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketEvent {
    pub time: TimeMs,
    pub fate: FateName,
    pub address: IpAddr,
    /// TCP destination port; 0 where there is none.
    pub port: u16,
    /// The rule that decided, in the words of the lists.
    pub rule: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The prefix of the entry that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<IpNet>,
}

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventLine {
    /// So many events were not passed on, since the caller reads too slowly.
    Lost {
        lost: u64,
    },
    Packet(PacketEvent),
}

/// `GET /v1/top`: the most frequent among the events of late. Each event counts half as much for
/// every 30 s of its age. Figures are lower bounds, of the events that were told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Top {
    /// Whether the filter tells of packets at all.
    pub told: bool,
    /// An IPv4 address or an IPv6 /64 each.
    pub sources: Vec<TopEntry>,
    /// A /24 or a /48 each.
    pub networks: Vec<TopEntry>,
    pub ports: Vec<TopEntry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopEntry {
    pub what: String,
    pub fate: FateName,
    /// Events a second.
    pub per_s: f64,
    /// Share of all events.
    pub percent: f64,
}
