//! Which allow entries may not go: those that alone keep what must stay reachable out of a denial.
//! The policy of [`guardrails`], fed from the lists.
//!
//! What feeds deny of such addresses is left out once it is not allowed, but only by the next
//! generation, so they are asked as well.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::entry::{List, Scope};
use relay_core::ban::guardrails::{self, Guardrail, Protected};
use relay_core::prefix::host;

use super::batch::{Care, refusal};
use super::clock::Now;
use super::desired::{Claim, last_s};
use super::feeds::Feeds;
use super::filter::Filter;
use super::guard::with_sessions;
use super::sshd::SshSession;
use super::state::Edge;
use super::store::Key;
use super::wanted::{Desired, holding};
use crate::control::api::Problem;

/// Each kind of port by itself: entries of the two lists need not speak about the same ones.
const CLASSES: [Scope; 4] =
    [Scope::MX, Scope::SUBMISSION, Scope::of_tcp_port(22), Scope::of_other_protocol()];

/// What must stay reachable while the allow list changes.
pub(super) struct Lifting {
    protected: Protected,
    sessions: Vec<SshSession>,
    /// Where the administrator who asks is logged in from.
    own: Option<IpAddr>,
    only_warn: bool,
}

impl<F: Filter> Edge<F> {
    /// The guard of a change of this list; `None` where none is needed, or wanted.
    pub(super) fn lifting(&self, list: List, care: &Care<'_>) -> Option<Lifting> {
        (list == List::Allow && !care.force).then(|| Lifting {
            protected: (self.protected)(),
            sessions: (self.sessions)(),
            own: care.session,
            only_warn: care.only_warn,
        })
    }
}

/// The lists as they are before a change of the allow list.
pub(super) struct Before<'a> {
    pub(super) desired: &'a Desired,
    pub(super) feeds: &'a Feeds,
}

impl Lifting {
    /// Refuses to take away, to narrow or to shorten what has to stay. `updates`: the prefixes that
    /// change, and what will stand on them.
    pub(super) fn check(
        &self,
        before: &Before<'_>,
        updates: &[(Key, Option<Claim>)],
        now: Now,
    ) -> Result<(), Problem> {
        let refused = self.refused(before, updates, now.wall_s());
        if self.only_warn {
            for why in &refused {
                tracing::warn!(%why, "no longer allowed, though it should be reachable");
            }
            return Ok(());
        }
        let remedy = "lift the denial first, or --force if it is meant";
        refusal(refused.len(), refused.iter().map(Guardrail::to_string), remedy)
    }

    fn refused(
        &self,
        before: &Before<'_>,
        updates: &[(Key, Option<Claim>)],
        wall_s: u64,
    ) -> Vec<Guardrail> {
        let updates = updates.iter().map(|((_, prefix), claim)| (*prefix, *claim));
        let after: HashMap<IpNet, Option<Claim>> = updates.clone().collect();
        let mut refused = Vec::new();
        for class in CLASSES {
            let protected = with_sessions(&self.protected, &self.sessions, self.own, class);
            // The last second in which an entry allows the class, if it does so now.
            let allows_until = |claim: Option<Claim>| {
                let claim = claim.filter(|it| it.is_live(wall_s) && it.scope.intersects(class))?;
                Some(claim.last_s())
            };
            let is_allowed = |address: IpNet, last_s: u64| {
                let mut nets = holding(address);
                nets.any(|net| {
                    let claim = after.get(&net).copied();
                    let claim = claim.unwrap_or_else(|| before.desired.get((List::Allow, net)));
                    allows_until(claim).is_some_and(|until_s| until_s >= last_s)
                })
            };
            let denied = |address: IpNet| {
                let rows = before.desired.covering(List::Deny, address, wall_s);
                let rows = rows.filter(|(_, claim)| claim.scope.intersects(class));
                let rows = rows.map(|(net, claim)| (net, claim.last_s()));
                // A feed is denied by for as long as it is refreshed.
                let by_feed = before.feeds.denying(address, class).map(|net| (net, last_s(None)));
                rows.chain(by_feed).find(|&(_, last_s)| !is_allowed(address, last_s))
            };
            for (prefix, claim) in updates.clone() {
                let until_s = allows_until(before.desired.get((List::Allow, prefix)));
                if allows_until(claim) >= until_s {
                    continue;
                }
                let held = protected.addresses().map(host).filter(|it| prefix.contains(it));
                let (mut allow, mut denials) = (Vec::new(), Vec::new());
                for address in held {
                    match denied(address) {
                        Some((net, _)) => denials.push(net),
                        None => allow.push(address),
                    }
                }
                let checked = guardrails::check_lifting(prefix, &protected, &allow, &denials);
                refused.extend(checked.err().filter(|why| !refused.contains(why)));
            }
        }
        refused
    }
}
