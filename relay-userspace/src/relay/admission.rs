//! How many connections are taken: over all, and from one source.
//!
//! Under load the places fill up to a soft limit for everybody; the rest is a reserve for known
//! sources. While the soft limit is reached the relay is *busy*: strangers are turned away, newest
//! first, and those that are here and say nothing are not waited for as long as usual.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use relay_core::ban::network_of;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// How long a stranger may say nothing while the relay is busy; Postfix under stress waits as long.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);

/// Limits in connections.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionLimits {
    pub connections_max: usize,
    /// Of those, places that are kept for known sources.
    pub reserved: usize,
    pub per_source_max: usize,
}

impl AdmissionLimits {
    fn soft(&self) -> usize {
        self.connections_max.saturating_sub(self.reserved)
    }
}

/// Who wants a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Unknown,
    /// It may take of the reserve.
    Known,
    /// A host that others come through, or that mail is delivered to: it may take of the reserve,
    /// and its connections are not counted as one source's.
    Ours,
}

/// Counts the connections that are open. A source is an IPv4 address or an IPv6 /64, so that
/// changing addresses inside a /64 gains nothing.
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    open: Mutex<Open>,
    busy: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_source: HashMap<IpNet, usize>,
}

impl Open {
    fn leave(&mut self, source: Option<IpNet>) {
        let Some(source) = source else { return };
        if let Some(of_source) = self.by_source.get_mut(&source) {
            *of_source -= 1;
            if *of_source == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crowded {
    /// No place at all is left.
    Server,
    /// The places left are kept for known sources.
    Reserved,
    /// Its source has as many as it may.
    Source,
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    admission: Arc<Admission>,
    /// As what it is counted; `None` with [`Caller::Ours`].
    source: Option<IpNet>,
    caller: Caller,
}

impl Admission {
    pub fn new(limits: AdmissionLimits) -> Arc<Self> {
        Arc::new(Self { limits, open: Mutex::default(), busy: watch::Sender::new(false) })
    }

    /// # Errors
    /// One of the limits is reached.
    pub fn admit(self: &Arc<Self>, source: IpAddr, caller: Caller) -> Result<Ticket, Crowded> {
        let mut open = self.open();
        if open.total >= self.limits.connections_max {
            return Err(Crowded::Server);
        }
        let source = self.count(&mut open, source, caller, 0)?;
        open.total += 1;
        self.tell(&open);
        Ok(Ticket { admission: Arc::clone(self), source, caller })
    }

    /// Counts one more of a source; `held`: the places that it has in the total already.
    fn count(
        &self,
        open: &mut Open,
        source: IpAddr,
        caller: Caller,
        held: usize,
    ) -> Result<Option<IpNet>, Crowded> {
        if caller == Caller::Unknown && open.total - held >= self.limits.soft() {
            return Err(Crowded::Reserved);
        }
        if caller == Caller::Ours {
            return Ok(None);
        }
        let source = network_of(source);
        let of_source = open.by_source.entry(source).or_default();
        if *of_source >= self.limits.per_source_max {
            return Err(Crowded::Source);
        }
        *of_source += 1;
        Ok(Some(source))
    }

    /// Connections open now.
    pub fn open_now(&self) -> usize {
        self.open().total
    }

    /// Ends when a stranger that has said nothing whole since then has to go: never, unless the
    /// relay is busy or becomes so.
    pub async fn outstayed(&self, since: Instant) {
        let mut busy = self.busy.subscribe();
        while busy.wait_for(|busy| *busy).await.is_ok() {
            let not_busy = busy.wait_for(|busy| !*busy);
            if timeout_at(since + BUSY_PATIENCE, not_busy).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Busy from the soft limit on, until a tenth of it is free again.
    fn tell(&self, open: &Open) {
        let soft = self.limits.soft();
        self.busy.send_if_modified(|busy| {
            let now = open.total >= if *busy { soft - soft / 10 } else { soft };
            std::mem::replace(busy, now) != now
        });
    }

    /// The counts are changed in single steps, so a panic elsewhere cannot leave them torn.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Counts the connection as another source's from here on, as when a balancer or an XCLIENT
    /// names it.
    ///
    /// # Errors
    /// That source would not have been admitted. The connection counts as before.
    pub fn pass_on(&mut self, source: IpAddr, caller: Caller) -> Result<(), Crowded> {
        let mut open = self.admission.open();
        // Its own place does not stand in its way, nor does its count where the source is the same.
        let before = self.source.take();
        open.leave(before);
        let counted = self.admission.count(&mut open, source, caller, 1);
        self.source = match counted {
            Ok(source) => {
                self.caller = caller;
                source
            }
            Err(_) => before.inspect(|&before| *open.by_source.entry(before).or_default() += 1),
        };
        counted.map(drop)
    }

    /// Whether nobody vouches for its source.
    pub fn is_unknown(&self) -> bool {
        self.caller == Caller::Unknown
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut open = self.admission.open();
        open.total -= 1;
        open.leave(self.source);
        self.admission.tell(&open);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admission(connections_max: usize, reserved: usize, per_source_max: usize) -> Arc<Admission> {
        Admission::new(AdmissionLimits { connections_max, reserved, per_source_max })
    }

    #[test]
    fn both_limits_hold_and_places_come_back() {
        let admission = admission(3, 0, 2);
        let first = admission.admit(ip("192.0.2.1"), Caller::Unknown).unwrap();
        let _second = admission.admit(ip("192.0.2.1"), Caller::Known).unwrap();
        let refused = admission.admit(ip("192.0.2.1"), Caller::Known).unwrap_err();
        assert_eq!(refused, Crowded::Source);
        let _third = admission.admit(ip("192.0.2.2"), Caller::Unknown).unwrap();
        let refused = admission.admit(ip("192.0.2.3"), Caller::Ours).unwrap_err();
        assert_eq!(refused, Crowded::Server);
        drop(first);
        assert!(admission.admit(ip("192.0.2.1"), Caller::Unknown).is_ok());
    }

    #[test]
    fn addresses_of_one_64_are_one_source_and_nothing_is_remembered() {
        let admission = admission(10, 0, 1);
        let ticket = admission.admit(ip("2001:db8::1"), Caller::Unknown).unwrap();
        let refused = admission.admit(ip("2001:db8::2"), Caller::Unknown).unwrap_err();
        assert_eq!(refused, Crowded::Source);
        assert!(admission.admit(ip("::ffff:192.0.2.1"), Caller::Unknown).is_ok());
        drop(ticket);
        assert_eq!(admission.open_now(), 0);
        assert!(admission.open().by_source.is_empty());
    }

    #[test]
    fn strangers_leave_the_reserve_to_those_we_know() {
        let admission = admission(4, 2, 9);
        let admit = |last: u8, caller| admission.admit(IpAddr::from([192, 0, 2, last]), caller);
        let _strangers = [admit(1, Caller::Unknown).unwrap(), admit(2, Caller::Unknown).unwrap()];
        assert_eq!(admit(3, Caller::Unknown).unwrap_err(), Crowded::Reserved);
        let _known = [admit(4, Caller::Known).unwrap(), admit(5, Caller::Ours).unwrap()];
        assert_eq!(admit(4, Caller::Known).unwrap_err(), Crowded::Server);
    }

    #[test]
    fn a_balancers_connections_are_its_clients() {
        let admission = admission(4, 1, 1);
        let balancer = ip("10.0.0.5");
        let through = || admission.admit(balancer, Caller::Ours).unwrap();
        let (mut one, mut two) = (through(), through());
        one.pass_on(ip("192.0.2.1"), Caller::Unknown).unwrap();
        assert_eq!(two.pass_on(ip("192.0.2.1"), Caller::Unknown), Err(Crowded::Source));
        two.pass_on(ip("192.0.2.2"), Caller::Unknown).unwrap();
        // Named once more, and after a refusal, it is counted once.
        one.pass_on(ip("192.0.2.1"), Caller::Unknown).unwrap();
        assert_eq!(one.pass_on(ip("192.0.2.2"), Caller::Known), Err(Crowded::Source));
        let (mut three, mut four) = (through(), through());
        assert_eq!(three.pass_on(ip("192.0.2.3"), Caller::Unknown), Err(Crowded::Reserved));
        four.pass_on(ip("192.0.2.4"), Caller::Known).unwrap();
        drop((one, two, three, four));
        assert_eq!(admission.open_now(), 0);
        assert!(admission.open().by_source.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_that_say_nothing_have_to_go_while_it_is_busy() {
        let admission = admission(3, 1, 9);
        let first = admission.admit(ip("192.0.2.1"), Caller::Unknown).unwrap();
        let day = Duration::from_secs(86_400);
        let now = Instant::now;
        assert!(timeout(day, admission.outstayed(now())).await.is_err(), "it is not busy");
        let second = admission.admit(ip("192.0.2.2"), Caller::Unknown).unwrap();
        let since = now();
        // Whoever asks again in between gains nothing by it.
        let half = BUSY_PATIENCE / 2;
        assert!(timeout(half, admission.outstayed(since)).await.is_err());
        timeout(day, admission.outstayed(since)).await.unwrap();
        assert_eq!(since.elapsed().as_secs(), BUSY_PATIENCE.as_secs());
        drop(second);
        assert!(timeout(day, admission.outstayed(now())).await.is_err(), "it is not busy any more");
        drop(first);
    }
}
