//! The stub resolver: hickory, pointed at the configured servers or at those of resolv.conf.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Negative, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use relay_core::dnsbl::reply::redacted;
use thiserror::Error;

/// Records of one answer that are looked at; the rest of a longer answer is left.
const RECORDS_MAX: usize = 64;
/// Bytes of one TXT record that are kept.
const TXT_BYTES_MAX: usize = 4096;
const RESOLV_CONF: &str = "/etc/resolv.conf";
const RESOLV_CONF_BYTES_MAX: usize = 64 * 1024;
const SERVERS_MAX: usize = 8;
/// Names (not block-list questions) that are remembered.
const NAMES_CACHED_MAX: u64 = 8192;
/// Questions open at once to one server.
const QUESTIONS_MAX: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolverSettings {
    /// Servers, asked over UDP, and TCP where an answer is too long. Empty: those of resolv.conf.
    pub servers: Vec<SocketAddr>,
    /// How long one attempt waits for one server.
    pub timeout: Duration,
    /// How often a question is sent anew after a failure.
    pub attempts: usize,
    /// After this a lookup has failed, whatever the servers are doing.
    pub deadline: Duration,
}

impl Default for ResolverSettings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(2),
            attempts: 2,
            deadline: Duration::from_secs(8),
        }
    }
}

/// Why there is no answer. None of these says that the name does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DnsError {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the server answered {0}")]
    Server(String),
    #[error("{0:?} is not a name that can be asked")]
    Name(String),
    #[error("{0}")]
    Failed(String),
    #[error("too many lookups are under way")]
    Busy,
    #[error("cannot read the servers from {RESOLV_CONF}: {0}")]
    ResolvConf(String),
}

/// The records of a name. None means that the name or the type does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    pub records: Vec<T>,
    /// The least TTL of the answer, or what its SOA says for a negative one (RFC 2308).
    pub ttl: Option<Duration>,
}

/// A handle; clones share connections and cache.
#[derive(Clone)]
pub struct Resolver {
    /// Remembers answers by their TTL, reads the hosts file.
    names: TokioResolver,
    /// Remembers nothing: block lists have a cache of their own, and tests of a list must reach it.
    direct: TokioResolver,
    servers: Vec<SocketAddr>,
    deadline: Duration,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("servers", &self.servers).finish_non_exhaustive()
    }
}

impl Resolver {
    /// Must be called inside a tokio runtime; sends nothing yet.
    pub fn new(settings: &ResolverSettings) -> Result<Self, DnsError> {
        let servers = match settings.servers.as_slice() {
            [] => system_servers(Path::new(RESOLV_CONF))?,
            servers => servers.iter().copied().take(SERVERS_MAX).collect(),
        };
        let build = |cache: u64, hosts| {
            let mut builder = TokioResolver::builder_with_config(
                ResolverConfig::from_name_servers(servers.iter().map(name_server).collect()),
                TokioRuntimeProvider::default(),
            );
            *builder.options_mut() = options(settings, cache, hosts);
            builder.build().map_err(|error| DnsError::Failed(error.to_string()))
        };
        Ok(Self {
            names: build(NAMES_CACHED_MAX, ResolveHosts::Always)?,
            direct: build(0, ResolveHosts::Never)?,
            servers,
            deadline: settings.deadline,
        })
    }

    /// The servers in use; none of them may ever be banned.
    pub fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// The IPv4 addresses of a name, asked from the servers, past the cache and the hosts file.
    pub async fn a_records(&self, name: &str) -> Result<Answer<Ipv4Addr>, DnsError> {
        let pick = |data: &RData| match data {
            RData::A(a) => Some(a.0),
            _ => None,
        };
        self.ask(&self.direct, fqdn(name)?, RecordType::A, pick).await
    }

    /// The IPv4 and IPv6 addresses of a name, by the hosts file, the cache or the servers. When
    /// one family fails and the other has addresses, those are the answer.
    pub async fn addresses(&self, name: &str) -> Result<Answer<IpAddr>, DnsError> {
        let pick = |data: &RData| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        };
        let name = fqdn(name)?;
        let (v4, v6) = tokio::join!(
            self.ask(&self.names, name.clone(), RecordType::A, pick),
            self.ask(&self.names, name, RecordType::AAAA, pick),
        );
        match (v4, v6) {
            (Ok(mut v4), Ok(v6)) => {
                v4.records.extend(v6.records);
                let ttls = [v4.ttl, v6.ttl];
                Ok(Answer { records: v4.records, ttl: ttls.into_iter().flatten().min() })
            }
            (Ok(one), Err(_)) | (Err(_), Ok(one)) if !one.records.is_empty() => Ok(one),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    /// The TXT records of a name, the strings of each joined (as RFC 7208 section 3.3 does).
    pub async fn txt(&self, name: &str) -> Result<Answer<String>, DnsError> {
        let pick = |data: &RData| match data {
            RData::TXT(txt) => {
                let bytes: Vec<u8> =
                    txt.txt_data.iter().flatten().copied().take(TXT_BYTES_MAX).collect();
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => None,
        };
        self.ask(&self.names, fqdn(name)?, RecordType::TXT, pick).await
    }

    /// How long one question may take.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The names an address points to, as the reverse zone says, without trailing dots. Nothing
    /// confirms them; [`super::reverse`] does.
    pub async fn ptr(&self, address: IpAddr) -> Result<Answer<String>, DnsError> {
        let pick = |data: &RData| match data {
            RData::PTR(ptr) => {
                let name = ptr.0.to_ascii().to_ascii_lowercase();
                Some(name.trim_end_matches('.').to_owned()).filter(|name| !name.is_empty())
            }
            _ => None,
        };
        let mut name = Name::from(address.to_canonical());
        name.set_fqdn(true);
        self.ask(&self.names, name, RecordType::PTR, pick).await
    }

    async fn ask<T>(
        &self,
        resolver: &TokioResolver,
        name: Name,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, DnsError> {
        let lookup = tokio::time::timeout(self.deadline, resolver.lookup(name, kind)).await;
        match lookup.map_err(|_| DnsError::Timeout(self.deadline))? {
            Ok(lookup) => Ok(positive(&lookup, pick)),
            Err(NetError::Dns(Negative::NoRecordsFound(none))) => {
                let ttl = none.negative_ttl.map(|s| Duration::from_secs(s.into()));
                Ok(Answer { records: Vec::new(), ttl })
            }
            Err(NetError::Dns(Negative::ResponseCode(code))) => {
                Err(DnsError::Server(code.to_string()))
            }
            Err(NetError::Timeout) => Err(DnsError::Timeout(self.deadline)),
            // Some of hickory's errors name the question, and that a customer's key.
            Err(error) => Err(DnsError::Failed(redacted(&error.to_string()))),
        }
    }
}

fn positive<T>(lookup: &Lookup, pick: impl Fn(&RData) -> Option<T>) -> Answer<T> {
    let records = || lookup.answers().iter().take(RECORDS_MAX);
    Answer {
        records: records().filter_map(|record| pick(&record.data)).collect(),
        ttl: records().map(|record| Duration::from_secs(record.ttl.into())).min(),
    }
}

/// Absolute, so that no search list is tried: `bl.example` is never `bl.example.corp.example`.
fn fqdn(name: &str) -> Result<Name, DnsError> {
    let mut parsed = Name::from_ascii(name).map_err(|_| DnsError::Name(redacted(name)))?;
    parsed.set_fqdn(true);
    if parsed.is_root() {
        return Err(DnsError::Name(redacted(name)));
    }
    Ok(parsed)
}

fn name_server(server: &SocketAddr) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut config.connections {
        connection.port = server.port();
    }
    config
}

fn options(settings: &ResolverSettings, cache_size: u64, hosts: ResolveHosts) -> ResolverOpts {
    let hour = Some(Duration::from_secs(3600));
    let mut options = ResolverOpts::default();
    options.timeout = settings.timeout;
    options.attempts = settings.attempts;
    options.cache_size = cache_size;
    options.use_hosts_file = hosts;
    options.positive_max_ttl = hour;
    options.negative_max_ttl = hour;
    options.max_active_requests = QUESTIONS_MAX;
    options
}

/// The `nameserver` lines of resolv.conf(5); without any, the local host, as libc has it.
fn system_servers(path: &Path) -> Result<Vec<SocketAddr>, DnsError> {
    let text = std::fs::read_to_string(path).map_err(|e| DnsError::ResolvConf(e.to_string()))?;
    let text: String = text.chars().take(RESOLV_CONF_BYTES_MAX).collect();
    let mut seen = HashSet::new();
    let servers: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, 53))
        .filter(|server| seen.insert(*server))
        .take(SERVERS_MAX)
        .collect();
    if servers.is_empty() {
        return Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))]);
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::dns::test_server::{Behaviour, TestServer, resolver};

    #[test]
    fn the_servers_of_resolv_conf() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let text = "# comment\nsearch corp.example\nnameserver 192.0.2.53 ; x\nnameservers 9.9.9.9\n\
                    \tnameserver\t2001:db8::53\nnameserver 192.0.2.53\nnameserver nonsense\n";
        std::fs::write(&path, text).unwrap();
        let servers: Vec<String> =
            system_servers(&path).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.53:53", "[2001:db8::53]:53"]);
        std::fs::write(&path, "").unwrap();
        assert_eq!(system_servers(&path).unwrap(), ["127.0.0.1:53".parse().unwrap()]);
        assert!(system_servers(&dir.path().join("none")).is_err());
    }

    #[tokio::test]
    async fn answers_absence_and_failure_are_told_apart() {
        let server = TestServer::start(&[
            ("two.example", Behaviour::a(&["192.0.2.1", "192.0.2.2"], 77)),
            ("six.example", Behaviour::aaaa(&["2001:db8::1"], 60)),
            ("text.example", Behaviour::txt(&["one ", "two"], 60)),
            ("broken.example", Behaviour::ServerFailure),
            ("refused.example", Behaviour::Refused),
        ])
        .await;
        let resolver = resolver(&server);
        let two = resolver.a_records("two.example").await.unwrap();
        assert_eq!(two.records.len(), 2);
        assert_eq!(two.ttl, Some(Duration::from_secs(77)));
        assert!(resolver.a_records("Two.Example.").await.unwrap().records.len() == 2);
        let none = resolver.a_records("none.example").await.unwrap();
        assert_eq!(none, Answer { records: vec![], ttl: Some(Duration::from_secs(120)) });
        assert!(matches!(resolver.a_records("broken.example").await, Err(DnsError::Server(_))));
        assert!(matches!(resolver.a_records("refused.example").await, Err(DnsError::Server(_))));
        assert!(matches!(resolver.a_records("a..example").await, Err(DnsError::Name(_))));
        assert!(matches!(resolver.a_records("").await, Err(DnsError::Name(_))));
        assert_eq!(resolver.txt("text.example").await.unwrap().records, ["one two"]);
        let six = resolver.addresses("six.example").await.unwrap().records;
        assert_eq!(six, ["2001:db8::1".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn an_answer_too_long_for_udp_comes_by_tcp_and_is_cut() {
        let many: Vec<String> =
            (0..2000).map(|n| format!("10.0.{}.{}", n / 250, n % 250)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let server = TestServer::start(&[("many.example", Behaviour::a(&many, 60))]).await;
        let answer = resolver(&server).a_records("many.example").await.unwrap();
        assert_eq!(answer.records.len(), RECORDS_MAX);
    }

    #[tokio::test]
    async fn a_silent_server_costs_no_more_than_the_deadline() {
        let server = TestServer::start(&[("silent.example", Behaviour::Silent)]).await;
        let started = Instant::now();
        let answer = resolver(&server).a_records("silent.example").await;
        assert!(matches!(answer, Err(DnsError::Timeout(_))), "{answer:?}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
