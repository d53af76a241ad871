//! Which feeds are to be in force, until when, and without which of their prefixes.

use std::sync::Arc;

use ipnet::IpNet;
use relay_common::entry::{List, Reason, Scope};
use relay_core::ban::guardrails::Protected;
use relay_core::feed::FeedClaim;
use relay_core::prefix::{canonical_ip, host};

use super::generation::{Generation, Part};
use super::{Feeds, Slot};
use crate::control::api::FeedLeftOut;
use crate::edge::clock::Now;
use crate::edge::desired::last_s;
use crate::edge::guard::with_sessions;
use crate::edge::sshd::SshSession;
use crate::edge::wanted::Desired;

/// An end may differ by this from what is due: rounding and slewed clocks.
const END_TOLERANCE_S: u32 = 2;

impl Slot {
    /// What the feed brings, if its lease holds.
    fn part(&self, now: Now) -> Option<Part> {
        let expires_s = self.expires_s(now)?;
        let digest = self.meta.content.as_ref()?.digest.clone();
        let (scope, observed) = match (self.feed.observe, self.feed.list) {
            (false, _) => (self.feed.scope, Scope::NONE),
            (true, List::Deny) => (Scope::NONE, self.feed.scope),
            // An allowance has no way to be only counted.
            (true, List::Allow) => return None,
        };
        Some(Part {
            name: self.feed.name.clone(),
            digest,
            left_out: self.left_out.iter().map(|out| out.prefix).collect(),
            prefixes: self.enforced.clone()?,
            list: self.feed.list,
            claim: FeedClaim {
                scope,
                observed,
                rule: self.rule,
                reason: Reason::Import as u8,
                expires_s,
            },
        })
    }

    /// Sees anew which prefixes must not be denied.
    fn guard(&mut self, left_out: Vec<FeedLeftOut>) {
        let Some(content) = &self.content else { return };
        if self.enforced.is_some() && self.left_out == left_out {
            return;
        }
        let prefixes = |left_out: &[FeedLeftOut]| -> Vec<IpNet> {
            left_out.iter().map(|out| out.prefix).collect()
        };
        let (before, gone) = (prefixes(&self.left_out), prefixes(&left_out));
        for FeedLeftOut { prefix, address, what } in &left_out {
            if !before.contains(prefix) {
                tracing::warn!(
                    feed = self.feed.name, %prefix, holds = %address, what,
                    "not denied, though the feed says so"
                );
            }
        }
        // The reason may have changed alone.
        if self.enforced.is_none() || before != gone {
            self.enforced = Some(if gone.is_empty() {
                content.clone()
            } else {
                let mut rest = (**content).clone();
                rest.leave_out(&gone);
                Arc::new(rest)
            });
        }
        self.left_out = left_out;
    }
}

impl Feeds {
    /// What is to be in force now.
    pub(super) fn wanted(
        &mut self,
        protected: &Protected,
        sessions: &[SshSession],
        desired: &Desired,
        now: Now,
    ) -> Vec<Part> {
        let left_out_of = |slot: &Slot| {
            let protected = with_sessions(protected, sessions, None, slot.feed.scope);
            self.left_out_of(slot, &protected, desired, now)
        };
        let left_out: Vec<_> = self.slots.iter().map(left_out_of).collect();
        for (slot, left_out) in self.slots.iter_mut().zip(left_out) {
            slot.guard(left_out);
        }
        self.slots.iter().filter_map(|slot| slot.part(now)).collect()
    }

    /// What a feed says that would cut off an address that must stay reachable. What an allow row
    /// or an allow feed keeps open is not cut off: allow beats deny. But a row that ends does so in
    /// the filter at once, and a generation without the prefix would come too late.
    fn left_out_of(
        &self,
        slot: &Slot,
        protected: &Protected,
        desired: &Desired,
        now: Now,
    ) -> Vec<FeedLeftOut> {
        let Some(content) = slot.content.as_ref().filter(|_| slot.feed.list == List::Deny) else {
            return Vec::new();
        };
        let allowing = |allow: &Slot| {
            allow.feed.list == List::Allow
                && !allow.feed.observe
                && allow.feed.scope.contains(slot.feed.scope)
                && allow.expires_s(now).is_some()
        };
        let mut left_out = Vec::new();
        for (address, what) in protected.reasons() {
            let address = canonical_ip(address);
            let by_row = desired.allow_over(host(address), slot.feed.scope, last_s(None));
            let mut by_feed = self.slots.iter().filter(|allow| allowing(allow));
            if by_row.is_some()
                || by_feed.any(|allow| {
                    allow.content.as_ref().is_some_and(|of| of.covering(address).is_some())
                })
            {
                continue;
            }
            let over = content.said_over(address).into_iter();
            left_out.extend(over.map(|prefix| FeedLeftOut { prefix, address, what: what.into() }));
        }
        // One reason for each is enough, and the first is the weightiest.
        left_out.sort_by_key(|out| out.prefix);
        left_out.dedup_by_key(|out| out.prefix);
        left_out
    }

    /// The prefix by which a feed denies an address, in a generation that is in force or on its
    /// way, and no feed allows it there.
    pub(in crate::edge) fn denying(&self, address: IpNet, class: Scope) -> Option<IpNet> {
        let next = self.publication.iter().map(|publication| &publication.next);
        self.in_force.iter().chain(next).find_map(|Generation { parts, .. }| {
            let said = |list| {
                let mut of_list = parts
                    .iter()
                    .filter(move |part| part.list == list && part.claim.scope.intersects(class));
                of_list.find_map(|part| part.prefixes.covering(address.addr()))
            };
            if said(List::Allow).is_some() { None } else { said(List::Deny) }
        })
    }

    /// Whether something else than what is in force should be.
    pub(super) fn differ(&self, wanted: &[Part], now: Now) -> bool {
        let Some(in_force) = &self.in_force else { return true };
        let pairs = || in_force.parts.iter().zip(wanted);
        in_force.parts.len() != wanted.len()
            || pairs().any(|(is, want)| !is.says_what(want) || self.end_differs(is, want, now))
    }

    /// Whether an entry ends at another time than it should, by so much that it has to be written
    /// anew. A lease that was prolonged is written only when half of it is used up: each refresh
    /// prolongs it, and a generation is not written for that alone.
    pub(super) fn end_differs(&self, is: &Part, want: &Part, now: Now) -> bool {
        let (is_s, want_s) = (is.claim.expires_s, want.claim.expires_s);
        if is_s > want_s.saturating_add(END_TOLERANCE_S) {
            return true;
        }
        let lease_s = self.slot(&want.name).map_or(0, |slot| slot.feed.lease.as_secs());
        let left_s = u64::from(is_s.saturating_sub(now.boot_s()));
        want_s > is_s.saturating_add(END_TOLERANCE_S) && left_s < lease_s.div_ceil(2)
    }

    /// When the first of the feeds in force ends; second on CLOCK_BOOTTIME.
    pub(super) fn first_end_s(&self) -> Option<u32> {
        let parts = self.in_force.iter().flat_map(|Generation { parts, .. }| parts);
        parts.map(|part| part.claim.expires_s).min()
    }
}
