//! Logs: one event for each connection, decision, message and ban, as text or JSON on standard
//! output.

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

/// Sends events to standard output from now on. Libraries speak at `warn`; Postern at the
/// configured level, which `POSTERN_LOG` (in the syntax of `tracing`'s filters) overrides.
///
/// Calling it again has no effect, so that tests may.
pub fn init(settings: &Log) {
    let default = format!("warn,postern={}", settings.level.as_str().to_ascii_lowercase());
    let filter = EnvFilter::try_from_env("POSTERN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_target(false);
    // Fails only when a subscriber is there already.
    let _already_there = match settings.format {
        LogFormat::Text => registry.with(layer.with_ansi(false)).try_init(),
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_current_span(false)).try_init()
        }
    };
}
