//! From an address to an encrypted connection to the right server.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::address::Address;
use super::{FetchError, Fetcher};
use crate::dns::Resolver;

/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;

/// How long reaching a server may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For connection and handshake, for each address.
    pub each: Duration,
    /// The next address is tried beside one that has not answered for so long (RFC 8305, section
    /// 5; longer than it says, as nobody is looking on and the handshake is part of it).
    pub next: Duration,
}

/// Where a host may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Wherever its name leads: the administrator wrote it.
    Anywhere,
    /// Not inside ([`super::address::is_inside`]): a stranger wrote it.
    Public,
}

/// A connection, and whether the server is inside.
#[derive(Debug)]
pub struct Connected {
    pub stream: TlsStream<TcpStream>,
    pub inside: bool,
}

/// Connects to the first of the host's addresses that shows a certificate for it. All are tried.
///
/// # Errors
/// There is none, with the reason of each.
pub async fn connect(
    to: &Address,
    reach: Reach,
    fetcher: &Fetcher,
    tls: &Arc<ClientConfig>,
) -> Result<Connected, FetchError> {
    let patience = fetcher.patience.connect;
    let name = to.server_name()?;
    let addresses = addresses(to, &fetcher.resolver).await?;
    if reach == Reach::Public
        && let Some(&address) = addresses.iter().find(|&&address| (fetcher.is_inside)(address))
    {
        // All of the name's addresses are suspect when one is (DNS rebinding).
        return Err(FetchError::Inside { to: to.to_string(), address });
    }
    let mut reasons = Vec::new();
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    loop {
        match waiting.next() {
            Some(address) => {
                let address = SocketAddr::new(address, to.port());
                attempts.spawn(attempt(address, name.clone(), Arc::clone(tls), patience.each));
            }
            None if attempts.is_empty() => return Err(FetchError::Unreachable(reasons)),
            None => {}
        }
        let more = waiting.len() > 0;
        tokio::select! {
            Some(ended) = attempts.join_next() => match ended {
                Ok(Ok((stream, address))) => {
                    return Ok(Connected { stream, inside: (fetcher.is_inside)(address) });
                }
                Ok(Err(reason)) => reasons.push(format!("{to} {reason}")),
                Err(error) => reasons.push(format!("{to}: {error}")),
            },
            () = sleep(patience.next), if more => {}
        }
    }
}

async fn attempt(
    address: SocketAddr,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    within: Duration,
) -> Result<(TlsStream<TcpStream>, IpAddr), String> {
    let handshake = async {
        let tcp = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(tls).connect(name, tcp).await;
        stream.map_err(|error| format!("TLS: {error}"))
    };
    match timeout(within, handshake).await {
        Ok(Ok(stream)) => Ok((stream, address.ip())),
        Ok(Err(reason)) => Err(format!("at {}: {reason}", address.ip())),
        Err(_) => Err(format!("at {}: no connection within {} s", address.ip(), within.as_secs())),
    }
}

/// The host's addresses, the families in turn (RFC 8305, section 4).
async fn addresses(to: &Address, resolver: &Resolver) -> Result<Vec<IpAddr>, FetchError> {
    if let Some(literal) = to.literal() {
        return Ok(vec![literal]);
    }
    let host = to.host().to_string();
    let found = match resolver.addresses(&host).await {
        Ok(answer) => answer.records,
        Err(error) => return Err(FetchError::Lookup { host, error }),
    };
    let (v6, v4): (Vec<IpAddr>, Vec<IpAddr>) = found.into_iter().partition(IpAddr::is_ipv6);
    let (mut v6, mut v4) = (v6.into_iter(), v4.into_iter());
    let mut mixed = Vec::new();
    while mixed.len() < ADDRESSES_MAX {
        let both = [v6.next(), v4.next()];
        if both == [None, None] {
            break;
        }
        mixed.extend(both.into_iter().flatten());
    }
    if mixed.is_empty() { Err(FetchError::NoAddress { host }) } else { Ok(mixed) }
}
