//! Bans: what the relay asks for, held to the guardrails, the ladder and the caps.

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use ipnet::IpNet;
use relay_common::entry::{List, Scope};
use relay_core::ban::{ladder, network_of};

use super::clock::Now;
use super::commit::commit;
use super::desired::{Claim, last_s};
use super::filter::{Filter, family_of};
use super::guard::check;
use super::lines::check_text;
use super::state::Edge;
use super::store::SOURCE_BAN;
use crate::control::api::{BanAnswer, BanOutcome, BanRequest, Code, Problem, Row, Time};

impl<F: Filter> Edge<F> {
    /// Bans the network of a source, unless something speaks against it.
    pub fn ban(&mut self, request: &BanRequest) -> Result<BanAnswer, Problem> {
        for (what, text) in [("rule", &request.rule), ("evidence", &request.evidence)] {
            check_text(what, text).map_err(|why| Problem::new(Code::Invalid, why))?;
        }
        // Whoever asks talks to the internet: the policy says how far a ban goes, SSH for one.
        let widest = self.settings.bans.widest_scope();
        let scope = Scope::from_bits(request.scope.bits() & widest.bits());
        if request.rule.is_empty() || scope == Scope::NONE {
            let why = format!("a ban needs a rule, and a scope within {widest}");
            return Err(Problem::new(Code::Invalid, why));
        }
        let request = &BanRequest { scope, ..request.clone() };
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
        if let Some(denied) = self.denied_already(prefix, request.scope, now)? {
            return Ok(denied);
        }
        let live = usize::try_from(self.store.live_bans(now.wall_s())?).unwrap_or(usize::MAX);
        if let Err(cap) = self.caps.admit(live, self.instant(now)) {
            let why = cap.to_string();
            self.health.bans_capped += 1;
            // The first of a run is enough for the log; the status has the count.
            if self.health.bans_capped.is_power_of_two() {
                tracing::warn!(%prefix, refused = self.health.bans_capped, why, "ban refused by a cap");
            }
            return Ok(answer(BanOutcome::Capped, why));
        }
        let done = self.new_ban(prefix, request);
        self.note_full(done)
    }

    /// The ban of a prefix that has not ended.
    fn live_ban(&self, prefix: IpNet, now: Now) -> Result<Option<Row>, Problem> {
        let rows = self.store.rows_on((List::Deny, prefix))?;
        let is_live = |row: &Row| row.expires.is_none_or(|at| now.wall_s() < at.0);
        Ok(rows.into_iter().find(|row| row.source == SOURCE_BAN && is_live(row)))
    }

    fn new_ban(&mut self, prefix: IpNet, request: &BanRequest) -> Result<BanAnswer, Problem> {
        let now = self.now();
        let previous = self.bans_counted(prefix, now)?;
        let duration = ladder::duration(&self.settings.bans, previous);
        let until = now.wall_s_after(duration);
        // A narrower ban that is still in force grows, and is never cut short.
        let observe = self.settings.observe_bans;
        let old = self.live_ban(prefix, now)?;
        let old = old.as_ref().filter(|row| row.observe == observe);
        let row = Row {
            prefix,
            observe,
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
        let mut keys = BTreeSet::from([(List::Deny, prefix)]);
        let family = family_of(&prefix);
        let full = self.desired.is_full(List::Deny, family, self.filter.capacity())
            && self.desired.get((List::Deny, prefix)).is_none();
        let evicted =
            if full && self.settings.make_room { txn.shortest_ban(family)? } else { None };
        if let Some(evicted) = evicted {
            txn.remove((List::Deny, evicted), Some(SOURCE_BAN))?;
            keys.insert((List::Deny, evicted));
        }
        txn.put(List::Deny, &row)?;
        txn.remember_ban(prefix, until, now.wall_s())?;
        let committed = commit(txn, keys, &self.desired, self.filter.capacity(), now)?;
        let message = self.enforce(committed, now);
        if let Some(evicted) = evicted {
            self.health.bans_evicted += 1;
            tracing::warn!(%evicted, %prefix, "a ban ended early to make room for another");
        }
        tracing::info!(
            %prefix, observe, scope = %row.scope, reason = %row.reason, rule = row.rule,
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

    /// Bans of a network that lengthen its next one.
    pub(super) fn bans_counted(&self, network: IpNet, now: Now) -> Result<u32, Problem> {
        let at = |second| UNIX_EPOCH + Duration::from_secs(second);
        let ends: Vec<_> = self.store.ban_ends(network)?.into_iter().map(at).collect();
        Ok(ladder::counted(&self.settings.bans, &ends, at(now.wall_s())))
    }

    fn ban_guardrail(&self, prefix: IpNet, request: &BanRequest) -> Option<String> {
        let wall_s = self.now().wall_s();
        let mut protected = (self.protected)();
        protected.ssh.extend(self.logged_in().iter().map(|session| session.peer));
        // How long it will last is not known yet.
        let last_s = last_s(None);
        if let Err(why) = check(prefix, request.scope, &protected, &self.desired, last_s) {
            return Some(why.to_string());
        }
        // For a ban, an allow entry speaks for its sources whatever its scope.
        let source = relay_core::prefix::host(request.address);
        let (allow, _) = self.desired.covering(List::Allow, source, wall_s).next()?;
        Some(format!("{} is on the allow list, by {allow}", source.addr()))
    }

    /// The deny entry, of whatever source, that already does all that is asked for.
    fn denied_already(
        &self,
        prefix: IpNet,
        scope: Scope,
        now: Now,
    ) -> Result<Option<BanAnswer>, Problem> {
        let answer = |prefix, until| BanAnswer {
            outcome: BanOutcome::AlreadyBanned,
            prefix,
            until,
            duration_s: None,
            message: None,
        };
        let observe = self.settings.observe_bans;
        let does = |claim: &Claim| if observe { claim.speaks() } else { claim.scope };
        let mut covering = self.desired.covering(List::Deny, prefix, now.wall_s());
        if let Some((by, claim)) = covering.find(|(_, claim)| does(claim).contains(scope)) {
            return Ok(Some(answer(by, claim.expires_s().map(Time))));
        }
        // A ban in force does not become one that is only observed, however narrow it is.
        let enforced = self.live_ban(prefix, now)?.filter(|row| observe && !row.observe);
        Ok(enforced.map(|row| answer(prefix, row.expires)))
    }
}
