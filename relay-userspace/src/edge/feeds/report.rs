//! What the feeds say about themselves: each alone, in the status, and about an address.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use relay_common::entry::{List, Scope};

use super::Slot;
use crate::config::FeedSource;
use crate::control::api::{
    Code, ExplainFeed, FeedFetch, FeedHealth, FeedPhase, FeedProgress, FeedRefusal, FeedReport,
    FeedState, FeedsReport, PacketVerdict, Problem, Time, Validators,
};
use crate::edge::clock::Now;
use crate::edge::filter::Filter;
use crate::edge::state::Edge;

impl Slot {
    fn state(&self, now: Now) -> FeedState {
        if self.content.is_none() {
            FeedState::Empty
        } else if self.expires_s(now).is_none() {
            FeedState::Ended
        } else if self.meta.is_failing {
            FeedState::Failing
        } else {
            FeedState::Good
        }
    }

    fn entries(&self) -> (u64, u64) {
        let content = self.meta.content.as_ref();
        content.map_or((0, 0), |content| (content.v4 as u64, content.v6 as u64))
    }

    fn fetch(&self, now: Now) -> Option<FeedFetch> {
        let FeedSource::Https(url) = &self.feed.source else { return None };
        // What another source said of its content means nothing to this one.
        let own = self.meta.source == super::meta::source_of(&self.feed);
        let content = self.meta.content.as_ref().filter(|_| own && self.content.is_some());
        Some(FeedFetch {
            url: url.clone(),
            due: self.is_due(now),
            validators: content.map_or_else(Validators::default, |of| of.validators.clone()),
            size_bytes_max: self.feed.size_bytes_max,
        })
    }
}

impl<F: Filter> Edge<F> {
    /// Every feed, in the order of the configuration.
    pub(in crate::edge) fn feeds_report(&self) -> Result<FeedsReport, Problem> {
        let now = self.now();
        let reports = self.feeds.slots.iter().map(|slot| self.report(slot, now));
        Ok(FeedsReport { feeds: reports.collect::<Result<_, _>>()? })
    }

    pub(in crate::edge) fn feed_report(&self, name: &str) -> Result<FeedReport, Problem> {
        let slot = self.feeds.slot(name);
        let none = || Problem::new(Code::NotFound, format!("there is no feed {name:?}"));
        self.report(slot.ok_or_else(none)?, self.now())
    }

    fn report(&self, slot: &Slot, now: Now) -> Result<FeedReport, Problem> {
        let hits = self.filter.rule_hits(slot.rule)?;
        let (phase, progress) = self.phase(slot, now);
        let (ipv4, ipv6) = slot.entries();
        let content = slot.meta.content.as_ref();
        let wait_s = slot.due_ms.saturating_sub(now.boot_ms).div_ceil(1000);
        Ok(FeedReport {
            name: slot.feed.name.clone(),
            source: slot.feed.source.to_string(),
            list: slot.feed.list,
            scope: slot.feed.scope,
            observe: slot.feed.observe,
            state: slot.state(now),
            phase,
            progress,
            ipv4,
            ipv6,
            in_force: self.feeds.in_force_of(&slot.feed.name),
            read: content.map_or(0, |content| content.read as u64),
            attempts: slot.attempts,
            accepted: content.map(|content| Time(content.accepted_s)),
            refreshed: content.map(|content| Time(content.refreshed_s)),
            lease_ends: slot.lease_ends_s(now).map(Time),
            next_refresh: Time(now.wall_s().saturating_add(wait_s)),
            refusal: slot
                .meta
                .refusal
                .as_ref()
                .map(|refusal| FeedRefusal { at: Time(refusal.at_s), why: refusal.why.clone() }),
            refusals: slot.meta.refusals,
            left_out: slot.left_out.clone(),
            packets: hits.hits,
            observed: hits.observed,
            last_hit: self.wall_of_boot_s(hits.last_s),
            fetch: slot.fetch(now),
        })
    }

    fn phase(&self, slot: &Slot, now: Now) -> (FeedPhase, Option<FeedProgress>) {
        if let Some(busy) = &slot.busy {
            let done = busy.read.load(Ordering::Relaxed);
            return (FeedPhase::Reading, Some(FeedProgress { done, of: None }));
        }
        // Accepted, and not yet in force: its generation is being written, or waits for its turn.
        let digest = slot.meta.content.as_ref().map(|content| &content.digest);
        let in_force = self.feeds.in_force.iter().flat_map(|generation| &generation.parts);
        let mut held = in_force.filter(|part| part.name == slot.feed.name).map(|part| &part.digest);
        let observed_allowance = slot.feed.observe && slot.feed.list == List::Allow;
        let lives = slot.expires_s(now).is_some() && !observed_allowance;
        if lives && slot.content.is_some() && held.next() != digest {
            let of = slot.entries().0 + slot.entries().1;
            let done = self.feeds.publication.as_ref().map_or(0, |publication| publication.filled);
            return (
                FeedPhase::Publishing,
                Some(FeedProgress { done: done.min(of), of: Some(of) }),
            );
        }
        if slot.is_due(now) { (FeedPhase::Due, None) } else { (FeedPhase::Idle, None) }
    }

    /// The feeds' part of the status.
    pub(in crate::edge) fn feeds_health(&self) -> Vec<FeedHealth> {
        let now = self.now();
        let health = |slot: &Slot| {
            let state = slot.state(now);
            let refusal = slot.meta.refusal.as_ref().filter(|_| slot.meta.is_failing);
            let why = match (state, refusal) {
                (FeedState::Good, _) => None,
                (_, Some(refusal)) => Some(refusal.why.clone()),
                (FeedState::Empty, None) => Some("it has not been read yet".to_owned()),
                (_, None) => Some("no refresh has succeeded for its whole lease".to_owned()),
            };
            let (v4, v6) = slot.entries();
            FeedHealth {
                name: slot.feed.name.clone(),
                state,
                entries: v4 + v6,
                in_force: self.feeds.in_force_of(&slot.feed.name),
                refusals: slot.meta.refusals,
                why,
                left_out: slot.left_out.clone(),
            }
        };
        self.feeds.slots.iter().map(health).collect()
    }

    /// What each feed says about an address.
    pub(in crate::edge) fn explain_feeds(
        &self,
        address: IpAddr,
        class: Scope,
    ) -> Result<Vec<ExplainFeed>, Problem> {
        let now = self.now();
        let mut found = Vec::new();
        for slot in &self.feeds.slots {
            let (Some(content), Some(_)) = (&slot.content, slot.expires_s(now)) else { continue };
            let enforced = slot.enforced.as_ref().unwrap_or(content).covering(address);
            let left_out = || content.said_over(address).pop();
            let Some(prefix) = enforced.or_else(left_out) else { continue };
            found.push(ExplainFeed {
                feed: slot.feed.name.clone(),
                list: slot.feed.list,
                prefix,
                scope: slot.feed.scope,
                observe: slot.feed.observe,
                in_scope: slot.feed.scope.intersects(class),
                left_out: enforced.is_none(),
                lease_ends: Time(slot.lease_ends_s(now).unwrap_or(now.wall_s())),
                packets: self.filter.rule_hits(slot.rule)?.hits,
            });
        }
        Ok(found)
    }
}

/// What the feeds call for: allow beats deny, and what only observes drops nothing.
pub(in crate::edge) fn verdict_of(feeds: &[ExplainFeed]) -> PacketVerdict {
    let speaks = |list, observe| {
        let mut enforced = feeds.iter().filter(|feed| feed.in_scope && !feed.left_out);
        enforced.any(|feed| feed.list == list && feed.observe == observe)
    };
    if speaks(List::Allow, false) {
        PacketVerdict::Allowed
    } else if speaks(List::Deny, false) {
        PacketVerdict::Denied
    } else if speaks(List::Deny, true) {
        PacketVerdict::Observed
    } else {
        PacketVerdict::Pass
    }
}
