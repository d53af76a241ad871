//! How many connections are taken: over all, and from one source.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use relay_core::ban::network_of;

/// Counts the connections that are open. A source is an IPv4 address or an IPv6 /64, so that
/// changing addresses inside a /64 gains nothing.
#[derive(Debug)]
pub struct Admission {
    connections_max: usize,
    per_source_max: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_source: HashMap<IpNet, usize>,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowded {
    Server,
    Source,
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    admission: Arc<Admission>,
    source: IpNet,
}

impl Admission {
    pub fn new(connections_max: usize, per_source_max: usize) -> Arc<Self> {
        Arc::new(Self { connections_max, per_source_max, open: Mutex::default() })
    }

    /// # Errors
    /// One of the two limits is reached.
    pub fn admit(self: &Arc<Self>, source: IpAddr) -> Result<Ticket, Crowded> {
        let source = network_of(source);
        let mut open = self.open();
        if open.total >= self.connections_max {
            return Err(Crowded::Server);
        }
        let of_source = open.by_source.entry(source).or_default();
        if *of_source >= self.per_source_max {
            return Err(Crowded::Source);
        }
        *of_source += 1;
        open.total += 1;
        Ok(Ticket { admission: Arc::clone(self), source })
    }

    /// Connections open now.
    pub fn open_now(&self) -> usize {
        self.open().total
    }

    /// The counts are changed in single steps, so a panic elsewhere cannot leave them torn.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.admission.open();
        open.total -= 1;
        if let Some(of_source) = open.by_source.get_mut(&self.source) {
            *of_source -= 1;
            if *of_source == 0 {
                open.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn both_limits_hold_and_places_come_back() {
        let admission = Admission::new(3, 2);
        let first = admission.admit(ip("192.0.2.1")).unwrap();
        let _second = admission.admit(ip("192.0.2.1")).unwrap();
        assert_eq!(admission.admit(ip("192.0.2.1")).unwrap_err(), Crowded::Source);
        let _third = admission.admit(ip("192.0.2.2")).unwrap();
        assert_eq!(admission.admit(ip("192.0.2.3")).unwrap_err(), Crowded::Server);
        drop(first);
        assert!(admission.admit(ip("192.0.2.1")).is_ok());
    }

    #[test]
    fn addresses_of_one_64_are_one_source_and_nothing_is_remembered() {
        let admission = Admission::new(10, 1);
        let ticket = admission.admit(ip("2001:db8::1")).unwrap();
        assert_eq!(admission.admit(ip("2001:db8::2")).unwrap_err(), Crowded::Source);
        assert_eq!(admission.admit(ip("::ffff:192.0.2.1")).map(drop), Ok(()));
        drop(ticket);
        assert_eq!(admission.open_now(), 0);
        assert!(admission.open().by_source.is_empty());
    }
}
