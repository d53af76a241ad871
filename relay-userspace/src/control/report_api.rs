//! What the edge reports: `status`, `stats` and `explain`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

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
    /// Connections that it may open in a second; 0: as many as it likes.
    #[serde(default)]
    pub syn_rate: u32,
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
    /// Observed by the row's rule: they would have been dropped.
    #[serde(default)]
    pub observed: u64,
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
    /// `native`, `generic`, `userspace` or `detached`: of several interfaces the worst.
    pub mode: String,
    /// Empty without a kernel program.
    #[serde(default)]
    pub interfaces: Vec<InterfaceStatus>,
    /// Why changes of interfaces are found only by looking every two seconds, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links_unheard: Option<String>,
    /// Kernel entries by list.
    pub entries: BTreeMap<String, u64>,
    /// Rows by list, then by source.
    pub sources: BTreeMap<String, BTreeMap<String, u64>>,
    /// Nothing is dropped; what would be is counted.
    #[serde(default)]
    pub observe: bool,
    /// Connections a second that one source may open to the mail ports; 0 without a limit.
    #[serde(default)]
    pub syn_rate: u32,
    /// Which ports are looked up: those that any deny entry speaks about, or that are limited.
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

/// One interface that is guarded, or should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceStatus {
    /// As the configuration names it.
    pub name: String,
    /// What it is called now, if that is another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called: Option<String>,
    /// `native`, `generic` or `detached`.
    pub mode: String,
    /// `up`, `down`, `missing` or `lost` (there, without the program).
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_id: Option<u32>,
}

impl InterfaceStatus {
    /// Whether denied sources are dropped there.
    pub fn is_guarded(&self) -> bool {
        self.program_id.is_some()
    }

    /// The name by which `ip link` knows it now.
    pub fn on(&self) -> &str {
        self.called.as_deref().unwrap_or(&self.name)
    }
}

impl std::fmt::Display for InterfaceStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, called, mode, state, program_id } = self;
        f.write_str(name)?;
        if let Some(called) = called {
            write!(f, " (now called {called})")?;
        }
        match program_id {
            Some(id) if state == "up" => write!(f, ", {mode} mode, program {id}"),
            Some(id) => write!(f, ", {state}, {mode} mode, program {id}"),
            None => write!(f, ", {state}"),
        }
    }
}

/// `POST /v1/stop`: end the edge.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopRequest {
    /// Take the filter off first; otherwise it goes on by itself.
    #[serde(default)]
    pub detach: bool,
}

/// What an edge leaves that is about to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stopping {
    /// Interfaces as they were; where they were guarded and nothing was detached, they still are.
    pub interfaces: Vec<InterfaceStatus>,
    pub detached: bool,
    /// Kernel entries by list, as they were.
    pub entries: BTreeMap<String, u64>,
    /// And those of feeds.
    #[serde(default)]
    pub feed_entries: u64,
    /// The process that ends.
    pub pid: u32,
    /// Whether `postern run` started it, which ends with it.
    pub supervised: bool,
}

/// The answer of `postern run` to the same request, while it has no edge that could be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunStopping {
    /// Where a filter was kept that was taken off.
    pub detached: Vec<PathBuf>,
    /// A filter is at work still, its entries in force.
    pub stays: bool,
    /// `postern run`, which ends.
    pub pid: u32,
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
    /// Pins of the filter that somebody had removed.
    #[serde(default)]
    pub pins_made_anew: u64,
    /// Times that the kernel told of a change at some interface, and the guarded ones were looked at.
    #[serde(default)]
    pub links_told: u64,
    pub bans_capped: u64,
    pub bans_protected: u64,
    /// Times that a list had no room for what was asked for.
    #[serde(default)]
    pub list_full: u64,
    /// Bans that ended early to make room for others.
    #[serde(default)]
    pub bans_evicted: u64,
}

/// `GET /v1/work` of the edge: what the owner of its lists is at, also while it answers nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkReport {
    pub stage: WorkStage,
    /// Entries of this stage that are done.
    pub done: u64,
    pub of: u64,
}

/// What becomes of the entries of a request, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkStage {
    #[default]
    Idle,
    /// Held to what must stay reachable.
    Checking,
    /// Put into the database.
    Writing,
    /// Made to survive a power cut.
    Saving,
    /// Put into the filter.
    Enforcing,
}

/// `GET /v1/stats` of the edge.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeStats {
    /// Packet counts by name, as the filter keeps them.
    pub packets: BTreeMap<String, u64>,
    pub dropped_by_reason: BTreeMap<String, u64>,
    /// Passed, and would have been dropped but for being observed only.
    #[serde(default)]
    pub observed_by_reason: BTreeMap<String, u64>,
    /// Packets that were told about, left out since the budget was spent, or lost since nobody
    /// read in time.
    #[serde(default)]
    pub events: BTreeMap<String, u64>,
    /// Rules with hits, most first.
    pub rules: Vec<RuleStats>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleStats {
    pub rule: String,
    /// Dropped, or let through by the allow list.
    pub packets: u64,
    /// Would have been dropped.
    #[serde(default)]
    pub observed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_hit: Option<Time>,
}
