//! The rows of the configuration: the only ones of their source, written at each start.

use super::clock::Now;
use super::filter::Filter;
use super::state::{Edge, OpenError, RETRY_AFTER_MS};
use crate::control::api::Code;

const SOURCE_CONFIG: &str = "config";

impl<F: Filter> Edge<F> {
    /// Writes them. A disk that is full is no reason to filter nothing: what the last start wrote
    /// stays in force then, and the rest is tried again.
    pub(super) fn write_configured(&mut self, now: Now) -> Result<(), OpenError> {
        for (list, rows) in std::mem::take(&mut self.settings.rows) {
            match self.replace(list, SOURCE_CONFIG, rows.clone()) {
                Ok(_) => {}
                Err(problem) if problem.code == Code::Storage => {
                    let what = format!("filter.{list} is not in force as configured: {problem}");
                    if self.configured_not_before_ms == 0 {
                        tracing::error!("{what}; trying again");
                    }
                    self.health.last_failure = Some(what);
                    self.settings.rows.push((list, rows));
                }
                Err(problem) => return Err(OpenError::Configured { list, problem }),
            }
        }
        self.configured_not_before_ms = now.boot_ms.saturating_add(RETRY_AFTER_MS);
        Ok(())
    }

    /// Tries again what could not be written.
    pub(super) fn tick_configured(&mut self, now: Now) {
        if self.settings.rows.is_empty() || now.boot_ms < self.configured_not_before_ms {
            return;
        }
        match self.write_configured(now) {
            Ok(()) if self.settings.rows.is_empty() => {
                tracing::info!("the lists are in force as configured");
            }
            Ok(()) => {}
            Err(error) => {
                tracing::error!(%error, "the lists are not in force as configured");
                self.health.last_failure = Some(error.to_string());
            }
        }
    }
}
