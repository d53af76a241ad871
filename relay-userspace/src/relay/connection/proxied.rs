//! The header that a balancer writes before its client's first octet.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use relay_core::{
    prefix::canonical_ip,
    proxy::{self, Header, ProxyError, Step},
};
use thiserror::Error;
use tokio::{io::AsyncReadExt, time::timeout};

use crate::relay::{
    accepting::{self, Arrival},
    door::Socket,
    state::{Listener, Shared},
};

/// Balancers send it with the handshake; so long that a lost packet is sent again meanwhile
/// (section 2: at least 3 s).
const HEADER_WITHIN: Duration = Duration::from_secs(5);

/// Why there is nobody to serve.
#[derive(Debug, Error)]
enum Unnamed {
    #[error(transparent)]
    Refused(#[from] ProxyError),
    #[error("no whole PROXY header within {} s", HEADER_WITHIN.as_secs())]
    Late,
    /// Balancers open connections and close them, to see whether we live.
    #[error("closed before a PROXY header")]
    Gone(#[from] io::Error),
}

/// Lets a balancer say whose connection it is, and counts it as that source's. `true`: it named
/// one. `None`: there is nobody to serve, and all is said.
pub(super) async fn source(
    shared: &Shared,
    listener: &Listener,
    mut arrival: Arrival,
) -> Option<(Arrival, bool)> {
    let balancer = canonical_ip(arrival.guest.peer.ip());
    if listener.proxies.lookup(balancer).is_none() {
        return Some((arrival, false));
    }
    match named(&mut arrival.guest.stream).await {
        Ok(None) => return Some((arrival, false)),
        Ok(Some((source, destination))) => {
            arrival.guest.peer = source;
            arrival.guest.local = destination;
        }
        Err(refused) => {
            shared.counters.proxy_headers_refused.add();
            if let Some(left_out) = shared.lines.proxy.permit(Instant::now()) {
                let listener = &listener.name;
                tracing::warn!(%balancer, listener, %refused, left_out, "no source named");
            }
            return None;
        }
    }
    let source = arrival.guest.peer.ip();
    match accepting::pass_on(shared, listener, &mut arrival.ticket, source).await {
        Ok(()) => Some((arrival, true)),
        Err(crowded) => {
            accepting::turn_away(shared, listener, &arrival.guest.stream, source, crowded);
            None
        }
    }
}

/// Reads the header and not an octet more; the addresses that the balancer names, as (client, where
/// it connected to). `None`: it speaks for itself.
async fn named(stream: &mut Socket) -> Result<Option<(SocketAddr, SocketAddr)>, Unnamed> {
    let header = timeout(HEADER_WITHIN, read(stream)).await.map_err(|_| Unnamed::Late)??;
    Ok(match header {
        Header::Local => None,
        Header::Proxied { source, destination } => Some((source, destination)),
    })
}

async fn read(stream: &mut Socket) -> Result<Header, Unnamed> {
    let mut bytes = Vec::new();
    loop {
        match proxy::read(&bytes)? {
            Step::Done(header) => return Ok(header),
            Step::Need(needed) => {
                let length = bytes.len();
                bytes.resize(length + needed, 0);
                let read = stream.read(&mut bytes[length..]).await?;
                if read == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                bytes.truncate(length + read);
            }
        }
    }
}
