//! The configuration as the program uses it: every value typed, in range and with its default.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnet::IpNet;
use relay_common::entry::{List, Scope};
use relay_core::feed::{Format, Limits as FeedLimits};
use relay_core::smtp::framing::BareNewlines;

use crate::edge::filter::SynLimit;

/// A whole, checked configuration. Made by [`super::load`] alone.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: Server,
    pub filter: Filter,
    pub listeners: Vec<Listener>,
    /// `None`: no program of this machine hands in mail by LMTP.
    pub lmtp: Option<Lmtp>,
    pub tls: TlsFiles,
    pub domains: Vec<Domain>,
    pub relay: Relay,
    pub dns: Dns,
    pub dnsbl: Vec<Dnsbl>,
    pub feeds: Vec<Feed>,
    pub ban: Ban,
    pub smtp: Smtp,
    pub limits: Limits,
    pub queue: Queue,
    pub log: Log,
}

#[derive(Debug, Clone)]
pub struct Server {
    /// What the banner, EHLO replies and Received lines call this host.
    pub hostname: String,
    pub state_dir: PathBuf,
    pub run_dir: PathBuf,
    pub user: String,
    pub group: String,
}

impl Server {
    pub fn edge_socket(&self) -> PathBuf {
        self.run_dir.join("edge.sock")
    }

    pub fn relay_socket(&self) -> PathBuf {
        self.run_dir.join("relay.sock")
    }

    /// What the edge keeps; only root reads it.
    pub fn edge_dir(&self) -> PathBuf {
        self.state_dir.join("edge")
    }

    /// What the relay keeps; it belongs to the relay's user.
    pub fn relay_dir(&self) -> PathBuf {
        self.state_dir.join("relay")
    }
}

/// Who drops denied sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforce {
    Kernel,
    Userspace,
}

#[derive(Debug, Clone)]
pub struct Filter {
    pub enforce: Enforce,
    /// The interfaces to guard, each once. Empty: the one of the default route.
    pub attach: Vec<Attach>,
    /// For interfaces that say nothing of their own.
    pub allow_generic: bool,
    pub log_drops: bool,
    /// Nothing is dropped; what would be is counted.
    pub observe: bool,
    /// Packets that are told about; 0: none.
    pub events_per_second: u32,
    pub pin_dir: PathBuf,
    pub max_entries: u32,
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    pub deny_observed: Vec<IpNet>,
    /// `None`: off.
    pub syn_limit: Option<SynLimit>,
}

/// An interface to guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    pub interface: String,
    pub allow_generic: bool,
}

impl Filter {
    /// Guards these interfaces instead, each with what is configured for it.
    pub fn attach_to(&mut self, interfaces: &[String]) {
        let mut attach: Vec<Attach> = Vec::new();
        for interface in interfaces {
            if attach.iter().all(|of| of.interface != *interface) {
                let known = self.attach.iter().find(|of| of.interface == *interface);
                let allow_generic = known.map_or(self.allow_generic, |of| of.allow_generic);
                attach.push(Attach { interface: interface.clone(), allow_generic });
            }
        }
        self.attach = attach;
    }
}

/// Off, on offer, or required: of TLS and of AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    Off,
    Offer,
    Require,
}

/// When a listener's clients begin TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerTls {
    Off,
    /// By STARTTLS, if they like.
    Offer,
    /// By STARTTLS, before MAIL.
    Require,
    /// Before anything else (RFC 8314).
    Implicit,
}

#[derive(Debug, Clone)]
pub struct Listener {
    pub name: String,
    pub addresses: Vec<SocketAddr>,
    pub tls: ListenerTls,
    pub auth: Offer,
    pub dnsbl: bool,
    pub relay_for: Vec<IpNet>,
    /// Balancers, whose connections begin with a PROXY header.
    pub proxy_protocol: Vec<IpNet>,
    /// Hosts that may say XCLIENT, and XFORWARD.
    pub xclient: Vec<IpNet>,
    pub xforward: Vec<IpNet>,
    /// The administrator wrote that an open relay is wanted.
    pub open_relay: bool,
}

/// Mail from programs on this machine, by LMTP over a Unix socket.
#[derive(Debug, Clone)]
pub struct Lmtp {
    pub socket: PathBuf,
    /// Permission bits of the socket.
    pub mode: u32,
    /// Group of the socket, by name.
    pub group: Option<String>,
    /// Users whose mail may go anywhere, by name.
    pub relay_for_users: Vec<String>,
}

impl Lmtp {
    /// What reasons, logs and the queue call it; no `[[listener]]` has this name beside it.
    pub const NAME: &str = "lmtp";
}

#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain and key, PEM. `None`: self-signed, kept in the state directory.
    pub files: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainRoute {
    Inbound,
    Relay,
    Reject,
}

/// Another server, by name or address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.starts_with('/') {
            f.write_str(&self.host)
        } else if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[derive(Debug, Clone)]
pub struct Domain {
    /// `example.org`, or `*.example.org` for every name below it.
    pub pattern: String,
    pub route: DomainRoute,
    pub hosts: Vec<Host>,
    /// Handed over by LMTP, which is the final delivery.
    pub lmtp: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundTls {
    Off,
    Offer,
    Verify,
}

#[derive(Debug, Clone)]
pub struct Relay {
    pub smart_host: Option<Host>,
    pub smart_host_tls: OutboundTls,
    /// Account name and the file that holds its password.
    pub smart_host_account: Option<(String, PathBuf)>,
    pub never_route: Vec<IpNet>,
    /// Whom a source on a block list can still reach: `abuse@example.org`, `postmaster@` at every
    /// domain, `@example.org` for all of a domain.
    pub dnsbl_exempt_recipients: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Dns {
    /// Empty: those of /etc/resolv.conf.
    pub servers: Vec<SocketAddr>,
    pub timeout: Duration,
}

/// DNSBL answers from the first address to the last, both included.
pub type AnswerRange = (std::net::Ipv4Addr, std::net::Ipv4Addr);

#[derive(Debug, Clone)]
pub struct Dnsbl {
    pub name: String,
    pub zone: String,
    /// `None`: what is known of the list, else any answer.
    pub listed: Option<Vec<AnswerRange>>,
    /// `None`: what is known of the list, else none.
    pub policy: Option<Vec<AnswerRange>>,
    /// Whether it is asked about IPv6 sources. `None`: what is known of the list, else not.
    pub ipv6: Option<bool>,
    pub reply: String,
}

/// Where a feed's content comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedSource {
    /// A file that the edge reads.
    File(PathBuf),
    /// An https address that the relay fetches.
    Https(String),
}

impl std::fmt::Display for FeedSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Https(url) => f.write_str(url),
        }
    }
}

/// A list of prefixes that somebody else publishes, replaced whole at each refresh.
#[derive(Debug, Clone)]
pub struct Feed {
    /// Small letters, digits and hyphens; no other feed has it.
    pub name: String,
    pub source: FeedSource,
    /// PEM file of authorities that vouch for an https source, beside the system's.
    pub ca_file: Option<PathBuf>,
    pub format: Format,
    pub list: List,
    pub scope: Scope,
    /// From one refresh to the next.
    pub refresh: Duration,
    /// How long the content stays in force without a successful refresh; more than `refresh`.
    pub lease: Duration,
    /// Its entries are only counted.
    pub observe: bool,
    pub size_bytes_max: u64,
    pub limits: FeedLimits,
}

#[derive(Debug, Clone)]
pub struct Ban {
    pub threshold: u32,
    pub window: Duration,
    pub ladder: Vec<Duration>,
    pub scope: Scope,
    pub max_live: u32,
    pub max_new_per_minute: u32,
    /// Bans are only observed.
    pub observe: bool,
    /// Where the list is full, the bans with the least time left end early.
    pub make_room: bool,
}

/// How strictly SMTP is spoken.
#[derive(Debug, Clone, Copy)]
pub struct Smtp {
    pub bare_newlines: BareNewlines,
    pub enforce_sync: bool,
    pub binarymime: bool,
    pub show_account: bool,
}

#[derive(Debug, Clone)]
pub struct Limits {
    pub message_size_bytes: u64,
    pub recipients: usize,
    pub messages: usize,
    pub errors: u32,
    pub refusals: u32,
    pub auth_failures: u32,
    pub idle_commands: u32,
    pub session_bytes: u64,
    pub command_line_bytes: usize,
    pub text_line_bytes: usize,
    pub header_bytes: usize,
    pub header_lines: usize,
    pub hops: usize,
    pub mime_depth: usize,
    pub connections: usize,
    pub connections_per_source: usize,
    /// Of `connections`, kept for known sources.
    pub reserve_percent: u8,
    /// Before the banner, of an unknown source; zero: none.
    pub pregreet_wait: Duration,
    pub handshake_timeout: Duration,
    pub command_timeout: Duration,
    pub data_timeout: Duration,
    pub session_timeout: Duration,
    /// Octets a second.
    pub data_rate: u64,
}

#[derive(Debug, Clone)]
pub struct Queue {
    pub retry: Vec<Duration>,
    pub expire: Duration,
    pub min_free_bytes: u64,
    pub concurrency: usize,
    pub concurrency_per_host: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone)]
pub struct Log {
    pub format: LogFormat,
    pub level: tracing::Level,
}

impl Config {
    /// The servers behind us, which must never be banned: inside hosts and the smart host, as far
    /// as they are written as addresses.
    pub fn inside_addresses(&self) -> Vec<IpAddr> {
        let hosts = self.domains.iter().flat_map(|domain| &domain.hosts);
        hosts.chain(&self.relay.smart_host).filter_map(|host| host.host.parse().ok()).collect()
    }

    /// Hosts of our own that others come through, on any listener: they name the sources.
    pub fn upstreams(&self) -> impl Iterator<Item = IpNet> {
        self.listeners
            .iter()
            .flat_map(|listener| {
                [&listener.proxy_protocol, &listener.xclient, &listener.xforward]
                    .into_iter()
                    .flatten()
            })
            .copied()
    }

    /// Room that the feeds of a list need in the filter, in prefixes.
    pub fn feed_entries_max(&self, list: List) -> usize {
        let of_list = self.feeds.iter().filter(|feed| feed.list == list);
        of_list.map(|feed| feed.limits.entries_max).sum()
    }
}
