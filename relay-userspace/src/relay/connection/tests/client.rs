//! The client of a dialogue: it says what the script says, and hears line by line.

use std::{io, net::SocketAddr};

use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use super::PATIENCE;
use crate::tls;

pub(super) struct Client {
    /// `None` after a handshake that failed.
    stream: Option<Either<TcpStream, Box<TlsStream<TcpStream>>>>,
    /// What was read and not looked at.
    heard: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: Some(Either::Left(stream)), heard: Vec::new() })
    }

    /// The handshake, with whatever certificate.
    pub(super) async fn start_tls(&mut self) -> io::Result<()> {
        assert!(self.heard.is_empty(), "{}", self.heard.escape_ascii());
        let Some(Either::Left(stream)) = self.stream.take() else { panic!("TLS inside TLS") };
        let connector = TlsConnector::from(tls::opportunistic().map_err(io::Error::other)?);
        let name = ServerName::try_from("mx.example").map_err(io::Error::other)?;
        let stream = timeout(PATIENCE, connector.connect(name, stream));
        self.stream = Some(Either::Right(Box::new(stream.await.expect("no handshake")?)));
        Ok(())
    }

    /// Sends, as far as the server still listens: what it had to say is heard later.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        let Some(stream) = &mut self.stream else { return };
        let write = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        let _closed_meanwhile = timeout(PATIENCE, write).await.expect("the server does not read");
    }

    /// The next line without its CRLF, or what the end of the connection left of it.
    pub(super) async fn line(&mut self) -> Result<String, String> {
        loop {
            if let Some(at) = self.heard.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.heard.drain(..at + 2).take(at).collect();
                return String::from_utf8(line).map_err(|error| error.to_string());
            }
            if self.read().await? == 0 {
                return Err(format!("closed behind {}", self.heard.escape_ascii()));
            }
        }
    }

    /// Waits for the server to close, having said nothing more.
    pub(super) async fn closed(&mut self) -> Result<(), String> {
        while self.read().await? > 0 {}
        if self.heard.is_empty() {
            Ok(())
        } else {
            Err(format!("before the end it said {}", self.heard.escape_ascii()))
        }
    }

    /// Ends what it has to say: close_notify in TLS.
    pub(super) async fn close(&mut self) {
        if let Some(stream) = &mut self.stream {
            let _closed_already = stream.shutdown().await;
        }
    }

    async fn read(&mut self) -> Result<usize, String> {
        let Some(stream) = &mut self.stream else { return Ok(0) };
        let read = timeout(PATIENCE, stream.read_buf(&mut self.heard));
        let read = read.await.map_err(|_| "the server says nothing")?;
        // A reset is an end as well.
        Ok(read.unwrap_or(0))
    }
}
