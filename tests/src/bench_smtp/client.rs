//! Clients of one purpose each, on blocking sockets: what smtp-source cannot do.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(15);

/// An SMTP client that waits for each reply, in plain text or in TLS.
pub(super) struct Client<S> {
    stream: S,
    reply: Vec<u8>,
}

impl Client<TcpStream> {
    /// Connects and reads the banner. `source`: where from, if that matters.
    ///
    /// # Errors
    /// No connection, or no 220.
    pub(super) fn connect(server: Ipv4Addr, source: Option<Ipv4Addr>) -> Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::from(SocketAddrV4::new(source, 0)).into())?;
        }
        let server = SocketAddr::from(SocketAddrV4::new(server, 25));
        socket.connect_timeout(&server.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self { stream, reply: Vec::new() };
        client.expect("220")?;
        Ok(client)
    }

    /// STARTTLS and the handshake; the connection, which stays in TLS for the server.
    pub(super) fn start_tls(mut self, config: &Arc<ClientConfig>) -> Result<Client<Tls>> {
        self.say("STARTTLS\r\n", "220")?;
        let name = ServerName::try_from("peer.test")?;
        let tls = ClientConnection::new(Arc::clone(config), name)?;
        let stream = rustls::StreamOwned::new(tls, self.stream);
        Ok(Client { stream, reply: self.reply })
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

pub(super) type Tls = rustls::StreamOwned<ClientConnection, TcpStream>;

impl Client<Tls> {
    /// What the server takes for a connection in TLS; nobody on this side can speak it any more.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream.sock
    }
}

impl<S: Read + Write> Client<S> {
    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Says something, and expects the reply to begin with this code.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn say(&mut self, command: &str, code: &str) -> Result<()> {
        self.stream.write_all(command.as_bytes())?;
        self.expect(code).with_context(|| format!("after {command:?}"))
    }

    fn expect(&mut self, code: &str) -> Result<()> {
        self.reply.clear();
        let mut bytes = [0; 1024];
        while !is_whole(&self.reply) {
            let length = self.stream.read(&mut bytes)?;
            ensure!(length > 0, "the server ended the connection");
            self.reply.extend_from_slice(&bytes[..length]);
        }
        let said = String::from_utf8_lossy(&self.reply);
        ensure!(said.starts_with(code), "instead of {code}: {}", said.trim_end());
        Ok(())
    }
}

/// Whether the last line of a reply is there (RFC 5321 section 4.2.1).
fn is_whole(reply: &[u8]) -> bool {
    let Some(lines) = reply.strip_suffix(b"\r\n") else { return false };
    let last = lines.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    last.get(3) == Some(&b' ')
}

/// Takes every certificate, as the gateway itself does of next hops: the servers show self-signed
/// ones. Without resumption, so that each session is a whole handshake.
pub(super) fn tls_config() -> Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::clone(&*postern::tls::client::opportunistic()?);
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_whole_with_its_last_line() {
        assert!(is_whole(b"250 ok\r\n") && is_whole(b"250-a\r\n250 b\r\n"));
        assert!(!is_whole(b"") && !is_whole(b"250 ok") && !is_whole(b"250-a\r\n"));
        assert!(!is_whole(b"250-a\r\n250-b c\r\n"));
    }
}
