//! Sources that the configuration itself vouches for: no proof of good manners is asked of them, and
//! under load they are turned away last.

use std::{collections::HashSet, net::IpAddr};

use relay_core::prefix::{PrefixSet, canonical_ip};

use super::state::Listener;
use crate::config::Config;

/// Sources known to every listener: `filter.allow`, and the hosts that mail is delivered to as far
/// as they are written as addresses. What the allow list holds besides, only the edge knows.
#[derive(Debug)]
pub struct Known {
    allowed: PrefixSet<()>,
    inside: HashSet<IpAddr>,
}

impl Known {
    pub fn of(config: &Config) -> Self {
        let mut allowed = PrefixSet::new();
        for &prefix in &config.filter.allow {
            allowed.insert(prefix, ());
        }
        let inside = config.inside_addresses().into_iter().map(canonical_ip).collect();
        Self { allowed, inside }
    }

    /// Whether a source is known on this listener: to all of them, or since it may relay there.
    pub fn on(&self, listener: &Listener, source: IpAddr) -> bool {
        let source = canonical_ip(source);
        self.inside.contains(&source)
            || self.allowed.lookup(source).is_some()
            || listener.grants.sources.admits(source).is_some()
    }
}
