//! What the edge reports: `status`, `stats` and `explain`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::entry::List;
use serde::{Deserialize, Serialize};

use super::api::{Row, Time};
use super::feed_api::{ExplainFeed, FeedHealth};
use super::names::list_name;

/// The query of `GET /v1/explain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainQuery {
    pub address: IpAddr,
    /// Destination port on TCP.
    pub port: u16,
}

/// The answer of `POST /v1/judge`, whose body is an [`ExplainQuery`]: what becomes of a connection
/// that no program in the kernel has judged. It is counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    pub verdict: PacketVerdict,
}

/// What the filter would do with a packet, and by which row.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeExplain {
    pub address: IpAddr,
    pub port: u16,
    /// `native`, `generic` or `userspace`, as in the status.
    pub mode: String,
    /// What the maps themselves answer.
    pub verdict: PacketVerdict,
    /// The prefix of the entry that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<IpNet>,
    /// What the durable lists call for.
    pub desired: PacketVerdict,
    /// Whether the two agree.
    pub agrees: bool,
    /// Every row on a prefix that covers the address, longest prefix first.
    pub rows: Vec<ExplainRow>,
    /// What each feed says about the address.
    #[serde(default)]
    pub feeds: Vec<ExplainFeed>,
    /// Bans of the source in the last 30 days.
    pub bans: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRow {
    #[serde(with = "list_name")]
    pub list: List,
    pub row: Row,
    /// Whether the row speaks about this port.
    pub in_scope: bool,
    /// Dropped by the row's rule, which other rows may share.
    pub packets: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PacketVerdict {
    /// No entry speaks about it.
    Pass,
    Allowed,
    Denied,
    /// It would be denied, were the rule or the filter not under observation.
    Observed,
}

/// `GET /v1/status` of the edge.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeStatus {
    pub version: String,
    pub time: Time,
    pub started: Time,
    /// `None` without a kernel program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// `native`, `generic`, `userspace` or `detached`.
    pub mode: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_id: Option<u32>,
    /// Kernel entries by list.
    pub entries: BTreeMap<String, u64>,
    /// Rows by list, then by source.
    pub sources: BTreeMap<String, BTreeMap<String, u64>>,
    /// Which ports any deny entry closes.
    pub guarded: String,
    pub live_bans: u64,
    /// Counter slots in use, of 65,535.
    pub rules: u64,
    /// New rules share one counter, since all slots are taken.
    pub rules_exhausted: bool,
    pub health: Health,
    /// In the order of the configuration.
    #[serde(default)]
    pub feeds: Vec<FeedHealth>,
}

/// What has gone wrong and been healed since the edge started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Writes to the maps that are still to be made.
    pub pending: u64,
    pub write_failures: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<String>,
    /// Differences between lists and maps that nobody asked for, found and repaired.
    pub drift: u64,
    pub reconciliations: u64,
    pub clock_steps: u64,
    /// Times that the filter had lost its interface and was attached again.
    #[serde(default)]
    pub reattached: u64,
    pub bans_capped: u64,
    pub bans_protected: u64,
}

/// `GET /v1/stats` of the edge.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeStats {
    /// Packet counts by name, as the filter keeps them.
    pub packets: BTreeMap<String, u64>,
    pub dropped_by_reason: BTreeMap<String, u64>,
    /// Rules with hits, most first.
    pub rules: Vec<RuleStats>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleStats {
    pub rule: String,
    pub packets: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_hit: Option<Time>,
}
