//! Seeing that the filter stays where it was put: an interface that is deleted and made anew (a
//! driver reloaded, a tunnel restarted) has lost its program, and would let everyone in.

use super::clock::Now;
use super::filter::Filter;
use super::state::Edge;

/// How often the edge looks. A look is one question to the kernel.
pub(super) const LOOK_EVERY_MS: u64 = 5_000;

/// When to look again, and what was seen last.
#[derive(Debug, Default)]
pub(super) struct Watch {
    next_ms: u64,
    lost: bool,
}

impl<F: Filter> Edge<F> {
    /// Attaches the filter again where it was lost. Each change is logged once.
    pub(super) fn watch_attachment(&mut self, now: Now) {
        if now.boot_ms < self.attachment.next_ms {
            return;
        }
        self.attachment.next_ms = now.boot_ms.saturating_add(LOOK_EVERY_MS);
        match self.filter.keep_attached() {
            Ok(again) => {
                if again {
                    self.health.reattached += 1;
                    tracing::warn!("the filter was attached to nothing; attached again");
                }
                self.attachment.lost = false;
            }
            Err(error) => {
                let error = error.to_string();
                if !self.attachment.lost {
                    tracing::error!(error, "nobody is kept out: the filter is attached to nothing");
                }
                self.health.last_failure = Some(error);
                self.attachment.lost = true;
            }
        }
    }
}
