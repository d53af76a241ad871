//! When refusals become a ban: evidence is counted by network, enough of it makes an order, and
//! guardrails stand before every order.
//!
//! The relay owns an [`evidence::EvidenceLedger`] and sends its orders to the edge; the edge keeps
//! each network's history, and applies [`ladder`], [`guardrails`] and [`caps`]. Evidence comes from
//! spoken SMTP alone: a SYN can be forged and proves nothing about the address it names.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use relay_common::entry::{Reason, Scope};

use crate::prefix::canonical_ip;

pub mod caps;
pub mod evidence;
pub mod guardrails;
pub mod ladder;
pub mod order;

/// Evidence of one kind that a single network can be asked for; bounds the ledger's memory.
pub const THRESHOLD_MAX: u32 = 1000;

/// How evidence becomes a ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanPolicy {
    /// Pieces of evidence of one kind within the window that make a ban; 1 bans at the first.
    /// At most [`THRESHOLD_MAX`], above which it counts as that.
    pub threshold: u32,
    /// Other thresholds for some kinds.
    pub thresholds: Vec<(Reason, u32)>,
    pub window: Duration,
    /// How long the first, second, … ban lasts; the last one repeats.
    pub ladder: Vec<Duration>,
    /// After this long without a ban the ladder starts from its first step again.
    pub forget_after: Duration,
    /// Which ports a ban closes.
    pub scope: Scope,
    /// Networks whose evidence is remembered at once; the longest untouched are forgotten first.
    pub networks_max: usize,
    pub caps: caps::CapSettings,
}

impl Default for BanPolicy {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            threshold: 3,
            // A phone with last month's password tries again every minute or so.
            thresholds: vec![(Reason::AuthFailure, 10)],
            window: minutes(10),
            ladder: vec![minutes(10), minutes(60), minutes(24 * 60)],
            forget_after: minutes(7 * 24 * 60),
            scope: Scope::MX,
            networks_max: 65_536,
            caps: caps::CapSettings::default(),
        }
    }
}

impl BanPolicy {
    pub fn threshold_of(&self, reason: Reason) -> u32 {
        let own = self.thresholds.iter().find(|(kind, _)| *kind == reason);
        own.map_or(self.threshold, |&(_, threshold)| threshold).clamp(1, THRESHOLD_MAX)
    }

    /// Which ports a ban for this reason closes. Passwords are guessed on the submission ports,
    /// so that a ban for guessing which left them open would close nothing.
    pub fn scope_of(&self, reason: Reason) -> Scope {
        match reason {
            Reason::AuthFailure => self.scope.union(Scope::SUBMISSION),
            _ => self.scope,
        }
    }

    /// All that a ban may ever close.
    pub fn widest_scope(&self) -> Scope {
        Reason::ALL.into_iter().fold(self.scope, |all, reason| all.union(self.scope_of(reason)))
    }
}

/// What one offender is banned by: an IPv4 host, or an IPv6 /64, in which a host picks addresses
/// as it likes (RFC 4862, RFC 8981).
pub fn network_of(address: IpAddr) -> IpNet {
    let (address, len) = match canonical_ip(address) {
        v4 @ IpAddr::V4(_) => (v4, 32),
        v6 @ IpAddr::V6(_) => (v6, 64),
    };
    IpNet::new_assert(address, len).trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offenders_are_hosts_in_v4_and_subnets_in_v6() {
        for (address, network) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("::1", "::/64"),
        ] {
            assert_eq!(network_of(address.parse().unwrap()).to_string(), network);
        }
    }

    #[test]
    fn a_threshold_is_never_nothing_and_never_without_end() {
        let policy = |threshold| BanPolicy { threshold, ..BanPolicy::default() };
        assert_eq!(policy(0).threshold_of(Reason::Dnsbl), 1);
        assert_eq!(policy(3).threshold_of(Reason::Dnsbl), 3);
        assert_eq!(policy(u32::MAX).threshold_of(Reason::Dnsbl), THRESHOLD_MAX);
        assert_eq!(policy(3).threshold_of(Reason::AuthFailure), 10);
    }

    #[test]
    fn a_listing_leaves_submission_open_and_guessing_closes_it() {
        let policy = BanPolicy::default();
        assert_eq!(policy.scope_of(Reason::Dnsbl), Scope::MX);
        assert_eq!(policy.scope_of(Reason::AuthFailure), Scope::SMTP);
        assert_eq!(policy.widest_scope(), Scope::SMTP);
        assert_eq!(BanPolicy { scope: Scope::ALL, ..policy }.widest_scope(), Scope::ALL);
    }
}
