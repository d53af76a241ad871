//! Publishing: all feeds are written into the filter's idle tables as one generation, counted
//! there, and put in force between one packet and the next.
//!
//! Each step is short, and between two of them the owner answers whoever asks. A failure at any
//! step leaves the generation in force as it is; the next attempt begins by clearing.

use std::sync::mpsc::RecvError;

use super::Feeds;
use super::generation::{Batches, Generation, Part, Print, Record};
use super::work::{Order, RECORD};
use crate::edge::clock::Now;
use crate::edge::filter::{Filter, FilterError};
use crate::edge::state::Edge;

/// Entries that are removed in one step.
const CLEARED_AT_ONCE: usize = 8192;
/// How often it is looked whether something else should be in force: guardrails change unseen.
const LOOK_EVERY_MS: u64 = 30_000;
/// How often the entries in the filter are compared with what they should be.
const COMPARE_EVERY_MS: u64 = 600_000;
/// After a failure, how soon to try again.
const RETRY_AFTER_MS: u64 = 5_000;

/// A generation on its way.
#[derive(Debug)]
pub(super) struct Publication {
    pub next: Generation,
    stage: Stage,
    began_ms: u64,
    /// Entries written so far.
    pub filled: u64,
}

#[derive(Debug)]
enum Stage {
    /// Whatever an earlier attempt left is removed.
    Clear,
    Fill(Batches),
    /// What was written is counted where it stands, and put in force.
    Flip,
    /// In force; the generation before is removed.
    Sweep,
}

impl Publication {
    pub(super) fn is_in_force(&self) -> bool {
        matches!(self.stage, Stage::Sweep)
    }
}

impl<F: Filter> Edge<F> {
    /// Brings the filter to what the feeds call for, at a start. If an earlier process has left
    /// just that in force, it is recognised and stays.
    pub(in crate::edge) fn start_feeds(&mut self, now: Now) {
        // A new name for an old feed, or content that was lost, must open no gap.
        self.read_missing(now);
        self.feeds.look_at_ms = now.boot_ms.saturating_add(LOOK_EVERY_MS);
        self.feeds.compare_at_ms = now.boot_ms.saturating_add(COMPARE_EVERY_MS);
        let wanted = self.wanted_feeds(now);
        match self.recognised(&wanted, now) {
            Ok(Some(in_force)) => {
                self.feeds.publication = Some(Publication {
                    next: in_force.clone(),
                    stage: Stage::Sweep,
                    began_ms: now.boot_ms,
                    filled: in_force.print.entries,
                });
                self.feeds.in_force = Some(in_force);
            }
            Ok(None) => self.begin(wanted, now),
            Err(error) => self.publishing_failed(&error, now),
        }
        // What is left behind that can be removed while packets are judged.
        while self.feeds.publication.as_ref().is_some_and(|one| !one.is_in_force()) {
            self.step(now);
        }
    }

    fn wanted_feeds(&mut self, now: Now) -> Vec<Part> {
        if self.feeds.slots.is_empty() {
            return Vec::new();
        }
        let (protected, sessions) = ((self.protected)(), self.logged_in());
        self.feeds.wanted(&protected, &sessions, &self.desired, now)
    }

    /// The generation that the filter holds, if it is what is wanted.
    fn recognised(&self, wanted: &[Part], now: Now) -> Result<Option<Generation>, FilterError> {
        let held = self.held()?;
        let record: Record = match self.feeds.work.store().words(RECORD) {
            Ok(record) => record.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "what was in force of the feeds is not known");
                Record::default()
            }
        };
        let Some((parts, made_s)) = record.dated(wanted.to_vec()) else { return Ok(None) };
        let generation = Generation { print: Print::of(&parts, made_s), parts, made_s };
        let as_it_was = generation.print == held;
        let mut pairs = generation.parts.iter().zip(wanted);
        let timely = !pairs.any(|(is, want)| self.feeds.end_differs(is, want, now));
        Ok((as_it_was && timely).then_some(generation))
    }

    /// What the filter holds of feeds.
    fn held(&self) -> Result<Print, FilterError> {
        let mut held = Print::default();
        self.filter.feeds(&mut |list, net, entry| held.add(list, net, entry))?;
        Ok(held)
    }

    /// Does what is due for the feeds.
    pub(in crate::edge) fn tick_feeds(&mut self, stepped: bool, now: Now) {
        self.take_ended(now);
        self.refresh_due(now);
        // A short refresh may have ended by now.
        self.take_ended(now);
        if stepped {
            self.feeds.look_at_ms = 0;
        }
        if self.feeds.publication.is_some() {
            self.step(now);
            return;
        }
        if now.boot_ms < self.feeds.publish_not_before_ms {
            return;
        }
        if now.boot_ms >= self.feeds.look_at_ms {
            let wanted = self.wanted_feeds(now);
            let differ = self.feeds.differ(&wanted, now);
            self.feeds.look_at_ms = self.feeds.next_look_ms(now);
            if differ {
                self.begin(wanted, now);
                return;
            }
        }
        if now.boot_ms >= self.feeds.compare_at_ms {
            self.compare(now);
        }
    }

    /// Sees that the filter holds what was written into it.
    fn compare(&mut self, now: Now) {
        self.feeds.compare_at_ms = now.boot_ms.saturating_add(COMPARE_EVERY_MS);
        let Some(in_force) = &self.feeds.in_force else { return };
        let due = in_force.print;
        match self.held() {
            Ok(held) if held == due => {}
            Ok(held) => {
                tracing::warn!(
                    held = held.entries,
                    due = due.entries,
                    "the feeds in the filter differed from what was written; written anew"
                );
                // Each entry that is missing or too many, or else one at least.
                self.health.drift += held.entries.abs_diff(due.entries).max(1);
                let wanted = self.wanted_feeds(now);
                self.begin(wanted, now);
            }
            Err(error) => self.publishing_failed(&error, now),
        }
    }

    fn begin(&mut self, parts: Vec<Part>, now: Now) {
        let next = Generation { parts, made_s: now.boot_s(), print: Print::default() };
        let began_ms = now.boot_ms;
        self.feeds.publication =
            Some(Publication { next, stage: Stage::Clear, began_ms, filled: 0 });
    }

    /// One step of the publication that is under way.
    fn step(&mut self, now: Now) {
        let Some(mut publication) = self.feeds.publication.take() else { return };
        match self.advance(&mut publication) {
            Ok(true) => self.feeds.publication = Some(publication),
            Ok(false) => {
                tracing::debug!("the feeds' idle tables are empty");
                self.feeds.look_at_ms = self.feeds.look_at_ms.min(self.feeds.next_look_ms(now));
                self.retouch();
            }
            Err(error) => self.publishing_failed(&error, now),
        }
    }

    /// Does the next step; false after the last.
    fn advance(&mut self, publication: &mut Publication) -> Result<bool, FilterError> {
        match &mut publication.stage {
            Stage::Clear => {
                if self.filter.feed_clear(CLEARED_AT_ONCE)? {
                    let Generation { parts, made_s, .. } = &publication.next;
                    let batches = Batches::make(parts.clone(), *made_s);
                    publication.stage = Stage::Fill(batches.map_err(|error| failed(&error))?);
                }
            }
            Stage::Fill(batches) => match batches.ready.recv() {
                Ok((list, entries)) => {
                    self.filter.feed_fill(list, &entries)?;
                    publication.filled += entries.len() as u64;
                }
                Err(RecvError) => self.filled(publication)?,
            },
            Stage::Flip => self.flip(publication)?,
            Stage::Sweep => return Ok(!self.filter.feed_clear(CLEARED_AT_ONCE)?),
        }
        Ok(true)
    }

    fn filled(&mut self, publication: &mut Publication) -> Result<(), FilterError> {
        let Stage::Fill(batches) = std::mem::replace(&mut publication.stage, Stage::Flip) else {
            return Ok(());
        };
        let print = batches.maker.join().ok().filter(|made| made.entries == publication.filled);
        publication.next.print =
            print.ok_or_else(|| failed(&"their entries could not be made; see the log"))?;
        Ok(())
    }

    fn flip(&mut self, publication: &mut Publication) -> Result<(), FilterError> {
        let (counted, filled) = (self.filter.feed_count()?, publication.filled);
        if counted != filled {
            let why = format!("{filled} entries were written, and {counted} are there");
            return Err(failed(&why));
        }
        // As of now: bans that came meanwhile have widened it.
        let guarded = self.guarded_with(publication.next.guarded());
        self.filter.feed_flip(guarded)?;
        publication.stage = Stage::Sweep;
        let next = publication.next.clone();
        self.feeds.work.give(Order::Record(next.record()));
        let took_ms = self.now().boot_ms.saturating_sub(publication.began_ms);
        tracing::info!(feeds = next.parts.len(), entries = filled, took_ms, "feeds published");
        self.feeds.in_force = Some(next);
        Ok(())
    }

    fn publishing_failed(&mut self, error: &FilterError, now: Now) {
        let error = error.to_string();
        // The first of a run is enough for the log; the status has the count.
        if self.feeds.publish_not_before_ms.saturating_add(RETRY_AFTER_MS) < now.boot_ms {
            tracing::error!(error, "publishing the feeds; what was in force stays");
        }
        self.health.write_failures += 1;
        self.health.last_failure = Some(error);
        self.feeds.publish_not_before_ms = now.boot_ms.saturating_add(RETRY_AFTER_MS);
        self.feeds.look_at_ms = 0;
    }
}

impl Feeds {
    /// Has it be looked at next whether something else should be in force.
    pub(in crate::edge) fn look_soon(&mut self) {
        self.look_at_ms = 0;
    }

    fn next_look_ms(&self, now: Now) -> u64 {
        let end_ms = self.first_end_s().map_or(u64::MAX, |end_s| u64::from(end_s) * 1000);
        let end_ms = end_ms.max(now.boot_ms.saturating_add(1000));
        now.boot_ms.saturating_add(LOOK_EVERY_MS).min(end_ms)
    }
}

fn failed(why: &dyn ToString) -> FilterError {
    FilterError::Feeds { why: why.to_string() }
}
