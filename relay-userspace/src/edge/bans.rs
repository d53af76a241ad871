//! Bans: what the relay asks for, held to the guardrails, the ladder and the caps.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use relay_common::entry::{List, Scope};
use relay_core::prefix::canonical_ip;

use super::filter::Filter;
use super::guard::covers_nobody;
use super::lines::check_text;
use super::state::{Edge, commit};
use super::store::SOURCE_BAN;
use crate::control::api::{BanAnswer, BanOutcome, BanRequest, Code, Problem, Row, Time};

/// How long a new ban counts against the cap on new ones.
const MINUTE_MS: u64 = 60_000;

/// How long bans last and how many there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BanSettings {
    /// Duration of the first, second … ban of a network; the last one repeats.
    pub ladder: Vec<Duration>,
    /// Bans in force at once.
    pub max_live: u64,
    pub max_new_per_minute: usize,
}

impl Default for BanSettings {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        let ladder = vec![Duration::from_secs(600), hour, 24 * hour];
        Self { ladder, max_live: 100_000, max_new_per_minute: 300 }
    }
}

impl BanSettings {
    /// How long the next ban lasts for a network that had `previous` ones.
    fn duration(&self, previous: u32) -> Duration {
        let step = usize::try_from(previous).unwrap_or(usize::MAX);
        let last = self.ladder.last().copied().unwrap_or(Duration::from_secs(600));
        self.ladder.get(step).copied().unwrap_or(last)
    }
}

/// The network that answers for an address: an IPv4 host, or the IPv6 /64 that one customer has.
pub fn network_of(address: IpAddr) -> IpNet {
    let address = canonical_ip(address);
    let len = if address.is_ipv4() { 32 } else { 64 };
    IpNet::new(address, len).expect("32 and 64 are lengths of their families").trunc()
}

impl<F: Filter> Edge<F> {
    /// Bans the network of a source, unless something speaks against it.
    pub fn ban(&mut self, request: &BanRequest) -> Result<BanAnswer, Problem> {
        for (what, text) in [("rule", &request.rule), ("evidence", &request.evidence)] {
            check_text(what, text).map_err(|why| Problem::new(Code::Invalid, why))?;
        }
        if request.rule.is_empty() || request.scope == Scope::NONE {
            return Err(Problem::new(Code::Invalid, "a ban needs a rule and a scope"));
        }
        let now = self.now();
        let prefix = network_of(request.address);
        let answer = |outcome, message: String| BanAnswer {
            outcome,
            prefix,
            until: None,
            duration_s: None,
            message: Some(message),
        };
        if let Some(why) = self.ban_guardrail(prefix, request) {
            self.health.bans_protected += 1;
            tracing::warn!(%prefix, rule = request.rule, why, "ban refused by a guardrail");
            return Ok(answer(BanOutcome::Protected, why));
        }
        if let Some(denied) = self.denied_already(prefix, request.scope, now.wall_s()) {
            return Ok(denied);
        }
        if let Some(why) = self.ban_cap()? {
            self.health.bans_capped += 1;
            // The first of a run is enough for the log; the status has the count.
            if self.health.bans_capped.is_power_of_two() {
                tracing::warn!(%prefix, refused = self.health.bans_capped, why, "ban refused by a cap");
            }
            return Ok(answer(BanOutcome::Capped, why));
        }
        self.new_ban(prefix, request)
    }

    fn new_ban(&mut self, prefix: IpNet, request: &BanRequest) -> Result<BanAnswer, Problem> {
        let now = self.now();
        let previous = self.store.bans_of(prefix, now.wall_s())?;
        let duration = self.settings.bans.duration(previous);
        let until = now.wall_s_after(duration);
        // A narrower ban that is still in force grows, and is never cut short.
        let old = self.store.rows_on((List::Deny, prefix))?;
        let old = old.iter().find(|row| row.source == SOURCE_BAN);
        let old = old.filter(|row| row.expires.is_none_or(|at| now.wall_s() < at.0));
        let row = Row {
            prefix,
            scope: old.map_or(request.scope, |row| row.scope.union(request.scope)),
            reason: request.reason,
            rule: request.rule.clone(),
            source: SOURCE_BAN.to_owned(),
            comment: request.evidence.clone(),
            created: Time(now.wall_s()),
            expires: Some(Time(
                old.and_then(|row| row.expires).map_or(until, |at| at.0.max(until)),
            )),
        };
        let mut txn = self.store.begin()?;
        txn.put(List::Deny, &row)?;
        txn.remember_ban(prefix, now.wall_s())?;
        let keys = BTreeSet::from([(List::Deny, prefix)]);
        let committed = commit(txn, keys, &self.desired, self.filter.capacity(), now)?;
        self.new_bans_ms.push_back(now.boot_ms);
        let message = self.enforce(committed, now);
        tracing::info!(
            %prefix, scope = %row.scope, reason = %row.reason, rule = row.rule,
            evidence = row.comment, duration_s = duration.as_secs(), "banned"
        );
        Ok(BanAnswer {
            outcome: BanOutcome::Banned,
            prefix,
            until: row.expires,
            duration_s: Some(duration.as_secs()),
            message,
        })
    }

    fn ban_guardrail(&self, prefix: IpNet, request: &BanRequest) -> Option<String> {
        if let Err(why) = covers_nobody(prefix, &(self.protected)()) {
            return Some(why.to_string());
        }
        let source = relay_core::prefix::host(request.address);
        let (allow, _) = self.desired.covering(List::Allow, source, self.now().wall_s()).next()?;
        Some(format!("{} is on the allow list, by {allow}", source.addr()))
    }

    /// The deny entry, of whatever source, that already closes all that is asked for.
    fn denied_already(&self, prefix: IpNet, scope: Scope, wall_s: u64) -> Option<BanAnswer> {
        let (by, claim) = self
            .desired
            .covering(List::Deny, prefix, wall_s)
            .find(|(_, claim)| claim.scope.contains(scope))?;
        Some(BanAnswer {
            outcome: BanOutcome::AlreadyBanned,
            prefix: by,
            until: claim.expires_s.map(Time),
            duration_s: None,
            message: None,
        })
    }

    fn ban_cap(&mut self) -> Result<Option<String>, Problem> {
        let now = self.now();
        let max = self.settings.bans.max_live;
        if self.store.live_bans(now.wall_s())? >= max {
            return Ok(Some(format!("{max} bans are in force, the most there may be")));
        }
        let since = now.boot_ms.saturating_sub(MINUTE_MS);
        while self.new_bans_ms.front().is_some_and(|&at| at < since) {
            self.new_bans_ms.pop_front();
        }
        let max = self.settings.bans.max_new_per_minute;
        let reached = self.new_bans_ms.len() >= max;
        Ok(reached.then(|| format!("{max} new bans were made in a minute, the most there may be")))
    }
}
