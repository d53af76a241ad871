//! Open files: as many as the configured limits can come to need. A login shell and systemd alike
//! start a program with 1,024, and a relay that has none left can neither accept nor store.

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Config;

/// For what belongs to no client: listeners, DNS, the queue's database, the control socket.
const RESERVE: u64 = 512;

/// Large messages that may come in at once, each with a file: one in two sessions.
pub fn message_files(config: &Config) -> usize {
    config.limits.connections.div_ceil(2)
}

/// What this configuration can need at most: each session its socket, some the files of their
/// messages, and a delivery both.
pub fn needed(config: &Config) -> u64 {
    let deliveries = config.queue.concurrency.saturating_mul(2);
    let sessions = config.limits.connections.saturating_add(message_files(config));
    (deliveries as u64).saturating_add(sessions as u64).saturating_add(RESERVE)
}

/// Raises the limit of this process to `needed`; to be called while it is still root.
///
/// # Errors
/// This process may not; the sentence says what to do.
pub fn make_room(needed: u64) -> anyhow::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("asking for RLIMIT_NOFILE")?;
    if soft >= needed {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)).with_context(|| {
        format!(
            "limits.connections and queue.concurrency can need {needed} open files, and {hard} is \
             all that may be had: lower them, or raise that (LimitNOFILE= of a systemd unit, \
             `ulimit -Hn` of a shell)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_is_raised_and_a_high_one_is_left_alone() {
        let (before, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let low = before.min(700);
        setrlimit(Resource::RLIMIT_NOFILE, low, hard).unwrap();
        let raised = make_room(low + 100).and_then(|()| Ok(getrlimit(Resource::RLIMIT_NOFILE)?));
        let kept = make_room(1).and_then(|()| Ok(getrlimit(Resource::RLIMIT_NOFILE)?));
        setrlimit(Resource::RLIMIT_NOFILE, before, hard).unwrap();
        assert_eq!(raised.unwrap().0, low + 100);
        assert_eq!(kept.unwrap().0, low + 100);
    }
}
