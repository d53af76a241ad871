//! Sources that the configuration itself vouches for: no proof of good manners is asked of them, and
//! under load they are turned away last.

use std::{collections::HashSet, net::IpAddr};

use relay_core::prefix::{PrefixSet, canonical_ip};

use super::{admission::Caller, state::Listener};
use crate::config::Config;

/// Sources known to every listener: `filter.allow`, and the hosts that mail is delivered to as far
/// as they are written as addresses. What the allow list holds besides, only the edge knows.
#[derive(Debug)]
pub struct Known {
    allowed: PrefixSet<()>,
    inside: HashSet<IpAddr>,
    /// Hosts of our own that others come through, on any listener.
    upstreams: PrefixSet<()>,
}

impl Known {
    pub fn of(config: &Config) -> Self {
        let mut allowed = PrefixSet::new();
        for &prefix in &config.filter.allow {
            allowed.insert(prefix, ());
        }
        let inside = config.inside_addresses().into_iter().map(canonical_ip).collect();
        let upstreams = config.upstreams().map(|net| (net, ())).collect();
        Self { allowed, inside, upstreams }
    }

    /// Whether a source is known on this listener: to all of them, or since it may relay there.
    pub fn on(&self, listener: &Listener, source: IpAddr) -> bool {
        self.caller(listener, source) != Caller::Unknown
    }

    /// With what right a source asks for a place.
    pub fn caller(&self, listener: &Listener, source: IpAddr) -> Caller {
        let source = canonical_ip(source);
        if self.inside.contains(&source) || self.is_upstream(source) {
            return Caller::Ours;
        }
        let known = self.allowed.lookup(source).is_some()
            || listener.grants.sources.admits(source).is_some();
        if known { Caller::Known } else { Caller::Unknown }
    }

    /// Whether others come through this host: it answers for none of them, and is never banned.
    pub fn is_upstream(&self, source: IpAddr) -> bool {
        self.upstreams.lookup(canonical_ip(source)).is_some()
    }
}
