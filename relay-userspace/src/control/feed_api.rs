//! Feeds over the edge's socket: what they are like, and how the relay hands over what it fetched.

use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::entry::{List, Scope};
use serde::{Deserialize, Serialize};

use super::api::Time;
use super::names::{list_name, scope_name};

/// The longest validator of a conditional request that is kept, in bytes.
pub const VALIDATOR_BYTES_MAX: usize = 1024;

/// What the publisher's server said about its answer, word for word: given back with the next
/// request, so that an unchanged feed is not sent again (RFC 9110 section 8.8). Also the query of
/// `POST /v1/feeds/{name}/content`, whose body is the feed as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validators {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
}

/// `POST /v1/feeds/{name}/unchanged`: the server said that nothing has changed; the lease begins
/// anew. Validators that are left out stay as they were.
pub type FeedUnchanged = Validators;

/// `POST /v1/feeds/{name}/failed`: it could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedFailed {
    /// One sentence, for whoever looks why the feed is old.
    pub reason: String,
}

/// `POST /v1/feeds/{name}/refresh`: read it anew, now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedRefresh {
    /// Take it this once even if it has shrunk by more than it may.
    #[serde(default)]
    pub force: bool,
}

/// What became of content, or of word that there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedAnswer {
    pub outcome: FeedOutcome,
    /// Prefixes of the feed as it now is.
    pub entries: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedOutcome {
    /// Kept on disk; it is in force within seconds.
    Accepted,
    /// It says what it said before; the lease begins anew.
    Unchanged,
    /// That it could not be had was written down.
    Noted,
    /// It will be read, or fetched by the relay.
    Due,
}

/// `GET /v1/feeds`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedsReport {
    /// In the order of the configuration.
    pub feeds: Vec<FeedReport>,
}

/// How a feed is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedState {
    /// It has had no content yet.
    Empty,
    Good,
    /// The latest refresh failed or was refused; what was there before is in force.
    Failing,
    /// No refresh has succeeded for as long as the lease; nothing of it is in force.
    Ended,
}

impl FeedState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Good => "good",
            Self::Failing => "failing",
            Self::Ended => "ended",
        }
    }
}

/// What is being done with a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedPhase {
    Idle,
    /// The relay has to fetch it.
    Due,
    Reading,
    /// It is accepted, and the next generation is being written into the filter.
    Publishing,
}

/// `GET /v1/feeds/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedReport {
    pub name: String,
    pub source: String,
    #[serde(with = "list_name")]
    pub list: List,
    #[serde(with = "scope_name")]
    pub scope: Scope,
    /// Its entries are only counted.
    pub observe: bool,
    pub state: FeedState,
    pub phase: FeedPhase,
    /// Prefixes read, or written into the filter, so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<FeedProgress>,
    /// Prefixes of its content, after aggregation.
    pub ipv4: u64,
    pub ipv6: u64,
    /// Prefixes of it that are in force, after aggregation of what is not left out.
    #[serde(default)]
    pub in_force: u64,
    /// Prefixes as they were read.
    pub read: u64,
    /// Refreshes that have ended since the edge started, well or not.
    pub attempts: u64,
    /// When the content was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Time>,
    /// The latest refresh that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refreshed: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ends: Option<Time>,
    pub next_refresh: Time,
    /// The latest refresh that failed or was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<FeedRefusal>,
    /// Refreshes that failed or were refused, ever.
    pub refusals: u64,
    /// Prefixes, as they were read, that are not enforced. Narrower ones within them are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<FeedLeftOut>,
    /// Packets that its entries decided.
    pub packets: u64,
    /// Packets that its entries would have dropped.
    pub observed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_hit: Option<Time>,
    /// For a feed from the network: what the relay needs to fetch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<FeedFetch>,
}

/// A prefix that is not enforced, since it holds an address that must stay reachable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedLeftOut {
    pub prefix: IpNet,
    pub address: IpAddr,
    /// What the address is.
    pub what: String,
}

impl std::fmt::Display for FeedLeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { prefix, address, what } = self;
        write!(f, "{prefix}, since it holds {address}, {what}")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedProgress {
    pub done: u64,
    /// Not known while it is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedRefusal {
    pub at: Time,
    pub why: String,
}

/// What the relay needs to fetch a feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedFetch {
    pub url: String,
    /// It is time.
    pub due: bool,
    pub validators: Validators,
    pub size_bytes_max: u64,
}

/// A feed in the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeedHealth {
    pub name: String,
    pub state: FeedState,
    pub entries: u64,
    /// As in [`FeedReport`].
    #[serde(default)]
    pub in_force: u64,
    pub refusals: u64,
    /// Why it is not good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// As in [`FeedReport`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<FeedLeftOut>,
}

/// What a feed says about an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainFeed {
    pub feed: String,
    #[serde(with = "list_name")]
    pub list: List,
    /// The prefix of the feed, after aggregation; as it was read, if it is left out.
    pub prefix: IpNet,
    #[serde(with = "scope_name")]
    pub scope: Scope,
    pub observe: bool,
    /// Whether it speaks about this port.
    pub in_scope: bool,
    /// It holds an address that must stay reachable, and is not enforced.
    pub left_out: bool,
    pub lease_ends: Time,
    /// Packets that the feed's entries decided.
    pub packets: u64,
}
