//! What is said over the control sockets: each request and answer as a type.
//!
//! JSON over HTTP over a Unix socket. Times are RFC 3339 in UTC; durations are seconds. Unknown
//! fields are refused, so that a misspelt one is an error and not a rule that was never made.

use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::entry::{Reason, Scope};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use super::event_api::*;
pub use super::feed_api::*;
pub use super::names::{list_name, reason_name, scope_name};
pub use super::relay_api::*;
pub use super::report_api::*;

/// File name of the edge's socket in the socket folder.
pub const EDGE_SOCKET: &str = "edge.sock";
/// File name of the relay's socket in the socket folder.
pub const RELAY_SOCKET: &str = "relay.sock";
/// And of `postern run`'s own.
pub const RUN_SOCKET: &str = "run.sock";
/// Rows in one page of a list, at most.
pub const PAGE_ROWS_MAX: usize = 5_000;
/// Prefixes in one request, at most; longer lists are imported.
pub const PREFIXES_MAX: usize = 10_000;
/// Length of a comment, a rule or a source in bytes, at most.
pub const TEXT_BYTES_MAX: usize = 300;

/// A second since 1970-01-01 UTC, written as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Beyond the year 9999 RFC 3339 has no form; no expiry there is meant as one.
        let second = i64::try_from(self.0).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
        second.unwrap_or(jiff::Timestamp::MAX).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        u64::try_from(time.as_second()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What went wrong, in the shape every failing request answers with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub code: Code,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// The kinds of problem a caller can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The request itself makes no sense.
    Invalid,
    /// A guardrail, a cap or a conflict says no.
    Refused,
    /// A list has no room.
    Full,
    NotFound,
    Forbidden,
    TooLarge,
    /// Too much to do; try again.
    Busy,
    /// The durable store failed.
    Storage,
    /// The maps failed.
    Filter,
    Internal,
}

impl Problem {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: None, details: Vec::new() }
    }

    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    #[must_use]
    pub fn details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        if let Some(remedy) = &self.remedy {
            write!(f, " ({remedy})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// The body of a failed request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorBody {
    pub error: Problem,
}

/// `POST /v1/lists/{list}/entries`: prefixes by an administrator's hand, all or none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddRequest {
    /// As the administrator wrote them; the edge parses, so that every caller is held to one rule.
    pub prefixes: Vec<String>,
    #[serde(with = "scope_name")]
    pub scope: Scope,
    /// Lifetime in seconds; `None` = for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// Count what would be dropped, and drop nothing. Denials only.
    #[serde(default)]
    pub observe: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Go past the guardrails.
    #[serde(default)]
    pub force: bool,
    /// Seconds within which the change must be confirmed; it ends by itself otherwise. Denials only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_s: Option<u64>,
    /// The address the administrator is logged in from, which no change must cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<IpAddr>,
}

/// What an addition, an import, a removal or a flush did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    /// Rows that were not there before.
    pub added: u64,
    /// Rows that were there and now say something else.
    pub updated: u64,
    pub removed: u64,
    /// Rows added or updated that an allow entry leaves without effect.
    #[serde(default)]
    pub shadowed: u64,
    /// Prefixes that were to be removed and had no row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// The change ends by itself unless it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// Saved, but not yet enforced: what the maps said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A change of the deny list that waits to be confirmed; one of `GET /v1/pending`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    pub id: u64,
    /// The source that its rows will have: `cli`, `import:NAME`.
    pub source: String,
    /// Rows that are in force until then.
    pub rows: u64,
    pub made: Time,
    /// When it ends by itself.
    pub until: Time,
}

/// `POST /v1/pending/confirm`: these changes are meant; without any, the only one that waits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmRequest {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<u64>,
    #[serde(default)]
    pub all: bool,
}

/// A prefix without a row, and what covers it instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Missing {
    pub prefix: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covered_by: Option<IpNet>,
}

/// `POST /v1/lists/{list}/remove`: lifts prefixes, whoever listed them or one source's alone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    pub prefixes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Go past the guardrails. Allowances only, as for the next.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// As in [`AddRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<IpAddr>,
}

/// `POST /v1/lists/{list}/flush`: removes everything, or all of one source.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlushRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// As in [`RemoveRequest`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<IpAddr>,
}

/// The query of `GET /v1/lists/{list}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// One row of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub prefix: IpNet,
    #[serde(with = "scope_name")]
    pub scope: Scope,
    /// It counts what it would drop, and drops nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub observe: bool,
    #[serde(with = "reason_name")]
    pub reason: Reason,
    /// What made the row: `cli 192.0.2.0/24`, `import drop.txt`, `dnsbl Spamhaus ZEN`.
    pub rule: String,
    /// `cli`, `import:NAME`, `ban`, `config`, or `unconfirmed:ID` for a [`Pending`] change.
    pub source: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    pub created: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Time>,
}

/// A page of a list, in order of prefix and source.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListPage {
    pub rows: Vec<Row>,
    /// What the rules of these rows did to packets, each once. Rules that share a counter with
    /// others are not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleStats>,
    /// Where the next page starts; `None` = this was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The query of `POST /v1/lists/{list}/import`; the body is the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportQuery {
    /// Name of the file, for the source `import:NAME` and for messages.
    pub name: String,
    /// Scope of lines that give none.
    #[serde(with = "scope_name")]
    pub scope: Scope,
    /// Remove the rows of this source that the file no longer has.
    #[serde(default)]
    pub replace: bool,
    /// Every line is only observed. Denials only.
    #[serde(default)]
    pub observe: bool,
    #[serde(default)]
    pub force: bool,
    /// As in [`AddRequest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<IpAddr>,
}

/// `POST /v1/bans`: the relay asks that a source be dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanRequest {
    pub address: IpAddr,
    #[serde(with = "scope_name")]
    pub scope: Scope,
    #[serde(with = "reason_name")]
    pub reason: Reason,
    /// The rule that calls for it: `dnsbl Spamhaus ZEN`.
    pub rule: String,
    /// What was seen, for whoever asks later why.
    #[serde(default)]
    pub evidence: String,
}

/// What became of a ban request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanAnswer {
    pub outcome: BanOutcome,
    /// The /32 or /64 of the source.
    pub prefix: IpNet,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<u64>,
    /// Why it was refused, or a word about its enforcement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BanOutcome {
    Banned,
    AlreadyBanned,
    /// A guardrail protects the source.
    Protected,
    /// A cap on bans is reached.
    Capped,
}
