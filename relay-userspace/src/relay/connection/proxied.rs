//! The header that a balancer writes before its client's first octet.

use std::{io, net::SocketAddr, time::Duration};

use relay_core::proxy::{self, Header, ProxyError, Step};
use thiserror::Error;
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

/// Balancers send it with the handshake; so long that a lost packet is sent again meanwhile
/// (section 2: at least 3 s).
const HEADER_WITHIN: Duration = Duration::from_secs(5);

/// Why there is nobody to serve.
#[derive(Debug, Error)]
pub(super) enum Unnamed {
    #[error(transparent)]
    Refused(#[from] ProxyError),
    #[error("no whole PROXY header within {} s", HEADER_WITHIN.as_secs())]
    Late,
    /// Balancers open connections and close them, to see whether we live.
    #[error("closed before a PROXY header")]
    Gone(#[from] io::Error),
}

/// Reads the header and not an octet more; the addresses that the balancer names, as (client, where
/// it connected to). `None`: it speaks for itself.
pub(super) async fn named(
    stream: &mut TcpStream,
) -> Result<Option<(SocketAddr, SocketAddr)>, Unnamed> {
    let header = timeout(HEADER_WITHIN, read(stream)).await.map_err(|_| Unnamed::Late)??;
    Ok(match header {
        Header::Local => None,
        Header::Proxied { source, destination } => Some((source, destination)),
    })
}

async fn read(stream: &mut TcpStream) -> Result<Header, Unnamed> {
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
