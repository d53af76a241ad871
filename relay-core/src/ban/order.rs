//! A ban as the relay asks the edge for it. The edge decides how long, and whether at all.

use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::entry::{Reason, Scope};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanOrder {
    /// The address whose evidence was the last drop.
    pub address: IpAddr,
    /// What is to be banned: [`super::network_of`] the address.
    pub network: IpNet,
    pub scope: Scope,
    pub reason: Reason,
    /// The rule that refused last: `dnsbl Spamhaus ZEN`, `never-route 192.0.2.0/24`.
    pub rule: String,
    /// What led to it, in one sentence for log and `explain`.
    pub evidence: String,
}
