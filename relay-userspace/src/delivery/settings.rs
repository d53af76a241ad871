//! What delivery is told: destinations, limits, timeouts. Checked by whoever fills it in.

use super::schedule::RetrySchedule;
use crate::queue::Route;
use relay_core::smtp::client::{ClientTls, PlainLogin};
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Everything that delivery needs to know.
#[derive(Debug, Clone)]
pub struct DeliverySettings {
    /// This host's name: in EHLO, and behind MAILER-DAEMON@ in DSNs.
    pub hostname: String,
    /// Inside hosts by domain; they come before the smart host.
    pub inside: Vec<InsideRoute>,
    /// Where all other mail goes. `None`: it waits, with that as the reason.
    pub smart_host: Option<NextHop>,
    /// When to try again.
    pub retry: RetrySchedule,
    /// Connections at once, to all destinations.
    pub connections_max: usize,
    /// Connections at once to one destination.
    pub connections_per_destination_max: usize,
    /// Messages over one connection, then a new one.
    pub messages_per_connection_max: usize,
    /// How long a connection waits for a further message.
    pub linger: Duration,
    /// How long a destination is left alone after none of its hosts could be reached; its mail is
    /// deferred meanwhile.
    pub suspend: Duration,
    /// How long messages under way may take to end at shutdown.
    pub shutdown_grace: Duration,
    /// Timeouts of the dialogue.
    pub timeouts: Timeouts,
    /// Addresses that are never a next hop.
    pub own: OwnAddresses,
    /// Names to addresses.
    pub resolver: Arc<dyn HostResolver>,
}

impl Default for DeliverySettings {
    /// Delivers nowhere.
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            inside: Vec::new(),
            smart_host: None,
            retry: RetrySchedule::default(),
            connections_max: 100,
            connections_per_destination_max: 10,
            messages_per_connection_max: 100,
            linger: Duration::from_secs(1),
            suspend: Duration::from_secs(60),
            shutdown_grace: Duration::from_secs(10),
            timeouts: Timeouts::default(),
            own: OwnAddresses::default(),
            resolver: Arc::new(SystemResolver),
        }
    }
}

/// RFC 5321 section 4.5.3.2, client side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For TCP to connect to one address; the RFC has none.
    pub connect: Duration,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For the greeting.
    pub greeting: Duration,
    /// For the reply to a command.
    pub command: Duration,
    /// For each chunk of content to be taken.
    pub content: Duration,
    /// For the reply to the end of data.
    pub end: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            handshake: Duration::from_secs(60),
            greeting: Duration::from_secs(300),
            command: Duration::from_secs(300),
            content: Duration::from_secs(180),
            end: Duration::from_secs(600),
        }
    }
}

/// The inside hosts of some domains.
#[derive(Debug, Clone)]
pub struct InsideRoute {
    /// `example.org`, or `*.example.org` for all below it; lower case.
    pub domains: Vec<String>,
    /// Where their mail goes.
    pub next_hop: NextHop,
}

/// A destination: hosts that are equally good, tried in order.
#[derive(Debug, Clone)]
pub struct NextHop {
    /// Tried in order until one takes the connection.
    pub hosts: Vec<HostPort>,
    /// LMTP: the final delivery, before which Return-Path is written (RFC 5321 section 4.4).
    pub lmtp: bool,
    /// Whether the connection must be, may be, or is not in TLS.
    pub tls: ClientTls,
    /// How TLS is spoken and whom it trusts; without one, `tls` must be `Off`.
    pub tls_config: Option<Arc<rustls::ClientConfig>>,
    /// AUTH PLAIN, inside TLS alone.
    pub login: Option<PlainLogin>,
}

impl NextHop {
    /// Hosts without TLS and AUTH.
    pub fn plain(hosts: Vec<HostPort>) -> Self {
        Self { hosts, lmtp: false, tls: ClientTls::Off, tls_config: None, login: None }
    }
}

/// A host by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name, an address without brackets, or the absolute path of a Unix socket.
    pub host: String,
    /// 25 for most.
    pub port: u16,
}

impl HostPort {
    /// Whether it is a Unix socket.
    pub fn is_path(&self) -> bool {
        self.host.starts_with('/')
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_path() {
            return f.write_str(&self.host);
        }
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What would be a connection to oneself: a loop (RFC 5321 section 5.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// The machine's addresses; loopback need not be named.
    pub addresses: Vec<IpAddr>,
    /// Where the listeners listen; an unspecified address stands for all of the machine's.
    pub listeners: Vec<SocketAddr>,
}

impl OwnAddresses {
    /// Whether a connection to `target` would reach one of the own listeners.
    pub fn is_own(&self, target: SocketAddr) -> bool {
        let ip = target.ip().to_canonical();
        let local = ip.is_loopback() || ip.is_unspecified() || self.addresses.contains(&ip);
        self.listeners.iter().any(|listener| {
            let at = listener.ip().to_canonical();
            listener.port() == target.port() && (at == ip || at.is_unspecified() && local)
        })
    }
}

/// What a resolver comes back with: addresses, or why there are none.
pub type Resolved<'a> = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, String>> + Send + 'a>>;

/// Turns a next hop's name into addresses, in the order they are to be tried.
pub trait HostResolver: Send + Sync + fmt::Debug {
    /// An empty list means that the name has no address. Literals never get here.
    fn addresses<'a>(&'a self, host: &'a str) -> Resolved<'a>;
}

/// The system's resolver (getaddrinfo).
#[derive(Debug, Clone, Copy)]
pub struct SystemResolver;

impl HostResolver for SystemResolver {
    fn addresses<'a>(&'a self, host: &'a str) -> Resolved<'a> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await;
            found.map(|found| found.map(|at| at.ip()).collect()).map_err(|error| error.to_string())
        })
    }
}

/// A recipient's destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Destination {
    /// Index into `inside`.
    Inside(usize),
    SmartHost,
    /// Inbound by policy, and no inside host: it must not go out again.
    NoInsideHost,
}

impl DeliverySettings {
    /// Exact domain before wildcard, the longest wildcard first, then the smart host.
    pub(super) fn destination(&self, domain: &str, route: Route) -> Destination {
        let mut best: Option<(usize, usize)> = None;
        for (index, inside) in self.inside.iter().enumerate() {
            for pattern in &inside.domains {
                let weight = match pattern.strip_prefix('*') {
                    None if pattern == domain => usize::MAX,
                    Some(suffix) if domain.len() > suffix.len() && domain.ends_with(suffix) => {
                        suffix.len()
                    }
                    _ => continue,
                };
                if best.is_none_or(|(heaviest, _)| weight > heaviest) {
                    best = Some((weight, index));
                }
            }
        }
        match (best, route) {
            (Some((_, index)), _) => Destination::Inside(index),
            (None, Route::Inbound) => Destination::NoInsideHost,
            (None, Route::Relay) => Destination::SmartHost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_domain_wins_and_inbound_never_goes_out() {
        let route = |domains: &[&str]| InsideRoute {
            domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
            next_hop: NextHop::plain(vec![]),
        };
        let settings = DeliverySettings {
            inside: vec![
                route(&["*.example.org"]),
                route(&["example.org", "a.b.example.org"]),
                route(&["*.b.example.org"]),
            ],
            ..DeliverySettings::default()
        };
        for (domain, expected) in [
            ("example.org", Destination::Inside(1)),
            ("x.example.org", Destination::Inside(0)),
            ("a.b.example.org", Destination::Inside(1)),
            ("c.b.example.org", Destination::Inside(2)),
            ("b.example.org", Destination::Inside(0)),
            ("badexample.org", Destination::SmartHost),
            (".example.org", Destination::SmartHost),
            ("", Destination::SmartHost),
        ] {
            assert_eq!(settings.destination(domain, Route::Relay), expected, "{domain}");
        }
        let elsewhere = settings.destination("other.example", Route::Inbound);
        assert_eq!(elsewhere, Destination::NoInsideHost);
    }

    #[test]
    fn own_listeners_are_known_by_address_and_port() {
        let own = OwnAddresses {
            addresses: vec!["192.0.2.1".parse().unwrap()],
            listeners: vec!["0.0.0.0:25".parse().unwrap(), "192.0.2.2:2525".parse().unwrap()],
        };
        for (target, expected) in [
            ("192.0.2.1:25", true),
            ("[::ffff:192.0.2.1]:25", true),
            ("127.0.0.1:25", true),
            ("[::1]:25", true),
            ("192.0.2.1:26", false),
            ("192.0.2.2:2525", true),
            ("127.0.0.1:2525", false),
            ("198.51.100.1:25", false),
        ] {
            assert_eq!(own.is_own(target.parse().unwrap()), expected, "{target}");
        }
    }
}
