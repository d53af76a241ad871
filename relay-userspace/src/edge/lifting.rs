//! Which allow entries may not go: those that alone keep what must stay reachable out of a denial.
//! The policy of [`guardrails`], fed from the lists.
//!
//! Of feeds nothing is asked: what they deny of such addresses is left out once it is not allowed.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use relay_common::entry::{List, Scope};
use relay_core::ban::guardrails::{self, Guardrail, Protected};
use relay_core::prefix::host;

use super::batch::{Care, refusal};
use super::clock::Now;
use super::desired::Claim;
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

impl Lifting {
    /// Refuses to take away, or to narrow, what has to stay. `updates`: the prefixes that change,
    /// and what will stand on them.
    pub(super) fn check(
        &self,
        desired: &Desired,
        updates: &[(Key, Option<Claim>)],
        now: Now,
    ) -> Result<(), Problem> {
        let refused = self.refused(desired, updates, now.wall_s());
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
        desired: &Desired,
        updates: &[(Key, Option<Claim>)],
        wall_s: u64,
    ) -> Vec<Guardrail> {
        let updates = updates.iter().map(|((_, prefix), claim)| (*prefix, *claim));
        let after: HashMap<IpNet, Option<Claim>> = updates.clone().collect();
        let scope_of = |claim: Option<Claim>| {
            claim.filter(|claim| claim.is_live(wall_s)).map_or(Scope::NONE, |claim| claim.scope)
        };
        let mut refused = Vec::new();
        for class in CLASSES {
            let protected = with_sessions(&self.protected, &self.sessions, self.own, class);
            let still_allowed = |address: &IpNet| {
                holding(*address).find(|&net| {
                    let claim = after.get(&net).copied();
                    let claim = claim.unwrap_or_else(|| desired.get((List::Allow, net)));
                    scope_of(claim).intersects(class)
                })
            };
            let denied = |address: &IpNet| {
                let mut covering = desired.covering(List::Deny, *address, wall_s);
                covering.find(|(_, claim)| claim.scope.intersects(class)).map(|(net, _)| net)
            };
            for (prefix, claim) in updates.clone() {
                let before = scope_of(desired.get((List::Allow, prefix)));
                if !before.without(scope_of(claim)).intersects(class) {
                    continue;
                }
                let held: Vec<IpNet> =
                    protected.addresses().map(host).filter(|it| prefix.contains(it)).collect();
                let allow: Vec<IpNet> = held.iter().filter_map(still_allowed).collect();
                let denied: Vec<IpNet> = held.iter().filter_map(denied).collect();
                let checked = guardrails::check_lifting(prefix, &protected, &allow, &denied);
                refused.extend(checked.err().filter(|why| !refused.contains(why)));
            }
        }
        refused
    }
}
