//! The seam between list rules and the maps that enforce them.

use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::entry::{Entry, List, Scope};
use thiserror::Error;

/// Why the maps could not be read or written.
#[derive(Debug, Error)]
pub enum FilterError {
    #[error("the {list} list is full ({max} entries)")]
    Full { list: List, max: u64 },
    #[error("{0}")]
    Io(String),
}

/// How many entries each list takes, for each address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub v4: u64,
    pub v6: u64,
}

/// What the filter does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Allowed(IpNet, Entry),
    Denied(IpNet, Entry),
}

/// Packets seen since the maps were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub passed: u64,
    pub dropped: u64,
    pub malformed: u64,
    /// Drops by the number of their reason.
    pub dropped_by_reason: Vec<u64>,
}

/// What one rule has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleHits {
    pub packets: u64,
    /// Second on CLOCK_BOOTTIME of the last hit; 0 = never.
    pub last_s: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Native,
    Generic,
    Memory,
}

/// Where the filter sits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub interface: String,
    pub mode: Mode,
    pub program_id: Option<u32>,
}

/// Writes entries where packets are judged. Holds no wish of its own: the desired state is above.
pub trait Filter: Send {
    fn put(&mut self, list: List, prefix: IpNet, entry: Entry) -> Result<(), FilterError>;
    /// Says whether the entry was there.
    fn remove(&mut self, list: List, prefix: IpNet) -> Result<bool, FilterError>;
    fn get(&self, list: List, prefix: IpNet) -> Result<Option<Entry>, FilterError>;
    fn entries(&self, list: List) -> Result<Vec<(IpNet, Entry)>, FilterError>;
    fn capacity(&self) -> Capacity;
    fn set_guarded(&mut self, scope: Scope) -> Result<(), FilterError>;
    fn verdict(&self, source: IpAddr, class: Scope, now_s: u32) -> Result<Verdict, FilterError>;
    fn totals(&self) -> Result<Totals, FilterError>;
    fn rule_hits(&self, rule: u32) -> Result<RuleHits, FilterError>;
    fn reset_rule(&mut self, rule: u32) -> Result<(), FilterError>;
    fn attachment(&self) -> Attachment;
}
