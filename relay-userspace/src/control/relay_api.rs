//! The relay's half of the control types: queue, accounts, the never-route list, its share of
//! `status` and `explain`. Served on `relay.sock`.
//!
//! | method and path | request | answer |
//! |---|---|---|
//! | GET /v1/status | | [`RelayStatus`] |
//! | GET /v1/stats | | [`RelayStats`] |
//! | GET /v1/explain | [`ExplainQuery`](super::api::ExplainQuery) | [`RelayExplain`] |
//! | GET /v1/queue | [`QueueQuery`] | [`QueuePage`] |
//! | GET /v1/queue/{id} | | [`QueueMessage`] |
//! | POST /v1/queue/retry, /v1/queue/delete | [`QueueSelect`] | [`Affected`] |
//! | GET /v1/accounts | | [`Accounts`] |
//! | POST /v1/accounts | [`AccountPassword`] | [`Done`] |
//! | POST /v1/accounts/password | [`AccountPassword`] | [`Done`] |
//! | POST /v1/accounts/disable, enable, delete | [`AccountName`] | [`Done`] |
//! | GET /v1/never-route | | [`NeverRoutes`] |
//! | POST /v1/never-route, /v1/never-route/remove | [`NeverRouteRequest`] | [`Affected`] |

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::api::Time;

/// `GET /v1/status` of the relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayStatus {
    pub version: String,
    pub time: Time,
    pub started: Time,
    pub hostname: String,
    pub listeners: Vec<ListenerStatus>,
    pub sessions: u64,
    pub queue_messages: u64,
    /// Whether the edge answered the last request.
    pub edge_reachable: bool,
    /// What an administrator should know: a DNSBL out of health, a certificate near its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerStatus {
    pub name: String,
    pub address: String,
    /// What it relays, in a few words: `nothing`, `authenticated`.
    pub relays: String,
}

/// `GET /v1/stats` of the relay: counts since its start, by name.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayStats {
    pub counters: BTreeMap<String, u64>,
}

/// What the relay would do with a client, question by question in the order of policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayExplain {
    pub steps: Vec<ExplainStep>,
    /// Where the relay itself asks the lists at that port, since it is none that they close: as on
    /// which port.
    pub asks_as: Option<u16>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainStep {
    /// What was asked: `connection`, `dnsbl`, `relaying`.
    pub question: String,
    /// The answer: `accept`, `refuse`, `no opinion`.
    pub outcome: String,
    pub rule: String,
    pub reason: String,
}

/// The query of `GET /v1/queue`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueQuery {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// A page of the queue, oldest message first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueuePage {
    pub messages: Vec<QueueSummary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A message in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSummary {
    pub id: String,
    /// The reverse-path; empty for a DSN.
    pub sender: String,
    pub size_bytes: u64,
    pub arrived: Time,
    /// Recipients that wait.
    pub recipients: u32,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_recipient: Option<String>,
    /// Recipients that can be neither reached nor reported.
    pub badmail: u32,
    /// The most attempts that a recipient has seen.
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A message with all that is known of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueMessage {
    pub id: String,
    /// The reverse-path; empty for a DSN.
    pub sender: String,
    pub size_bytes: u64,
    pub arrived: Time,
    /// Address of the client it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    pub helo: String,
    pub listener: String,
    /// Why it was put aside as damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_aside: Option<String>,
    pub recipients: Vec<QueueRecipient>,
    /// The header section, its first 64 KiB.
    pub headers: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueRecipient {
    pub address: String,
    /// The rule that accepted it.
    pub rule: String,
    /// `waiting`, or `badmail`: it can be neither reached nor reported.
    pub state: String,
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Which messages a queue command is about.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSelect {
    #[serde(default)]
    pub ids: Vec<String>,
    #[serde(default)]
    pub all: bool,
}

/// How many things a command changed, and which of those named are not there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Affected {
    pub count: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountPassword {
    pub name: String,
    pub password: String,
}

// A password must not reach a log by way of `{:?}`.
impl std::fmt::Debug for AccountPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccountPassword").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountName {
    pub name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accounts {
    pub accounts: Vec<Account>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    pub name: String,
    pub enabled: bool,
    pub created: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Time>,
}

/// Adds to, or removes from, the never-route list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeverRouteRequest {
    pub prefixes: Vec<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeverRoutes {
    pub rules: Vec<NeverRoute>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeverRoute {
    pub prefix: IpNet,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// `config` or `cli`; rows of the configuration cannot be removed by command.
    pub source: String,
}
