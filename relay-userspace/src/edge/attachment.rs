//! Seeing that the filter stays where it was put: an interface that is deleted and made anew (a
//! driver reloaded, a tunnel restarted) has lost its program, and would let everyone in. The kernel
//! tells of it ([`super::links`]); a look now and then finds what it does not tell, such as a program
//! that somebody took off.

use std::sync::Arc;

use super::clock::Now;
use super::filter::{Attachment, Filter, FilterError, State};
use super::links::LinkNews;
use super::state::Edge;
use crate::control::api::{Code, Problem};

/// How often the edge looks without being told. A look is one question to the kernel for each
/// interface.
pub(super) const LOOK_EVERY_MS: u64 = 2_000;

/// When to look again, and what was seen last.
#[derive(Debug, Default)]
pub(super) struct Watch {
    next_ms: u64,
    seen: Vec<Attachment>,
    failures: Vec<String>,
    /// Why pins that are gone could not be made anew.
    unpinned: Option<String>,
    news: Arc<LinkNews>,
    /// Looks that news called for.
    told: u64,
}

impl Watch {
    /// Where a look is called for.
    pub(super) fn news(&self) -> &Arc<LinkNews> {
        &self.news
    }

    pub(super) fn told(&self) -> u64 {
        self.told
    }
}

impl<F: Filter> Edge<F> {
    /// Where a look at the interfaces is called for.
    pub fn link_news(&self) -> Arc<LinkNews> {
        Arc::clone(self.attachment.news())
    }

    /// Attaches the filter again where it was lost. Each change is logged once.
    pub(super) fn watch_attachment(&mut self, now: Now) {
        let told = self.attachment.news.take();
        if !told && now.boot_ms < self.attachment.next_ms {
            return;
        }
        self.attachment.told += u64::from(told);
        let every_ms = u64::try_from(self.settings.look_every.as_millis()).unwrap_or(u64::MAX);
        self.attachment.next_ms = now.boot_ms.saturating_add(every_ms);
        let kept = self.filter.keep_attached();
        for interface in &kept.again {
            self.health.reattached += 1;
            tracing::warn!(interface, "the filter was not on the interface; attached again");
        }
        let failures: Vec<String> = kept.failures.iter().map(ToString::to_string).collect();
        for error in failures.iter().filter(|error| !self.attachment.failures.contains(error)) {
            tracing::error!(error, "the filter cannot be attached, or not be held, there");
            self.health.last_failure = Some(error.clone());
        }
        self.attachment.failures = failures;
        self.note_pins(kept.pins);
        self.tell_attachments();
    }

    /// Looks once more, before the filter is left to itself.
    ///
    /// # Errors
    /// It would end with the edge.
    pub(super) fn hold_before_the_end(&mut self) -> Result<(), Problem> {
        self.attachment.next_ms = 0;
        self.watch_attachment(self.now());
        match &self.attachment.unpinned {
            None => Ok(()),
            Some(error) => {
                let message = format!("the filter would not stay without the edge: {error}");
                Err(Problem::new(Code::Filter, message).remedy("use --detach, or try again"))
            }
        }
    }

    fn note_pins(&mut self, pins: Result<usize, FilterError>) {
        let failure = match pins {
            Ok(missing) => {
                if missing > 0 {
                    self.health.pins_made_anew += missing as u64;
                    tracing::warn!(missing, "somebody removed pins of the filter; made anew");
                }
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = &failure
            && self.attachment.unpinned != failure
        {
            tracing::error!(error, "pins of the filter are gone: it would end with the edge");
            self.health.last_failure = Some(error.clone());
        }
        self.attachment.unpinned = failure;
    }

    /// Logs what is new about the interfaces.
    pub(super) fn tell_attachments(&mut self) {
        let seen = self.filter.attachments();
        for attachment in &seen {
            let before = &self.attachment.seen;
            let before = before.iter().find(|old| old.interface == attachment.interface);
            if before != Some(attachment) {
                tell(before, attachment);
            }
        }
        self.attachment.seen = seen;
    }
}

fn tell(before: Option<&Attachment>, now: &Attachment) {
    // Without an interface there is nothing that could change.
    let Attachment { interface: Some(interface), called, mode, state, program_id } = now else {
        return;
    };
    let before_called = before.and_then(|before| before.called.as_deref());
    match (called.as_deref(), before_called) {
        (Some(name), old) if old != Some(name) => {
            tracing::warn!(interface, called = name, "the interface was renamed; still guarded");
        }
        (None, Some(old)) => {
            tracing::warn!(interface, from = old, "the filter is on the interface of this name");
        }
        _ => {}
    }
    let was = before.map(|before| (before.state, before.mode, before.program_id));
    if was == Some((*state, *mode, *program_id)) {
        return;
    }
    match state {
        State::Up => tracing::info!(interface, %mode, program_id, "filter attached"),
        State::Down => {
            tracing::warn!(interface, %mode, program_id, "filter attached; the interface is down");
        }
        State::Missing => {
            let what = "there is no such interface; it is attached to as soon as it comes";
            tracing::error!(interface, "{what}");
        }
        State::Lost => tracing::error!(interface, "the filter is not on the interface"),
    }
}
