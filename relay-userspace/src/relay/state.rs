//! What all sessions share, built once from the configuration.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use ipnet::IpNet;
use relay_common::entry::Scope;
use relay_core::{
    dnsbl::{Answers, Zone},
    policy::{
        domains::{DomainTable, Route},
        recipient::ExemptRecipients,
        relay::{ListenerGrants, Sources},
    },
    prefix::PrefixSet,
    smtp::session::{AuthMode, SessionSettings, TlsMode},
};
use tokio::sync::Semaphore;

use super::{
    admission::Admission, bans::Bans, counters::Counters, known::Known, local::Local,
    never_route::NeverRoute, patience::EdgePatience, sparing::Sparing,
};
use crate::{
    auth::Accounts,
    config::{self, Config, DomainRoute, Enforce, ListenerTls, Offer, OutboundTls},
    control::client::Client,
    dns::{DnsblService, Resolver},
    queue::Spool,
};

/// Everything a session may need. Nothing in it changes but by its own means.
#[derive(Debug)]
pub struct Shared {
    pub hostname: String,
    pub started: SystemTime,
    pub listeners: Vec<Arc<Listener>>,
    /// For programs of this machine.
    pub local: Option<Arc<Listener>>,
    pub domains: DomainTable,
    /// Whither mail for `<postmaster>` without a domain goes (RFC 5321, section 4.5.1).
    pub postmaster: Option<String>,
    pub never_route: NeverRoute,
    pub exempt: ExemptRecipients,
    pub resolver: Resolver,
    pub dnsbl: Option<Arc<DnsblService>>,
    pub accounts: Accounts,
    pub spool: Spool,
    pub tls: Arc<rustls::ServerConfig>,
    pub bans: Bans,
    pub edge: Client,
    /// With an edge that keeps clients waiting.
    pub patience: EdgePatience,
    /// Received fields name the account.
    pub shows_account: bool,
    /// The lists are enforced at accept, not in the kernel.
    pub filter_here: bool,
    pub known: Known,
    /// How long an unknown source waits for the banner.
    pub pregreet_wait: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    pub admission: Arc<Admission>,
    /// Strangers of whom the edge is asked, while it is busy, whether they are on the allow list.
    pub asking: Arc<Semaphore>,
    pub lines: Lines,
    pub counters: Arc<Counters>,
    /// What an administrator should know that does not change: no smart host, a certificate that
    /// ends soon.
    pub notices: Vec<String>,
}

/// Log lines that anybody can cause.
#[derive(Debug, Default)]
pub struct Lines {
    pub accept: Sparing,
    pub turned_away: Sparing,
    pub proxy: Sparing,
    pub edge: Sparing,
}

/// One listener's part of the policy.
#[derive(Debug)]
pub struct Listener {
    pub name: String,
    pub addresses: Vec<SocketAddr>,
    /// In place of addresses: a Unix socket, by which LMTP comes from this machine alone.
    pub socket: Option<PathBuf>,
    pub session: Arc<SessionSettings>,
    pub grants: ListenerGrants,
    pub ask_dnsbl: bool,
    /// Balancers, whose connections begin with a PROXY header.
    pub proxies: PrefixSet<()>,
    /// Hosts that may say XCLIENT, and XFORWARD.
    pub xclient: PrefixSet<()>,
    pub xforward: PrefixSet<()>,
    /// TLS comes before the banner (RFC 8314).
    pub implicit_tls: bool,
    /// What it relays, in a few words, for the summary and `status`.
    pub relays: String,
}

impl Listener {
    pub fn new(config: &Config, listener: &config::Listener, bound: Vec<SocketAddr>) -> Self {
        Self {
            name: listener.name.clone(),
            addresses: bound,
            socket: None,
            session: Arc::new(session_settings(config, listener)),
            grants: grants(listener),
            ask_dnsbl: listener.dnsbl,
            proxies: prefixes(&listener.proxy_protocol),
            xclient: prefixes(&listener.xclient),
            xforward: prefixes(&listener.xforward),
            implicit_tls: listener.tls == ListenerTls::Implicit,
            relays: relays(listener),
        }
    }

    /// The port by which the lists are asked about a connection that came to this one: lists close
    /// ports, as the kernel does. Where the port is none of mail, as in a container, it is the one
    /// whose part the listener has.
    pub fn port_of_lists(&self, port: u16) -> u16 {
        let is_of_mail = Scope::of_tcp_port(port).intersects(Scope::SMTP);
        if is_of_mail { port } else { self.port_of_part() }
    }

    /// The port of mail whose part the listener has: what a balancer calls the port is its own affair,
    /// and must not open to a banned client what takes mail from strangers.
    pub fn port_of_part(&self) -> u16 {
        if self.session.auth == AuthMode::Require { SUBMISSION_PORT } else { MX_PORT }
    }

    /// The one that programs of this machine come to.
    pub fn local(config: &Config, local: &Local) -> Self {
        let settings = SessionSettings {
            lmtp: true,
            // What they write may lack what a mail client's would.
            submission: true,
            ..common_settings(config)
        };
        let names: Vec<&str> = local.users.iter().map(|user| user.name.as_str()).collect();
        Self {
            name: config::Lmtp::NAME.to_owned(),
            addresses: Vec::new(),
            socket: Some(local.socket.path().to_owned()),
            session: Arc::new(settings),
            grants: ListenerGrants {
                listener: config::Lmtp::NAME.to_owned(),
                users: local.users.clone(),
                ..ListenerGrants::default()
            },
            ask_dnsbl: false,
            proxies: PrefixSet::new(),
            xclient: PrefixSet::new(),
            xforward: PrefixSet::new(),
            implicit_tls: false,
            relays: match &names[..] {
                [] => NOTHING.to_owned(),
                names => format!("for local users {}", names.join(", ")),
            },
        }
    }
}

const MX_PORT: u16 = 25;
/// RFC 6409.
const SUBMISSION_PORT: u16 = 587;

/// What a listener without grants relays.
const NOTHING: &str = "nothing";

fn prefixes(list: &[IpNet]) -> PrefixSet<()> {
    list.iter().map(|&net| (net, ())).collect()
}

/// To whom a listener grants relaying.
pub fn grants(listener: &config::Listener) -> ListenerGrants {
    let mut sources = PrefixSet::new();
    for &prefix in &listener.relay_for {
        sources.insert(prefix, prefix.to_string());
    }
    ListenerGrants {
        listener: listener.name.clone(),
        authenticated: listener.auth != Offer::Off,
        sources: Sources::Only(sources),
        ..ListenerGrants::default()
    }
}

/// What a listener relays, in a few words.
pub fn relays(config: &config::Listener) -> String {
    let mut grants = Vec::new();
    if config.auth != Offer::Off {
        grants.push("for authenticated accounts".to_owned());
    }
    if !config.relay_for.is_empty() {
        let sources: Vec<String> = config.relay_for.iter().map(ToString::to_string).collect();
        grants.push(format!("for {}", sources.join(", ")));
    }
    if grants.is_empty() { NOTHING.to_owned() } else { grants.join(" and ") }
}

fn session_settings(config: &Config, listener: &config::Listener) -> SessionSettings {
    SessionSettings {
        tls: match listener.tls {
            ListenerTls::Off => TlsMode::Off,
            ListenerTls::Offer => TlsMode::Offer,
            ListenerTls::Require | ListenerTls::Implicit => TlsMode::Require,
        },
        auth: match listener.auth {
            Offer::Off => AuthMode::Off,
            Offer::Offer => AuthMode::Offer,
            Offer::Require => AuthMode::Require,
        },
        submission: listener.auth == Offer::Require,
        ..common_settings(config)
    }
}

/// What holds on every listener alike: no TLS, no AUTH.
fn common_settings(config: &Config) -> SessionSettings {
    let (limits, smtp) = (&config.limits, &config.smtp);
    SessionSettings {
        hostname: config.server.hostname.clone(),
        tls: TlsMode::Off,
        auth: AuthMode::Off,
        message_size_max: limits.message_size_bytes,
        recipients_max: limits.recipients,
        messages_max: limits.messages,
        errors_max: limits.errors,
        refusals_max: limits.refusals,
        auth_failures_max: limits.auth_failures,
        idle_commands_max: limits.idle_commands,
        session_bytes_max: limits.session_bytes,
        command_line_max: limits.command_line_bytes,
        text_line_max: limits.text_line_bytes,
        header_bytes_max: limits.header_bytes,
        header_lines_max: limits.header_lines,
        received_max: limits.hops,
        mime_depth_max: limits.mime_depth,
        data_rate_min: limits.data_rate,
        bare_newlines: smtp.bare_newlines,
        enforce_sync: smtp.enforce_sync,
        binary_mime: smtp.binarymime,
        // Only towards the smart host is TLS ever verified.
        require_tls: config.relay.smart_host_tls == OutboundTls::Verify
            && config.relay.smart_host.is_some(),
        lmtp: false,
        submission: false,
        command_timeout: limits.command_timeout,
        data_timeout: limits.data_timeout,
        session_timeout: limits.session_timeout,
    }
}

/// The domain table, and the postmaster's own address when one of our domains has a name.
pub fn domain_table(config: &Config) -> anyhow::Result<(DomainTable, Option<String>)> {
    let mut table = DomainTable::new();
    for domain in &config.domains {
        let route = match domain.route {
            DomainRoute::Inbound => Route::Inbound,
            DomainRoute::Relay => Route::Relay,
            DomainRoute::Reject => Route::Reject,
        };
        table.insert(&domain.pattern, route).context("domain.name")?;
    }
    let mut inbound = config.domains.iter().filter(|domain| domain.route == DomainRoute::Inbound);
    let named = inbound.find(|domain| !domain.pattern.starts_with("*."));
    Ok((table, named.map(|domain| format!("postmaster@{}", domain.pattern))))
}

/// The block lists, in the administrator's order.
pub fn block_lists(config: &Config) -> anyhow::Result<Vec<Zone>> {
    let ranges = |ranges: &Vec<config::AnswerRange>| {
        ranges.iter().map(|&(first, last)| Answers::Range(first, last)).collect()
    };
    let mut zones = Vec::new();
    for list in &config.dnsbl {
        let mut zone = Zone::new(&list.name, &list.zone)
            .and_then(|zone| zone.with_reply(&list.reply))
            .with_context(|| format!("dnsbl {}", list.name))?;
        zone.listed = list.listed.as_ref().map_or(zone.listed, ranges);
        zone.policy = list.policy.as_ref().map_or(zone.policy, ranges);
        zone.v6 = list.ipv6.unwrap_or(zone.v6);
        zones.push(zone);
    }
    Ok(zones)
}

/// Files and folders of the relay, below its own.
#[derive(Debug)]
pub struct Files {
    pub queue: PathBuf,
    pub accounts: PathBuf,
    pub never_route: PathBuf,
    pub tls: PathBuf,
    /// Of feeds on their way from the network to the edge; nothing in it outlives that.
    pub feeds: PathBuf,
}

impl Files {
    pub fn of(config: &Config) -> Self {
        let dir = config.server.relay_dir();
        Self {
            queue: dir.join("queue"),
            accounts: dir.join("accounts.db"),
            never_route: dir.join("never-route.db"),
            tls: dir.join("tls"),
            feeds: dir.join("feeds"),
        }
    }
}

/// Whether connections are judged here, as no kernel program does it.
pub fn filters_here(config: &Config) -> bool {
    config.filter.enforce == Enforce::Userspace
}
